//! The routes of a running interface.

use wg_rs::model::Interface;
use wg_rs::sys::netlink::route::MAIN_TABLE;
use wg_rs::sys::netlink::{Route, RouteFilter};
use wg_rs::sys::udp::Family;

use super::addresses::Addresses;
use super::defaults::{Defaults, FAMILIES};
use crate::file::{Address, File};
use crate::plan::default_route;
use crate::plan::ipv6::Ipv6;
use crate::plan::ours::RouteOwner;
use crate::plan::routes::{self, WantedRoute, connected};
use crate::steps::failure::Failure;
use crate::steps::step::Step;
use crate::steps::target::family;
use crate::steps::transaction::Transaction;

/// The wanted routes, and the current ones.
pub struct RouteChanges {
    wanted: Vec<Route>,
    /// The families that need a default route with rules.
    pub defaults: Vec<Family>,
    /// Current routes that `up` or a reload added, for an allowed IP.
    ours: Vec<Route>,
    /// Current routes of the kernel, of hooks, or of anybody else.
    others: Vec<Route>,
}

impl RouteChanges {
    /// Finds them for the configuration before and after, given the current addresses and default
    /// routes.
    ///
    /// # Errors
    /// An error of the kernel.
    pub fn new(
        transaction: &mut Transaction,
        file: &File,
        (before, after): (&Interface, &Interface),
        addresses: &Addresses,
        rules: &Defaults,
    ) -> Result<Self, Failure> {
        let link = transaction.target.link()?;
        let mut now = Vec::new();
        for family in FAMILIES {
            now.extend(
                transaction
                    .target
                    .home
                    .routes_of(family, RouteFilter::Link(link))?,
            );
        }
        let elsewhere = transaction.target.elsewhere.is_some();
        let owner = RouteOwner {
            interface: before,
            link,
            elsewhere,
            has_rules: !rules.firewalls.is_empty(),
            marks: [after.fwmark, before.fwmark],
        };
        let (ours, others) = match &transaction.state {
            Some(state) => now
                .iter()
                .partition(|route| state.routes.iter().any(|ours| same(ours, route))),
            None => owner.part(&now, file),
        };
        let of = |addresses: &[Address]| -> Vec<Route> {
            let connected = addresses
                .iter()
                .filter_map(|address| connected(address, link));
            connected.collect()
        };
        let (gone, new) = (of(&addresses.gone), of(&addresses.new));
        let goes = |route: &Route| route.by_kernel && gone.iter().any(|other| same(route, other));
        let stays = others.iter().filter(|route| !goes(route));
        let base: Vec<Route> = stays.chain(&new).copied().collect();

        let ipv6 = Ipv6::of(&transaction.target, file)?;
        let (mut wanted, mut defaults) = (Vec::new(), Vec::new());
        for one in routes::wanted(after, file.table, link, &base) {
            match one {
                WantedRoute::Route(route) if !ipv6.uses(route.to.0) => {}
                WantedRoute::Default(Family::V6) if ipv6.is_left_out() => {}
                WantedRoute::Route(route) => wanted.push(route),
                WantedRoute::Default(family) if elsewhere => {
                    wanted.push(default_route::default_route(family, MAIN_TABLE, link));
                }
                WantedRoute::Default(family) => {
                    wanted.push(default_route::default_route(family, after.fwmark, link));
                    defaults.push(family);
                }
            }
        }
        Ok(RouteChanges {
            wanted,
            defaults,
            ours,
            others,
        })
    }

    /// Adds the missing routes.
    ///
    /// # Errors
    /// A step failed, or a signal arrived.
    pub fn add(
        &self,
        transaction: &mut Transaction,
        file: &File,
        defaults: &mut Defaults,
    ) -> Result<(), Failure> {
        let mut lasting = self.ours.clone();
        lasting.extend(self.others.iter().filter(|route| !route.by_kernel));
        let is_there = |route: &Route| lasting.iter().any(|other| same(route, other));
        for route in &self.wanted {
            let of = family(route.to.0);
            if route.to.1 == 0 && self.defaults.contains(&of) {
                let mark = transaction.target.get()?.fwmark;
                if !defaults.has(of, mark) {
                    defaults.add(transaction, of)?;
                    continue;
                }
            }
            if is_there(route) {
                continue;
            }
            // The kernel's own route to this destination stays until its address is deleted.
            let is_twin = |other: &Route| same(route, other) && route.to.0.is_ipv4();
            if self.others.iter().any(is_twin) {
                transaction.run(Step::AppendRoute(*route))?;
            } else {
                routes::add(transaction, file, *route)?;
            }
        }
        Ok(())
    }

    /// Deletes our routes that are not wanted.
    ///
    /// # Errors
    /// A step failed, or a signal arrived.
    pub fn delete(&self, transaction: &mut Transaction) -> Result<(), Failure> {
        let is_wanted = |route: &Route| self.wanted.iter().any(|other| same(route, other));
        for route in self.ours.iter().filter(|route| !is_wanted(route)) {
            transaction.run(Step::DeleteRoute(*route))?;
        }
        Ok(())
    }
}

fn same(a: &Route, b: &Route) -> bool {
    a.to == b.to && a.table == b.table
}
