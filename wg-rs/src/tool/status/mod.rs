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
use crate::model::Wall;

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

fn print(out: &mut impl Write, asked: &[Asked], json: Option<JsonLayout>) -> io::Result<()> {
    let now = Wall::now();
    match json {
        Some(layout) => json::print(out, asked, now, layout),
        None => text::print(out, asked, now),
    }
}
