//! Relays packets: from a socket back to the sockets.
//!
//! ```text
//! a received burst ─► runs with an index that is not ours ─► the relay table
//!                     ─► one sendmsg for each run, from the same buffer, with its stride and TOS, and with
//!                        its hop limit minus one
//! ```
//! Sending never waits, because the same thread receives. Packets are neither copied nor opened, so
//! they do not go through the lane.

use std::io;

use super::sockets::Sockets;
use crate::sys::udp::OuterHeader;
use crate::tunnel::drops::DropReason;
use crate::tunnel::plane::Plane;
use crate::tunnel::receive::InBurst;
use crate::tunnel::time::Time;

/// Relays the packets of a classified burst that are in the relay table. `hop_limit`: that of the burst, if
/// the socket reports it.
pub(super) fn forward(
    plane: &Plane,
    sockets: &Sockets,
    burst: &InBurst,
    hop_limit: Option<u8>,
    now: Time,
) {
    let (stride, tos) = (burst.stride(), burst.tos());
    burst.relay(plane, now, hop_limit, |datagrams, route, hops_left| {
        let header = OuterHeader {
            tos,
            hop_limit: Some(hops_left),
        };
        let sent = sockets.send(
            datagrams,
            stride,
            &route.to,
            header,
            Some(route.peer()),
            now,
        );
        route.sent(sent.bytes, now);
        if let Some(error) = sent.error {
            let reason = match error.kind() {
                io::ErrorKind::WouldBlock => DropReason::RelayFull,
                _ => DropReason::SendFailed,
            };
            tracing::debug!(%error, "relaying failed");
            plane.drop_packets(reason, sent.refused);
        }
    });
}
