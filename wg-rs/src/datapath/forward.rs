//! From a socket to the sockets again: packets of sessions that are relayed.
//!
//! ```text
//! a received burst ─► runs with an index that is none of ours ─► the table of what is relayed
//!                     ─► one sendmsg for each, from the buffer they came in, at their stride and TOS
//! ```
//! Nothing waits for room: the thread that sends is the one that receives. Nothing is copied or opened, so
//! nothing goes through the lane.

use std::io;

use super::sockets::Sockets;
use crate::tunnel::drops::DropReason;
use crate::tunnel::plane::Plane;
use crate::tunnel::receive::InBurst;
use crate::tunnel::time::Time;

/// Sends on what is to be relayed of a burst that was classified.
pub(super) fn forward(plane: &Plane, sockets: &Sockets, burst: &InBurst, now: Time) {
    let (Some(relay), Some(from)) = (plane.relay(), burst.from()) else {
        return;
    };
    let (stride, tos) = (burst.stride(), burst.tos());
    for (datagrams, index) in burst.strangers() {
        let route = match relay.route(index, from.addr, now) {
            Ok(route) => route,
            Err(reason) => {
                plane.drop_packets(reason, datagrams.len().div_ceil(stride));
                continue;
            }
        };
        let sent = sockets.send(datagrams, stride, &route.to, tos, Some(route.peer()), now);
        route.sent(sent.bytes, now);
        if let Some(error) = sent.error {
            let reason = match error.kind() {
                io::ErrorKind::WouldBlock => DropReason::RelayFull,
                _ => DropReason::SendFailed,
            };
            tracing::debug!(%error, "relaying failed");
            plane.drop_packets(reason, sent.refused);
        }
    }
}
