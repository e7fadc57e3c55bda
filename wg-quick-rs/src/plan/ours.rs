//! Which routes of a running interface `up` or `reload` added: only those may `reload` delete. This is
//! used if there is no record of `up`.
//!
//! The kernel does not tell who added a route, and hooks, routing daemons and administrators add similar
//! ones. So a route counts as ours only if it leads to an allowed IP, is in the table where `Table` puts
//! it, and no hook names it. With `Table = off` no route is ours.

use std::collections::HashSet;

use wg_rs::model::{AllowedIp, Interface};
use wg_rs::sys::netlink::Route;
use wg_rs::sys::netlink::route::MAIN_TABLE;

use crate::file::File;
use crate::file::table::Table;
use crate::plan::routes::{self, WantedRoute};
use crate::steps::target::family;

/// An interface whose routes are to be judged.
#[derive(Clone, Copy, Debug)]
pub struct RouteOwner<'a> {
    /// Its configuration.
    pub interface: &'a Interface,
    /// The link's index.
    pub link: u32,
    /// Whether it is in another namespace than its sockets.
    pub elsewhere: bool,
    /// Whether there are rules for a default route, which only `Table = auto` adds.
    pub has_rules: bool,
    /// The marks of its packets: the wanted one, and the one before this reload.
    pub marks: [u32; 2],
}

impl RouteOwner<'_> {
    /// Splits the link's routes into ours and the others.
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

    /// The `Table` with which the interface was brought up. That is the file's, unless its routes are
    /// missing and another value of `Table` explains those that are there.
    fn table(&self, routes: &[Route], others: &[Route], of_file: Table) -> Table {
        if self.has_rules {
            return Table::Auto;
        }
        let is_there = |wanted: &WantedRoute, table: Table| {
            let mut routes = routes.iter().chain(others);
            routes.any(|route| {
                let is_wanted = match wanted {
                    WantedRoute::Route(other) => route.to == other.to,
                    WantedRoute::Default(of) => route.to.1 == 0 && family(route.to.0) == *of,
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

    /// Whether `table` would put this route in the table in which it is.
    fn is_in(&self, route: &Route, table: Table) -> bool {
        match table {
            Table::Off => false,
            Table::Number(number) => route.table == number,
            Table::Auto if route.to.1 == 0 && !self.elsewhere => self.marks.contains(&route.table),
            Table::Auto => route.table == MAIN_TABLE,
        }
    }
}

/// Whether a hook adds this route, judged by its text.
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
        // A table that is not a number may be any.
        let is_there = !matches!(table, Some(Table::Number(number)) if number != route.table);
        command.contains("route") && is_to && is_there
    };
    let hooks = file.hooks.pre_up.iter().chain(&file.hooks.post_up);
    hooks
        .map(|hook| hook.value.text())
        .any(|text| text.split([';', '&', '|', '\n']).any(names))
}
