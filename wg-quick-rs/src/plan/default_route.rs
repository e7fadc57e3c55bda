//! The tunnel's default route, beside the default route that the host already has.
//!
//! ```text
//! the tunnel's own packets (they have its mark) ──────────────────────► main table, as before
//! all others ─► main table without its default routes ─► no match ────► the tunnel's own table
//! ```
//! The rule for all others, and the rule that suppresses default routes, have neighbouring priorities.
//! That tells the pairs of several tunnels apart.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use wg_rs::model::Change;
use wg_rs::sys::netlink::route::MAIN_TABLE;
use wg_rs::sys::netlink::{Netlink, Route, Rule};
use wg_rs::sys::udp::Family;

use crate::steps::failure::Failure;
use crate::steps::firewall::Firewall;
use crate::steps::lock::Lock;
use crate::steps::state::State;
use crate::steps::step::Step;
use crate::steps::target::{Target, family};
use crate::steps::transaction::Transaction;

/// The first number that is tried for the table and the mark.
pub const FIRST_TABLE: u32 = 51820;
const VALID_MARK: &str = "net.ipv4.conf.all.src_valid_mark";

/// The rule for all packets but the tunnel's own.
pub fn not_ours(family: Family, mark: u32) -> Rule {
    Rule {
        fwmark: Some(mark),
        not: true,
        ..Rule::new(family, mark)
    }
}

/// The rule for the main table without its default routes.
pub fn no_default(family: Family) -> Rule {
    Rule {
        suppress_prefix_length: Some(0),
        ..Rule::new(family, MAIN_TABLE)
    }
}

/// The default route of a family in a table.
pub fn default_route(family: Family, table: u32, link: u32) -> Route {
    let any: IpAddr = match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    Route {
        table,
        ..Route::new((any, 0), link)
    }
}

/// The route that packets find in a table when the default route is gone because the daemon was killed:
/// so none of them is sent unencrypted.
pub fn unreachable(of: Family, table: u32) -> Route {
    let any = default_route(of, table, 0).to;
    Route {
        table,
        metric: Some(u32::MAX),
        ..Route::unreachable(any)
    }
}

/// Adds the default route of a family, with its rules and firewall. Returns the tunnel's mark, or 0 if
/// it needs none.
///
/// # Errors
/// A step failed.
pub fn add(transaction: &mut Transaction, family: Family) -> Result<u32, Failure> {
    if transaction.target.elsewhere.is_some() {
        // The tunnel's own packets leave from another namespace: they need no rules.
        let link = transaction.target.link()?;
        transaction.run(Step::AddRoute(default_route(family, MAIN_TABLE, link)))?;
        return Ok(0);
    }
    let mark = {
        // Once the route is there, the table is no longer free, and the lock no longer needed.
        let _lock = Lock::of_tables(&transaction.signals)?;
        let mark = mark(transaction)?;
        add_rules(transaction, family, mark)?;
        add_route(transaction, family, mark)?;
        mark
    };
    let firewall = firewall(&mut transaction.target, family, mark)?;
    transaction.run(Step::AddFirewall(firewall))?;
    Ok(mark)
}

/// Adds the rules of a default route.
///
/// # Errors
/// A step failed.
pub fn add_rules(transaction: &mut Transaction, family: Family, mark: u32) -> Result<(), Failure> {
    let (full, over) = (not_ours(family, mark), no_default(family));
    // The kernel puts a new rule before all others. But if there is a rule of priority 1, it puts the
    // new one after those of priority 0: the second rule would come after the first and do nothing.
    let is_first = |rule: &Rule| is(rule, full) && rule.priority == Some(0);
    transaction.run(Step::AddRule(full))?;
    let there = transaction.target.home.rules(family)?;
    if let Some(added) = there.iter().find(|rule| is_first(rule)) {
        transaction.run(Step::DeleteRule(*added))?;
        transaction.run(Step::AddRule(over))?;
        return transaction.run(Step::AddRule(full));
    }
    transaction.run(Step::AddRule(over))
}

/// Whether two rules are the same but for their priority.
fn is(rule: &Rule, other: Rule) -> bool {
    Rule {
        priority: None,
        ..*rule
    } == other
}

/// Adds the default route itself, in the table that has the number of the mark.
///
/// # Errors
/// A step failed.
pub fn add_route(transaction: &mut Transaction, family: Family, mark: u32) -> Result<(), Failure> {
    let link = transaction.target.link()?;
    transaction.run(Step::AddRoute(default_route(family, mark, link)))?;
    let unreachable = unreachable(family, mark);
    let there = transaction.target.home.unreachable_routes(family, mark)?;
    if !there.contains(&unreachable) {
        transaction.run(Step::AddRoute(unreachable))?;
    } else if let (Some(state), Some(before)) = (&mut transaction.state, &transaction.state_before)
        && before.routes.contains(&unreachable)
    {
        state.routes.push(unreachable);
    }
    if family == Family::V4 {
        let path = format!("/proc/sys/{}", VALID_MARK.replace('.', "/"));
        let before = std::fs::read_to_string(path).unwrap_or_default();
        if before.trim() != "1" {
            // `down` does not reset it: another tunnel may need it by then.
            transaction.run(Step::Sysctl(VALID_MARK.into(), "1".into(), None))?;
        }
    }
    Ok(())
}

