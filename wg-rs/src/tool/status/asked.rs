//! Queries the status of interfaces, and finds where they are.

use std::process::ExitCode;

use crate::backend::Kind;
use crate::model::status::Status;
use crate::place::{self, ListedInterface};
use crate::tool::context::Context;
use crate::tool::query::query;

/// An interface with its status.
pub(super) struct Asked {
    pub name: String,
    pub kind: Kind,
    /// Where it is, if known.
    pub place: Option<ListedInterface>,
    pub status: Status,
}

/// Queries this interface, or all. The exit code says whether all could be queried.
pub(super) fn ask(context: &Context, name: Option<&str>) -> (Vec<Asked>, ExitCode) {
    let (all, exit) = query(&context.interfaces, name);
    // Without the places, the status is shown all the same.
    let mut places = place::list().unwrap_or_default();
    let mut asked = Vec::new();
    for (name, kind, status) in all {
        let is_it = |place: &ListedInterface| {
            place.name == name && place.backend == kind && kind == Kind::Userspace
        };
        let place = places.iter().position(is_it);
        asked.push(Asked {
            place: place.map(|place| places.swap_remove(place)),
            name,
            kind,
            status,
        });
    }
    (asked, exit)
}
