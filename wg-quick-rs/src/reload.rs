//! `reload`: a running interface brought to its file, step by step, each undone on failure; what
//! does not differ is not touched. Hooks are not run.
//!
//! ```text
//! peers and networks that are new ─► MTU ─► addresses, routes, rules, firewall that are new ─► DNS
//!   ─► addresses, routes, rules, firewall that go ─► networks and peers that go
//! ```
//! So at no moment has a packet that may go through before and after no way to.

use std::fs;
use std::net::{IpAddr, SocketAddr};

use wg_rs::config::{PeerSettings, Retries};
use wg_rs::sys::netlink::route::MAIN_TABLE;
use wg_rs::sys::netlink::{Route, Rule, Which};
use wg_rs::sys::udp::Family;
use wg_rs::uapi::types::{Change, Interface};

use crate::console;
use crate::default_route;
use crate::difference::{Difference, moved_out, target, too_many};
use crate::dns::Resolver;
use crate::down::{find, not_there};
use crate::endpoint;
use crate::engine::{self, Engine};
use crate::failure::Failure;
use crate::file::{Address, File};
use crate::firewall::{Firewall, Present};
use crate::ipv6::Ipv6;
use crate::mtu;
use crate::ours::Running;
use crate::routes::{self, Wanted, connected};
use crate::step::Step;
use crate::table::Table;
use crate::world::{World, family};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// Brings the interface of a file to it.
pub fn reload(file: &File) -> std::process::ExitCode {
    engine::with(&file.interface, |engine| {
        if !find(&mut engine.world, file)? {
            return Err(not_there(file));
        }
        bring_to_file(engine, file)
    })
}

fn bring_to_file(engine: &mut Engine, file: &File) -> Result<(), Failure> {
    let before = engine.world.get()?;
    let mut after = wanted_interface(&engine.world, file, &before)?;
    let mut defaults = Defaults::now(&mut engine.world, file.table, &before)?;
    let stays = file.table == Table::Auto && has_default(&after);
    if file.settings.fwmark.is_none() && !mentions(file, "fwmark") {
        if !stays {
            after.fwmark = 0;
        } else if before.fwmark < default_route::FIRST_TABLE && before.fwmark != 0 {
            // Not one that `up` chooses: the file had it.
            after.fwmark = default_route::free_table(&mut engine.world)?;
        }
    }
    let marks = (before.fwmark, after.fwmark);
    let moves = !defaults.firewalls.is_empty() && marks.0 != marks.1 && marks.1 != 0;
    let mut goal = after.clone();
    if moves {
        // Together with its rules.
        goal.fwmark = before.fwmark;
    }
    let Difference { more, less } = Difference::new(&before, &goal);
    let back = Difference::new(&goal, &before);
    let back = [back.more, back.less].concat();

    set(engine, more, back.clone())?;
    set_mtu(engine, file)?;
    let ipv6 = Ipv6::of(&engine.world, file);
    ipv6.warn(&engine.world, file)?;
    let addresses = Addresses::new(engine.world.addresses()?, file, ipv6);
    addresses.add(engine)?;
    if moves {
        defaults.change_mark(engine, marks, &default_families(file.table, &after, ipv6))?;
    }
    let routes = Routes::new(engine, file, (&before, &after), &addresses, &defaults)?;
    routes.add(engine, &mut defaults)?;
    set_dns(engine, file)?;
    addresses.delete(engine)?;
    routes.delete(engine)?;
    defaults.settle(engine, &routes.defaults)?;
    set(engine, less, back.clone())?;
    // Who knows no way to take one network away may not say so.
    let now = engine.world.get()?;
    set(engine, moved_out(too_many(&now, &after)), back)
}

fn set(engine: &mut Engine, changes: Vec<Change>, undo: Vec<Change>) -> Result<(), Failure> {
    if changes.is_empty() {
        return Ok(());
    }
    engine.run(Step::Set { changes, undo })
}

