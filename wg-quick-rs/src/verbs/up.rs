//! `up`: brings up an interface by its file.
//!
//! ```text
//! link (here) ─► moved to its namespace ─► PreUp ─► addconf ─► addresses ─► MTU, up ─► DNS
//!             ─► routes, rules, firewall ─► PostUp
//! ```
//! The MTU and the routes are computed only when their turn has come, as hooks may influence them.

use std::env;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;

use wg_rs::backend::Backends;
use wg_rs::model::{Change, Interface};
use wg_rs::place::Namespace;
use wg_rs::sys::netlink::route::MAIN_TABLE;
use wg_rs::sys::netlink::{Netlink, RouteFilter};
use wg_rs::sys::netns::NetNs;
use wg_rs::sys::udp::Family;

use crate::file::overridden::overridden;
use crate::file::table::Table;
use crate::file::{ConfigValue, File, Location};
use crate::plan::ask::Around;
use crate::plan::beside::Beside;
use crate::plan::default_route;
use crate::plan::endpoint;
use crate::plan::find;
use crate::plan::hooks;
use crate::plan::ipv6::Ipv6;
use crate::plan::loops;
use crate::plan::mtu;
use crate::plan::routes::{self, WantedRoute};
use crate::steps::console;
use crate::steps::dns::DnsSettings;
use crate::steps::failure::Failure;
use crate::steps::program::{OURS, Program};
use crate::steps::service_manager;
use crate::steps::state::{self, Home, PeerOfFile, State};
use crate::steps::step::Step;
use crate::steps::target::{Target, family, within};
use crate::steps::transaction::{self, Transaction};

/// The variable with the userspace implementation to use if the kernel has no module.
const IMPLEMENTATION: &str = "WG_QUICK_USERSPACE_IMPLEMENTATION";
/// The metric that the kernel gives to IPv6 routes without one.
const IPV6_METRIC: u32 = 1024;
/// A folder that exists if the kernel's module is loaded.
const MODULE: &str = "/sys/module/wireguard";

/// Brings the interface of a file up, in `namespace` if one is given.
pub fn up(location: &Location, namespace: Option<&Namespace>) -> ExitCode {
    transaction::with_file(location, |transaction, file| {
        bring_up(transaction, file, namespace)
    })
}

fn bring_up(
    transaction: &mut Transaction,
    file: &File,
    namespace: Option<&Namespace>,
) -> Result<(), Failure> {
    let name = &file.interface;
    let is_here = match transaction.target.birth.link(name) {
        Ok(_) => true,
        Err(error) if error.is_absent() => false,
        Err(error) => return Err(error.into()),
    };
    // The name of a daemon is in use even if its link is in another namespace.
    if is_here || Backends::new().kind(name)?.is_some() {
        return Err(Failure::new(format_args!("`{name}' already exists")));
    }
    // Opened before anything is created, as the namespace may not exist.
    let elsewhere = match namespace {
        Some(namespace) => {
            let netns = namespace.open().map_err(Failure::new)?;
            has_room(file, namespace, &netns)?;
            Some((namespace.clone(), netns))
        }
        None => None,
    };
    // A record without an interface is what a killed daemon left.
    if let Some(before) = State::load(name).ok().flatten() {
        if find::find_recorded(&mut transaction.target, &before)? {
            return Err(Failure::new(format_args!(
                "`{name}' already exists; it lives in another network namespace"
            )));
        }
        transaction.state_before = Some(before);
    }
    let left = left_before(transaction)?;
    let lived_here = transaction
        .state_before
        .as_ref()
        .is_some_and(|before| before.home.is_none());
    if left.is_some() && lived_here && elsewhere.is_some() {
        return Err(Failure::new(format_args!(
            "settings of an earlier `{name}' are left in this namespace: `{} down {name}' removes them",
            console::program()
        )));
    }
    if left.is_some() {
        console::note(format_args!(
            "Removing what is left of an earlier `{name}'."
        ));
    }
    // Meanwhile the rules that it left keep traffic from being sent unencrypted.
    run_hooks_before(transaction, file)?;
    let mark_before = left.as_ref().and_then(Beside::mark);
    add_link(transaction)?;
    transaction.state = Some(State::new(name)?);
    if let Some((namespace, netns)) = elsewhere {
        transaction.run(Step::MoveLink(namespace, netns))?;
    }
    let link = transaction.target.link()?;
    let home = home(&transaction.target)?;
    record(transaction, |state| (state.link, state.home) = (link, home));
    hooks::run(transaction, file, "PreUp", &file.hooks.pre_up)?;
    let is_port_chosen = matches!(file.settings.listen_port, None | Some(0))
        && (file.hooks.pre_up.is_empty() || transaction.target.get()?.listen_port == 0);
    for ConfigValue { line, value } in overridden(file) {
        console::line(format_args!(
            "{}:{line}: Warning: {value}",
            file.path.display()
        ));
    }
    transaction.waits_for_names(true);
    // The rules that it left would also block the lookup of names, which must go past them.
    let around = mark_before.map(|mark| Around::new(mark, transaction.state_before.as_ref()));
    let signals = &transaction.signals;
    let changes = endpoint::changes(&file.settings, around.as_ref(), signals)?;
    transaction.waits_for_names(false);
    transaction.run(Step::AddConf {
        changes,
        file: file.path.clone(),
    })?;
    record(transaction, |state| {
        state.peers = PeerOfFile::all(&file.settings);
        state.mark_of_file = file.settings.fwmark;
    });
    take_mark(transaction, file, mark_before)?;
    let ipv6 = Ipv6::of(&transaction.target, file)?;
    ipv6.warn(&transaction.target, file)?;
    let addresses = file.addresses.iter();
    for address in addresses.filter(|address| ipv6.uses(address.value.ip)) {
        let added = transaction.run(Step::AddAddress(address.value));
        added.map_err(|failure| failure.at(file, address.line, "Address"))?;
    }
    set_up(transaction, file)?;
    let interface = transaction.target.get()?;
    record(transaction, |state| {
        state.public_key = public_key(&interface);
        state.chosen_port = is_port_chosen.then_some(interface.listen_port);
    });
    if !file.dns.is_empty()
        && let Some(resolver) = DnsSettings::new(&file.dns, &transaction.target)
    {
        let earlier = transaction.state_before.as_ref();
        let earlier = earlier.and_then(|earlier| earlier.dns.as_ref());
        let resolver = resolver.after(earlier, &transaction.target);
        transaction.run(Step::SetDnsOrFile(resolver))?;
    }
    // Read again, as hooks may have removed some of it.
    let left = left_before(transaction)?;
    if let Some(left) = left.as_ref().filter(|left| !left.firewall.is_empty()) {
        transaction.run(Step::DeleteFirewall {
            there: Some(left.firewall.clone()),
            undo: left.firewalls.clone(),
        })?;
    }
    add_routes(transaction, file, &interface, ipv6)?;
    // Removed only now, so that at no moment a packet can leave outside of both tunnels.
    for step in left.map(Beside::without_firewall).into_iter().flatten() {
        if !is_needed(&step, transaction.state.as_ref()) {
            transaction.run(step)?;
        }
    }
    hooks::run(transaction, file, "PostUp", &file.hooks.post_up)?;
    if !file.hooks.post_up.is_empty() {
        // The hooks may have set the key.
        let interface = transaction.target.get()?;
        record(transaction, |state| {
            state.public_key = public_key(&interface)
        });
    }
    if let Err(failure) = loops::warn(&mut transaction.target) {
        console::note(format_args!(
            "Cannot find out whether endpoints are reached through `{name}' itself: {failure}."
        ));
    }
    transaction.check()?;
    service_manager::tell_up(name);
    Ok(())
}

