//! What is in the way if the kernel refuses an address, a route or a port because it exists already: said
//! on a line of its own after the kernel's error, with what to do.

use wg_rs::place;
use wg_rs::sys::netlink::route::MAIN_TABLE;
use wg_rs::sys::netlink::{Error, Route, RouteFilter};

use crate::file::Address;
use crate::steps::failure::Failure;
use crate::steps::target::{Target, family};

fn with(error: Error, why: Option<String>) -> Failure {
    match why {
        Some(why) => Failure::new(format_args!("{error}\n{why}")),
        None => error.into(),
    }
}

/// An address that the link has already.
pub fn of_address(error: Error, address: Address, target: &Target) -> Failure {
    let why = error.is_present().then(|| {
        format!(
            "`{}' already has the address {}: another Address or a PreUp command of the file adds it \
             too; remove one of them",
            target.interface, address.ip
        )
    });
    with(error, why)
}

/// A route to a destination that has one already.
pub fn of_route(error: Error, route: &Route, target: &mut Target) -> Failure {
    let why = error.is_present().then(|| {
        let by = holder(route, target).map_or_else(String::new, |link| format!(" through `{link}'"));
        let table = match route.table {
            MAIN_TABLE => String::new(),
            table => format!(" in table {table}"),
        };
        let (ip, prefix) = route.to;
        format!(
            "there is already a route to {ip}/{prefix}{by}{table}: remove that route, or this network \
             from AllowedIPs, or write `Table = off' to add no routes"
        )
    });
    with(error, why)
}

/// The link of the route that is there.
fn holder(wanted: &Route, target: &mut Target) -> Option<String> {
    let routes = target
        .home
        .routes_of(family(wanted.to.0), RouteFilter::Table(wanted.table));
    let there = routes
        .ok()?
        .into_iter()
        .find(|there| there.to == wanted.to)?;
    Some(target.home.link(there.link?).ok()?.name)
}

/// A link that cannot be set up because its port is in use.
pub fn of_port(error: Error, target: &Target) -> Failure {
    let port = match error.errno() {
        Some(nix::libc::EADDRINUSE) => target.get().map_or(0, |interface| interface.listen_port),
        _ => 0,
    };
    let why = (port != 0).then(|| place::own_port_in_use(Some(&target.interface), port));
    with(error, why)
}
