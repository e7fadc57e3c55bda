//! `DNS`: passed to resolvconf, or else to systemd-resolved by resolvectl. If neither is there, or if it
//! fails, /etc/resolv.conf itself is replaced.
//!
//! For a named namespace it is written to the file that `ip netns exec` puts in place of
//! /etc/resolv.conf. Other namespaces, those of containers, have a resolver of their own, which is not
//! changed.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use wg_rs::place::Namespace;

use crate::file::Dns;
use crate::file::replace::{overwrite, temporary};
use crate::steps::console;
use crate::steps::failure::Failure;
use crate::steps::program::Program;
use crate::steps::resolv_conf::{self, Former, PATH, PutBack};
use crate::steps::signals::Signals;
use crate::steps::target::Target;

/// The servers and domains of a tunnel, and where they are set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsSettings {
    dns: Dns,
    way: Way,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Way {
    /// By resolvconf, in the record of this name.
    Resolvconf(String),
    Resolvectl,
    /// In the file of a named namespace.
    File(PathBuf),
    /// In /etc/resolv.conf itself; this is its former content.
    Itself(Former),
}

/// The file in which Debian's resolvconf has the order of records.
const ORDER: &str = "/etc/resolvconf/interface-order";
/// The folder in which it keeps the records.
const RECORDS: &str = "/etc/resolvconf/run/interface";
/// The folder with `ip netns exec`'s files for namespaces.
const NETNS: &str = "/etc/netns";
/// The beginning of a file that was written here.
const OURS: &str = "# Made by wg-quick-rs for ";

/// Whether this resolvconf is systemd-resolved's, which takes no record without a server.
fn is_of_resolved(resolvconf: &Path) -> bool {
    let real = fs::canonicalize(resolvconf);
    real.is_ok_and(|real| real.ends_with("resolvectl"))
}

impl DnsSettings {
    /// The way for the namespace of the interface. `None` if DNS cannot be set there.
    pub fn new(dns: &Dns, target: &Target) -> Option<Self> {
        let way = match &target.elsewhere {
            None => Way::here(&target.interface, dns),
            Some((Namespace::Named(name), _)) => {
                Way::File(Path::new(NETNS).join(name).join("resolv.conf"))
            }
            Some((namespace, _)) => {
                console::note(format_args!("DNS is not changed in {namespace}."));
                return None;
            }
        };
        let dns = dns.clone();
        Some(DnsSettings { dns, way })
    }

    /// The same way, with other servers and domains.
    pub fn with(&self, dns: Dns) -> Self {
        let way = self.way.clone();
        DnsSettings { dns, way }
    }

    /// Another way for the same servers and domains, after this one has failed. What this one set is
    /// removed first.
    pub fn fallback(&self, target: &mut Target, signals: &Signals) -> Option<Self> {
        if !matches!(self.way, Way::Resolvconf(_) | Way::Resolvectl) {
            return None;
        }
        let _ = self.unset(target, signals);
        let dns = self.dns.clone();
        let way = Way::Itself(Former::Unknown);
        Some(DnsSettings { dns, way })
    }

    /// The same, if `earlier` is what an earlier interface of this name set and did not remove: then
    /// this one has to restore what was there before that one.
    pub fn after(mut self, earlier: Option<&Self>, target: &Target) -> Self {
        if let (Way::Itself(former), Some(earlier)) = (&mut self.way, earlier)
            && let Way::Itself(of_earlier) = &earlier.way
            && is_ours(Path::new(PATH), &target.interface)
        {
            *former = of_earlier.clone();
        }
        self
    }

