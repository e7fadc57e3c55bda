//! What is done to the host, one step after the other, each undone if a later one fails.
//!
//! This folder knows how a step is done, shown, undone and recorded. Which steps are taken is decided
//! in `plan` and `verbs`.

mod conflict;
pub mod console;
pub mod dns;
pub mod failure;
pub mod firewall;
pub mod lock;
pub mod program;
mod resolv_conf;
pub mod service_manager;
mod shown;
pub mod signals;
pub mod state;
pub mod step;
pub mod target;
pub mod transaction;
