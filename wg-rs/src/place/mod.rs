//! Creates, finds and moves interfaces, in network namespaces and containers.
//!
//! An interface is created in the caller's namespace. Its sockets stay there, so its encrypted
//! packets leave from there. Then its link is moved to the target namespace, and may be moved
//! again. If a step fails, nothing changes.
//!
//! - [`Namespace`]: the names of namespaces.
//! - [`FoundInterface`]: an interface in the caller's namespace, from [`create`] or [`find`], which
//!   can be moved or deleted. Interfaces in other namespaces are only listed.
//! - [`list`]: all interfaces and their namespaces.

mod container_engine;
mod create;
mod daemon;
mod error;
mod find;
mod moving;
mod namespace;
mod port;
mod survey;

pub use create::{BackendChoice, create};
pub use daemon::{Ending, pid, socket};
pub use error::Error;
pub(crate) use error::reason;
pub use find::{
    FoundInterface, ListedInterface, born_here, find, left_behind, list, list_without_containers,
    lives_here, no_access,
};
pub use moving::allow_ipv6;
pub use namespace::Namespace;
pub use port::{own_port_in_use, port_in_use};
pub use survey::namespaces;