/// What is left of an earlier interface of this name.
fn left_before(transaction: &mut Transaction) -> Result<Option<Beside>, Failure> {
    let Some(before) = &transaction.state_before else {
        return Ok(None);
    };
    let left = Beside::recorded(&mut transaction.target, &transaction.signals, before)?;
    Ok(Some(left).filter(|left| !left.is_empty()))
}

/// Runs the PreDown and PostDown hooks of an earlier interface whose daemon was killed, once. If a hook
/// fails, the others are run all the same.
fn run_hooks_before(transaction: &mut Transaction, file: &File) -> Result<(), Failure> {
    let Some(before) = transaction
        .state_before
        .as_ref()
        .filter(|before| !before.is_after_hooks)
    else {
        return Ok(());
    };
    if find::go_home(&mut transaction.target, before)? {
        let hooks = [
            ("PreDown", &file.hooks.pre_down),
            ("PostDown", &file.hooks.post_down),
        ];
        for (key, hooks) in hooks {
            for hook in hooks {
                let _ = transaction.attempt(hooks::step(file, key, hook))?;
            }
        }
    }
    transaction.target.return_home()?;
    if let Some(before) = &mut transaction.state_before {
        before.is_after_hooks = true;
        // If this fails, the hooks may be run again.
        let _ = before.save();
    }
    Ok(())
}

/// Takes over the mark that was chosen for an earlier interface, so that the rules left by that one let
/// this one's packets pass from the beginning.
fn take_mark(
    transaction: &mut Transaction,
    file: &File,
    before: Option<u32>,
) -> Result<(), Failure> {
    let chosen = transaction
        .state_before
        .as_ref()
        .and_then(|state| state.chosen_mark);
    let Some(mark) = before.filter(|mark| chosen == Some(*mark)) else {
        return Ok(());
    };
    let peers = file.settings.peers.iter();
    let mut allowed = peers.flat_map(|peer| &peer.allowed_ips);
    let is_wanted = file.table == Table::Auto
        && transaction.target.elsewhere.is_none()
        && allowed.any(|allowed| allowed.ip.cidr == 0);
    if !is_wanted || transaction.target.get()?.fwmark != 0 {
        return Ok(());
    }
    transaction.run(Step::Set {
        changes: vec![Change::FwMark(mark)],
        undo: vec![Change::FwMark(0)],
    })?;
    record(transaction, |state| state.chosen_mark = Some(mark));
    Ok(())
}

