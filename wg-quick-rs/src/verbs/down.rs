//! `down`: takes an interface down, or changes nothing.
//!
//! ```text
//! PreDown ─► saved, if SaveConfig ─► DNS ─► rules ─► firewall ─► link ─► PostDown
//!                                                                 └ from here on nothing is undone
//! ```
//! `down` removes what `up` recorded; from the file it needs only the hooks. An interface whose daemon
//! was killed has no link, but DNS, rules, firewall and routes must still be removed.

use std::process::ExitCode;

use wg_rs::place;
use wg_rs::sys::netlink::RouteFilter;
use wg_rs::sys::udp::Family;

use crate::file::{Error, File};
use crate::plan::beside::Beside;
use crate::plan::find::{self, find, not_there};
use crate::plan::hooks;
use crate::steps::console;
use crate::steps::dns::{self, Resolver};
use crate::steps::failure::Failure;
use crate::steps::firewall::Present;
use crate::steps::step::Step;
use crate::steps::target::Target;
use crate::steps::transaction::{self, Transaction};
use crate::verbs::save::save_config;

/// Takes the interface of a file down, in whichever namespace it is. `errors` are the errors in the
/// file; they do not prevent it.
pub fn down(file: &File, errors: &[Error]) -> ExitCode {
    for error in errors {
        console::line(format_args!("Warning: {error}"));
    }
    transaction::to_end(&file.interface, |transaction| {
        // Looking for the interface removes a socket without a daemon, so this comes first.
        let left = place::socket(&file.interface).exists();
        if find(transaction, file)? {
            take_down(transaction, file, errors.is_empty())
        } else {
            clean_up(transaction, file, left)
        }
    })
}

fn take_down(transaction: &mut Transaction, file: &File, is_whole: bool) -> Result<(), Failure> {
    hooks::run(transaction, file, "PreDown", &file.hooks.pre_down)?;
    let mut saved = Ok(());
    if file.save_config && is_whole {
        save_config(transaction, file)?;
    } else if file.save_config {
        saved = Err(Failure::new(format_args!(
            "{}: not saved, because the file has errors",
            file.path.display()
        )));
    }
    let beside = match &transaction.state {
        Some(state) => Beside::recorded(&mut transaction.target, &transaction.signals, state)?,
        None => {
            let interface = transaction.target.get()?;
            Beside::of_interface(
                &mut transaction.target,
                &transaction.signals,
                file,
                &interface,
            )?
        }
    };
    for step in beside.steps() {
        match step {
            // Like in wg-quick, a resolvconf that fails does not prevent `down`.
            Step::UnsetDns(_) => transaction.attempt(step)?,
            step => transaction.run(step)?,
        }
    }
    transaction.run(Step::DeleteLink)?;
    transaction.forget();
    hooks::run(transaction, file, "PostDown", &file.hooks.post_down)?;
    saved
}

/// What is left of an interface whose daemon was killed; `None` if there is nothing.
fn left(
    transaction: &mut Transaction,
    file: &File,
    socket_left: bool,
) -> Result<Option<Beside>, Failure> {
    let (target, signals) = (&mut transaction.target, &transaction.signals);
    if let Some(state) = &transaction.state {
        return Beside::recorded(target, signals, state).map(Some);
    }
    let firewall = Present::look(target, signals);
    let marks = [firewall.mark(target, signals), file.settings.fwmark];
    let mut beside = Beside::default();
    for mark in marks.into_iter().flatten().filter(|mark| *mark != 0) {
        // If the table has a route, the mark is another interface's.
        if beside.rules.is_empty() && !leads_somewhere(target, mark)? {
            beside = Beside::of_mark(target, mark)?;
        }
    }
    beside.firewall = firewall;
    beside.resolver = match file.dns.is_empty() {
        true => None,
        false => Resolver::new(&file.dns, target),
    };
    let knows_dns = |resolver: &Resolver| {
        let current = resolver.current(target, signals);
        current.is_some_and(|dns| !dns.is_empty())
    };
    // The socket may be gone, as any command that looks for the interface removes it.
    let is_left = socket_left
        || !beside.firewall.is_empty()
        || !beside.rules.is_empty()
        || !dns::files(&file.interface).is_empty()
        || beside.resolver.as_ref().is_some_and(knows_dns);
    Ok(is_left.then_some(beside))
}

/// Whether a table has routes.
fn leads_somewhere(target: &mut Target, table: u32) -> Result<bool, Failure> {
    for family in [Family::V4, Family::V6] {
        if !target
            .home
            .routes_of(family, RouteFilter::Table(table))?
            .is_empty()
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Removes what is left of an interface whose daemon was killed. It goes on after a failure.
fn clean_up(transaction: &mut Transaction, file: &File, socket_left: bool) -> Result<(), Failure> {
    let Some(beside) = left(transaction, file, socket_left)? else {
        // The `up` that was ended has undone its changes.
        return match transaction.ended_other() {
            true => Ok(()),
            false => Err(not_there(file)),
        };
    };
    console::note(format_args!(
        "The daemon of `{}' was killed; removing what it left.",
        file.interface
    ));
    let is_for_hooks = match transaction.state.clone() {
        // A later `up` has run the hooks, and then failed.
        Some(state) if state.is_after_hooks => false,
        Some(state) => find::go_home(&mut transaction.target, &state)?,
        None => true,
    };
    let of_hooks = |hooks| if is_for_hooks { hooks } else { &[][..] };
    let mut first = Ok(());
    let mut attempt = |transaction: &mut Transaction, result: Result<(), Failure>| {
        transaction.keep();
        // The first failure is printed at the end, as the command's error.
        match result {
            Err(failure) if first.is_err() => console::error(failure),
            Err(failure) => first = Err(failure),
            Ok(()) => {}
        }
    };
    for hook in of_hooks(&file.hooks.pre_down) {
        let result = hooks::run(transaction, file, "PreDown", std::slice::from_ref(hook));
        attempt(transaction, result);
    }
    for step in beside.steps() {
        let result = transaction.run(step);
        attempt(transaction, result);
    }
    dns::remove_files(&file.interface);
    transaction.forget();
    for hook in of_hooks(&file.hooks.post_down) {
        let result = hooks::run(transaction, file, "PostDown", std::slice::from_ref(hook));
        attempt(transaction, result);
    }
    first
}
