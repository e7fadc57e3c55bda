//! Sessions, and what passes through them.

use std::io;

use super::{Size, ensure};
use crate::{End, Family, PATIENCE, Paced, Ping, Plan, Tap, Tunnel, transfer};

/// The type of a message.
const INITIATION: u8 = 1;

/// a begins, and b learns a's endpoint from its first message.
pub fn a_handshake(plan: &Plan) -> io::Result<()> {
    let tunnel = Tunnel::new(&Plan {
        both_endpoints: false,
        ..plan.clone()
    })?;
    let (a, b) = (&tunnel.a, &tunnel.b);
    let tap = Tap::start(&a.host)?;
    a.host.reach(b.inner(Family::V4), PATIENCE)?;
    let (here, there) = (a.endpoint(Family::V4), b.endpoint(Family::V4));
    let first = tap.wait(PATIENCE, |seen| {
        seen.is_message(INITIATION).then_some((seen.from, seen.to))
    })?;
    ensure(first == Some((here, there)), || {
        format!("the first initiation was not from {here} to {there}, but {first:?}")
    })?;
    for (near, far) in tunnel.ways() {
        let peer = near.wg.peer(far.keys.public)?;
        let endpoint = Some(far.endpoint(Family::V4));
        ensure(peer.endpoint == endpoint, || {
            format!(
                "{:?} instead of {endpoint:?} is the endpoint",
                peer.endpoint
            )
        })?;
    }
    tunnel.ping_both_ways(Family::V4)
}

/// Pings with a preshared key. An end that ignored the key would reach only an end that does so too.
pub fn a_preshared_key(plan: &Plan) -> io::Result<()> {
    let tunnel = Tunnel::established(&Plan {
        preshared: true,
        ..plan.clone()
    })?;
    for (here, there) in tunnel.ways() {
        let known = here.wg.peer(there.keys.public)?.preshared_key;
        ensure(known == tunnel.preshared, || "another key is shown".into())?;
    }
    Family::ALL
        .into_iter()
        .try_for_each(|inner| tunnel.ping_both_ways(inner))
}

/// Makes a tunnel over each family outside, and a check of it with each family inside and of the whole.
fn over_each_family(
    plan: &Plan,
    inside: impl Fn(&Tunnel, Family) -> io::Result<()>,
    whole: impl Fn(&Tunnel) -> io::Result<()>,
) -> io::Result<()> {
    for outer in Family::ALL {
        let tunnel = Tunnel::established(&Plan {
            outer,
            ..plan.clone()
        })?;
        for inner in Family::ALL {
            inside(&tunnel, inner)?;
        }
        whole(&tunnel)?;
    }
    Ok(())
}

/// Pings of each family inside over each family outside.
pub fn both_families(plan: &Plan) -> io::Result<()> {
    over_each_family(plan, Tunnel::ping_both_ways, |_| Ok(()))
}

/// Pings and transfers of a with the MTU of jumbo frames, and with the great one of the kernel's own
/// test script. If no ping passes, it ends.
pub fn great_mtus(plan: &Plan, size: Size) -> io::Result<()> {
    let mut faults = Vec::new();
    for cable_mtu in [9000, 34_816] {
        let mtu = cable_mtu - 80;
        for outer in Family::ALL {
            let tunnel = Tunnel::established(&Plan {
                outer,
                cable_mtu,
                mtu,
                ..plan.clone()
            })?;
            for inner in Family::ALL {
                let ping = Ping {
                    count: 4,
                    payload: mtu as usize - 100,
                    timeout: size.late,
                    ..Ping::to(tunnel.b.inner(inner))
                };
                let lost = tunnel.a.host.ping(&ping)?.lost();
                let mut fault = |what: String| {
                    faults.push(format!(
                        "MTU {mtu}, {inner:?} inside, {outer:?} outside: {what}"
                    ));
                };
                if lost > 0 {
                    fault(format!("{lost} of {} pings were lost", ping.count));
                }
                if lost == ping.count {
                    return Err(io::Error::other(faults.join("\n")));
                }
                if let Err(error) = carry(&tunnel, inner, size.bytes / 5) {
                    fault(error.to_string());
                }
            }
        }
    }
    ensure(faults.is_empty(), || faults.join("\n"))
}

/// TCP of each family inside over each family outside, from a to b.
pub fn bulk_tcp(plan: &Plan, size: Size) -> io::Result<()> {
    let carry = |tunnel: &Tunnel, inner| carry(tunnel, inner, size.bytes);
    over_each_family(plan, carry, |tunnel| {
        let carried = 2 * size.bytes;
        let state = |here: &End, there: &End| {
            // boringtun shows the age of a handshake as its time, and none in the first second.
            let key = there.keys.public;
            let what = format!("{} to know of a handshake", here.host.name());
            here.wg
                .until_peer(key, &what, |peer| peer.last_handshake.is_some())
        };
        let sent = state(&tunnel.a, &tunnel.b)?.tx_bytes;
        let received = state(&tunnel.b, &tunnel.a)?.rx_bytes;
        ensure(sent.min(received) > carried, || {
            format!("of {carried} bytes, a has counted {sent} and b {received}")
        })
    })
}

fn carry(tunnel: &Tunnel, inner: Family, bytes: u64) -> io::Result<()> {
    let to = (&tunnel.b.host, tunnel.b.inner(inner));
    transfer(&tunnel.a.host, to, bytes, |_| ()).map(|_| ())
}

/// UDP of each family inside from a to b, as fast as it arrives. At most 64 datagrams are on their way, so
/// that none is lost in a queue.
pub fn bulk_udp(plan: &Plan, size: Size) -> io::Result<()> {
    let tunnel = Tunnel::established(plan)?;
    for inner in Family::ALL {
        let to = (&tunnel.b.host, tunnel.b.inner(inner));
        let flow = Paced::bulk(&tunnel.a.host, to)?;
        flow.go_on(size.datagrams)?;
        let count = flow.finish()?;
        let overflows = tunnel.a.host.udp_overflows()? + tunnel.b.host.udp_overflows()?;
        ensure(count.lost() <= overflows, || {
            format!("{inner:?}: {count:?}, and {overflows} datagrams overflowed a socket")
        })?;
    }
    Ok(())
}