/// What the file asks for. A peer whose name still stands for where it is stays there, and so does
/// one whose name cannot be resolved now.
fn wanted_interface(world: &World, file: &File, now: &Interface) -> Result<Interface, Failure> {
    file.settings.warnings().for_each(console::line);
    let retries = Retries::from_env().map_err(Failure::new)?;
    let endpoint = |peer: &PeerSettings, at: Option<SocketAddr>| {
        let Some(endpoint) = &peer.endpoint else {
            return Ok(at);
        };
        let retries = if at.is_some() {
            Retries(Some(0))
        } else {
            retries
        };
        let resolved = endpoint::resolve(endpoint, retries, &world.signals);
        if let Some(signal) = world.signals.caught() {
            return Err(Failure::Signal(signal));
        }
        match (resolved, at) {
            (Ok(first), Some(at)) if first != at => {
                let all = endpoint.addresses().unwrap_or_default();
                Ok(Some(if all.contains(&at) { at } else { first }))
            }
            (Ok(first), _) => Ok(Some(first)),
            (Err(reason), Some(at)) => {
                console::note(format_args!("{reason}; it stays at {at}."));
                Ok(Some(at))
            }
            (Err(reason), None) => Err(Failure::new(reason)),
        }
    };
    target(
        now,
        &file.settings,
        mentions(file, "preshared-key"),
        endpoint,
    )
}

/// Whether a hook says this word: then what it is about may be a hook's, and not ours to change.
fn mentions(file: &File, word: &str) -> bool {
    let hooks = file.hooks.pre_up.iter().chain(&file.hooks.post_up);
    hooks
        .into_iter()
        .any(|hook| hook.value.text().contains(word))
}

/// Those of which `up` would make a default route with rules, in its order.
fn default_families(table: Table, interface: &Interface, ipv6: Ipv6) -> Vec<Family> {
    let ips = interface.peers.iter().flat_map(|peer| &peer.allowed_ips);
    let any: Vec<Family> = ips
        .filter(|ip| ip.cidr == 0 && table == Table::Auto && ipv6.uses(ip.addr))
        .map(|ip| family(ip.addr))
        .collect();
    let in_order = FAMILIES.into_iter().rev();
    in_order.filter(|of| any.contains(of)).collect()
}

fn has_default(interface: &Interface) -> bool {
    let mut ips = interface.peers.iter().flat_map(|peer| &peer.allowed_ips);
    ips.any(|ip| ip.cidr == 0)
}

fn set_mtu(engine: &mut Engine, file: &File) -> Result<(), Failure> {
    let link = engine.world.home.link(&file.interface)?;
    let own = engine.world.elsewhere.is_none().then_some(link.index);
    let wanted = match &file.mtu {
        Some(mtu) => mtu.value,
        None if mentions(file, "mtu") => link.mtu,
        None => {
            let interface = engine.world.get()?;
            mtu::of_way(&mut engine.world.birth, &interface, own)
        }
    };
    if link.mtu == wanted && link.up {
        return Ok(());
    }
    engine.run(Step::Up {
        mtu: wanted,
        before: link.mtu,
    })
}

/// The addresses of the file, and those that go.
struct Addresses {
    there: Vec<Address>,
    new: Vec<Address>,
    gone: Vec<Address>,
}

impl Addresses {
    fn new(there: Vec<Address>, file: &File, ipv6: Ipv6) -> Self {
        let all = file.addresses.iter().map(|one| one.value);
        let new: Vec<Address> = all.filter(|address| ipv6.uses(address.ip)).collect();
        let by_kernel = |address: &Address| match address.ip {
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
            IpAddr::V4(_) => false,
        };
        let mut gone = there.clone();
        gone.retain(|address| {
            let by_hook = mentions(file, &address.ip.to_string());
            !new.contains(address) && !by_kernel(address) && !by_hook
        });
        Addresses { there, new, gone }
    }

    fn add(&self, engine: &mut Engine) -> Result<(), Failure> {
        for address in self
            .new
            .iter()
            .filter(|address| !self.there.contains(address))
        {
            // IPv6 knows an address once, whatever its network.
            let is_twin = |old: &&Address| old.ip == address.ip && old.ip.is_ipv6();
            if let Some(twin) = self.gone.iter().find(is_twin) {
                engine.run(Step::DeleteAddress(*twin))?;
            }
            engine.run(Step::AddAddress(*address))?;
        }
        Ok(())
    }

