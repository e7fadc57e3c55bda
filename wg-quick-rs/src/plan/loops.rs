//! Endpoints that are reached through the tunnel itself, for example one in `0.0.0.0/1` with
//! `AllowedIPs = 0.0.0.0/1, 128.0.0.0/1`: an encrypted packet would be encrypted again instead of sent.
//!
//! The default route of `Table = auto` has rules that keep the tunnel's packets out of it. Other routes
//! have none.

use std::net::IpAddr;

use wg_rs::config::{AllowedIpSetting, ConfigEndpoint};
use wg_rs::model::AllowedIp;
use wg_rs::sys::netlink::route::MAIN_TABLE;

use crate::file::table::Table;
use crate::file::{ConfigValue, File};
use crate::steps::console;
use crate::steps::failure::Failure;
use crate::steps::target::Target;

/// The endpoints that the file alone shows to be in the tunnel, unless they are host names. A hook that
/// may add a rule or a route for an endpoint is trusted to do so.
pub fn in_file(file: &File) -> Vec<ConfigValue<String>> {
    let peers = &file.settings.peers;
    let networks = || {
        let all = peers.iter().flat_map(|peer| &peer.allowed_ips);
        all.filter(|network| !network.remove && is_route(file.table, &network.ip))
    };
    let endpoints = peers.iter().filter_map(|peer| peer.endpoint.as_ref());
    let caught = endpoints.filter_map(|endpoint| {
        let ip = endpoint.numeric()?.ip();
        let network = networks().find(|network| contains(&network.ip, ip))?;
        (!a_hook_may_help(file, ip)).then(|| message(endpoint, ip, network))
    });
    caught.collect()
}

fn message(
    endpoint: &ConfigEndpoint,
    ip: IpAddr,
    network: &AllowedIpSetting,
) -> ConfigValue<String> {
    let value = format!(
        "{ip} is in the AllowedIPs {} (line {}), and no rule keeps it out: unless this host has \
         another route to it, the tunnel's packets will be sent into the tunnel itself",
        network.ip, network.line
    );
    ConfigValue {
        line: endpoint.line,
        value,
    }
}

/// Whether a network gets a route that every packet of this host may take.
fn is_route(table: Table, network: &AllowedIp) -> bool {
    match table {
        Table::Auto => network.cidr != 0,
        Table::Number(number) => number == MAIN_TABLE,
        Table::Off => false,
    }
}

fn a_hook_may_help(file: &File, ip: IpAddr) -> bool {
    let ip = ip.to_string();
    let hooks = file.hooks.pre_up.iter().chain(&file.hooks.post_up);
    hooks.map(|hook| hook.value.text()).any(|text| {
        let mut words = text.split(|c: char| c.is_whitespace() || c == '/');
        words.any(|word| word == "rule" || word == ip)
    })
}

fn contains(network: &AllowedIp, ip: IpAddr) -> bool {
    ip.is_ipv4() == network.addr.is_ipv4()
        && AllowedIp::new(ip, network.cidr).is_some_and(|other| other == *network)
}

/// Warns of endpoints of the running interface to which the kernel's route leads through the interface
/// itself. An interface in another namespace sends its packets from here, so it has none.
///
/// # Errors
/// The interface cannot be read.
pub fn warn(target: &mut Target) -> Result<(), Failure> {
    if target.elsewhere.is_some() {
        return Ok(());
    }
    let interface = target.get()?;
    let link = target.link()?;
    for peer in &interface.peers {
        let Some(endpoint) = peer.endpoint else {
            continue;
        };
        let hop = target.home.route_get(endpoint.ip(), None, interface.fwmark);
        if hop.is_ok_and(|hop| hop.link == link) {
            console::note(format_args!(
                "Warning: the endpoint {endpoint} of peer {} is reached through `{}' itself, so its \
                 packets go nowhere. Add a route to {} by another interface, or take it out of \
                 AllowedIPs.",
                peer.public_key,
                target.interface,
                endpoint.ip()
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file;

    fn lines(interface: &str, allowed: &str, endpoint: &str) -> Vec<usize> {
        let text = format!(
            "[Interface]\n{interface}\n[Peer]\nAllowedIPs = {allowed}\nEndpoint = {endpoint}\n\
             PublicKey = AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n"
        );
        let (file, errors) = file::parse("wg0.conf", "wg0", text.as_bytes());
        assert_eq!(errors, []);
        in_file(&file).iter().map(|found| found.line).collect()
    }

    #[test]
    fn an_endpoint_in_the_tunnel_is_found_unless_a_rule_or_hook_helps() {
        let halves = "0.0.0.0/1, 128.0.0.0/1";
        let at = "203.0.113.1:51820";
        assert_eq!(lines("", halves, at), [5]);
        assert_eq!(lines("", "::/1, 8000::/1", "[2001:db8::1]:1"), [5]);
        assert_eq!(lines("Table = main", "0.0.0.0/0", at), [5]);
        assert_eq!(lines("", "0.0.0.0/0, 203.0.113.0/24", at), [5]);
        for (interface, allowed, endpoint) in [
            ("", "0.0.0.0/0, ::/0", at),
            ("", "10.0.0.0/8", at),
            ("", "::/1", at),
            ("", halves, "vpn.example:51820"),
            ("Table = off", halves, at),
            ("Table = 7", halves, at),
            (
                "PostUp = ip route add 203.0.113.1/32 via 192.0.2.1",
                halves,
                at,
            ),
            ("PostUp = ip rule add fwmark 7 lookup 8", halves, at),
        ] {
            assert_eq!(
                lines(interface, allowed, endpoint),
                [0; 0],
                "{interface} {allowed}"
            );
        }
    }
}
