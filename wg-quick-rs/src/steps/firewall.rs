//! The firewall of a default route. Packets to the interface's addresses that arrive at other links are
//! dropped. Answers to the tunnel's own packets get their mark, so that the reverse path filter looks in
//! the right table.
//!
//! It is one nft table for each family, or iptables rules with a comment; each names its interface.

use std::fmt::Write;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use wg_rs::sys::udp::Family;

use crate::steps::failure::Failure;
use crate::steps::program::Program;
use crate::steps::signals::Signals;
use crate::steps::target::Target;

/// The firewall of one family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firewall {
    /// The interface.
    pub interface: String,
    /// The family.
    pub family: Family,
    /// The interface's addresses of this family.
    pub addresses: Vec<IpAddr>,
    /// The mark of the tunnel's own packets.
    pub mark: u32,
}

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

impl Firewall {
    /// The commands that add it.
    pub fn commands(&self) -> Vec<String> {
        match Program::find("nft") {
            Some(_) => vec![format!("nft '{}'", self.for_nft())],
            None => one_by_one(self.family, &self.for_iptables()),
        }
    }

    /// The commands that replace the current one of this family.
    pub fn replacing_commands(&self) -> Vec<String> {
        match Program::find("nft") {
            Some(_) => vec![format!("nft '{}'", self.replacing_for_nft())],
            None => self.commands(),
        }
    }

    /// Adds it.
    ///
    /// # Errors
    /// nft or iptables failed, or neither is installed.
    pub fn add(&self, target: &Target, signals: &Signals) -> Result<(), Failure> {
        if Program::find("nft").is_some() {
            nft(self.for_nft(), target, signals)
        } else {
            restore(self.family, self.for_iptables(), target, signals)
        }
    }

    /// Replaces the current one of this family. With nft, one of them is in place at any moment.
    ///
    /// # Errors
    /// nft or iptables failed, or neither is installed.
    pub fn replace(&self, target: &Target, signals: &Signals) -> Result<(), Failure> {
        if Program::find("nft").is_some() {
            return nft(self.replacing_for_nft(), target, signals);
        }
        let old = Present::look(target, signals).of(self.family);
        self.add(target, signals)?;
        old.delete(target, signals)
    }

    fn table(&self) -> String {
        format!(
            "table {} {}",
            nft_family(self.family),
            table(&self.interface)
        )
    }

    /// As one line, which can be typed.
    fn for_nft(&self) -> String {
        let pf = nft_family(self.family);
        let mut text = format!(
            "{} {{ chain preraw {{ type filter hook prerouting priority -300; ",
            self.table()
        );
        for address in &self.addresses {
            let _ = write!(
                text,
                "iifname != \"{}\" {pf} daddr {address} fib saddr type != local drop; ",
                self.interface
            );
        }
        let _ = write!(
            text,
            "}}; chain premangle {{ type filter hook prerouting priority -150; \
             meta l4proto udp meta mark set ct mark; }}; \
             chain postmangle {{ type filter hook postrouting priority -150; \
             meta l4proto udp mark {} ct mark set mark; }}; }}",
            self.mark
        );
        text
    }

    /// Adding it first makes the deletion work even if there is no table.
    fn replacing_for_nft(&self) -> String {
        let table = self.table();
        format!("add {table}; delete {table}; {}", self.for_nft())
    }

    fn for_iptables(&self) -> String {
        let marker = marker(&self.interface);
        let mut text = String::from("*raw\n");
        for address in &self.addresses {
            let _ = writeln!(
                text,
                "-I PREROUTING ! -i {} -d {address} -m addrtype ! --src-type LOCAL -j DROP {marker}",
                self.interface
            );
        }
        let _ = write!(
            text,
            "COMMIT\n*mangle\n\
             -I POSTROUTING -m mark --mark {} -p udp -j CONNMARK --save-mark {marker}\n\
             -I PREROUTING -p udp -j CONNMARK --restore-mark {marker}\nCOMMIT\n",
            self.mark
        );
        text
    }
}

/// The firewall that is in place for an interface.
#[derive(Clone, Debug, Default)]
pub struct Present {
    /// The tables of nft, each as `table ip wg-quick-wg0`.
    tables: Vec<String>,
    /// The rules of iptables, as text for iptables-restore that deletes them.
    rules: Vec<(Family, String)>,
}

/// The arguments for nft that list the tables.
const LIST: &[&str] = &["list", "tables"];

impl Present {
    /// Looks for the firewall of the interface of `target`, in nft and iptables.
    pub fn look(target: &Target, signals: &Signals) -> Self {
        Present::among(&read("nft", LIST, target, signals), target, signals)
    }

