//! Finds the interface of a file: the one that `up` created from this namespace, in whichever namespace
//! it is now.
//!
//! ```text
//! a record of `up`? ─► the link with the recorded index, or the recorded key
//!     └ no ─► the link of this name here, unless it was created from another namespace
//!               └ none ─► a link in another namespace, created here, with the file's key
//! ```
//! Another namespace may have an interface of the same name, and may share /run with this one. That
//! interface is refused, as it does not belong to this file.

use std::process::ExitCode;

use wg_rs::backend::{Backends, Kind};
use wg_rs::model::Interface;
use wg_rs::place::{self, Namespace};
use wg_rs::sys::netns::NetNs;

use crate::file::{File, Location};
use crate::steps::console;
use crate::steps::failure::Failure;
use crate::steps::state::{self, Home, State};
use crate::steps::target::{Target, within};
use crate::steps::transaction::{self, Transaction};

/// The error if there is no such interface.
pub fn not_there(file: &File) -> Failure {
    Failure::new(format_args!(
        "`{}' is not a WireGuard interface",
        file.interface
    ))
}

/// Runs `work` on the interface of a file, which must be there.
pub fn with_found(
    location: &Location,
    work: impl FnOnce(&mut Transaction, &File) -> Result<(), Failure>,
) -> ExitCode {
    transaction::with_file(location, |transaction, file| {
        if !find(transaction, file)? {
            return Err(not_there(file));
        }
        work(transaction, file)
    })
}

/// Finds the interface of a file and the record of it. Returns false if there is no interface; the
/// transaction has the record in either case.
///
/// # Errors
/// The interface does not belong to the file, or it exists but cannot be reached.
pub fn find(transaction: &mut Transaction, file: &File) -> Result<bool, Failure> {
    let name = &file.interface;
    let state = State::load(name).unwrap_or_else(|error| {
        console::note(format_args!(
            "The record of what `up' did to `{name}' cannot be read: {error}."
        ));
        None
    });
    let Some(state) = state else {
        return find_unrecorded(&mut transaction.target, file);
    };
    let found = find_recorded(&mut transaction.target, &state)?;
    if found || !find_unrecorded(&mut transaction.target, file)? {
        transaction.state = Some(state);
        return Ok(found);
    }
    // Somebody moved the interface, or created it again.
    if key_here(&transaction.target, name) == state.public_key {
        transaction.state = Some(state);
    } else {
        console::note(format_args!(
            "`{name}' is not the interface that `up' created; the other changes of that `up' are left as they are."
        ));
    }
    Ok(true)
}

/// Makes the recorded namespace of the interface the target's. Returns false if that namespace is gone.
///
/// # Errors
/// An error of the system.
pub fn go_home(target: &mut Target, state: &State) -> Result<bool, Failure> {
    let Some(home) = &state.home else {
        return Ok(true);
    };
    let Some((namespace, netns)) = enter(home)? else {
        return Ok(false);
    };
    target.move_home(namespace, netns)?;
    Ok(true)
}

/// Makes the recorded namespace the target's, if the recorded interface is still there. Returns whether
/// it is.
///
/// # Errors
/// An error of the system.
pub fn find_recorded(target: &mut Target, state: &State) -> Result<bool, Failure> {
    if !go_home(target, state)? {
        return Ok(false);
    }
    let is_it = match target.home.link(state.interface.as_str()) {
        Ok(link) => link.index == state.link,
        Err(error) if error.is_absent() => false,
        Err(error) => return Err(error.into()),
    };
    if !is_it && state.home.is_some() {
        target.return_home()?;
    }
    Ok(is_it)
}

/// Opens the recorded namespace; `None` if it is gone, or its name belongs to another namespace by now.
///
/// # Errors
/// It exists, but cannot be entered.
fn enter(home: &Home) -> Result<Option<(Namespace, NetNs)>, Failure> {
    let namespace = home.namespace.parse::<Namespace>();
    let opened = namespace.and_then(|namespace| Ok((namespace.open()?, namespace)));
    let Ok((netns, namespace)) = opened else {
        return Ok(None);
    };
    let inode = within(&namespace, &netns, state::namespace)??;
    Ok((inode == home.inode).then_some((namespace, netns)))
}