/// The firewall for the addresses that the interface has now.
///
/// # Errors
/// There is no link.
pub fn firewall(target: &mut Target, of: Family, mark: u32) -> Result<Firewall, Failure> {
    let mut addresses: Vec<IpAddr> = target.addresses()?.iter().map(|one| one.ip).collect();
    addresses.retain(|ip| family(*ip) == of);
    Ok(Firewall {
        interface: target.interface.clone(),
        family: of,
        addresses,
        mark,
    })
}

/// The mark of the tunnel's packets, which is also the number of its table: the current one, or a new
/// one whose table is free.
fn mark(transaction: &mut Transaction) -> Result<u32, Failure> {
    let mark = transaction.target.get()?.fwmark;
    if mark != 0 {
        return Ok(mark);
    }
    let table = free_table(&mut transaction.target)?;
    transaction.run(Step::Set {
        changes: vec![Change::FwMark(table)],
        undo: vec![Change::FwMark(0)],
    })?;
    if let Some(state) = &mut transaction.state {
        state.chosen_mark = Some(table);
    }
    Ok(table)
}

/// The first table without routes.
///
/// # Errors
/// An error of the kernel.
pub fn free_table(target: &mut Target) -> Result<u32, Failure> {
    let mut table = FIRST_TABLE;
    while !target.home.is_table_empty(table)? {
        table += 1;
    }
    Ok(table)
}

/// The rules that belong to a mark: each rule for all other packets, with the rule right before it that
/// suppresses default routes. With `recorded`, only rules of that record.
///
/// # Errors
/// An error of the kernel.
pub fn rules(
    netlink: &mut Netlink,
    family: Family,
    mark: u32,
    recorded: Option<&State>,
) -> Result<Vec<Rule>, Failure> {
    match netlink.rules(family) {
        Ok(mut rules) => {
            if let Some(state) = recorded {
                rules.retain(|rule| state.rules.contains(rule));
            }
            Ok(of_mark(&rules, mark))
        }
        Err(error) if error.is_family_unknown() => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

fn of_mark(rules: &[Rule], mark: u32) -> Vec<Rule> {
    let is_full = |rule: &Rule| {
        rule.fwmark
            .is_some_and(|mark| is(rule, not_ours(rule.family, mark)))
    };
    let passes_over = |rule: &Rule| is(rule, no_default(rule.family));
    let mut left = rules.to_vec();
    let mut found = Vec::new();
    while let Some(at) = left
        .iter()
        .position(|rule| is_full(rule) && rule.fwmark == Some(mark))
    {
        let full = left.remove(at);
        // If other rules stand between the two, the nearest suppressing rule before is taken, as long as
        // there are more of them than other tunnels need.
        let mut before = left[..at].iter().rposition(passes_over);
        let touches = before.is_some_and(|i| {
            let priority = left[i].priority;
            priority == full.priority || priority.map(|p| p + 1) == full.priority
        });
        let is_behind = |rule: &Rule| passes_over(rule) && rule.priority == full.priority;
        if !touches && left.get(at).is_some_and(is_behind) {
            // wg-quick adds them in this order if there was a rule of priority 1.
            found.push(left.remove(at));
            found.push(full);
            continue;
        }
        let needed = left.iter().filter(|rule| is_full(rule)).count();
        if !touches {
            let there = left.iter().filter(|rule| passes_over(rule)).count();
            before = before.filter(|_| there > needed);
        }
        found.extend(before.map(|i| left.remove(i)));
        found.push(full);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(priority: u32, rule: Rule) -> Rule {
        Rule {
            priority: Some(priority),
            ..rule
        }
    }

    #[test]
    fn each_tunnel_has_its_own_pair() {
        let main = at(32766, Rule::new(Family::V4, MAIN_TABLE));
        let (one, two) = (not_ours(Family::V4, 1), not_ours(Family::V4, 2));
        let over = no_default(Family::V4);
        let rules = [at(10, over), at(11, two), at(20, over), at(21, one), main];
        assert_eq!(of_mark(&rules, 1), [at(20, over), at(21, one)]);
        assert_eq!(of_mark(&rules, 2), [at(10, over), at(11, two)]);
        assert_eq!(of_mark(&rules, 3), []);
    }

    #[test]
    fn two_rules_of_one_priority_are_a_pair() {
        let (one, two) = (not_ours(Family::V4, 1), not_ours(Family::V4, 2));
        let over = no_default(Family::V4);
        let rules = [at(0, one), at(0, over), at(10, over), at(11, two)];
        assert_eq!(of_mark(&rules, 1), [at(0, over), at(0, one)]);
        let rules = [at(0, over), at(0, one), at(10, over), at(11, two)];
        assert_eq!(of_mark(&rules, 1), [at(0, over), at(0, one)]);
    }

    #[test]
    fn rules_that_stand_apart_are_paired_if_there_are_enough() {
        let (one, two) = (not_ours(Family::V4, 1), not_ours(Family::V4, 2));
        let over = no_default(Family::V4);
        // One suppressing rule for two tunnels: it stays for the other tunnel.
        let rules = [at(10, over), at(15, two), at(21, one)];
        assert_eq!(of_mark(&rules, 1), [at(21, one)]);
        // One suppressing rule for one tunnel.
        let rules = [at(10, over), at(21, one)];
        assert_eq!(of_mark(&rules, 1), [at(10, over), at(21, one)]);
    }
}
