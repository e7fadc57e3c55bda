//! What could not be done to an interface, in one line.

use std::io;

/// Why an interface was not created, found, moved or deleted. Everything is as it was, but for
/// [`Error::Lingers`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This text names no network namespace.
    #[error("`{text}' is not a network namespace: {reason}")]
    NotANamespace {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The namespace cannot be entered.
    #[error("cannot enter namespace {namespace}: {reason}")]
    Namespace {
        /// Which, as the user calls it.
        namespace: String,
        /// Why.
        reason: String,
    },
    /// There is no such interface, or no WireGuard one.
    #[error("{name}: no such WireGuard interface")]
    Absent {
        /// Its name.
        name: String,
    },
    /// There is none of this name in the caller's namespace, but elsewhere.
    #[error(
        "{name}: no such WireGuard interface in this network namespace; there is one in {places} \
         (to act there, use --netns)"
    )]
    Elsewhere {
        /// Its name.
        name: String,
        /// The namespaces where there is one, separated by commas.
        places: String,
    },
    /// Its daemon answers, but its link cannot be seen from here.
    #[error("cannot find the network interface of {name}: {reason}")]
    Hidden {
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
    /// The process that answers at its socket has no such link.
    #[error(
        "cannot find the network interface of {name}: process {pid}, which answers for it, has none"
    )]
    NoLink {
        /// Its name.
        name: String,
        /// The ID of the process.
        pid: u32,
    },
    /// It cannot be created.
    #[error("cannot create {name}: {reason}")]
    Create {
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
    /// It cannot be deleted.
    #[error("cannot delete {name}: {reason}")]
    Delete {
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
    /// It is deleted, but its daemon still listens five seconds later.
    #[error("{name}: the interface was deleted, but its daemon is still running")]
    Lingers {
        /// Its name.
        name: String,
    },
    /// It cannot be moved.
    #[error("cannot move {name} to {to}: {reason}")]
    Move {
        /// Its name.
        name: String,
        /// Where it was to go, as the user calls it.
        to: String,
        /// Why.
        reason: String,
    },
    /// A request to the kernel failed.
    #[error("{}", reason(.0))]
    Io(#[from] io::Error),
}

/// What a user without the right to do something is told.
pub(super) const NO_PERMISSION: &str = "no permission (try as root)";

pub(crate) use crate::sys::reason;
