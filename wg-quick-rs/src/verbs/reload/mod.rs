//! `reload`: applies a changed file to a running interface, step by step; after a failure the steps are
//! undone. What has not changed is not touched, and hooks are not run.
//!
//! ```text
//! new peers and networks ─► MTU ─► new addresses, routes, rules, firewalls ─► DNS
//!   ─► old addresses, routes, rules, firewalls ─► old networks and peers
//! ```
//! So a packet that may pass before and after the reload may also pass at every moment in between.

mod addresses;
mod defaults;
mod goal;
mod others;
mod routes;

use std::process::ExitCode;

use wg_rs::model::{Change, Interface};

use self::addresses::Addresses;
use self::defaults::{Defaults, default_families, has_default};
use self::goal::wanted_interface;
use self::others::{BY_A_HOOK, left};
use self::routes::RouteChanges;
use crate::file::difference::{Difference, moved_out, too_many};
use crate::file::table::Table;
use crate::file::{File, Location, hook_text};
use crate::plan::find::with_found;
use crate::plan::ipv6::Ipv6;
use crate::plan::{default_route, mtu};
use crate::steps::dns::DnsSettings;
use crate::steps::failure::Failure;
use crate::steps::state::{PeerOfFile, State};
use crate::steps::step::Step;
use crate::steps::transaction::Transaction;

/// Applies a file to its running interface.
pub fn reload(location: &Location) -> ExitCode {
    with_found(location, bring_to_file)
}

/// What [`reload`] does, of an interface that was found.
///
/// # Errors
/// A step failed, or a signal came.
pub fn bring_to_file(transaction: &mut Transaction, file: &File) -> Result<(), Failure> {
    let before = transaction.target.get_extended()?;
    let known = transaction.state.clone();
    let known = known.as_ref();
    transaction.waits_for_names(true);
    let mut after = wanted_interface(&transaction.signals, file, &before, known)?;
    transaction.waits_for_names(false);
    let mut defaults = Defaults::now(
        &mut transaction.target,
        &transaction.signals,
        known,
        file.table,
        &before,
    )?;
    let stays = file.table == Table::Auto && has_default(&after);
    if file.settings.fwmark.is_none() {
        let is_ours = match known {
            Some(state) => state.chosen_mark.is_some() || state.mark_of_file.is_some(),
            None => !hook_text::set_mark(file),
        };
        let chosen = known.and_then(|state| state.chosen_mark);
        if !is_ours {
            if before.fwmark != 0 {
                left("the mark of its packets", "");
            }
        } else if !stays {
            after.fwmark = 0;
        } else if let Some(chosen) = chosen {
            after.fwmark = chosen;
        } else if before.fwmark < default_route::FIRST_TABLE && before.fwmark != 0 {
            // `up` does not choose such a mark, so it was in the file before.
            after.fwmark = default_route::free_table(&mut transaction.target)?;
        }
    }
    // Somebody may have reset the mark, while the rules still have it.
    let ruled = defaults.firewalls.first().map(|firewall| firewall.mark);
    let marks = (ruled.unwrap_or(before.fwmark), after.fwmark);
    let moves = !defaults.firewalls.is_empty() && marks.0 != marks.1 && marks.1 != 0;
    let mut goal = after.clone();
    if moves {
        // The mark changes later, together with its rules.
        goal.fwmark = before.fwmark;
    }
    let Difference { more, less } = Difference::new(&before, &goal);
    let back = Difference::new(&goal, &before);
    let back = [back.more, back.less].concat();

    set(transaction, more, back.clone())?;
    set_mtu(transaction, file)?;
    let ipv6 = Ipv6::of(&transaction.target, file)?;
    ipv6.warn(&transaction.target, file)?;
    let addresses = Addresses::new(transaction.target.addresses()?, file, ipv6, known);
    addresses.add(transaction, file)?;
    if moves {
        defaults.change_mark(
            transaction,
            marks,
            &default_families(file.table, &after, ipv6),
        )?;
    }
    let routes = RouteChanges::new(transaction, file, (&before, &after), &addresses, &defaults)?;
    routes.add(transaction, file, &mut defaults)?;
    set_dns(transaction, file)?;
    addresses.delete(transaction)?;
    routes.delete(transaction)?;
    defaults.settle(transaction, &routes.defaults)?;
    set(transaction, less, back.clone())?;
    // A daemon that cannot remove a single network may not report that.
    let now = transaction.target.get()?;
    set(transaction, moved_out(too_many(&now, &after)), back)?;
    record(transaction, file, &after)
}

