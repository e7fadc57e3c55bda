//! How a step is shown: as commands that an administrator can type instead. KEY stands for a key,
//! which is never shown.

use std::fmt;
use std::path::Path;

use wg_rs::model::{Change, Extension};
use wg_rs::place::{self, Namespace};
use wg_rs::sys::netlink::route::MAIN_TABLE;
use wg_rs::sys::netlink::{Route, Rule};

use crate::file::FOLDER;
use crate::steps::console;
use crate::steps::step::Step;
use crate::steps::target::{Target, family, flag};

impl Step {
    /// Shows the commands for a step. A step that first looks what is there shows its commands itself.
    pub fn show(&self, target: &Target) {
        match self {
            Step::SetDns(resolver)
            | Step::SetDnsOrFile(resolver)
            | Step::ChangeDns { new: resolver, .. } => resolver.show_set(&target.interface),
            Step::UnsetDns(resolver) => resolver.show_unset(&target.interface),
            Step::Hook { command, .. } => console::hook(command),
            step => step.commands(target).iter().for_each(console::command),
        }
    }

    /// The commands for a step; none if they depend on what the step finds.
    pub fn commands(&self, target: &Target) -> Vec<String> {
        let name = &target.interface;
        let home = target.elsewhere.as_ref().map(|(namespace, _)| namespace);
        let one = match self {
            Step::AddLink => format!("ip link add dev {name} type wireguard"),
            Step::StartDaemon(program) => {
                let program = program.path().file_name().unwrap_or_default();
                format!("{} {name}", program.to_string_lossy())
            }
            Step::DeleteLink => {
                let socket = place::socket(name);
                match socket.exists() {
                    true => format!("rm -f {}", socket.display()),
                    false => ip(home, format_args!("link delete dev {name}")),
                }
            }
            Step::MoveLink(namespace, _) => {
                let netns = match namespace {
                    Namespace::Named(name) => name.clone(),
                    Namespace::Path(path) => path.display().to_string(),
                    namespace => process(namespace),
                };
                let place = Some(namespace);
                return vec![
                    format!("ip link set dev {name} netns {netns}"),
                    ip(place, format_args!("link set dev {name} addrgenmode none")),
                ];
            }
            Step::AddConf { file, changes } => {
                let program = console::program();
                let argument = argument(file, name);
                let strip = format_args!("addconf {name} <({program} strip {argument})");
                wg(home, changes, strip)
            }
            Step::Set { changes, .. } => wg(
                home,
                changes,
                format_args!("set {name}{}", SetText(changes)),
            ),
            Step::AddAddress(address) => {
                let flag = flag(family(address.ip));
                ip(
                    home,
                    format_args!("{flag} address add {address} dev {name}"),
                )
            }
            Step::DeleteAddress(address) => {
                let flag = flag(family(address.ip));
                ip(
                    home,
                    format_args!("{flag} address delete {address} dev {name}"),
                )
            }
            Step::Up { mtu, .. } => ip(home, format_args!("link set mtu {mtu} up dev {name}")),
            Step::UnsetDns(resolver) => return resolver.unset_commands(name),
            Step::Sysctl(key, value, _) => {
                format!("{}sysctl -q {key}={value}", enter(home))
            }
            Step::AddRule(rule) => ip(home, format_args!("{}", RuleText("add", rule))),
            Step::DeleteRule(rule) => ip(home, format_args!("{}", RuleText("delete", rule))),
            Step::AddRoute(route) => ip(home, format_args!("{}", RouteText("add", name, route))),
            Step::AppendRoute(route) => {
                ip(home, format_args!("{}", RouteText("append", name, route)))
            }
            Step::DeleteRoute(route) => {
                ip(home, format_args!("{}", RouteText("delete", name, route)))
            }
            Step::AddFirewall(firewall) => return firewall.commands(),
            Step::ReplaceFirewall { new, .. } => return new.replacing_commands(),
            Step::DeleteFirewall {
                there: Some(there), ..
            } => return there.commands(),
            Step::DeleteFirewall { there: None, .. }
            | Step::SetDns(_)
            | Step::SetDnsOrFile(_)
            | Step::ChangeDns { .. }
            | Step::CreateFile(..)
            | Step::RemoveFile(..)
            | Step::ReplaceFile { .. }
            | Step::Hook { .. } => return Vec::new(),
        };
        vec![one]
    }
}

/// A command for ip(8) in the namespace where the interface lives.
fn ip(home: Option<&Namespace>, command: fmt::Arguments) -> String {
    match home {
        Some(Namespace::Named(name)) => format!("ip -n {name} {command}"),
        home => format!("{}ip {command}", enter(home)),
    }
}

/// A command for wg(8) there, or for wg-rs(8) if it makes a change that the stock program does not know.
fn wg(home: Option<&Namespace>, changes: &[Change], command: fmt::Arguments) -> String {
    let is_ours = |change: &Change| matches!(change, Change::Extension(_));
    let program = if changes.iter().any(is_ours) {
        "wg-rs"
    } else {
        "wg"
    };
    format!("{}{program} {command}", enter(home))
}

/// The start of a command that is run in the namespace where the interface lives.
fn enter(home: Option<&Namespace>) -> String {
    match home {
        None => String::new(),
        Some(Namespace::Named(name)) => format!("ip netns exec {name} "),
        Some(Namespace::Path(path)) => format!("nsenter --net={} ", path.display()),
        Some(namespace) => format!("nsenter -t {} -n ", process(namespace)),
    }
}

/// A process in this namespace, as an argument for a shell.
fn process(namespace: &Namespace) -> String {
    let of_container =
        |engine: &str, name: &str| format!("$({engine} inspect -f {{{{.State.Pid}}}} {name})");
    match namespace {
        Namespace::Init => "1".into(),
        Namespace::Pid(pid) => pid.to_string(),
        Namespace::Docker(name) => of_container("docker", name),
        Namespace::Podman(name) => of_container("podman", name),
        namespace => namespace.to_string(),
    }
}

