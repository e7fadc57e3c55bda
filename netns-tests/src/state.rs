//! The state of a host's network as text, to compare it with another time or another host.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use crate::{Host, PATIENCE, SOCKETS, until};

/// Prints each part under a line with its name.
const ASK: &str = "
    echo '== links'; ip -o -d link show
    echo '== addresses'; ip -o addr show
    for family in -4 -6; do
        echo \"== routes $family\"; ip $family -d route show table all
        echo \"== rules $family\"; ip $family -d rule show
    done
    echo '== firewall'; nft -s list ruleset
    for interface in $(wg show interfaces); do
        echo \"== wg $interface\"; wg showconf $interface
    done
";

/// What `wg` says of an interface that does not answer, before the error of the system.
const NO_ANSWER: &str = "Unable to access interface: ";

/// The state of a host by part ("links", "rules -6", …). Each part is a list of lines, without
/// interface indexes and times, which differ from run to run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostState(BTreeMap<String, Vec<String>>);

impl HostState {
    /// Reads the state with `ip`, `nft` and `wg`, and from /proc, once all addresses can be used. To
    /// compare two hosts, both must have fixed MAC addresses.
    pub fn of(host: &Host) -> io::Result<HostState> {
        let mut state = HostState::default();
        let what = "all addresses to be usable, and daemons to answer or to end";
        let told = until(PATIENCE, what, || {
            match host.sh("sh", &["-euc", ASK]) {
                // A daemon that ends after it was listed no longer answers, or has no socket.
                Err(error) if error.to_string().contains(NO_ANSWER) => Ok(None),
                told => Ok(Some(told?).filter(|told| !told.contains(" tentative"))),
            }
        })?;
        for part in told.split("== ").skip(1) {
            let (name, text) = part.split_once('\n').unwrap_or((part, ""));
            let mut lines: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
            match name.split(' ').next() {
                // "7: wg0: …": the index differs each time.
                Some("links" | "addresses") => {
                    let rest = |line: &String| Some(line.split_once(": ")?.1.to_owned());
                    lines = lines.iter().filter_map(rest).collect();
                }
                Some("routes") => lines.sort(),
                _ => lines.retain(|line| !line.starts_with("# ")),
            }
            state.put(name, lines);
        }
        state.put("sysctls", host.run(sysctls)?);
        state.put("sockets", host.run(|| names(Path::new(SOCKETS), ".sock"))?);
        state.put("processes", processes(host)?);
        Ok(state)
    }

    /// Adds a part. An empty part counts as absent.
    pub fn put(&mut self, part: &str, lines: Vec<String>) {
        if !lines.is_empty() {
            self.0.insert(part.to_owned(), lines);
        }
    }

    /// The same state, with a prefix before the name of each part.
    pub fn under(self, prefix: &str) -> HostState {
        let named = |(part, lines)| (format!("{prefix}{part}"), lines);
        HostState(self.0.into_iter().map(named).collect())
    }

    /// Adds the parts of another state.
    pub fn take(&mut self, other: HostState) {
        self.0.extend(other.0);
    }

    /// The lines of a part.
    pub fn part(&self, part: &str) -> &[String] {
        self.0.get(part).map_or(&[], Vec::as_slice)
    }

    /// Replaces a text everywhere, and returns how often it occurred.
    pub fn replace(&mut self, from: &str, to: &str) -> usize {
        let mut count = 0;
        for lines in self.0.values_mut() {
            for line in lines.iter_mut().filter(|line| line.contains(from)) {
                count += line.matches(from).count();
                *line = line.replace(from, to);
            }
        }
        count
    }

    /// Removes the lines that begin with `start`.
    pub fn forget(&mut self, start: &str) {
        for lines in self.0.values_mut() {
            lines.retain(|line| !line.starts_with(start));
        }
    }

