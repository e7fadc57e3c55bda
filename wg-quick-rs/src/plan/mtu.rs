//! The MTU if the file has none: that of the path to the peers, less the tunnel's headers.

use std::net::IpAddr;

use wg_rs::model::Interface;
use wg_rs::sys::netlink::route::MAIN_TABLE;
use wg_rs::sys::netlink::{Netlink, RouteFilter};
use wg_rs::sys::udp::Family;

/// Bytes that the tunnel adds to a packet, at most: the headers over IPv6, and the padding.
const OVERHEAD: u32 = 80;
/// The MTU of a path of which nothing is known, in bytes.
const USUAL: u32 = 1500;

/// The tunnel's MTU for the smallest path to an endpoint; without endpoints, for the default route.
/// `own` is the interface's link, if it is in this namespace: paths through it do not count.
pub fn of_way(netlink: &mut Netlink, interface: &Interface, own: Option<u32>) -> u32 {
    let endpoints = interface.peers.iter().filter_map(|peer| peer.endpoint);
    let endpoints = endpoints.filter(|endpoint| match endpoint {
        std::net::SocketAddr::V6(endpoint) => endpoint.scope_id() == 0,
        std::net::SocketAddr::V4(_) => true,
    });
    let mut ways: Vec<u32> = endpoints
        .filter_map(|endpoint| to(netlink, endpoint.ip(), interface.fwmark, own))
        .collect();
    if ways.is_empty() {
        ways.extend(by_default(netlink));
    }
    let way = ways.into_iter().min().filter(|mtu| *mtu > 0);
    way.unwrap_or(USUAL).saturating_sub(OVERHEAD)
}

fn to(netlink: &mut Netlink, ip: IpAddr, mark: u32, own: Option<u32>) -> Option<u32> {
    let hop = netlink.route_get(ip, None, mark).ok()?;
    if own == Some(hop.link) {
        return None;
    }
    hop.mtu.or_else(|| of_link(netlink, hop.link))
}

fn by_default(netlink: &mut Netlink) -> Option<u32> {
    let routes = netlink
        .routes_of(Family::V4, RouteFilter::Table(MAIN_TABLE))
        .ok()?;
    let default = routes.iter().find(|route| route.to.1 == 0)?;
    default.mtu.or_else(|| of_link(netlink, default.link?))
}

fn of_link(netlink: &mut Netlink, link: u32) -> Option<u32> {
    netlink.link(link).ok().map(|link| link.mtu)
}