/// Records what the file says now.
fn record(transaction: &mut Transaction, file: &File, after: &Interface) -> Result<(), Failure> {
    let mark = match transaction
        .state
        .as_ref()
        .map(|state| state.firewalls.first())
    {
        Some(Some(firewall)) => Some(firewall.mark),
        _ => None,
    };
    let Some(state) = &mut transaction.state else {
        return Ok(());
    };
    let key = after.private_key.as_ref();
    state.public_key = key.map(|key| key.public_key().to_base64());
    state.peers = PeerOfFile::all(&file.settings);
    state.mark_of_file = file.settings.fwmark;
    state.chosen_mark = mark.filter(|_| file.settings.fwmark.is_none());
    if !matches!(file.settings.listen_port, None | Some(0)) {
        state.chosen_port = None;
    }
    Ok(())
}

fn set(
    transaction: &mut Transaction,
    changes: Vec<Change>,
    undo: Vec<Change>,
) -> Result<(), Failure> {
    if changes.is_empty() {
        return Ok(());
    }
    transaction.run(Step::Set { changes, undo })
}

fn set_mtu(transaction: &mut Transaction, file: &File) -> Result<(), Failure> {
    let link = transaction.target.home.link(&file.interface)?;
    let own = transaction.target.elsewhere.is_none().then_some(link.index);
    let wanted = match &file.mtu {
        Some(mtu) => mtu.value,
        None if is_mtu_others(transaction.state.as_ref(), file, link.mtu) => {
            left(format_args!("MTU {}", link.mtu), BY_A_HOOK);
            link.mtu
        }
        None => {
            let interface = transaction.target.get()?;
            mtu::of_way(&mut transaction.target.birth, &interface, own)
        }
    };
    if link.mtu == wanted && link.up {
        return Ok(());
    }
    transaction.run(Step::Up {
        mtu: wanted,
        before: link.mtu,
    })
}

fn is_mtu_others(known: Option<&State>, file: &File, mtu: u32) -> bool {
    match known {
        Some(state) => state.mtu.is_some_and(|set| set != mtu),
        None => hook_text::set_mtu(file),
    }
}

fn set_dns(transaction: &mut Transaction, file: &File) -> Result<(), Failure> {
    let is_told = transaction.state.as_ref().map(|state| state.dns.is_some());
    if file.dns.is_empty() && is_told == Some(false) {
        return Ok(());
    }
    // The settings are changed in the place where `up` made them.
    let told = transaction
        .state
        .as_ref()
        .and_then(|state| state.dns.as_ref());
    let wanted = match told {
        Some(told) => told.with(file.dns.clone()),
        None => match DnsSettings::new(&file.dns, &transaction.target) {
            Some(resolver) => resolver,
            None => return Ok(()),
        },
    };
    let is_covered = told == Some(&wanted) && wanted.is_covered(&transaction.target);
    let current = wanted.current(&transaction.target, &transaction.signals);
    if is_covered || current.as_ref() == Some(&file.dns) {
        return Ok(());
    }
    // An empty record counts as none, and is not restored if the step is undone.
    let old = current
        .filter(|dns| !dns.is_empty())
        .map(|dns| wanted.with(dns));
    match old {
        Some(old) if file.dns.is_empty() => transaction.run(Step::UnsetDns(old)),
        Some(old) => transaction.run(Step::ChangeDns { old, new: wanted }),
        None if file.dns.is_empty() => Ok(()),
        None => transaction.run(Step::SetDns(wanted)),
    }
}