    /// The same, with the content that it will replace. `recorded` reads the record of another tunnel.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn knowing(
        mut self,
        target: &Target,
        recorded: impl Fn(&str) -> Option<Self>,
    ) -> Result<Self, Failure> {
        let Way::Itself(former @ Former::Unknown) = &mut self.way else {
            return Ok(self);
        };
        let text = match fs::read(PATH) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                *former = Former::Absent;
                return Ok(self);
            }
            Err(error) => return Err(Failure::new(format_args!("DNS: {PATH}: {error}"))),
        };
        match tunnel_of(&text) {
            Some(tunnel) if tunnel == target.interface => {}
            Some(tunnel) => {
                let before = match recorded(&tunnel).map(|resolver| resolver.way) {
                    Some(Way::Itself(before)) => before,
                    _ => Former::Unknown,
                };
                *former = Former::Tunnel {
                    interface: tunnel,
                    text,
                    before: Box::new(before),
                };
            }
            None => *former = Former::Text(text),
        }
        Ok(self)
    }

    /// The former contents of /etc/resolv.conf, if it was replaced.
    pub fn former(&self) -> Vec<&[u8]> {
        match &self.way {
            Way::Itself(former) => former.texts(),
            _ => Vec::new(),
        }
    }

    /// The servers and domains that are set now; `None` if that cannot be found out.
    pub fn current(&self, target: &Target, signals: &Signals) -> Option<Dns> {
        let text = match &self.way {
            Way::Resolvconf(record) => {
                let resolvconf = Program::find("resolvconf")?;
                if is_of_resolved(resolvconf.path()) {
                    return shown_by_resolved(target, signals);
                }
                let listed = resolvconf.args(["-l", record]).read(target, signals);
                let listed = listed.ok().filter(|listed| listed.status.success());
                match listed {
                    Some(listed) => listed.output,
                    None => fs::read_to_string(format!("{RECORDS}/{record}")).ok()?,
                }
            }
            Way::Resolvectl => return shown_by_resolved(target, signals),
            Way::Itself(former) => {
                let text = fs::read_to_string(PATH).ok()?;
                if text == self.text(&target.interface, former) {
                    return Some(self.dns.clone());
                }
                text.strip_prefix(&ours(&target.interface))?.into()
            }
            Way::File(path) if !is_ours(path, &target.interface) => return None,
            Way::File(path) => fs::read_to_string(path).ok()?,
        };
        Some(Dns::of_resolv_conf(&text))
    }

    /// Whether a later tunnel has replaced /etc/resolv.conf since.
    pub fn is_covered(&self, target: &Target) -> bool {
        let tunnel = || tunnel_of(&fs::read(PATH).ok()?);
        matches!(self.way, Way::Itself(_)) && tunnel().is_some_and(|name| name != target.interface)
    }

    /// Shows how it is set, as a command.
    pub fn show_set(&self, interface: &str) {
        match &self.way {
            Way::Resolvconf(record) => {
                let print = printf(&self.dns);
                console::command(format_args!("{print} | resolvconf -a {record} -m 0 -x"));
            }
            Way::Resolvectl => {
                for args in self.resolvectl(interface) {
                    console::command(format_args!("resolvectl {}", args.join(" ")));
                }
            }
            Way::File(path) => {
                let folder = path.parent().filter(|folder| !folder.exists());
                if let Some(folder) = folder {
                    console::command(format_args!("mkdir -p {}", folder.display()));
                }
                console::command(format_args!("{} > {}", printf(&self.dns), path.display()));
            }
            Way::Itself(_) => {
                console::note(format_args!(
                    "{PATH} itself is replaced, and `down' restores it."
                ));
                console::command(format_args!("{} > {PATH}", printf(&self.dns)));
            }
        }
    }

    /// Shows how it is removed, as commands. The former content of /etc/resolv.conf may be long, and is
    /// not shown.
    pub fn show_unset(&self, interface: &str) {
        if !matches!(self.way, Way::Itself(_)) {
            self.unset_commands(interface)
                .iter()
                .for_each(console::command);
        }
    }

    /// The commands that remove it; none if the former content of /etc/resolv.conf is not known.
    pub fn unset_commands(&self, interface: &str) -> Vec<String> {
        match &self.way {
            Way::Resolvconf(record) => vec![format!("resolvconf -d {record} -f")],
            Way::Resolvectl => vec![format!("resolvectl revert {interface}")],
            Way::File(path) => {
                // The folder too, if it was made for this file.
                let folder = path.parent().unwrap_or(path).display();
                let rmdir = format!("rmdir --ignore-fail-on-non-empty {folder}");
                vec![format!("rm {}", path.display()), rmdir]
            }
            Way::Itself(Former::Absent) => vec![format!("rm {PATH}")],
            Way::Itself(former) => former
                .text()
                .map(|text| format!("{} > {PATH}", printf(String::from_utf8_lossy(text))))
                .into_iter()
                .collect(),
        }
    }

    /// Sets the servers and domains.
    ///
    /// # Errors
    /// The program failed, or the file cannot be written.
    pub fn set(&self, target: &Target, signals: &Signals) -> Result<(), Failure> {
        match &self.way {
            Way::Resolvconf(record) => {
                let text = self.dns.to_string();
                run(
                    "resolvconf",
                    &["-a", record, "-m", "0", "-x"],
                    Some(text),
                    target,
                    signals,
                )
            }
            Way::Resolvectl => self
                .resolvectl(&target.interface)
                .iter()
                .try_for_each(|args| run("resolvectl", args, None, target, signals)),
            Way::File(path) => self
                .write(path, &target.interface)
                .map_err(|error| Failure::new(format_args!("{}: {error}", path.display()))),
            Way::Itself(former) => {
                let text = self.text(&target.interface, former);
                resolv_conf::write(Path::new(PATH), text.as_bytes())
                    .map_err(|error| Failure::new(format_args!("DNS: {PATH}: {error}")))
            }
        }
    }

    /// Removes the servers and domains.
    ///
    /// # Errors
    /// The program failed, or the file cannot be written.
    pub fn unset(&self, target: &mut Target, signals: &Signals) -> Result<(), Failure> {
        let interface = &target.interface;
        match &self.way {
            Way::Resolvconf(record) => {
                run("resolvconf", &["-d", record, "-f"], None, target, signals)
            }
            Way::Resolvectl => run("resolvectl", &["revert", interface], None, target, signals),
            Way::File(path) => remove(path, interface)
                .map_err(|error| Failure::new(format_args!("{}: {error}", path.display()))),
            Way::Itself(former) => {
                let text = self.text(interface, former);
                let former = former.standing(|tunnel| target.home.link(tunnel).is_ok());
                let done = resolv_conf::put_back(Path::new(PATH), &text, former)
                    .map_err(|error| Failure::new(format_args!("DNS: {PATH}: {error}")))?;
                console::note(match done {
                    PutBack::Done => format!("{PATH} was put back."),
                    PutBack::Changed => match fs::read(PATH).ok().as_deref().and_then(tunnel_of) {
                        Some(tunnel) => {
                            format!("{PATH} now belongs to `{tunnel}', and is not changed.")
                        }
                        None => format!("{PATH} was changed by others since, and is kept."),
                    },
                    PutBack::Unknown => {
                        format!("{PATH} is kept, as its former content is not known.")
                    }
                });
                Ok(())
            }
        }
    }

    /// The content of /etc/resolv.conf while the tunnel is up. If the tunnel has only domains, the
    /// former servers stay in it.
    fn text(&self, interface: &str, former: &Former) -> String {
        let mut dns = self.dns.clone();
        if let (true, Some(text)) = (dns.servers.is_empty(), former.text()) {
            dns.servers = Dns::of_resolv_conf(&String::from_utf8_lossy(text)).servers;
        }
        format!("{}{dns}", ours(interface))
    }

    fn resolvectl<'a>(&'a self, interface: &'a str) -> Vec<Vec<&'a str>> {
        let list = |verb, items: &'a [String]| {
            let items = items.iter().map(String::as_str);
            [verb, interface]
                .into_iter()
                .chain(items)
                .collect::<Vec<_>>()
        };
        let mut commands = Vec::new();
        let mut domains = list("domain", &self.dns.search);
        if !self.dns.servers.is_empty() {
            commands.push(list("dns", &self.dns.servers));
            // All other names too, like `-x` of resolvconf.
            domains.push("~.");
        }
        commands.push(domains);
        commands
    }

    fn write(&self, path: &Path, interface: &str) -> io::Result<()> {
        let text = format!("{}{}", ours(interface), self.dns);
        if is_ours(path, interface) {
            // The file is mounted on /etc/resolv.conf in the namespace, so it must stay the same file.
            return overwrite(path, text.as_bytes());
        }
        if path.exists() {
            console::note(format_args!(
                "{} exists already, and is not changed.",
                path.display()
            ));
            return Ok(());
        }
        let folder = path.parent().ok_or(io::ErrorKind::NotADirectory)?;
        for folder in [Path::new(NETNS), folder] {
            if !folder.exists() {
                fs::create_dir(folder)?;
                fs::set_permissions(folder, Permissions::from_mode(0o755))?;
            }
        }
        // The file appears with its whole content.
        let new = folder.join(temporary(OsStr::new("resolv.conf"))?);
        let written = fs::write(&new, text)
            .and_then(|()| fs::set_permissions(&new, Permissions::from_mode(0o644)))
            .and_then(|()| fs::rename(&new, path));
        if written.is_err() {
            let _ = fs::remove_file(&new);
            let _ = fs::remove_dir(folder);
        }
        written
    }
}

