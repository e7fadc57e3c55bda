//! `down`: from an interface to nothing, or to nothing done.
//!
//! ```text
//! PreDown ─► saved, if SaveConfig ─► DNS ─► rules ─► firewall ─► link ─► PostDown
//!                                                                 └ from here there is no way back
//! ```
//! Whose daemon was killed has no link any more, but what else there was is still to be cleaned up.

use std::fs;
use std::net::IpAddr;
use std::process::ExitCode;

use wg_rs::backend::{Backends, Kind};
use wg_rs::place;
use wg_rs::sys::netlink::Rule;
use wg_rs::sys::netns::NetNs;
use wg_rs::sys::udp::Family;
use wg_rs::uapi::types::Interface;
use zeroize::Zeroizing;

use crate::console;
use crate::default_route;
use crate::dns::{self, Resolver};
use crate::engine::{self, Engine};
use crate::failure::Failure;
use crate::file::{Address, File};
use crate::firewall::Present;
use crate::ipv6::Ipv6;
use crate::replace::replace;
use crate::save::{Running, edited};
use crate::step::Step;
use crate::table::Table;
use crate::up::hooks;
use crate::world::World;

/// Takes the interface of a file down, wherever it lives.
pub fn down(file: &File) -> ExitCode {
    engine::with(&file.interface, |engine| {
        // A socket that nobody answers at is forgotten when it is looked at.
        let left = place::socket(&file.interface).exists();
        if find(&mut engine.world, file)? {
            take_down(engine, file)
        } else {
            clean_up(engine, file, left)
        }
    })
}

/// Writes the state of an interface into its file.
pub fn save(file: &File) -> ExitCode {
    engine::with(&file.interface, |engine| {
        if !find(&mut engine.world, file)? {
            return Err(not_there(file));
        }
        save_config(engine, file)
    })
}

/// What is said where there is no such interface.
pub fn not_there(file: &File) -> Failure {
    Failure::new(format_args!(
        "`{}' is not a WireGuard interface",
        file.interface
    ))
}

/// Finds the interface: here, or in the namespace that it was brought up to live in.
///
/// # Errors
/// It is there, but cannot be reached.
pub fn find(world: &mut World, file: &File) -> Result<bool, Failure> {
    let name = &file.interface;
    let kind = Backends::new().kind(name)?;
    // A socket is seen from everywhere, its link is not: any of this name here may be another's.
    if kind == Some(Kind::Kernel) || kind.is_some() && place::lives_here(name) {
        return Ok(true);
    }
    // A kernel's interface of this name may be anybody's elsewhere: ours has our key.
    for placed in place::list().map_err(Failure::new)? {
        if placed.name != *name || kind.is_some() != (placed.backend == Kind::Userspace) {
            continue;
        }
        // Its process is hidden from us, but a link of its name is here.
        if kind.is_some() && placed.pid.is_none() && placed.up.is_some() {
            return Ok(true);
        }
        let Some(namespace) = placed.lives_in else {
            continue;
        };
        let netns = namespace.open().map_err(Failure::new)?;
        if kind.is_some() || has_key(&netns, file) {
            world.move_home(namespace, netns)?;
            return Ok(true);
        }
    }
    match kind {
        Some(_) => Err(Failure::new(format_args!(
            "the link of `{name}' is nowhere to be seen"
        ))),
        None => Ok(false),
    }
}

fn has_key(netns: &NetNs, file: &File) -> bool {
    let interface = netns.run(|| Backends::new().get(&file.interface));
    let Ok(Ok(Interface {
        private_key: Some(key),
        ..
    })) = interface
    else {
        return false;
    };
    file.settings.private_key.as_deref() == Some(&key)
}

fn take_down(engine: &mut Engine, file: &File) -> Result<(), Failure> {
    hooks(engine, file, "PreDown", &file.hooks.pre_down)?;
    if file.save_config {
        save_config(engine, file)?;
    }
    if !file.dns.is_empty() {
        match Resolver::new(&file.dns, &engine.world) {
            // As stock has it: a resolvconf that fails is no reason to stay up.
            Ok(Some(resolver)) => engine.attempt(Step::UnsetDns(resolver))?,
            Ok(None) => {}
            // What is not installed any more is no reason to stay up.
            Err(failure) => console::error(failure),
        }
    }
    let interface = engine.world.get()?;
    if engine.world.elsewhere.is_none() && may_have_default_route(&interface, file) {
        delete_default_route(engine, interface.fwmark)?;
    }
    engine.run(Step::DeleteLink)?;
    hooks(engine, file, "PostDown", &file.hooks.post_down)
}

/// Whether `up` added rules for it, or peers that are gone by now.
pub fn may_have_default_route(interface: &Interface, file: &File) -> bool {
    let now = interface.peers.iter().flat_map(|peer| &peer.allowed_ips);
    let then = file
        .settings
        .peers
        .iter()
        .flat_map(|peer| &peer.allowed_ips);
    file.table == Table::Auto
        && interface.fwmark != 0
        && now
            .chain(then.map(|setting| &setting.ip))
            .any(|ip| ip.cidr == 0)
}

