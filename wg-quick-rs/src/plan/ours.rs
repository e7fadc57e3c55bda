//! Which routes of a running interface `up`, or a reload, made: those that a reload may delete.
//!
//! The kernel does not say who made a route, and hooks, routing daemons and people make some that
//! look alike. So ours is only what `up` makes of such a file: a route to an allowed IP, in the
//! table where `Table` puts it, that no hook names. With `Table = off` none is.

use std::collections::HashSet;

use wg_rs::model::{AllowedIp, Interface};
use wg_rs::sys::netlink::Route;
use wg_rs::sys::netlink::route::MAIN_TABLE;

use crate::file::File;
use crate::file::table::Table;
use crate::plan::routes::{self, Wanted};
use crate::steps::target::family;

/// The interface whose routes are looked at, as `up` left it.
#[derive(Clone, Copy, Debug)]
pub struct RouteOwner<'a> {
    /// Its configuration.
    pub interface: &'a Interface,
    /// The link's index.
    pub link: u32,
    /// Whether it lives in another namespace than its sockets.
    pub elsewhere: bool,
    /// Whether there are rules of ours for a default route, which only `Table = auto` makes.
    pub has_rules: bool,
    /// The marks of its packets: now, and before this reload.
    pub marks: [u32; 2],
}

impl RouteOwner<'_> {
    /// Those of the link's routes that are ours, and the others.
    pub fn part(&self, routes: &[Route], file: &File) -> (Vec<Route>, Vec<Route>) {
        let ips = self
            .interface
            .peers
            .iter()
            .flat_map(|peer| &peer.allowed_ips);
        let allowed: HashSet<AllowedIp> = ips.copied().collect();
        let (may_be, mut others): (Vec<Route>, Vec<Route>) = routes.iter().partition(|route| {
            let (addr, cidr) = route.to;
            !route.by_kernel
                && allowed.contains(&AllowedIp { addr, cidr })
                && !is_named(route, file)
        });
        let tables = [file.table, self.table(&may_be, &others, file.table)];
        let (ours, rest): (Vec<Route>, Vec<Route>) = may_be
            .iter()
            .partition(|route| tables.iter().any(|table| self.is_in(route, *table)));
        others.extend(rest);
        (ours, others)
    }

    /// The `Table` it came up with: that of the file, unless routes are missing that it would have
    /// made and another one would have made those that are there.
    fn table(&self, routes: &[Route], others: &[Route], of_file: Table) -> Table {
        if self.has_rules {
            return Table::Auto;
        }
        let is_there = |wanted: &Wanted, table: Table| {
            let mut routes = routes.iter().chain(others);
            routes.any(|route| {
                let is_wanted = match wanted {
                    Wanted::Route(other) => route.to == other.to,
                    Wanted::Default(of) => route.to.1 == 0 && family(route.to.0) == *of,
                };
                is_wanted && self.is_in(route, table)
            })
        };
        let is_complete = |table: &Table| {
            let wanted = routes::wanted(self.interface, *table, self.link, others);
            wanted.iter().all(|wanted| is_there(wanted, *table))
        };
        let numbers = routes.iter().map(|route| Table::Number(route.table));
        let mut tables = [of_file, Table::Auto].into_iter().chain(numbers);
        tables.find(is_complete).unwrap_or(of_file)
    }

    /// Whether `table` puts a route to this network there.
    fn is_in(&self, route: &Route, table: Table) -> bool {
        match table {
            Table::Off => false,
            Table::Number(number) => route.table == number,
            Table::Auto if route.to.1 == 0 && !self.elsewhere => self.marks.contains(&route.table),
            Table::Auto => route.table == MAIN_TABLE,
        }
    }
}

/// Whether a hook makes this route, as far as its text tells.
fn is_named(route: &Route, file: &File) -> bool {
    let (ip, prefix) = route.to;
    let whole = if ip.is_ipv4() { 32 } else { 128 };
    let names = |command: &str| {
        let is_to = command.contains(&format!("{ip}/{prefix}"))
            || (prefix == 0 && command.contains("default"))
            || (prefix == whole && command.contains(&ip.to_string()));
        let mut words = command.split_whitespace();
        let table = match words.by_ref().find(|word| *word == "table") {
            Some(_) => words.next().and_then(|word| word.parse().ok()),
            None => Some(Table::Number(MAIN_TABLE)),
        };
        // One that cannot be told may be any.
        let is_there = !matches!(table, Some(Table::Number(number)) if number != route.table);
        command.contains("route") && is_to && is_there
    };
    let hooks = file.hooks.pre_up.iter().chain(&file.hooks.post_up);
    hooks
        .map(|hook| hook.value.text())
        .any(|text| text.split([';', '&', '|', '\n']).any(names))
}