fn shown_by_resolved(target: &Target, signals: &Signals) -> Option<Dns> {
    let of = |what: &str| {
        let shown = Program::find("resolvectl")?
            .args([what, target.interface.as_str()])
            .read(target, signals);
        shown.ok().map(|shown| shown.output)
    };
    Some(Dns::of_resolved(&of("dns")?, &of("domain")?))
}

/// Removes the file if it was written here for this interface.
fn remove(path: &Path, interface: &str) -> io::Result<()> {
    if is_ours(path, interface) {
        fs::remove_file(path)?;
        // Fails, as it should, if there are other files.
        let _ = path.parent().map(fs::remove_dir);
    }
    Ok(())
}

/// The files that were written for an interface, for any named namespace.
pub fn files(interface: &str) -> Vec<PathBuf> {
    let folders = fs::read_dir(NETNS).into_iter().flatten().flatten();
    let files = folders.map(|folder| folder.path().join("resolv.conf"));
    files.filter(|path| is_ours(path, interface)).collect()
}

/// Removes these files.
pub fn remove_files(interface: &str) {
    for path in files(interface) {
        if let Err(error) = remove(&path, interface) {
            console::error(format_args!("{}: {error}", path.display()));
        }
    }
}

fn is_ours(path: &Path, interface: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.starts_with(&ours(interface)))
}

