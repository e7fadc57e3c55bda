//! Interfaces made, found and moved, in network namespaces and containers.
//!
//! An interface is created in the namespace of the caller, where its sockets stay for ever: that is
//! where its encrypted traffic leaves. Then its link is moved to where it is wanted, and may be moved
//! again. Whatever fails leaves everything as it was.

mod engine;
mod error;
mod namespace;

pub use error::Error;
pub use namespace::Namespace;
