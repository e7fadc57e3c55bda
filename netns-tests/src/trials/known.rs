//! The faults of others that are known, each with how it was found to be theirs.

use super::{Side, Trial};

struct Fault {
    /// The name of the implementation; `boringtun` is its device, built in or as boringtun-cli.
    peer: &'static str,
    trial: Trial,
    side: Side,
    reason: &'static str,
}

const NO_ECN: &str = "it does not handle ECN; the marks are read on the wire and at the interface";
const OLD_MTU: &str = "it learns the MTU of its link about a second late, and until then reads as many bytes of a \
                       packet as the MTU was (strace shows it), so that the first packets are cut";
const SMALL_BUFFERS: &str =
    "its packets are in buffers of 4096 bytes, and it reads no more than that (strace shows it)";
const ENDS: &str = "it sometimes ends when its own port is changed, and says \"channel closed\"";

const fn fault(peer: &'static str, trial: Trial, side: Side, reason: &'static str) -> Fault {
    Fault {
        peer,
        trial,
        side,
        reason,
    }
}

const FAULTS: [Fault; 8] = [
    fault("wireguard-go", Trial::Ecn, Side::Theirs, NO_ECN),
    fault("boringtun", Trial::Ecn, Side::Theirs, NO_ECN),
    fault("gotatun", Trial::Ecn, Side::Theirs, NO_ECN),
    fault("boringtun", Trial::Jumbo, Side::Ours, OLD_MTU),
    fault("boringtun", Trial::Jumbo, Side::Theirs, OLD_MTU),
    fault("gotatun", Trial::Roaming, Side::Theirs, ENDS),
    fault("gotatun", Trial::Jumbo, Side::Ours, SMALL_BUFFERS),
    fault("gotatun", Trial::Jumbo, Side::Theirs, SMALL_BUFFERS),
];

/// Why a failure of this check is the other's fault, if that is known.
pub(super) fn reason(peer: &str, trial: Trial, side: Side) -> Option<&'static str> {
    let is_it =
        |fault: &&Fault| peer.starts_with(fault.peer) && (fault.trial, fault.side) == (trial, side);
    FAULTS.iter().find(is_it).map(|fault| fault.reason)
}
