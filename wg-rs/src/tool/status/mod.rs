//! `status`: whether interfaces and their peers are connected, and why not.

mod json;
mod reason;
mod text;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use zeroize::Zeroizing;

use super::context::{Context, complain};
use super::out::Out;
use super::watch;
use crate::backend::Kind;
use crate::model::Wall;
use crate::model::status::Status;
use crate::place::{self, ListedInterface};
use crate::sys::process::clock;

/// An interface, as far as it is known.
struct Asked {
    name: String,
    kind: Kind,
    /// Where it is, if it can be told.
    place: Option<ListedInterface>,
    status: Status,
}

/// Runs `status`.
pub(super) fn run(context: &Context, args: &[OsString]) -> ExitCode {
    let (mut json, mut watch) = (false, false);
    let mut name = None;
    for arg in args {
        match &*arg.to_string_lossy() {
            "--json" => json = true,
            "--watch" => watch = true,
            option if option.starts_with('-') => return context.usage(),
            _ if name.is_some() => return context.usage(),
            word => name = Some(word.to_owned()),
        }
    }
    let name = name.as_deref();
    if watch {
        return watch::run(!json, |_| {
            let (asked, status) = ask(context, name);
            if status == ExitCode::FAILURE && name.is_some() {
                return Err(status);
            }
            let mut frame = Zeroizing::new(Vec::new());
            let printed = print(&mut *frame, &asked, json.then_some(json::Layout::OneLine));
            Ok(printed.map(|()| frame))
        });
    }
    let (asked, status) = ask(context, name);
    let mut out = Out::new();
    let printed = print(&mut out, &asked, json.then_some(json::Layout::Lines));
    out.finish(printed, status)
}

fn print(out: &mut impl Write, asked: &[Asked], json: Option<json::Layout>) -> io::Result<()> {
    let now = now();
    match json {
        Some(layout) => json::print(out, asked, now, layout),
        None => text::print(out, asked, now),
    }
}

fn now() -> Wall {
    let now = clock::wall();
    Wall {
        secs: now.as_secs(),
        nanos: now.subsec_nanos(),
    }
}

/// Asks this interface, or all. Fails if one cannot be asked.
fn ask(context: &Context, name: Option<&str>) -> (Vec<Asked>, ExitCode) {
    let names = match name {
        Some(name) => vec![name.to_owned()],
        None => match context.interfaces.list() {
            Ok(names) => names,
            Err(error) => {
                let status = complain(format_args!("Unable to list interfaces: {error}"));
                return (Vec::new(), status);
            }
        },
    };
    // Where they are is told if it can be.
    let mut places = place::list().unwrap_or_default();
    let mut status = ExitCode::SUCCESS;
    let mut asked = Vec::new();
    for name in names {
        match context.interfaces.status(&name) {
            Ok((kind, status)) => {
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
            Err(error) => {
                status = complain(format_args!("Unable to access interface {name}: {error}"));
            }
        }
    }
    (asked, status)
}
