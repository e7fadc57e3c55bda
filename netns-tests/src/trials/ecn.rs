//! Congestion marks in the outer and the inner header, as the kernel module treats them (RFC 6040).

use std::collections::BTreeSet;
use std::io;
use std::net::UdpSocket;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

use super::ensure;
use crate::{End, Family, Hosts, Nat, PATIENCE, Plan, Tap, Tunnel};

/// The port of the box in b's host, which marks what it passes on.
const BOX: u16 = 51821;
const DATA: u8 = 4;
const CE: u8 = 3;
/// The ECN field: not ECT, ECT(1), ECT(0), CE.
const FIELDS: [u8; 4] = [0, 1, 2, CE];
/// A DSCP, which must stay inside.
const DSCP: u8 = 46 << 2;
/// Where inner datagrams go.
const PORT: u16 = 7;
const LATE: Duration = Duration::from_secs(5);
const LONG: Duration = Duration::from_secs(3600);

/// a copies the mark of a packet that it sends to the outer header, where CE becomes ECT(0); and it delivers
/// what arrives with an outer CE with that mark, unless the packet takes no marks. A box between the two marks
/// every datagram.
pub fn marks(plan: &Plan) -> io::Result<()> {
    let mut faults = BTreeSet::new();
    for outer in Family::ALL {
        let hosts = Hosts::new(plan.cable_mtu)?;
        let address = hosts.address(1, outer);
        let (inside, server) = ((address, BOX).into(), (address, End::PORT).into());
        let _box = Nat::marking(&hosts.hosts[1], inside, server, LONG, CE)?;
        let tunnel = Tunnel::between(
            hosts,
            &Plan {
                outer,
                both_endpoints: false,
                through: Some(BOX),
                ..plan.clone()
            },
        )?;
        let (a, b) = (&tunnel.a, &tunnel.b);
        a.host.reach(b.inner(Family::V4), PATIENCE)?;
        // Somebody listens, or else ICMP messages would come back.
        let listen = |(end, inner): (&End, Family)| {
            end.host.run(|| UdpSocket::bind((end.inner(inner), PORT)))
        };
        let ends = [a, b].into_iter();
        let all = ends.flat_map(|end| Family::ALL.map(|inner| (end, inner)));
        let _listening = all.map(listen).collect::<io::Result<Vec<_>>>()?;
        for inner in Family::ALL {
            for field in FIELDS {
                let expected = if field == CE { 2 } else { field };
                match sent(&tunnel, outer, inner, field)? {
                    Some(tos) if tos == expected => {}
                    Some(tos) => {
                        faults.insert(format!("sends ECN {field:02b} with TOS {tos:#04x} outside"));
                    }
                    None => {
                        faults.insert(format!("does not send ECN {field:02b}"));
                    }
                }
                let expected = DSCP | if field == 0 { 0 } else { CE };
                match delivered(&tunnel, inner, field)? {
                    Some(tos) if tos == expected => {}
                    Some(tos) => {
                        faults.insert(format!(
                            "delivers ECN {field:02b} with TOS {tos:#04x} although CE was outside"
                        ));
                    }
                    None => {
                        faults.insert(format!("does not deliver ECN {field:02b} with CE outside"));
                    }
                }
            }
        }
    }
    ensure(faults.is_empty(), || {
        let faults: Vec<_> = faults.into_iter().collect();
        format!("{} {}", plan.daemons[0], faults.join(", "))
    })
}

/// The outer TOS of a datagram that is sent from a to b.
fn sent(tunnel: &Tunnel, outer: Family, inner: Family, field: u8) -> io::Result<Option<u8>> {
    let (a, b) = (&tunnel.a, &tunnel.b);
    let tap = Tap::start(&a.host)?;
    let len = send((a, b), inner, field)?;
    let from = a.endpoint(outer);
    // 32 bytes for the message, and up to 15 of padding.
    tap.wait(LATE, |seen| {
        let is_it = seen.from == from && seen.is_message(DATA);
        let fits = (len + 32..len + 48).contains(&seen.payload.len());
        (is_it && fits).then_some(seen.tos)
    })
}

/// The TOS with which a delivers a datagram that is sent from b to a.
fn delivered(tunnel: &Tunnel, inner: Family, field: u8) -> io::Result<Option<u8>> {
    let (a, b) = (&tunnel.a, &tunnel.b);
    let tap = Tap::start(&a.host)?;
    send((b, a), inner, field)?;
    let to = (a.inner(inner), PORT).into();
    tap.wait(LATE, |seen| (seen.to == to).then_some(seen.tos))
}

/// Sends a datagram with this ECN field through the tunnel. Returns the length of the inner packet, which is
/// different for each field.
fn send((from, to): (&End, &End), inner: Family, field: u8) -> io::Result<usize> {
    let tos = i32::from(DSCP | field);
    let content = vec![0x5a; 200 + 100 * usize::from(field)];
    let target = (to.inner(inner), PORT);
    from.host.run(|| -> io::Result<()> {
        let socket = UdpSocket::bind((from.inner(inner), 0))?;
        match inner {
            Family::V4 => setsockopt(&socket, sockopt::Ipv4Tos, &tos)?,
            Family::V6 => setsockopt(&socket, sockopt::Ipv6TClass, &tos)?,
        }
        socket.send_to(&content, target).map(|_| ())
    })?;
    let header = match inner {
        Family::V4 => 20,
        Family::V6 => 40,
    };
    Ok(header + 8 + content.len())
}
