//! Endpoints that change, and one that is kept.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::ensure;
use crate::{
    Config, End, Family, Hosts, Nat, PATIENCE, Ping, Plan, Tunnel, netlink, ping_all, until,
};

/// The port of the box in b's host to which a sends.
const BOX: u16 = 51821;
/// A mapping that is not renewed is forgotten after this time.
const MAPPING: Duration = Duration::from_secs(2);

impl Tunnel {
    /// Pings from a until b has a's endpoint as `endpoint`; then pings both ways, without loss.
    pub fn follows(&self, endpoint: SocketAddr) -> io::Result<()> {
        let (a, b) = (&self.a, &self.b);
        let once = Ping {
            count: 1,
            timeout: Duration::from_millis(200),
            ..Ping::to(b.inner(Family::V4))
        };
        until(PATIENCE, &format!("b to see a at {endpoint}"), || {
            a.host.ping(&once)?;
            Ok((b.wg.peer(a.keys.public)?.endpoint == Some(endpoint)).then_some(()))
        })?;
        self.ping_both_ways(Family::V4)?;
        self.ping_both_ways(Family::V6)
    }
}

/// a's address changes, of each family, and b follows.
pub fn a_changed_address(plan: &Plan) -> io::Result<()> {
    for outer in Family::ALL {
        let tunnel = Tunnel::established(&Plan {
            outer,
            ..plan.clone()
        })?;
        let old = tunnel.a.outer(outer);
        let (new, prefix) = match outer {
            Family::V4 => ([192, 0, 2, 99].into(), 24),
            Family::V6 => ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 99].into(), 64),
        };
        tunnel.a.host.run(|| {
            netlink::delete_address("eth0", old, prefix)?;
            netlink::add_address("eth0", new, prefix)
        })?;
        tunnel.follows((new, End::PORT).into())?;
    }
    Ok(())
}

/// a's port changes, and b follows.
pub fn a_changed_port(plan: &Plan) -> io::Result<()> {
    let tunnel = Tunnel::established(plan)?;
    tunnel.a.wg.set(&Config {
        listen_port: Some(9999),
        ..Config::default()
    })?;
    tunnel.follows((tunnel.a.outer(Family::V4), 9999).into())
}

/// A NAT box forgets a mapping after two seconds, and a's keepalive of one second keeps it.
pub fn a_kept_mapping(plan: &Plan) -> io::Result<()> {
    let hosts = Hosts::new(plan.cable_mtu)?;
    // The box is in b's host: a sees b's address with another port.
    let address = hosts.address(1, Family::V4);
    let (inside, server) = ((address, BOX).into(), (address, End::PORT).into());
    let _nat = Nat::start(&hosts.hosts[1], inside, server, MAPPING)?;
    let plan = Plan {
        both_endpoints: false,
        through: Some(BOX),
        keepalive: Some(1),
        ..plan.clone()
    };
    let tunnel = Tunnel::between(hosts, &plan)?;
    let (a, b) = (&tunnel.a, &tunnel.b);
    // The keepalive alone begins a session.
    let mapped =
        b.wg.until_peer(a.keys.public, "a handshake through the NAT box", |peer| {
            peer.last_handshake.is_some()
                && peer.endpoint.is_some_and(|seen| seen.port() != End::PORT)
        })?
        .endpoint;
    // Longer than the mapping would last; only keepalives pass.
    let quiet = Instant::now();
    until(PATIENCE, "five idle seconds", || {
        Ok((quiet.elapsed() > Duration::from_secs(5)).then_some(()))
    })?;
    ping_all(&b.host, a.inner(Family::V4), 10)?;
    let now = b.wg.peer(a.keys.public)?.endpoint;
    ensure(now == mapped, || {
        format!("the mapping was lost: b saw a at {mapped:?}, and later at {now:?}")
    })
}
