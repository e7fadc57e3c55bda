//! `status`: whether interfaces and their peers are connected, and why not.

mod age;
mod asked;
mod hubs;
mod json;
mod reason;
mod text;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use zeroize::Zeroizing;

use self::asked::{Asked, ask};
use super::context::Context;
use super::json::JsonLayout;
use super::out::Out;
use super::watch;
#[cfg(feature = "stack")]
use crate::backend::Kind;
use crate::model::Wall;
#[cfg(feature = "stack")]
use crate::model::status::{PeerStatus, Status};

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
        return watch::run(!json, || {
            let (asked, status) = ask(context, name);
            if status == ExitCode::FAILURE && name.is_some() {
                return Err(status);
            }
            let mut frame = Zeroizing::new(Vec::new());
            let printed = print(&mut *frame, &asked, json.then_some(JsonLayout::OneLine));
            Ok(printed.map(|()| frame))
        });
    }
    let (asked, status) = ask(context, name);
    let mut out = Out::new();
    let printed = print(&mut out, &asked, json.then_some(JsonLayout::Lines));
    out.finish(printed, status)
}

/// Writes the status of a tunnel in this process, which has this name.
#[cfg(feature = "stack")]
pub(super) fn print_own(out: &mut impl Write, name: &str, status: Status) -> io::Result<()> {
    let own = Asked {
        name: name.to_owned(),
        kind: Kind::Userspace,
        place: None,
        status,
    };
    text::print(out, &[own], Wall::now())
}

/// Returns why a peer does not answer.
#[cfg(feature = "stack")]
pub(super) fn why(status: &Status, peer: &PeerStatus) -> String {
    let text = reason::reason(status, peer, Wall::now()).text;
    let cause = text.strip_prefix("not connected: ");
    cause.map_or_else(|| text.clone(), str::to_owned)
}

fn print(out: &mut impl Write, asked: &[Asked], json: Option<JsonLayout>) -> io::Result<()> {
    let now = Wall::now();
    match json {
        Some(layout) => json::print(out, asked, now, layout),
        None => text::print(out, asked, now),
    }
}
