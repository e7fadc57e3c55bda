//! Interfaces made, found and moved, in network namespaces and containers.
//!
//! An interface is created in the namespace of the caller, where its sockets stay for ever: that is
//! where its encrypted traffic leaves. Then its link is moved to where it is wanted, and may be moved
//! again. Whatever fails leaves everything as it was.
//!
//! - [`Namespace`]: the names of namespaces.
//! - [`Located`]: an interface, made by [`create`] or found by [`locate`], to be moved or deleted.
//! - [`list`]: all of them.

mod daemon;
mod engine;
mod error;
mod find;
mod life;
mod moving;
mod namespace;
mod survey;

pub use daemon::{Ending, socket};
pub use error::Error;
pub(crate) use error::reason;
pub use find::{Located, Placed, born_here, list, lives_here, locate, locate_here};
pub use life::{Backend, create};
pub use moving::allow_ipv6;
pub use namespace::Namespace;
pub use survey::namespaces;
