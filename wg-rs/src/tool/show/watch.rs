//! `show --watch`: the interfaces with their transfer rates since the previous frame.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Instant;

use zeroize::Zeroizing;

use super::fetch::{Selection, fetch};
use super::json;
use super::pretty::Pretty;
use super::rates::Rates;
use super::terminal;
use crate::model::Interface;
use crate::tool::context::Context;
use crate::tool::json::JsonLayout;
use crate::tool::watch;

/// Runs `show --watch`.
pub(super) fn run(context: &Context, selection: &Selection, json: bool) -> ExitCode {
    let colour = terminal::colours();
    let mut last: Option<(Vec<(String, Interface)>, Instant)> = None;
    watch::run(!json, || {
        let (all, status) = fetch(context, selection);
        if let (ExitCode::FAILURE, Selection::One(_)) = (status, selection) {
            return Err(status);
        }
        let looked = Instant::now();
        let before = last.take();
        let rates = before.map(|(before, then)| Rates::since(&before, looked - then));
        let mut frame = Zeroizing::new(Vec::new());
        let composed = if json {
            json::print(&mut *frame, &all, JsonLayout::OneLine)
        } else {
            let mut pretty = Pretty::new(colour);
            pretty.rates = rates.as_ref();
            compose(&mut frame, &all, &pretty)
        };
        last = Some((all, looked));
        Ok(composed.map(|()| frame))
    })
}

fn compose(frame: &mut Vec<u8>, all: &[(String, Interface)], pretty: &Pretty) -> io::Result<()> {
    for (n, (name, interface)) in all.iter().enumerate() {
        if n != 0 {
            writeln!(frame)?;
        }
        pretty.print(frame, name, interface)?;
    }
    if all.is_empty() {
        writeln!(frame, "(no interfaces)")?;
    }
    Ok(())
}