    /// Like [`Present::look`], for an interface that should have a firewall.
    ///
    /// # Errors
    /// Nothing was found, and nft failed to list its tables.
    pub fn find(target: &Target, signals: &Signals) -> Result<Self, Failure> {
        let listed = ask("nft", LIST, target, signals);
        let there = Present::among(listed.as_deref().unwrap_or_default(), target, signals);
        match listed {
            Err(failure) if there.is_empty() => Err(failure),
            _ => Ok(there),
        }
    }

    /// The firewall, given the tables that nft listed.
    fn among(listed: &str, target: &Target, signals: &Signals) -> Self {
        let ours = format!(" {}", table(&target.interface));
        let tables: Vec<String> = listed
            .lines()
            .map(|line| line.trim_end().to_owned())
            .filter(|line| line.ends_with(&ours))
            .collect();
        let mut rules = Vec::new();
        // With an nft table there are no iptables rules.
        if tables.is_empty() {
            for family in FAMILIES {
                let saved = read(&format!("{}-save", iptables(family)), &[], target, signals);
                let deletion = deletion(&saved, &target.interface);
                rules.extend(deletion.map(|deletion| (family, deletion)));
            }
        }
        Present { tables, rules }
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty() && self.rules.is_empty()
    }

    /// The part for one family.
    pub fn of(mut self, family: Family) -> Self {
        let table = format!("table {} ", nft_family(family));
        self.tables.retain(|one| one.starts_with(&table));
        self.rules.retain(|(of, _)| *of == family);
        self
    }

    /// The families that have a part of it.
    pub fn families(&self) -> Vec<Family> {
        let has = |family: &Family| {
            let table = format!("table {} ", nft_family(*family));
            self.tables.iter().any(|one| one.starts_with(&table))
                || self.rules.iter().any(|(of, _)| of == family)
        };
        FAMILIES.into_iter().filter(has).collect()
    }

    /// The mark of the tunnel's packets in it.
    pub fn mark(&self, target: &Target, signals: &Signals) -> Option<u32> {
        let in_rules = self
            .rules
            .iter()
            .find_map(|(_, text)| number_behind("--mark ", text));
        in_rules.or_else(|| {
            self.tables.iter().find_map(|table| {
                let args: Vec<&str> = ["list"].into_iter().chain(table.split(' ')).collect();
                number_behind("mark ", &read("nft", &args, target, signals))
            })
        })
    }

    /// Returns what would exist if all of these had been added, in case nft cannot be queried.
    pub fn assumed(firewalls: &[Firewall]) -> Self {
        let mut assumed = Present::default();
        for firewall in firewalls {
            match Program::find("nft") {
                Some(_) => assumed.tables.push(firewall.table()),
                None => {
                    let deletion = firewall.for_iptables().replace("-I ", "-D ");
                    assumed.rules.push((firewall.family, deletion));
                }
            }
        }
        assumed
    }

    /// The commands that remove it.
    pub fn commands(&self) -> Vec<String> {
        let tables = self.tables.iter();
        let mut commands: Vec<String> = tables.map(|table| format!("nft delete {table}")).collect();
        for (family, deletion) in &self.rules {
            commands.extend(one_by_one(*family, deletion));
        }
        commands
    }

    /// Removes it.
    ///
    /// # Errors
    /// The program failed.
    pub fn delete(&self, target: &Target, signals: &Signals) -> Result<(), Failure> {
        if !self.tables.is_empty() {
            let deletions = self.tables.iter().map(|table| format!("delete {table}\n"));
            nft(deletions.collect(), target, signals)?;
        }
        for (family, deletion) in &self.rules {
            restore(*family, deletion.clone(), target, signals)?;
        }
        Ok(())
    }
}

/// The input of iptables-restore as commands of iptables.
fn one_by_one(family: Family, text: &str) -> Vec<String> {
    let program = iptables(family);
    let mut table = "";
    let mut commands = Vec::new();
    for line in text.lines() {
        match line.strip_prefix('*') {
            Some(name) => table = name,
            None if line == "COMMIT" => {}
            None => commands.push(format!("{program} -t {table} {line}")),
        }
    }
    commands
}

fn nft_family(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

fn iptables(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    }
}

fn table(interface: &str) -> String {
    format!("wg-quick-{interface}")
}

/// The same comment as wg-quick's, so that each program can remove the rules of the other.
fn marker(interface: &str) -> String {
    format!("-m comment --comment \"wg-quick(8) rule for {interface}\"")
}

fn nft(text: String, target: &Target, signals: &Signals) -> Result<(), Failure> {
    run("nft", &["-f", "/dev/stdin"], text, target, signals)
}

fn restore(
    family: Family,
    text: String,
    target: &Target,
    signals: &Signals,
) -> Result<(), Failure> {
    run(
        &format!("{}-restore", iptables(family)),
        &["-n"],
        text,
        target,
        signals,
    )
}

