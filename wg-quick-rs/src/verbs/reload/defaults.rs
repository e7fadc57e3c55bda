//! The default routes of a running interface, with their rules and firewalls.

use wg_rs::model::{Change, Interface};
use wg_rs::sys::netlink::Rule;
use wg_rs::sys::netlink::route::MAIN_TABLE;
use wg_rs::sys::udp::Family;

use crate::file::table::Table;
use crate::plan::default_route;
use crate::plan::ipv6::Ipv6;
use crate::steps::failure::Failure;
use crate::steps::firewall::{Firewall, Present};
use crate::steps::signals::Signals;
use crate::steps::state::State;
use crate::steps::step::Step;
use crate::steps::target::{Target, family};
use crate::steps::transaction::Transaction;

/// Both families.
pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// The default routes that have rules. Each is represented by its firewall.
pub struct Defaults {
    /// At most one for each family.
    pub firewalls: Vec<Firewall>,
}

impl Defaults {
    /// Those of a running interface. Without a record they are found by their rules if `Table` is auto;
    /// otherwise the rules may be a hook's, so a firewall must be there too.
    ///
    /// # Errors
    /// An error of the kernel.
    pub fn now(
        target: &mut Target,
        signals: &Signals,
        known: Option<&State>,
        table: Table,
        interface: &Interface,
    ) -> Result<Self, Failure> {
        let mut firewalls = Vec::new();
        if let Some(state) = known {
            let of = |family| move |one: &&Firewall| one.family == family;
            let in_order = FAMILIES.map(|family| state.firewalls.iter().find(of(family)));
            for firewall in in_order.into_iter().flatten() {
                let (family, mark) = (firewall.family, firewall.mark);
                if !default_route::rules(&mut target.home, family, mark, known)?.is_empty() {
                    firewalls.push(firewall.clone());
                }
            }
            return Ok(Defaults { firewalls });
        }
        let mark = interface.fwmark;
        if target.elsewhere.is_none() && mark != 0 && has_default(interface) {
            let families = match table {
                Table::Auto => FAMILIES.to_vec(),
                _ => Present::look(target, signals).families(),
            };
            for family in families {
                if !default_route::rules(&mut target.home, family, mark, None)?.is_empty() {
                    firewalls.push(default_route::firewall(target, family, mark)?);
                }
            }
        }
        Ok(Defaults { firewalls })
    }

    /// Whether there is a default route of this family with this mark.
    pub fn has(&self, family: Family, mark: u32) -> bool {
        let mut firewalls = self.firewalls.iter();
        firewalls.any(|firewall| firewall.family == family && firewall.mark == mark)
    }

    /// Adds a default route with its rules and firewall.
    ///
    /// # Errors
    /// A step failed, or a signal arrived.
    pub fn add(&mut self, transaction: &mut Transaction, family: Family) -> Result<(), Failure> {
        let mark = default_route::add(transaction, family)?;
        let new = default_route::firewall(&mut transaction.target, family, mark)?;
        self.firewalls.push(new);
        Ok(())
    }

    /// Changes the mark. Meanwhile the rules for both marks are in place, and before them two temporary
    /// rules that keep packets with either mark out of the tunnel.
    ///
    /// # Errors
    /// A step failed, or a signal arrived.
    pub fn change_mark(
        &mut self,
        transaction: &mut Transaction,
        (old, new): (u32, u32),
        families: &[Family],
    ) -> Result<(), Failure> {
        let passing = FAMILIES.map(|family| {
            [old, new].map(|mark| Rule {
                fwmark: Some(mark),
                ..Rule::new(family, MAIN_TABLE)
            })
        });
        let had: Vec<Family> = self.firewalls.iter().map(|one| one.family).collect();
        let passing: Vec<Rule> = passing
            .into_iter()
            .flatten()
            .filter(|rule| had.contains(&rule.family) || families.contains(&rule.family))
            .collect();
        for family in families {
            default_route::add_rules(transaction, *family, new)?;
        }
        // The kernel puts a new rule before all others.
        for rule in &passing {
            transaction.run(Step::AddRule(*rule))?;
        }
        for family in families {
            default_route::add_route(transaction, *family, new)?;
            let firewall = default_route::firewall(&mut transaction.target, *family, new)?;
            let there = self.firewalls.iter().position(|one| one.family == *family);
            transaction.run(match there.map(|at| self.firewalls.remove(at)) {
                Some(old) => Step::ReplaceFirewall {
                    old: Some(old),
                    new: firewall.clone(),
                },
                None => Step::AddFirewall(firewall.clone()),
            })?;
            self.firewalls.push(firewall);
        }
        transaction.run(Step::Set {
            changes: vec![Change::FwMark(new)],
            undo: vec![Change::FwMark(old)],
        })?;
        for family in had {
            delete_rules(transaction, family, old)?;
        }
        for rule in passing.into_iter().rev() {
            transaction.run(Step::DeleteRule(rule))?;
        }
        Ok(())
    }

    /// Deletes the default routes of other families, and updates the firewalls of these to the current
    /// addresses.
    ///
    /// # Errors
    /// A step failed, or a signal arrived.
    pub fn settle(
        &self,
        transaction: &mut Transaction,
        families: &[Family],
    ) -> Result<(), Failure> {
        let mark = transaction.target.get()?.fwmark;
        for old in &self.firewalls {
            if families.contains(&old.family) {
                let new = default_route::firewall(&mut transaction.target, old.family, mark)?;
                if new != *old {
                    let old = Some(old.clone());
                    transaction.run(Step::ReplaceFirewall { old, new })?;
                }
                continue;
            }
            delete_rules(transaction, old.family, old.mark)?;
            transaction.run(Step::DeleteFirewall {
                there: Some(
                    Present::find(&transaction.target, &transaction.signals)?.of(old.family),
                ),
                undo: vec![old.clone()],
            })?;
        }
        Ok(())
    }
}

fn delete_rules(transaction: &mut Transaction, family: Family, mark: u32) -> Result<(), Failure> {
    let known = transaction.state.as_ref();
    let rules = default_route::rules(&mut transaction.target.home, family, mark, known)?;
    for rule in rules.into_iter().rev() {
        transaction.run(Step::DeleteRule(rule))?;
    }
    let unreachable = default_route::unreachable(family, mark);
    let there = transaction.target.home.unreachable_routes(family, mark)?;
    if there.contains(&unreachable) {
        transaction.run(Step::DeleteRoute(unreachable))?;
    }
    Ok(())
}

/// The families for which `up` would add a default route with rules, in its order.
pub fn default_families(table: Table, interface: &Interface, ipv6: Ipv6) -> Vec<Family> {
    let ips = interface.peers.iter().flat_map(|peer| &peer.allowed_ips);
    let any: Vec<Family> = ips
        .filter(|ip| ip.cidr == 0 && table == Table::Auto && ipv6.uses(ip.addr))
        .map(|ip| family(ip.addr))
        .collect();
    let in_order = FAMILIES.into_iter().rev();
    in_order.filter(|of| any.contains(of)).collect()
}

/// Whether a peer's allowed IPs have all addresses of a family.
pub fn has_default(interface: &Interface) -> bool {
    let mut ips = interface.peers.iter().flat_map(|peer| &peer.allowed_ips);
    ips.any(|ip| ip.cidr == 0)
}
