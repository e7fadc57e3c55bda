//! What could not be done to an interface, in one line.

use std::io;

use super::Namespace;

/// Why an interface was not placed, or not found. Everything is as it was, but for
/// [`Error::Lingers`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This text names no namespace.
    #[error("`{text}' is no namespace: {reason}")]
    NotANamespace {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The namespace cannot be entered.
    #[error("cannot enter namespace {namespace}: {reason}")]
    Namespace {
        /// Which.
        namespace: Namespace,
        /// Why.
        reason: String,
    },
    /// There is no such interface, or no WireGuard one.
    #[error("{name}: no such WireGuard interface")]
    Absent {
        /// Its name.
        name: String,
    },
    /// There are several of this name, none of them here.
    #[error("{name}: there is one in each of {places}; say which with --netns")]
    Several {
        /// Their name.
        name: String,
        /// Where they live, separated by commas.
        places: String,
    },
    /// It is there, but where its link is cannot be seen.
    #[error("{name}: its link is not to be found: {reason}")]
    Hidden {
        /// Its name.
        name: String,
        /// Why.
        reason: String,
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
    #[error("{name}: deleted, but its daemon did not end")]
    Lingers {
        /// Its name.
        name: String,
    },
    /// It cannot be moved.
    #[error("cannot move {name} to {to}: {reason}")]
    Move {
        /// Its name.
        name: String,
        /// Where it was to go.
        to: Namespace,
        /// Why.
        reason: String,
    },
    /// Linux did not do it.
    #[error("{}", reason(.0))]
    Io(#[from] io::Error),
}

impl Error {
    /// `namespace` cannot be entered because of `reason`.
    pub(super) fn namespace(namespace: &Namespace, reason: impl Into<String>) -> Self {
        Error::Namespace {
            namespace: namespace.clone(),
            reason: reason.into(),
        }
    }
}

/// What a user without the right to do something is told.
pub(super) const NO_PERMISSION: &str = "no permission (try as root)";

pub(crate) use crate::sys::reason;