/// Whether this interface also needs what a step would remove.
fn is_needed(step: &Step, state: Option<&State>) -> bool {
    state.is_some_and(|state| match step {
        Step::DeleteRoute(route) => state.routes.contains(route),
        Step::UnsetDns(_) => state.dns.is_some(),
        _ => false,
    })
}

fn public_key(interface: &Interface) -> Option<String> {
    let key = interface.private_key.as_ref()?;
    Some(key.public_key().to_base64())
}

fn home(target: &Target) -> Result<Option<Home>, Failure> {
    let Some((namespace, netns)) = &target.elsewhere else {
        return Ok(None);
    };
    Ok(Some(Home {
        namespace: namespace.to_string(),
        inode: within(namespace, netns, state::namespace)??,
    }))
}

fn record(transaction: &mut Transaction, work: impl FnOnce(&mut State)) {
    if let Some(state) = &mut transaction.state {
        work(state);
    }
}

/// Checks that another namespace has no default route in its main table, as the tunnel's goes there.
fn has_room(file: &File, namespace: &Namespace, netns: &NetNs) -> Result<(), Failure> {
    if file.table != Table::Auto {
        return Ok(());
    }
    let peers = file.settings.peers.iter();
    let allowed: Vec<_> = peers.flat_map(|peer| &peer.allowed_ips).collect();
    let mut there = within(namespace, netns, Netlink::open)??;
    for of in [Family::V4, Family::V6] {
        let is_default = |ip: IpAddr, bits: u8| bits == 0 && family(ip) == of;
        if !allowed
            .iter()
            .any(|one| is_default(one.ip.addr, one.ip.cidr))
        {
            continue;
        }
        let routes = there.routes_of(of, RouteFilter::Table(MAIN_TABLE));
        for route in routes.unwrap_or_default() {
            // A route with another metric does not conflict.
            let in_the_way = is_default(route.to.0, route.to.1)
                && matches!(route.metric, None | Some(0 | IPV6_METRIC));
            let Some(link) = route.link.filter(|_| in_the_way) else {
                continue;
            };
            let link = there.link(link)?.name;
            return Err(Failure::new(format_args!(
                "the namespace {namespace} already has a default route, by {link}; the tunnel needs its own"
            )));
        }
    }
    Ok(())
}

/// Creates the link, by the kernel's module or else by a userspace implementation.
fn add_link(transaction: &mut Transaction) -> Result<(), Failure> {
    let Err(failure) = transaction.run(Step::AddLink) else {
        return Ok(());
    };
    // Somebody else may have created a link of this name meanwhile.
    let there = transaction
        .target
        .birth
        .link(transaction.target.interface.as_str());
    let is_absent = there.is_err_and(|error| error.is_absent());
    if !is_absent || matches!(failure, Failure::Signal(_)) {
        return Err(failure);
    }
    let name = env::var_os(IMPLEMENTATION).filter(|name| !name.is_empty());
    let name = name.unwrap_or_else(|| OsString::from(OURS));
    // The last words of ip(8), which scripts look for.
    let none = |failure| {
        let interface = &transaction.target.interface;
        console::line(format_args!("Cannot find device \"{interface}\""));
        Err(failure)
    };
    if Path::new(MODULE).exists() {
        return none(failure);
    }
    let Some(program) = Program::find(&name) else {
        let name = name.display();
        return none(Failure::new(format_args!(
            "{failure}; and there is no {name} on PATH"
        )));
    };
    console::line(&failure);
    console::note(if program.is_ours() {
        "The kernel has no WireGuard module; wireguard-rs is used instead."
    } else {
        "Missing WireGuard kernel module. Falling back to slow userspace implementation."
    });
    transaction.run(Step::StartDaemon(program))
}

fn set_up(transaction: &mut Transaction, file: &File) -> Result<(), Failure> {
    let mtu = match &file.mtu {
        Some(mtu) => mtu.value,
        None => {
            let interface = transaction.target.get()?;
            mtu::of_way(&mut transaction.target.birth, &interface, None)
        }
    };
    let before = transaction.target.home.link(&file.interface)?.mtu;
    let up = transaction.run(Step::Up { mtu, before });
    match &file.mtu {
        Some(mtu) => up.map_err(|failure| failure.at(file, mtu.line, "MTU")),
        None => up,
    }
}

fn add_routes(
    transaction: &mut Transaction,
    file: &File,
    interface: &Interface,
    ipv6: Ipv6,
) -> Result<(), Failure> {
    let link = transaction.target.link()?;
    let mut there = Vec::new();
    for family in [Family::V4, Family::V6] {
        there.extend(
            transaction
                .target
                .home
                .routes_of(family, RouteFilter::Link(link))?,
        );
    }
    for wanted in routes::wanted(interface, file.table, link, &there) {
        match wanted {
            WantedRoute::Route(route) if ipv6.uses(route.to.0) => {
                routes::add(transaction, file, route)?;
            }
            WantedRoute::Default(Family::V6) if ipv6.is_left_out() => {}
            WantedRoute::Default(family) => {
                default_route::add(transaction, family)?;
            }
            WantedRoute::Route(_) => {}
        }
    }
    Ok(())
}
