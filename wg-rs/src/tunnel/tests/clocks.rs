//! The clock of a host is set while there is traffic.

use crate::tunnel::sim::*;

/// Sends a packet each way in each second. Returns how many arrived at each host.
fn traffic(sim: &mut Sim, seconds: usize) -> [usize; 2] {
    let received = |sim: &Sim| [0, 1].map(|host| sim.hosts[host].payloads().len());
    let before = received(sim);
    for _ in 0..seconds {
        sim.send(0, 1, 1);
        sim.send(1, 0, 2);
        sim.run(SECOND);
    }
    let after = received(sim);
    [after[0] - before[0], after[1] - before[1]]
}

/// After a clock was set back, its initiations are refused, because their timestamps were seen. The other
/// host then begins the handshake, as with the kernel module.
#[test]
fn traffic_goes_on_after_a_clock_was_set_forward_and_back() {
    let mut sim = Sim::session();
    for error in [0, 3600, 0, -7200] {
        sim.hosts[0].wall_error = error;
        // More than three lives of a session.
        for arrived in traffic(&mut sim, 600) {
            assert!(arrived > 590, "{arrived} of 600 at {error} s");
        }
    }
}
