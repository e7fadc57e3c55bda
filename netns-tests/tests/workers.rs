//! Daemons with workers, which by default only machines with several cores have.

use std::io;

use netns_tests::{Daemon, Family, Plan, Tunnel};

#[test]
fn transfers_and_pings_pass_with_any_number_of_workers() -> io::Result<()> {
    let ours = Daemon::ours()?;
    let path = ours.path().ok_or(io::ErrorKind::NotFound)?;
    for workers in [1, 3] {
        let name = format!("{workers} workers");
        let daemon = Daemon::program(&name, format!("{path} --workers {workers}"));
        for outer in Family::ALL {
            let plan = Plan {
                outer,
                ..Plan::new(&daemon, &daemon)
            };
            let tunnel = Tunnel::established(&plan)?;
            for inner in Family::ALL {
                tunnel
                    .transfer_both_ways(inner, 20 << 20)
                    .and_then(|()| tunnel.ping_both_ways(inner))
                    .map_err(|error| daemon.blame(error))?;
            }
        }
    }
    Ok(())
}
