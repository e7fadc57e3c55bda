//! The service manager, told that a tunnel is up and which process it stands and falls with: so a
//! daemon that is killed is noticed, and the unit brings the tunnel up again.

use std::env;
use std::process;

use wg_rs::place;
use wg_rs::sys::process::notify::{MAIN_PID, READY, VARIABLE, notify};

use crate::steps::console;

/// The process ID of what systemd itself has started.
const STARTED: &str = "SYSTEMD_EXEC_PID";

/// Says that the interface is up, and names the process of its daemon, if it has one.
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

/// A script that runs us within a unit of its own says itself when that is ready. Older versions of
/// systemd do not tell whom they have started.
fn is_ours(started: Option<&str>) -> bool {
    started.is_none_or(|pid| pid == process::id().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_manager_started_speaks_for_the_unit() {
        assert!(is_ours(None));
        assert!(is_ours(Some(&process::id().to_string())));
        assert!(!is_ours(Some("1")));
    }
}
