//! Queries the status of interfaces, and finds where they are.

use std::process::ExitCode;

use crate::backend::Kind;
use crate::model::status::Status;
use crate::place::{self, ListedInterface};
use crate::tool::context::Context;
use crate::tool::query::{left_behind, query};

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
    let (all, exit) = query(&context.interfaces, name, left_behind);
    let mut places = None;
    let mut asked = Vec::new();
    for (name, kind, status) in all {
        let place = (kind == Kind::Userspace).then(|| {
            // This looks at all processes and containers. If it fails, the status is shown without the places.
            let places = places.get_or_insert_with(|| place::list().unwrap_or_default());
            let is_it =
                |place: &ListedInterface| place.name == name && place.backend == Kind::Userspace;
            let place = places.iter().position(is_it)?;
            Some(places.swap_remove(place))
        });
        asked.push(Asked {
            place: place.flatten(),
            name,
            kind,
            status,
        });
    }
    (asked, exit)
}
