//! The routes for the allowed IPs.

use wg_rs::config::AllowedIpSetting;
use wg_rs::model::{AllowedIp, Interface};
use wg_rs::sys::netlink::Route;
use wg_rs::sys::netlink::route::MAIN_TABLE;
use wg_rs::sys::udp::Family;

use crate::file::table::Table;
use crate::file::{Address, File};
use crate::steps::failure::Failure;
use crate::steps::step::Step;
use crate::steps::target::family;
use crate::steps::transaction::Transaction;

/// A route that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WantedRoute {
    /// A route in the tables of the host.
    Route(Route),
    /// A default route, beside the one that the host may have.
    Default(Family),
}

/// The routes for all allowed IPs, the longest prefixes first. `there` are the routes that the link has
/// already; their destinations need no other route.
pub fn wanted(interface: &Interface, table: Table, link: u32, there: &[Route]) -> Vec<WantedRoute> {
    let mut main: Vec<Route> = there
        .iter()
        .filter(|route| route.table == MAIN_TABLE)
        .copied()
        .collect();
    let mut wanted = Vec::new();
    for ip in sorted(interface) {
        let route = Route::new((ip.addr, ip.cidr), link);
        match table {
            Table::Off => {}
            Table::Number(table) => wanted.push(WantedRoute::Route(Route { table, ..route })),
            Table::Auto if ip.cidr == 0 => wanted.push(WantedRoute::Default(family(ip.addr))),
            Table::Auto if main.iter().any(|there| covers(there.to, route.to)) => {}
            Table::Auto => {
                main.push(route);
                wanted.push(WantedRoute::Route(route));
            }
        }
    }
    wanted
}

/// Adds a route. The error names the line of the file with this network, if there is one.
///
/// # Errors
/// The step failed, or a signal arrived.
pub fn add(transaction: &mut Transaction, file: &File, route: Route) -> Result<(), Failure> {
    let added = transaction.run(Step::AddRoute(route));
    added.map_err(|failure| {
        let peers = file.settings.peers.iter();
        let mut networks = peers.flat_map(|peer| &peer.allowed_ips);
        let is_it = |network: &&AllowedIpSetting| {
            !network.remove && (network.ip.addr, network.ip.cidr) == route.to
        };
        match networks.find(is_it) {
            Some(network) => failure.at(file, network.line, "AllowedIPs"),
            None => failure,
        }
    })
}

/// The route that the kernel adds for an address when the link is up.
pub fn connected(address: &Address, link: u32) -> Option<Route> {
    let bits = if address.ip.is_ipv4() { 32 } else { 128 };
    let network = address.network()?;
    (address.prefix < bits || bits == 128).then(|| Route {
        by_kernel: true,
        ..Route::new((network.addr, network.cidr), link)
    })
}

/// In the order of wg-quick's `sort -nr -k2 -t/`.
fn sorted(interface: &Interface) -> Vec<AllowedIp> {
    let mut ips: Vec<AllowedIp> = interface
        .peers
        .iter()
        .flat_map(|peer| peer.allowed_ips.iter().copied())
        .collect();
    ips.sort_by_cached_key(|ip| std::cmp::Reverse((ip.cidr, ip.to_string())));
    ips
}

fn covers(wide: (std::net::IpAddr, u8), narrow: (std::net::IpAddr, u8)) -> bool {
    wide.0.is_ipv4() == narrow.0.is_ipv4()
        && wide.1 <= narrow.1
        && AllowedIp::new(narrow.0, wide.1).is_some_and(|network| network.addr == wide.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wg_rs::model::Peer;

    fn interface(ips: &[&str]) -> Interface {
        let ip = |text: &&str| {
            let (addr, cidr) = text.split_once('/').unwrap();
            AllowedIp::new(addr.parse().unwrap(), cidr.parse().unwrap()).unwrap()
        };
        let mut peer = Peer::new(wg_crypto::key::PublicKey::from_bytes([1; 32]));
        peer.allowed_ips = ips.iter().map(ip).collect();
        Interface {
            peers: vec![peer],
            ..Interface::default()
        }
    }

    fn texts(wanted: &[WantedRoute]) -> Vec<String> {
        let text = |wanted: &WantedRoute| match wanted {
            WantedRoute::Route(route) => format!("{}/{} {}", route.to.0, route.to.1, route.table),
            WantedRoute::Default(family) => format!("{family:?}"),
        };
        wanted.iter().map(text).collect()
    }

    #[test]
    fn routes_are_sorted_by_prefix_and_existing_ones_left_out() {
        let ips = [
            "0.0.0.0/0",
            "10.0.0.0/8",
            "10.1.0.0/16",
            "fd00::1/128",
            "::/0",
            "10.0.0.7/32",
        ];
        let connected: Address = wg_rs::config::value::address("10.0.0.1/24").unwrap();
        let there = [super::connected(&connected, 3).unwrap()];
        assert_eq!(
            texts(&wanted(&interface(&ips), Table::Auto, 3, &there)),
            [
                "fd00::1/128 254",
                "10.1.0.0/16 254",
                "10.0.0.0/8 254",
                "V6",
                "V4"
            ]
        );
        assert_eq!(
            texts(&wanted(&interface(&ips), Table::Off, 3, &there)),
            [""; 0]
        );
        assert_eq!(
            texts(&wanted(&interface(&ips), Table::Number(7), 3, &there)).len(),
            6
        );
    }
}