/// Its rules and firewall; the route itself goes with the link.
pub fn delete_default_route(engine: &mut Engine, mark: u32) -> Result<(), Failure> {
    for rule in rules(engine, mark)? {
        engine.run(Step::DeleteRule(rule))?;
    }
    let there = Present::find(&engine.world)?;
    let mut undo = Vec::new();
    for family in there.families() {
        undo.push(default_route::firewall(&mut engine.world, family, mark)?);
    }
    engine.run(Step::DeleteFirewall {
        there: Some(there),
        undo,
    })
}

/// Of both families, in the order in which they go: at no moment does all traffic turn to the
/// tunnel.
fn rules(engine: &mut Engine, mark: u32) -> Result<Vec<Rule>, Failure> {
    let mut rules = Vec::new();
    for family in [Family::V4, Family::V6] {
        let of_family = default_route::rules(&mut engine.world.home, family, mark)?;
        rules.extend(of_family.into_iter().rev());
    }
    Ok(rules)
}

/// What is left of an interface whose daemon was killed. All of it goes, whatever fails.
fn clean_up(engine: &mut Engine, file: &File, socket_left: bool) -> Result<(), Failure> {
    let firewall = Present::look(&engine.world);
    let marks = [firewall.mark(&engine.world), file.settings.fwmark];
    let mut orphans = Vec::new();
    for mark in marks.into_iter().flatten().filter(|mark| *mark != 0) {
        // Another interface's, if there is a route.
        if orphans.is_empty() && engine.world.home.is_table_empty(mark)? {
            orphans = rules(engine, mark)?;
        }
    }
    let resolver = match file.dns.is_empty() {
        true => None,
        false => Resolver::new(&file.dns, &engine.world).ok().flatten(),
    };
    let knows_dns = |resolver: &Resolver| {
        let current = resolver.current(&engine.world);
        current.is_some_and(|dns| !dns.is_empty())
    };
    // The socket is no more if somebody looked for it.
    let is_left = socket_left
        || !firewall.is_empty()
        || !orphans.is_empty()
        || !dns::files(&file.interface).is_empty()
        || resolver.as_ref().is_some_and(knows_dns);
    if !is_left {
        return Err(not_there(file));
    }
    console::note(format_args!(
        "`{}' is gone already, its daemon was killed. Cleaning up.",
        file.interface
    ));
    let mut first = Ok(());
    let mut attempt = |engine: &mut Engine, result: Result<(), Failure>| {
        engine.commit();
        // The first is said at the end.
        match result {
            Err(failure) if first.is_err() => console::error(failure),
            Err(failure) => first = Err(failure),
            Ok(()) => {}
        }
    };
    for hook in &file.hooks.pre_down {
        let result = hooks(engine, file, "PreDown", std::slice::from_ref(hook));
        attempt(engine, result);
    }
    if let Some(resolver) = resolver {
        let result = engine.run(Step::UnsetDns(resolver));
        attempt(engine, result);
    }
    dns::remove_files(&file.interface);
    for rule in orphans {
        let result = engine.run(Step::DeleteRule(rule));
        attempt(engine, result);
    }
    let result = engine.run(Step::DeleteFirewall {
        there: Some(firewall),
        undo: Vec::new(),
    });
    attempt(engine, result);
    for hook in &file.hooks.post_down {
        let result = hooks(engine, file, "PostDown", std::slice::from_ref(hook));
        attempt(engine, result);
    }
    first
}

fn save_config(engine: &mut Engine, file: &File) -> Result<(), Failure> {
    let world = &mut engine.world;
    let interface = world.get()?;
    let written = |address: &Address| file.addresses.iter().any(|one| one.value == *address);
    let by_kernel = |address: &Address| match address.ip {
        IpAddr::V6(ip) => ip.is_unicast_link_local() && !written(address),
        IpAddr::V4(_) => false,
    };
    // What could not be set here is no less the file's.
    let ipv6 = Ipv6::of(world, file);
    let of_file = file.addresses.iter().map(|address| address.value);
    let left_out = of_file.filter(|address| !ipv6.uses(address.ip));
    let addresses: Vec<_> = world
        .addresses()?
        .iter()
        .filter(|address| !by_kernel(address))
        .copied()
        .chain(left_out)
        .collect();
    let mtu = world.home.link(&file.interface)?.mtu;
    let dns = Resolver::new(&file.dns, world)
        .ok()
        .flatten()
        .and_then(|resolver| resolver.current(world))
        .map(|dns| dns.addresses())
        // No record says nothing.
        .filter(|servers| !servers.is_empty());
    let chosen_port = match file.settings.listen_port {
        None | Some(0) => interface.listen_port,
        Some(_) => 0,
    };
    let chosen_mark = match file.settings.fwmark {
        None if may_have_default_route(&interface, file) => interface.fwmark,
        _ => 0,
    };
    let running = Running {
        interface: &interface,
        addresses: &addresses,
        mtu,
        dns: dns.as_deref(),
        chosen_port,
        chosen_mark,
    };
    let old = Zeroizing::new(fs::read(&file.path)?);
    let new = edited(&old, &running);
    if *new != *old {
        console::command(format_args!(
            "wg showconf {} > {}",
            file.interface,
            file.path.display()
        ));
        replace(&file.path, &new).map_err(Failure::new)?;
    }
    Ok(())
}
