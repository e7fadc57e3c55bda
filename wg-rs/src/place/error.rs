//! Errors of operations on interfaces, each with a message of one line.

use std::io;

/// Why an interface was not created, found, moved or deleted. Nothing has changed then, except for
/// [`Error::Lingers`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text does not name a network namespace.
    #[error("`{text}' is not a network namespace: {reason}")]
    NotANamespace {
        /// The text as given.
        text: String,
        /// The reason.
        reason: &'static str,
    },
    /// The namespace cannot be entered.
    #[error("cannot enter namespace {namespace}: {reason}")]
    Namespace {
        /// The namespace's name, as the user gave it.
        namespace: String,
        /// The reason.
        reason: String,
    },
    /// There is no WireGuard interface of this name.
    #[error("{name}: no such WireGuard interface")]
    Absent {
        /// The interface's name.
        name: String,
    },
    /// The interface is not in the caller's namespace, but in others.
    #[error(
        "{name}: no such WireGuard interface in this network namespace; there is one in {places} \
         (to act there, use --netns)"
    )]
    Elsewhere {
        /// The interface's name.
        name: String,
        /// The namespaces with such an interface, separated by commas.
        places: String,
    },
    /// The daemon answers, but its link is not visible from here.
    #[error("cannot find the network interface of {name}: {reason}")]
    Hidden {
        /// The interface's name.
        name: String,
        /// The reason.
        reason: String,
    },
    /// The process that answers at the socket has no such link.
    #[error(
        "cannot find the network interface of {name}: process {pid}, which answers for it, has none"
    )]
    NoLink {
        /// The interface's name.
        name: String,
        /// The ID of the process.
        pid: u32,
    },
    /// The interface could not be created.
    #[error("cannot create {name}: {reason}")]
    Create {
        /// The interface's name.
        name: String,
        /// The reason.
        reason: String,
    },
    /// The interface could not be deleted.
    #[error("cannot delete {name}: {reason}")]
    Delete {
        /// The interface's name.
        name: String,
        /// The reason.
        reason: String,
    },
    /// The interface was deleted, but its daemon still listens five seconds later.
    #[error("{name}: the interface was deleted, but its daemon is still running")]
    Lingers {
        /// The interface's name.
        name: String,
    },
    /// The interface could not be moved.
    #[error("cannot move {name} to {to}: {reason}")]
    Move {
        /// The interface's name.
        name: String,
        /// The target, as the user named it.
        to: String,
        /// The reason.
        reason: String,
    },
    /// A request to the kernel failed.
    #[error("{}", reason(.0))]
    Io(#[from] io::Error),
}

/// The reason if the user lacks the right to do something.
pub(super) const NO_PERMISSION: &str = "no permission (try as root)";

pub(crate) use crate::sys::reason;
