//! Tells the service manager that a tunnel is up, and which process is its daemon. So the manager
//! notices a killed daemon, and the unit brings the tunnel up again.

use std::env;
use std::process;

use wg_rs::place;
use wg_rs::sys::process::notify::{MAIN_PID, READY, VARIABLE, notify};

use crate::steps::console;

/// The variable with the ID of the process that systemd has started.
const STARTED: &str = "SYSTEMD_EXEC_PID";

/// Tells that the interface is up, and the process ID of its daemon, if it has one.
pub fn tell_up(interface: &str) {
    if env::var_os(VARIABLE).is_none() || !is_ours(env::var(STARTED).ok().as_deref()) {
        return;
    }
    let mut state = READY.to_owned();
    if let Some(pid) = place::pid(interface) {
        state += &format!("\n{MAIN_PID}{pid}");
    }
    if let Err(error) = notify(&state) {
        console::note(format_args!(
            "The service manager cannot be told that `{interface}' is up: {error}."
        ));
    }
}

/// Whether the service manager started this process itself. If not, it was run by a script of some other
/// unit, which reports for itself. Older versions of systemd do not tell which process they started.
fn is_ours(started: Option<&str>) -> bool {
    started.is_none_or(|pid| pid == process::id().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_process_that_the_manager_started_reports() {
        assert!(is_ours(None));
        assert!(is_ours(Some(&process::id().to_string())));
        assert!(!is_ours(Some("1")));
    }
}
