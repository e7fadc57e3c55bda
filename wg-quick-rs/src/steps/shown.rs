//! How a step is shown: as the command that an administrator would use for it.

use std::fmt;

use wg_rs::model::Change;
use wg_rs::place::{self, Namespace};
use wg_rs::sys::netlink::route::MAIN_TABLE;
use wg_rs::sys::netlink::{Route, Rule};

use crate::steps::console;
use crate::steps::step::Step;
use crate::steps::target::{Target, family, flag};

impl Step {
    /// Shows the command for a step. A step that first looks what is there shows its commands itself.
    pub fn show(&self, target: &Target) {
        let name = &target.interface;
        match self {
            Step::AddLink => {
                console::command(format_args!("ip link add dev {name} type wireguard"))
            }
            Step::StartDaemon(program) => {
                let program = program.path().file_name().unwrap_or_default();
                console::command(format_args!("{} {name}", program.to_string_lossy()));
            }
            Step::DeleteLink => {
                let socket = place::socket(name);
                match socket.exists() {
                    true => console::command(format_args!("rm -f {}", socket.display())),
                    false => at(target, format_args!("link delete dev {name}")),
                }
            }
            Step::MoveLink(namespace, _) => {
                let netns = match namespace {
                    Namespace::Pid(pid) => pid.to_string(),
                    namespace => namespace.to_string(),
                };
                console::command(format_args!("ip link set dev {name} netns {netns}"));
            }
            Step::AddConf(_) => console::command(format_args!("wg addconf {name} /dev/fd/63")),
            Step::Set { changes, .. } => {
                console::command(format_args!("wg set {name}{}", SetText(changes)));
            }
            Step::AddAddress(address) => {
                let flag = flag(family(address.ip));
                at(
                    target,
                    format_args!("{flag} address add {address} dev {name}"),
                );
            }
            Step::DeleteAddress(address) => {
                let flag = flag(family(address.ip));
                at(
                    target,
                    format_args!("{flag} address delete {address} dev {name}"),
                );
            }
            Step::Up { mtu, .. } => at(target, format_args!("link set mtu {mtu} up dev {name}")),
            Step::SetDns(resolver)
            | Step::SetDnsOrFile(resolver)
            | Step::ChangeDns { new: resolver, .. } => {
                resolver.show_set(name);
            }
            Step::UnsetDns(resolver) => resolver.show_unset(name),
            Step::Sysctl(key, value, _) => {
                console::command(format_args!("sysctl -q {key}={value}"))
            }
            Step::AddRule(rule) => at(target, format_args!("{}", RuleText("add", rule))),
            Step::DeleteRule(rule) => at(target, format_args!("{}", RuleText("delete", rule))),
            Step::AddRoute(route) => at(target, format_args!("{}", RouteText("add", name, route))),
            Step::AppendRoute(route) => {
                at(target, format_args!("{}", RouteText("append", name, route)));
            }
            Step::DeleteRoute(route) => {
                at(target, format_args!("{}", RouteText("delete", name, route)));
            }
            Step::AddFirewall(firewall) | Step::ReplaceFirewall { new: firewall, .. } => {
                firewall.show();
            }
            Step::DeleteFirewall { .. }
            | Step::CreateFile(..)
            | Step::RemoveFile(..)
            | Step::ReplaceFile { .. } => {}
            Step::Hook { command, .. } => console::hook(command),
        }
    }
}

/// Shows a command for ip(8) in the namespace where the interface lives.
fn at(target: &Target, command: fmt::Arguments) {
    match &target.elsewhere {
        Some((Namespace::Named(name), _)) => {
            console::command(format_args!("ip -n {name} {command}"))
        }
        Some((Namespace::Pid(pid), _)) => {
            console::command(format_args!("nsenter -t {pid} -n ip {command}"));
        }
        Some((namespace, _)) => console::command(format_args!("ip {command}   # in {namespace}")),
        None => console::command(format_args!("ip {command}")),
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
                Change::PrivateKey(_) => f.write_str(" private-key /dev/fd/63")?,
                Change::ListenPort(port) => write!(f, " listen-port {port}")?,
                Change::FwMark(mark) => write!(f, " fwmark {mark}")?,
                Change::Peer(key) => write!(f, " peer {key}")?,
                Change::Remove => f.write_str(" remove")?,
                Change::PresharedKey(_) => f.write_str(" preshared-key /dev/fd/63")?,
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
                | Change::ProtocolVersion
                | Change::Extension(_) => {}
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