fn run(
    name: &str,
    args: &[&str],
    text: String,
    target: &Target,
    signals: &Signals,
) -> Result<(), Failure> {
    let program = Program::find(name).ok_or_else(|| {
        Failure::new(format_args!(
            "a default route needs nft or iptables, and {name} is missing"
        ))
    })?;
    let outcome = program.args(args).input(text).run(target, signals)?;
    if outcome.status.success() {
        Ok(())
    } else {
        Err(Failure::new(format_args!("{name}: {}", outcome.status)))
    }
}

/// The output of a program; empty if there is no such program, or if it fails.
fn read(name: &str, args: &[&str], target: &Target, signals: &Signals) -> String {
    ask(name, args, target, signals).unwrap_or_default()
}

/// The output of a program; empty if there is no such program.
fn ask(name: &str, args: &[&str], target: &Target, signals: &Signals) -> Result<String, Failure> {
    let Some(program) = Program::find(name) else {
        return Ok(String::new());
    };
    let outcome = program.args(args).read(target, signals)?;
    if !outcome.status.success() {
        return Err(Failure::new(format_args!(
            "{name} {}: {}",
            args.join(" "),
            outcome.status
        )));
    }
    Ok(outcome.output)
}

/// Text for iptables-restore that deletes the rules of an interface; `None` if there are none.
fn deletion(saved: &str, interface: &str) -> Option<String> {
    let marker = marker(interface);
    let mut text = String::new();
    let mut found = false;
    for line in saved.lines() {
        match line.strip_prefix("-A ") {
            Some(rule) if line.contains(&marker) => {
                found = true;
                let _ = writeln!(text, "-D {rule}");
            }
            None if line.starts_with('*') || line == "COMMIT" => {
                let _ = writeln!(text, "{line}");
            }
            _ => {}
        }
    }
    found.then_some(text)
}

/// The decimal or hexadecimal number after the first `word` that is followed by one.
fn number_behind(word: &str, text: &str) -> Option<u32> {
    text.match_indices(word).find_map(|(at, _)| {
        let rest = &text[at + word.len()..];
        let end = rest
            .find(|c: char| !c.is_ascii_alphanumeric())
            .unwrap_or(rest.len());
        match rest[..end].strip_prefix("0x") {
            Some(hex) => u32::from_str_radix(hex, 16).ok(),
            None => rest[..end].parse().ok(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn firewall() -> Firewall {
        Firewall {
            interface: "wg0".into(),
            family: Family::V4,
            addresses: vec!["10.0.0.1".parse().unwrap()],
            mark: 51820,
        }
    }

    #[test]
    fn commands_that_can_be_typed() {
        let expected = "table ip wg-quick-wg0 { chain preraw { type filter hook prerouting priority -300; \
             iifname != \"wg0\" ip daddr 10.0.0.1 fib saddr type != local drop; }; \
             chain premangle { type filter hook prerouting priority -150; \
             meta l4proto udp meta mark set ct mark; }; \
             chain postmangle { type filter hook postrouting priority -150; \
             meta l4proto udp mark 51820 ct mark set mark; }; }";
        assert_eq!(firewall().for_nft(), expected);
        let commands = one_by_one(Family::V4, &firewall().for_iptables());
        assert_eq!(
            commands[0],
            "iptables -t raw -I PREROUTING ! -i wg0 -d 10.0.0.1 -m addrtype ! --src-type LOCAL \
             -j DROP -m comment --comment \"wg-quick(8) rule for wg0\""
        );
        assert_eq!(commands.len(), 3);
        assert!(commands[2].starts_with("iptables -t mangle -I PREROUTING -p udp"));
    }

    #[test]
    fn iptables_rules_are_found_again() {
        let added = firewall().for_iptables();
        let saved: String = added
            .lines()
            .map(|line| line.replace("-I ", "-A ") + "\n")
            .collect();
        let saved =
            format!("# Generated\n{saved}-A PREROUTING -j OTHER\n:POSTROUTING ACCEPT [0:0]\n");
        let deletion = deletion(&saved, "wg0").unwrap();
        assert_eq!(deletion, added.replace("-I ", "-D "));
        assert_eq!(super::deletion(&saved, "wg00"), None);
        assert_eq!(super::deletion(&saved, "wg"), None);
    }

    #[test]
    fn the_mark_is_read_back() {
        let listed = "meta l4proto udp meta mark set ct mark\n\
                      meta l4proto udp meta mark 0x0000ca6c ct mark set meta mark";
        assert_eq!(number_behind("mark ", listed), Some(51820));
        assert_eq!(
            number_behind("--mark ", "-m mark --mark 0xca6c -j X"),
            Some(51820)
        );
        assert_eq!(number_behind("mark ", "mark"), None);
    }
}