fn find_unrecorded(target: &mut Target, file: &File) -> Result<bool, Failure> {
    let name = &file.interface;
    match Backends::new().kind(name)? {
        Some(Kind::Kernel) => {
            let link = target.birth.link(name.as_str())?.index;
            let here = state::namespace()?;
            match State::of_others(name)
                .iter()
                .any(|other| other.is_at(here, link))
            {
                true => Err(strangers(name)),
                false => Ok(true),
            }
        }
        Some(Kind::Userspace) => match place::born_here(name) {
            Some(true) if place::lives_here(name) => Ok(true),
            Some(true) => find_elsewhere(target, file, Kind::Userspace),
            Some(false) => Err(strangers(name)),
            // The daemon's process is hidden. A link of this name here is most likely the daemon's.
            None if target.birth.link(name.as_str()).is_ok() => Ok(true),
            // A daemon that has just ended has no process either.
            None if Backends::new().kind(name)?.is_none() => {
                find_elsewhere(target, file, Kind::Kernel)
            }
            None => Err(Failure::new(format_args!(
                "the network interface of `{name}' cannot be found"
            ))),
        },
        None => find_elsewhere(target, file, Kind::Kernel),
    }
}

/// Looks in other namespaces for the interface with the file's key, unless another `up` created it.
fn find_elsewhere(target: &mut Target, file: &File, kind: Kind) -> Result<bool, Failure> {
    let name = &file.interface;
    let others = State::of_others(name);
    let mut namespaces = Vec::new();
    for listed in place::list_without_containers().map_err(Failure::new)? {
        if listed.name != *name || listed.backend != kind {
            continue;
        }
        let Some(namespace) = listed.lives_in else {
            continue;
        };
        namespaces.push(namespace.to_string());
        let Ok(netns) = namespace.open() else {
            continue;
        };
        if key_in(&netns, name) != file_key(file) || file_key(file).is_none() {
            continue;
        }
        let inode = within(&namespace, &netns, state::namespace)??;
        if others
            .iter()
            .any(|other| other.birth == inode || other.is_in(inode))
        {
            continue;
        }
        target.move_home(namespace, netns)?;
        return Ok(true);
    }
    if !namespaces.is_empty() {
        console::note(format_args!(
            "The interface `{name}' in {} does not belong to this file.",
            namespaces.join(", ")
        ));
    }
    Ok(false)
}

fn strangers(name: &str) -> Failure {
    let all = place::list().unwrap_or_default();
    let listed = all.into_iter().find(|listed| listed.name == *name);
    let born = listed.as_ref().and_then(|listed| listed.born_in.clone());
    let lives = listed.and_then(|listed| listed.lives_in);
    let text = |verb: &str, namespace: Option<Namespace>| {
        namespace.map_or(String::new(), |namespace| {
            format!("; it {verb} {namespace}")
        })
    };
    Failure::new(format_args!(
        "`{name}' was brought up from another network namespace, and can be changed only from there{}{}",
        text("was created in", born),
        text("lives in", lives),
    ))
}

fn file_key(file: &File) -> Option<String> {
    let key = file.settings.private_key.as_deref()?;
    Some(key.public_key().to_base64())
}

fn key_in(netns: &NetNs, name: &str) -> Option<String> {
    key(&netns.run(|| Backends::new().get(name)).ok()?.ok()?)
}

fn key_here(target: &Target, name: &str) -> Option<String> {
    let got = target.at_home(|| Backends::new().get(name));
    key(&got.ok()?.ok()?)
}

fn key(interface: &Interface) -> Option<String> {
    let key = interface.private_key.as_ref()?;
    Some(key.public_key().to_base64())
}