    fn delete(&self, engine: &mut Engine) -> Result<(), Failure> {
        let there = engine.world.addresses()?;
        let gone: Vec<_> = self
            .gone
            .iter()
            .filter(|address| there.contains(address))
            .collect();
        // With the first address of a network, the kernel takes away the others of it, unless told
        // otherwise.
        let key = format!(
            "net/ipv4/conf/{}/promote_secondaries",
            engine.world.interface
        );
        let path = format!("/proc/sys/{key}");
        let value = engine.world.at_home(|| fs::read_to_string(&path))?;
        let promote = gone.iter().any(|address| address.ip.is_ipv4())
            && value.is_ok_and(|value| value.trim() == "0");
        if promote {
            engine.run(Step::Sysctl(key.clone(), "1".into(), "0".into()))?;
        }
        for address in gone {
            engine.run(Step::DeleteAddress(*address))?;
        }
        if promote {
            engine.run(Step::Sysctl(key, "0".into(), "1".into()))?;
        }
        Ok(())
    }
}

/// The routes that are wanted, and those that there are.
struct Routes {
    wanted: Vec<Route>,
    defaults: Vec<Family>,
    /// Made by `up` or a reload, for an allowed IP.
    ours: Vec<Route>,
    /// Made by the kernel, by hooks, or by whoever else.
    others: Vec<Route>,
}

impl Routes {
    fn new(
        engine: &mut Engine,
        file: &File,
        (before, after): (&Interface, &Interface),
        addresses: &Addresses,
        rules: &Defaults,
    ) -> Result<Self, Failure> {
        let link = engine.world.link()?;
        let mut now = Vec::new();
        for family in FAMILIES {
            now.extend(engine.world.home.routes_of(family, Which::Link(link))?);
        }
        let elsewhere = engine.world.elsewhere.is_some();
        let running = Running {
            interface: before,
            link,
            elsewhere,
            has_rules: !rules.firewalls.is_empty(),
            marks: [after.fwmark, before.fwmark],
        };
        let (ours, others) = running.part(&now, file);
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

        let ipv6 = Ipv6::of(&engine.world, file);
        let (mut wanted, mut defaults) = (Vec::new(), Vec::new());
        for one in routes::wanted(after, file.table, link, &base) {
            match one {
                Wanted::Route(route) if !ipv6.uses(route.to.0) => {}
                Wanted::Default(Family::V6) if ipv6.is_left_out() => {}
                Wanted::Route(route) => wanted.push(route),
                Wanted::Default(family) if elsewhere => {
                    wanted.push(default_route::default_route(family, MAIN_TABLE, link));
                }
                Wanted::Default(family) => {
                    wanted.push(default_route::default_route(family, after.fwmark, link));
                    defaults.push(family);
                }
            }
        }
        Ok(Routes {
            wanted,
            defaults,
            ours,
            others,
        })
    }

    fn add(&self, engine: &mut Engine, defaults: &mut Defaults) -> Result<(), Failure> {
        let mut lasting = self.ours.clone();
        lasting.extend(self.others.iter().filter(|route| !route.by_kernel));
        let is_there = |route: &Route| lasting.iter().any(|other| same(route, other));
        for route in &self.wanted {
            let of = family(route.to.0);
            if route.to.1 == 0 && self.defaults.contains(&of) {
                let mark = engine.world.get()?.fwmark;
                if !defaults.has(of, mark) {
                    defaults.add(engine, of)?;
                    continue;
                }
            }
            if is_there(route) {
                continue;
            }
            // In the way until its address goes.
            let is_twin = |other: &Route| same(route, other) && route.to.0.is_ipv4();
            engine.run(if self.others.iter().any(is_twin) {
                Step::AppendRoute(*route)
            } else {
                Step::AddRoute(*route)
            })?;
        }
        Ok(())
    }

    fn delete(&self, engine: &mut Engine) -> Result<(), Failure> {
        let is_wanted = |route: &Route| self.wanted.iter().any(|other| same(route, other));
        for route in self.ours.iter().filter(|route| !is_wanted(route)) {
            engine.run(Step::DeleteRoute(*route))?;
        }
        Ok(())
    }
}

fn same(a: &Route, b: &Route) -> bool {
    a.to == b.to && a.table == b.table
}

/// The default routes with rules of their own: each by the firewall that goes with it.
struct Defaults {
    firewalls: Vec<Firewall>,
}