    /// The lines that are in only one of two states: `-` before those of this one, `+` before those of
    /// the other.
    pub fn against(&self, other: &HostState) -> Differences {
        let mut all = Vec::new();
        let parts: std::collections::BTreeSet<&String> =
            self.0.keys().chain(other.0.keys()).collect();
        for part in parts {
            let (mine, theirs) = (self.part(part), other.part(part));
            let before = all.len();
            let only = |a: &[String], b: &[String]| -> Vec<String> {
                a.iter().filter(|line| !b.contains(line)).cloned().collect()
            };
            all.extend(only(mine, theirs).iter().map(|l| format!("{part}: - {l}")));
            all.extend(only(theirs, mine).iter().map(|l| format!("{part}: + {l}")));
            if all.len() == before && mine != theirs {
                all.push(format!(
                    "{part}: the same lines, in another order or number"
                ));
            }
        }
        Differences(all)
    }
}

/// The lines in which two states differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Differences(pub Vec<String>);

impl Differences {
    /// Whether the states are equal.
    pub fn none(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

/// All sysctls of both families that are for all links, for new links or for one link.
fn sysctls() -> io::Result<Vec<String>> {
    let mut all = Vec::new();
    for family in ["ipv4", "ipv6"] {
        let folder = format!("/proc/sys/net/{family}/conf");
        for link in names(Path::new(&folder), "")? {
            let folder = format!("{folder}/{link}");
            for name in names(Path::new(&folder), "").unwrap_or_default() {
                // Some, such as stable_secret, cannot be read before they are set.
                if let Ok(value) = fs::read_to_string(format!("{folder}/{name}")) {
                    all.push(format!("{family}.{link}.{name} = {}", value.trim()));
                }
            }
        }
    }
    Ok(all)
}

/// The names in a folder that end with `end`, sorted.
pub(crate) fn names(folder: &Path, end: &str) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(end) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The names of the programs that run in the host, sorted.
fn processes(host: &Host) -> io::Result<Vec<String>> {
    let mut all: Vec<String> = host
        .processes()?
        .iter()
        .filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).ok())
        .map(|name| name.trim().to_owned())
        .collect();
    all.sort();
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Lab, binaries, require};

    #[test]
    fn a_difference_names_the_part_and_the_side() {
        let state = |lines: &[&str]| {
            let mut state = HostState::default();
            state.put("links", lines.iter().map(|l| (*l).to_owned()).collect());
            state
        };
        let (a, b) = (state(&["lo", "wg0"]), state(&["lo", "eth0"]));
        assert!(a.against(&a).none());
        assert_eq!(a.against(&b).0, ["links: - wg0", "links: + eth0"]);
        assert_eq!(
            state(&["lo", "wg0"])
                .against(&state(&["wg0", "lo"]))
                .0
                .len(),
            1
        );
        assert_eq!(a.against(&HostState::default()).0.len(), 2);
    }

    #[test]
    fn changes_of_each_part_are_seen() -> io::Result<()> {
        for tool in ["ip", "nft", "wg"] {
            let Some(_) = require(tool, binaries::on_path(tool)) else {
                return Ok(());
            };
        }
        let lab = Lab::new()?;
        let host = lab.host("a")?;
        let changes = [
            ("links", "ip link add x type veth peer y", "ip link del x"),
            (
                "addresses",
                "ip addr add 10.0.0.1/32 dev lo",
                "ip addr del 10.0.0.1/32 dev lo",
            ),
            (
                "routes -4",
                "ip route add 10.1.0.0/16 dev lo table 7",
                "ip route flush table 7",
            ),
            (
                "rules -6",
                "ip -6 rule add fwmark 1 lookup 7",
                "ip -6 rule del fwmark 1",
            ),
            ("firewall", "nft add table ip x", "nft delete table ip x"),
            (
                "sysctls",
                "echo 1 > /proc/sys/net/ipv4/conf/all/src_valid_mark",
                "echo 0 > /proc/sys/net/ipv4/conf/all/src_valid_mark",
            ),
        ];
        let before = HostState::of(&host)?;
        for (part, change, back) in changes {
            host.sh("sh", &["-c", change])?;
            let seen = before.against(&HostState::of(&host)?);
            assert!(
                seen.0.iter().any(|line| line.starts_with(part)),
                "{change}: {seen}"
            );
            host.sh("sh", &["-c", back])?;
            let left = before.against(&HostState::of(&host)?);
            assert!(left.none(), "{back}: {left}");
        }
        Ok(())
    }
}
