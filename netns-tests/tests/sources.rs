//! The source address of answers: it is the address to which the request was sent, as long as the
//! route to the peer uses the link on which the request arrived.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use netns_tests::netlink::{self, Route};
use netns_tests::{Daemon, End, Family, PATIENCE, Ping, Plan, Tunnel, ping_all};

/// The addresses of the hosts a and b on two cables.
const FIRST: [[u8; 4]; 2] = [[192, 0, 2, 1], [192, 0, 2, 2]];
const SECOND: [[u8; 4]; 2] = [[198, 51, 100, 1], [198, 51, 100, 2]];

/// A tunnel over the first of two cables; no packet has passed yet.
fn over_two_cables() -> io::Result<Tunnel> {
    let daemon = Daemon::ours()?;
    let plan = Plan {
        both_endpoints: false,
        ..Plan::new(&daemon, &daemon)
    };
    let tunnel = Tunnel::new(&plan)?;
    let hosts = [&tunnel.a.host, &tunnel.b.host];
    tunnel
        .lab
        .cable((hosts[0], "eth1"), (hosts[1], "eth1"), 1500)?;
    for (host, address) in hosts.into_iter().zip(SECOND) {
        host.address("eth1", address, 24)?;
        for link in ["all", "eth0", "eth1"] {
            host.write(&format!("/proc/sys/net/ipv4/conf/{link}/rp_filter"), "0")?;
        }
    }
    Ok(tunnel)
}

/// A route from a to b's first address by the second cable.
fn detour() -> Route<'static> {
    Route::via(FIRST[1].into(), 32, SECOND[1].into(), "eth1")
}

/// Sends a ping from a, after which b must have this address as a's endpoint.
fn next_packet_is_from(tunnel: &Tunnel, address: [u8; 4], when: &str) -> io::Result<()> {
    let (a, b) = (&tunnel.a, &tunnel.b);
    ping_all(&a.host, b.inner(Family::V4), 1)?;
    let expected: SocketAddr = (address, End::PORT).into();
    let heard = b.wg.peer(a.keys.public)?.endpoint;
    assert_eq!(heard, Some(expected), "{when}");
    Ok(())
}

#[test]
fn the_first_packet_after_a_change_of_routes_takes_the_new_route() -> io::Result<()> {
    let tunnel = over_two_cables()?;
    let a = &tunnel.a.host;
    a.reach(tunnel.b.inner(Family::V4), PATIENCE)?;
    for round in 0..12 {
        next_packet_is_from(&tunnel, FIRST[0], &format!("round {round}, before"))?;
        a.run(|| detour().add())?;
        next_packet_is_from(&tunnel, SECOND[0], &format!("round {round}, route added"))?;
        a.run(|| detour().delete())?;
        next_packet_is_from(&tunnel, FIRST[0], &format!("round {round}, route deleted"))?;
    }
    Ok(())
}

#[test]
fn the_first_packet_after_a_change_of_rules_takes_the_new_route() -> io::Result<()> {
    let tunnel = over_two_cables()?;
    let a = &tunnel.a.host;
    let ip = |line: &str| a.sh("ip", &line.split(' ').collect::<Vec<_>>());
    a.reach(tunnel.b.inner(Family::V4), PATIENCE)?;
    ip("route add 192.0.2.2/32 via 198.51.100.2 table 77")?;
    next_packet_is_from(&tunnel, FIRST[0], "no rule")?;
    ip("rule add to 192.0.2.2 lookup 77")?;
    next_packet_is_from(&tunnel, SECOND[0], "rule added")?;
    ip("rule del to 192.0.2.2 lookup 77")?;
    next_packet_is_from(&tunnel, FIRST[0], "rule deleted")
}

/// If the answer leaves by another link than the request came by, its source is an address of that
/// link.
#[test]
fn an_answer_by_another_link_is_from_an_address_of_that_link() -> io::Result<()> {
    let tunnel = over_two_cables()?;
    let (a, b) = (&tunnel.a, &tunnel.b);
    let back = Route::via(FIRST[0].into(), 32, SECOND[0].into(), "eth1");
    b.host.run(|| back.add())?;
    a.host.reach(b.inner(Family::V4), PATIENCE)?;
    let heard = a.wg.peer(b.keys.public)?.endpoint;
    assert_eq!(heard, Some((SECOND[1], End::PORT).into()));
    Ok(())
}

/// The address of a link that is down still belongs to the host, and no event reports that its IPv4
/// routes are gone.
#[test]
fn the_address_of_a_link_that_goes_down_is_no_longer_used() -> io::Result<()> {
    let tunnel = over_two_cables()?;
    let (a, b) = (&tunnel.a, &tunnel.b);
    a.host
        .write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1")?;
    let there: IpAddr = [203, 0, 113, 1].into();
    b.host.address("lo", there, 32)?;
    for (n, (link, by)) in [("eth0", FIRST[1]), ("eth1", SECOND[1])]
        .into_iter()
        .enumerate()
    {
        let route = Route {
            metric: Some(n as u32 + 1),
            ..Route::via(there, 32, by.into(), link)
        };
        a.host.run(|| route.add())?;
    }
    let peer = netns_tests::PeerConfig::new(b.keys.public).at((there, End::PORT));
    a.wg.set(&netns_tests::Config::of(peer))?;
    a.host.reach(b.inner(Family::V4), PATIENCE)?;
    next_packet_is_from(&tunnel, FIRST[0], "both up")?;
    a.host.run(|| netlink::set_up("eth0", false))?;
    // From this packet b learns the endpoint for its answer.
    let ping = Ping {
        count: 1,
        timeout: Duration::from_secs(3),
        ..Ping::to(b.inner(Family::V4))
    };
    assert_eq!(a.host.ping(&ping)?.lost(), 0);
    next_packet_is_from(&tunnel, SECOND[0], "the first down")
}
