//! `down`: takes an interface down.
//!
//! ```text
//! PreDown ─► saved, if SaveConfig ─► DNS ─► rules ─► firewall ─► link ─► PostDown
//!    └ a signal here: undone                                      └ from here on nothing is undone
//! ```
//! A step that fails is reported, and the next one is done. At the end, the commands that remove what is
//! left are printed; the record keeps it too, so that a second `down` can try again.
//!
//! `down` removes what `up` recorded; from the file it needs only the hooks. An interface whose daemon
//! was killed has no link, but DNS, rules, firewall and routes must still be removed.

use std::process::ExitCode;

use wg_rs::place;
use wg_rs::sys::netlink::RouteFilter;
use wg_rs::sys::udp::Family;

use crate::file::{File, Location};
use crate::plan::beside::Beside;
use crate::plan::find::{self, find, not_there};
use crate::plan::hooks;
use crate::steps::console;
use crate::steps::dns::{self, DnsSettings};
use crate::steps::failure::Failure;
use crate::steps::firewall::Present;
use crate::steps::signals::Signals;
use crate::steps::state::State;
use crate::steps::step::Step;
use crate::steps::target::Target;
use crate::steps::transaction::{self, Transaction};
use crate::verbs::save::save_config;

/// Takes the interface of a file down, in whichever namespace it is. Errors in the file do not
/// prevent it.
pub fn down(location: &Location) -> ExitCode {
    transaction::to_end(&location.interface, |transaction| {
        let (file, errors) = location.read_leniently().map_err(Failure::new)?;
        let file = &file;
        for error in &errors {
            console::line(format_args!("Warning: {error}"));
        }
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
    let mut rest = Rest::default();
    for hook in &file.hooks.pre_down {
        let failed = transaction.attempt(hooks::step(file, "PreDown", hook))?;
        rest.failed(failed);
    }
    if file.save_config {
        let saved = match is_whole {
            true => save_config(transaction, file),
            false => Err(Failure::new(format_args!(
                "{}: not saved, because the file has errors",
                file.path.display()
            ))),
        };
        rest.go_on(saved);
    }
    let beside = match &transaction.state {
        Some(state) => recorded(&mut transaction.target, &transaction.signals, state),
        None => unrecorded(transaction, file).unwrap_or_else(|failure| {
            rest.go_on(Err(failure));
            Beside::default()
        }),
    };
    for step in beside.steps() {
        rest.remove(transaction, step)?;
    }
    rest.remove(transaction, Step::DeleteLink)?;
    if !rest.link {
        rest.remember(transaction);
        for hook in &file.hooks.post_down {
            let failed = transaction.attempt(hooks::step(file, "PostDown", hook))?;
            rest.failed(failed);
        }
    }
    rest.end(transaction)
}

/// The recorded changes of `up` that still exist; all of them, if that cannot be found out.
fn recorded(target: &mut Target, signals: &Signals, state: &State) -> Beside {
    Beside::recorded(target, signals, state).unwrap_or_else(|failure| {
        console::error(format_args!("{failure}; going on"));
        Beside::assumed(state)
    })
}

/// The changes that belong to the interface, if there is no record of `up`.
fn unrecorded(transaction: &mut Transaction, file: &File) -> Result<Beside, Failure> {
    let interface = transaction.target.get()?;
    let (target, signals) = (&mut transaction.target, &transaction.signals);
    Beside::of_interface(target, signals, file, &interface)
}

/// The failures, and the things that are left because of them.
#[derive(Debug, Default)]
struct Rest {
    /// The commands that remove what is left.
    commands: Vec<String>,
    /// Whether the link is left.
    link: bool,
    /// Whether anything but DNS settings is left.
    beside_dns: bool,
    /// The first failure, which determines the exit code.
    first: Option<Failure>,
}

impl Rest {
    /// Removes something; if that fails, it is left.
    ///
    /// # Errors
    /// A signal arrived.
    fn remove(&mut self, transaction: &mut Transaction, step: Step) -> Result<(), Failure> {
        let commands = step.commands(&transaction.target);
        // Like in wg-quick, a resolvconf that fails does not make `down` fail.
        let is_dns = matches!(step, Step::UnsetDns(_));
        let is_link = matches!(step, Step::DeleteLink);
        if let Some(failure) = transaction.attempt(step)? {
            self.commands.extend(commands);
            self.link |= is_link;
            self.beside_dns |= !is_dns;
            self.failed(Some(failure).filter(|_| !is_dns));
        }
        Ok(())
    }

    /// Keeps a failure that was printed already.
    fn failed(&mut self, failure: Option<Failure>) {
        self.first = self.first.take().or(failure);
    }

    /// Prints and keeps a failure.
    fn go_on(&mut self, result: Result<(), Failure>) {
        if let Err(failure) = result {
            console::error(format_args!("{failure}; going on"));
            self.failed(Some(failure));
        }
    }

    /// After the link was deleted: keeps the record if something is left, and removes it otherwise.
    fn remember(&self, transaction: &mut Transaction) {
        match &mut transaction.state {
            Some(state) if !self.commands.is_empty() => {
                state.is_after_hooks = true;
                transaction.save_state();
            }
            _ => transaction.forget(),
        }
    }

    /// Prints how to remove what is left. Nothing is undone from here on.
    ///
    /// # Errors
    /// Something failed; it was printed already.
    fn end(self, transaction: &mut Transaction) -> Result<(), Failure> {
        let name = &transaction.target.interface;
        if !self.commands.is_empty() {
            let again = format_args!("{} down {name}", console::program());
            console::note(format_args!(
                "Not everything of `{name}' could be removed. Try `{again}' again, or these commands:"
            ));
            for command in &self.commands {
                console::note(format_args!("  {command}"));
            }
        }
        transaction.keep();
        transaction.save_state();
        self.first.map_or(Ok(()), |failure| Err(failure.told()))
    }
}

/// What is left of an interface whose daemon was killed; `None` if there is nothing.
fn left(
    transaction: &mut Transaction,
    file: &File,
    socket_left: bool,
) -> Result<Option<Beside>, Failure> {
    let (target, signals) = (&mut transaction.target, &transaction.signals);
    if let Some(state) = &transaction.state {
        return Ok(Some(recorded(target, signals, state)));
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
        false => DnsSettings::new(&file.dns, target),
    };
    let knows_dns = |resolver: &DnsSettings| {
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
    let is_for_hooks = match transaction.state.clone() {
        // An earlier `up` or `down` has run the hooks, and then failed.
        Some(state) if state.is_after_hooks => {
            console::note(format_args!(
                "`{}' is down already; removing what is left of it.",
                file.interface
            ));
            false
        }
        state => {
            console::note(format_args!(
                "`{}' is gone, although `down' was not run; removing what it left.",
                file.interface
            ));
            match state {
                Some(state) => find::go_home(&mut transaction.target, &state)?,
                None => true,
            }
        }
    };
    let of_hooks = |hooks| if is_for_hooks { hooks } else { &[][..] };
    let mut rest = Rest::default();
    for hook in of_hooks(&file.hooks.pre_down) {
        let failed = transaction.attempt(hooks::step(file, "PreDown", hook))?;
        rest.failed(failed);
    }
    for step in beside.steps() {
        rest.remove(transaction, step)?;
        transaction.keep();
    }
    dns::remove_files(&file.interface);
    if rest.beside_dns {
        rest.remember(transaction);
    } else {
        // If resolvconf always fails, the record must not stay forever.
        transaction.forget();
    }
    for hook in of_hooks(&file.hooks.post_down) {
        let failed = transaction.attempt(hooks::step(file, "PostDown", hook))?;
        rest.failed(failed);
    }
    rest.end(transaction)
}