/// The first line of a file that is written for an interface.
fn ours(interface: &str) -> String {
    format!("{OURS}{interface}.\n")
}

/// The tunnel that a text was written for.
fn tunnel_of(text: &[u8]) -> Option<String> {
    let text = text.strip_prefix(OURS.as_bytes())?;
    let line = text.split(|byte| *byte == b'\n').next()?;
    let name = line.strip_suffix(b".")?;
    String::from_utf8(name.to_vec()).ok()
}

/// The command that prints a text.
fn printf(text: impl ToString) -> String {
    let mut text = text.to_string();
    for (plain, escaped) in [("\\", "\\\\"), ("%", "%%"), ("'", "'\\''"), ("\n", "\\n")] {
        text = text.replace(plain, escaped);
    }
    format!("printf '{text}'")
}

impl Way {
    fn here(interface: &str, dns: &Dns) -> Self {
        if let Some(resolvconf) = Program::find("resolvconf")
            && !(dns.servers.is_empty() && is_of_resolved(resolvconf.path()))
        {
            // A symbolic link leads to systemd-resolved's or openresolv's, which have no such order.
            let order = match resolvconf.path().is_symlink() {
                true => None,
                false => fs::read_to_string(ORDER).ok(),
            };
            let prefix = order.as_deref().and_then(prefix).unwrap_or_default();
            return Way::Resolvconf(format!("{prefix}{interface}"));
        }
        match Program::find("resolvectl") {
            Some(_) => Way::Resolvectl,
            None => Way::Itself(Former::Unknown),
        }
    }
}