/// This config file as an argument of our own commands.
fn argument(file: &Path, interface: &str) -> String {
    match Path::new(FOLDER).join(format!("{interface}.conf")) == file {
        true => interface.into(),
        false => file.display().to_string(),
    }
}

/// Changes as arguments of `wg set`, without keys.
struct SetText<'a>(&'a [Change]);

impl fmt::Display for SetText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = "";
        for change in self.0 {
            let was_list = std::mem::take(&mut list);
            match change {
                Change::PrivateKey(_) => f.write_str(" private-key <(echo KEY)")?,
                Change::ListenPort(port) => write!(f, " listen-port {port}")?,
                Change::FwMark(mark) => write!(f, " fwmark {mark}")?,
                Change::Peer(key) => write!(f, " peer {key}")?,
                Change::Remove => f.write_str(" remove")?,
                Change::PresharedKey(_) => f.write_str(" preshared-key <(echo KEY)")?,
                Change::Endpoint(endpoint) => write!(f, " endpoint {endpoint}")?,
                Change::PersistentKeepalive(seconds) => {
                    write!(f, " persistent-keepalive {seconds}")?;
                }
                Change::AllowedIp { ip, remove } => {
                    let sign = if *remove { '-' } else { '+' };
                    let before = if was_list.is_empty() {
                        " allowed-ips "
                    } else {
                        was_list
                    };
                    write!(f, "{before}{sign}{ip}")?;
                    list = ",";
                }
                Change::ReplacePeers
                | Change::UpdateOnly
                | Change::ReplaceAllowedIps
                | Change::ProtocolVersion => {}
                Change::Extension(extension) => match extension {
                    Extension::Name(Some(name)) => write!(f, " name {name}")?,
                    Extension::Name(None) => f.write_str(" name ''")?,
                    Extension::Relay(groups) if groups.is_empty() => f.write_str(" relay off")?,
                    Extension::Relay(groups) => write!(f, " relay {groups}")?,
                    Extension::Hub(hub) => write!(f, " hub {}", if *hub { "on" } else { "off" })?,
                },
            }
        }
        Ok(())
    }
}

struct RuleText<'a>(&'a str, &'a Rule);

impl fmt::Display for RuleText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RuleText(verb, rule) = self;
        write!(f, "{} rule {verb}", flag(rule.family))?;
        if let Some(priority) = rule.priority {
            write!(f, " priority {priority}")?;
        }
        if rule.not {
            f.write_str(" not")?;
        }
        if let Some(mark) = rule.fwmark {
            write!(f, " fwmark {mark}")?;
        }
        match rule.table {
            MAIN_TABLE => f.write_str(" table main")?,
            table => write!(f, " table {table}")?,
        }
        if let Some(length) = rule.suppress_prefix_length {
            write!(f, " suppress_prefixlength {length}")?;
        }
        Ok(())
    }
}

struct RouteText<'a>(&'a str, &'a str, &'a Route);

impl fmt::Display for RouteText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RouteText(verb, name, route) = self;
        let (ip, prefix) = route.to;
        let flag = flag(family(ip));
        match route.unreachable {
            true => write!(f, "{flag} route {verb} unreachable {ip}/{prefix}")?,
            false => write!(f, "{flag} route {verb} {ip}/{prefix} dev {name}")?,
        }
        if route.table != MAIN_TABLE {
            write!(f, " table {}", route.table)?;
        }
        match route.metric.filter(|_| route.unreachable) {
            Some(metric) => write!(f, " metric {metric}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wg_rs::sys::udp::Family;

    #[test]
    fn changes_that_only_wg_rs_knows_as_its_arguments() {
        let relay = |groups: &str| Change::Extension(Extension::Relay(groups.parse().unwrap()));
        let changes = [
            Change::Extension(Extension::Name("alice".parse().ok())),
            relay("lab,office"),
            Change::Extension(Extension::Hub(true)),
        ];
        assert_eq!(
            SetText(&changes).to_string(),
            " name alice relay lab,office hub on"
        );
        let changes = [
            Change::Extension(Extension::Name(None)),
            relay(""),
            Change::Extension(Extension::Hub(false)),
        ];
        assert_eq!(SetText(&changes).to_string(), " name '' relay off hub off");
        let set = format_args!("set wg0");
        assert_eq!(wg(None, &changes, set), "wg-rs set wg0");
        assert_eq!(wg(None, &[Change::ListenPort(1)], set), "wg set wg0");
    }

    #[test]
    fn rules_and_routes_as_arguments_of_ip() {
        let rule = Rule {
            fwmark: Some(51820),
            not: true,
            ..Rule::new(Family::V4, 51820)
        };
        assert_eq!(
            RuleText("add", &rule).to_string(),
            "-4 rule add not fwmark 51820 table 51820"
        );
        let rule = Rule {
            suppress_prefix_length: Some(0),
            priority: Some(5),
            ..Rule::new(Family::V6, 254)
        };
        assert_eq!(
            RuleText("delete", &rule).to_string(),
            "-6 rule delete priority 5 table main suppress_prefixlength 0"
        );
        let mut route = Route::new(("10.0.0.0".parse().unwrap(), 8), 3);
        assert_eq!(
            RouteText("add", "wg0", &route).to_string(),
            "-4 route add 10.0.0.0/8 dev wg0"
        );
        route.table = 7;
        assert_eq!(
            RouteText("delete", "wg0", &route).to_string(),
            "-4 route delete 10.0.0.0/8 dev wg0 table 7"
        );
    }
}
