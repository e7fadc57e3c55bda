//! Interfaces created, found and moved, in network namespaces and containers.
//!
//! An interface is created in the namespace of the caller, where its sockets stay: that is where its
//! encrypted packets leave. Then its link is moved to where it is wanted, and may be moved again.
//! Whatever fails leaves everything as it was.
//!
//! - [`Namespace`]: the names that a user gives to namespaces.
//! - [`FoundInterface`]: an interface of the caller's namespace, made by [`create`] or found by [`find`],
//!   to be moved or deleted. One that lives elsewhere is only ever named.
//! - [`list`]: all interfaces, and where they live.

mod container_engine;
mod create;
mod daemon;
mod error;
mod find;
mod moving;
mod namespace;
mod survey;

pub use create::{BackendChoice, create};
pub use daemon::{Ending, pid, socket};
pub use error::Error;
pub(crate) use error::reason;
pub use find::{
    FoundInterface, ListedInterface, born_here, find, list, list_without_containers, lives_here,
};
pub use moving::allow_ipv6;
pub use namespace::Namespace;
pub use survey::namespaces;