/// The prefix from the first line such as `tun*`: `tun.`.
fn prefix(order: &str) -> Option<String> {
    let is_word = |word: &&str| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        !word.is_empty() && word.bytes().all(allowed)
    };
    let mut words = order
        .lines()
        .filter_map(|line| line.trim().strip_suffix('*'));
    words.find(is_word).map(|word| format!("{word}."))
}

impl Dns {
    /// The servers and search domains in a text in the format of resolv.conf(5).
    pub fn of_resolv_conf(text: &str) -> Self {
        let mut dns = Dns::default();
        for line in text.lines() {
            let mut words = line.split_whitespace().map(String::from);
            match words.next().as_deref() {
                Some("nameserver") => dns.servers.extend(words.take(1)),
                Some("search") => dns.search = words.collect(),
                _ => {}
            }
        }
        dns
    }

    /// From lines such as `Link 5 (wg0): 1.1.1.1 9.9.9.9`, one of servers and one of domains.
    fn of_resolved(servers: &str, domains: &str) -> Self {
        let words = |text: &str| -> Vec<String> {
            let list = text.split_once("): ").map_or("", |(_, list)| list);
            list.split_whitespace().map(String::from).collect()
        };
        let mut dns = Dns {
            servers: words(servers),
            search: words(domains),
        };
        dns.search.retain(|domain| domain != "~.");
        dns
    }

    /// The servers that are addresses.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let servers = self.servers.iter();
        servers.filter_map(|server| server.parse().ok()).collect()
    }
}

/// In the format of resolv.conf(5).
impl std::fmt::Display for Dns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for server in &self.servers {
            writeln!(f, "nameserver {server}")?;
        }
        if !self.search.is_empty() {
            writeln!(f, "search {}", self.search.join(" "))?;
        }
        Ok(())
    }
}

fn run(
    name: &str,
    args: &[&str],
    input: Option<String>,
    target: &Target,
    signals: &Signals,
) -> Result<(), Failure> {
    let program = Program::find(name)
        .ok_or_else(|| Failure::new(format_args!("DNS: {name} is no longer installed")))?;
    let outcome = program
        .args(args)
        .input(input.unwrap_or_default())
        .run(target, signals)?;
    if outcome.status.success() {
        Ok(())
    } else {
        Err(Failure::new(format_args!(
            "DNS: {name}: {}",
            outcome.status
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_of_debians_resolvconf() {
        assert_eq!(prefix("lo.inet*\n  tun*\ntap*\n").as_deref(), Some("tun."));
        assert_eq!(prefix("# comment\nlo\n*\n"), None);
    }

    #[test]
    fn printed_by_a_command() {
        assert_eq!(printf("a\nb % c\n"), r"printf 'a\nb %% c\n'");
        assert_eq!(printf(r"it's \n"), r"printf 'it'\''s \\n'");
    }

    #[test]
    fn to_resolv_conf_and_back() {
        let text = "nameserver 1.1.1.1\nnameserver fd00::53\nsearch a.example b.example\n";
        let dns = Dns::of_resolv_conf(text);
        assert_eq!(dns.to_string(), text);
        assert_eq!(dns.addresses().len(), 2);
        let search = Dns {
            search: vec!["a".into()],
            ..Dns::default()
        };
        assert_eq!(search.to_string(), "search a\n");
    }

    #[test]
    fn commands_for_systemd_resolved() {
        let mut resolver = DnsSettings {
            dns: Dns::of_resolv_conf("nameserver 1.1.1.1\nsearch a b\n"),
            way: Way::Resolvectl,
        };
        assert_eq!(
            resolver.resolvectl("wg0"),
            [
                vec!["dns", "wg0", "1.1.1.1"],
                vec!["domain", "wg0", "a", "b", "~."]
            ]
        );
        let shown = Dns::of_resolved("Link 5 (wg0): 1.1.1.1\n", "Link 5 (wg0): a b ~.\n");
        assert_eq!(shown, resolver.dns);
        resolver.dns.servers.clear();
        assert_eq!(resolver.resolvectl("wg0"), [["domain", "wg0", "a", "b"]]);
    }
}
