//! What could not be done to an interface, in one line.

use std::io;

use super::Namespace;

/// Why an interface was not placed, or not found. Everything is as it was.
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
    /// Linux did not do it.
    #[error(transparent)]
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

/// The reason of an I/O error: that of the system without its number.
pub(super) fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(errno) => nix::errno::Errno::from_raw(errno).desc().into(),
        None => error.to_string(),
    }
}