impl Defaults {
    /// With `Table = auto` by the rules; else those may be a hook's, and ours have a firewall.
    fn now(world: &mut World, table: Table, interface: &Interface) -> Result<Self, Failure> {
        let mut firewalls = Vec::new();
        let mark = interface.fwmark;
        if world.elsewhere.is_none() && mark != 0 && has_default(interface) {
            let families = match table {
                Table::Auto => FAMILIES.to_vec(),
                _ => Present::look(world).families(),
            };
            for family in families {
                if !default_route::rules(&mut world.home, family, mark)?.is_empty() {
                    firewalls.push(default_route::firewall(world, family, mark)?);
                }
            }
        }
        Ok(Defaults { firewalls })
    }

    fn has(&self, family: Family, mark: u32) -> bool {
        let mut firewalls = self.firewalls.iter();
        firewalls.any(|firewall| firewall.family == family && firewall.mark == mark)
    }

    /// With what goes with it.
    fn add(&mut self, engine: &mut Engine, family: Family) -> Result<(), Failure> {
        let mark = default_route::add(engine, family)?;
        let new = default_route::firewall(&mut engine.world, family, mark)?;
        self.firewalls.push(new);
        Ok(())
    }

    /// From one mark to another, with the rules for both there, and before them two more that keep
    /// packets with either mark out of the tunnel they come from.
    fn change_mark(
        &mut self,
        engine: &mut Engine,
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
            default_route::add_rules(engine, *family, new)?;
        }
        // The kernel puts a rule before all others.
        for rule in &passing {
            engine.run(Step::AddRule(*rule))?;
        }
        for family in families {
            default_route::add_route(engine, *family, new)?;
            let firewall = default_route::firewall(&mut engine.world, *family, new)?;
            let there = self.firewalls.iter().position(|one| one.family == *family);
            engine.run(match there.map(|at| self.firewalls.remove(at)) {
                Some(old) => Step::ReplaceFirewall {
                    old,
                    new: firewall.clone(),
                },
                None => Step::AddFirewall(firewall.clone()),
            })?;
            self.firewalls.push(firewall);
        }
        engine.run(Step::Set {
            changes: vec![Change::FwMark(new)],
            undo: vec![Change::FwMark(old)],
        })?;
        for family in had {
            delete_rules(engine, family, old)?;
        }
        for rule in passing.into_iter().rev() {
            engine.run(Step::DeleteRule(rule))?;
        }
        Ok(())
    }

    /// Those of other families go; those that stay know the addresses there are now.
    fn settle(&self, engine: &mut Engine, families: &[Family]) -> Result<(), Failure> {
        let mark = engine.world.get()?.fwmark;
        for old in &self.firewalls {
            if families.contains(&old.family) {
                let new = default_route::firewall(&mut engine.world, old.family, mark)?;
                if new != *old {
                    let old = old.clone();
                    engine.run(Step::ReplaceFirewall { old, new })?;
                }
                continue;
            }
            delete_rules(engine, old.family, old.mark)?;
            engine.run(Step::DeleteFirewall {
                there: Some(Present::find(&engine.world)?.of(old.family)),
                undo: vec![old.clone()],
            })?;
        }
        Ok(())
    }
}

fn delete_rules(engine: &mut Engine, family: Family, mark: u32) -> Result<(), Failure> {
    let rules = default_route::rules(&mut engine.world.home, family, mark)?;
    for rule in rules.into_iter().rev() {
        engine.run(Step::DeleteRule(rule))?;
    }
    Ok(())
}

fn set_dns(engine: &mut Engine, file: &File) -> Result<(), Failure> {
    let wanted = match Resolver::new(&file.dns, &engine.world) {
        Ok(Some(resolver)) => resolver,
        Ok(None) => return Ok(()),
        // Nothing to tell, and nobody there who was told.
        Err(_) if file.dns.is_empty() => return Ok(()),
        Err(failure) => return Err(failure),
    };
    let current = wanted.current(&engine.world);
    if current.as_ref() == Some(&file.dns) {
        return Ok(());
    }
    // An empty record is as good as none: undone, there is none.
    let old = current
        .filter(|dns| !dns.is_empty())
        .map(|dns| wanted.with(dns));
    match old {
        Some(old) if file.dns.is_empty() => engine.run(Step::UnsetDns(old)),
        Some(old) => engine.run(Step::ChangeDns { old, new: wanted }),
        None if file.dns.is_empty() => Ok(()),
        None => engine.run(Step::SetDns(wanted)),
    }
}
