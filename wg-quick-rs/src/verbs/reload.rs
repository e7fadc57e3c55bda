//! `reload`: a running interface brought to its file, step by step, each undone on failure; what
//! does not differ is not touched. Hooks are not run.
//!
//! ```text
//! peers and networks that are new ─► MTU ─► addresses, routes, rules, firewall that are new ─► DNS
//!   ─► addresses, routes, rules, firewall that go ─► networks and peers that go
//! ```
//! So at no moment has a packet that may go through before and after no way to.

use std::collections::HashSet;
use std::fmt::Display;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use wg_rs::config::{PeerSettings, Retries};
use wg_rs::model::{AllowedIp, Change, Interface, Peer};
use wg_rs::sys::netlink::route::MAIN_TABLE;
use wg_rs::sys::netlink::{Route, RouteFilter, Rule};
use wg_rs::sys::udp::Family;

use crate::file::difference::{Difference, desired, moved_out, too_many};
use crate::file::hook_text;
use crate::file::table::Table;
use crate::file::{Address, File};
use crate::plan::default_route;
use crate::plan::endpoint;
use crate::plan::find::{find, not_there};
use crate::plan::ipv6::Ipv6;
use crate::plan::mtu;
use crate::plan::ours::RouteOwner;
use crate::plan::routes::{self, Wanted, connected};
use crate::steps::console;
use crate::steps::dns::Resolver;
use crate::steps::failure::Failure;
use crate::steps::firewall::{Firewall, Present};
use crate::steps::signals::Signals;
use crate::steps::state::{PeerOfFile, State};
use crate::steps::step::Step;
use crate::steps::target::{Target, family};
use crate::steps::transaction::{self, Transaction};
use crate::verbs::reresolve;

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// Brings the interface of a file to it.
pub fn reload(file: &File) -> std::process::ExitCode {
    transaction::with(&file.interface, |transaction| {
        if !find(transaction, file)? {
            return Err(not_there(file));
        }
        bring_to_file(transaction, file)
    })
}

fn bring_to_file(transaction: &mut Transaction, file: &File) -> Result<(), Failure> {
    let before = transaction.target.get()?;
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
            // Not one that `up` chooses: the file had it.
            after.fwmark = default_route::free_table(&mut transaction.target)?;
        }
    }
    // Somebody may have reset the mark, while the rules know it still.
    let ruled = defaults.firewalls.first().map(|firewall| firewall.mark);
    let marks = (ruled.unwrap_or(before.fwmark), after.fwmark);
    let moves = !defaults.firewalls.is_empty() && marks.0 != marks.1 && marks.1 != 0;
    let mut goal = after.clone();
    if moves {
        // Together with its rules.
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
    addresses.add(transaction)?;
    if moves {
        defaults.change_mark(
            transaction,
            marks,
            &default_families(file.table, &after, ipv6),
        )?;
    }
    let routes = Routes::new(transaction, file, (&before, &after), &addresses, &defaults)?;
    routes.add(transaction, &mut defaults)?;
    set_dns(transaction, file)?;
    addresses.delete(transaction)?;
    routes.delete(transaction)?;
    defaults.settle(transaction, &routes.defaults)?;
    set(transaction, less, back.clone())?;
    // Who knows no way to take one network away may not say so.
    let now = transaction.target.get()?;
    set(transaction, moved_out(too_many(&now, &after)), back)?;
    record(transaction, file, &after)
}

/// From now on what the file says is the file's.
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

/// Says what is not the file's, and so not touched.
fn left(what: impl Display, why: &str) {
    console::note(format_args!("{what} is left as it is{why}."));
}

const BY_A_HOOK: &str = ": a hook sets it";

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

/// What the file asks for. A peer whose name still stands for where it is stays there, and so does
/// one whose name cannot be resolved now.
fn wanted_interface(
    signals: &Signals,
    file: &File,
    now: &Interface,
    known: Option<&State>,
) -> Result<Interface, Failure> {
    file.settings.warnings().for_each(console::line);
    let retries = Retries::from_env().map_err(Failure::new)?;
    let endpoint = |peer: &PeerSettings, at: Option<SocketAddr>| {
        let Some(endpoint) = &peer.endpoint else {
            return Ok(at);
        };
        let of_file = known.and_then(|state| state.peer(&peer.public_key));
        let is_unchanged = of_file
            .and_then(|peer| peer.endpoint.as_ref())
            .is_some_and(|before| *before == endpoint.to_string());
        let is_name = endpoint.host.parse::<IpAddr>().is_err();
        // Where it roamed to is where it is.
        if is_unchanged && at.is_some() && !is_name {
            return Ok(at);
        }
        let is_alive = now.peers.iter().any(|one| {
            one.public_key == peer.public_key && reresolve::is_fresh(one, SystemTime::now())
        });
        let retries = if at.is_some() {
            Retries(Some(0))
        } else {
            retries
        };
        let resolved = endpoint::resolve(endpoint, retries, signals);
        if let Some(signal) = signals.caught() {
            return Err(Failure::Signal(signal));
        }
        match (resolved, at) {
            (Ok(first), Some(at)) if first != at => {
                let all = endpoint.addresses().unwrap_or_default();
                let roamed = is_alive && (is_unchanged || known.is_none());
                if roamed && !all.contains(&at) {
                    left(
                        format_args!("peer {}: its endpoint {at}", peer.public_key),
                        ", where it answers",
                    );
                }
                Ok(Some(if roamed || all.contains(&at) {
                    at
                } else {
                    first
                }))
            }
            (Ok(first), _) => Ok(Some(first)),
            (Err(reason), Some(at)) => {
                console::note(format_args!("{reason}; it stays at {at}."));
                Ok(Some(at))
            }
            (Err(reason), None) => Err(Failure::new(reason)),
        }
    };
    let mut wanted = desired(now, &file.settings, false, endpoint)?;
    keep_others(&mut wanted, now, file, known);
    Ok(wanted)
}

/// Keeps what others set: hooks, and people.
fn keep_others(wanted: &mut Interface, now: &Interface, file: &File, known: Option<&State>) {
    for peer in &now.peers {
        let key = &peer.public_key;
        let of_file = known.and_then(|state| state.peer(key));
        let claimed: HashSet<AllowedIp> = wanted
            .peers
            .iter()
            .flat_map(|one| one.allowed_ips.iter().copied())
            .collect();
        let free = |ip: &&AllowedIp| !claimed.contains(ip);
        let Some(at) = wanted.peers.iter().position(|one| one.public_key == *key) else {
            let is_others = match known {
                Some(_) => of_file.is_none(),
                None => hook_text::set_peers(file),
            };
            if is_others {
                let why = if known.is_none() {
                    BY_A_HOOK
                } else {
                    ": the file never had it"
                };
                left(format_args!("peer {key}"), why);
                let allowed_ips = peer.allowed_ips.iter().filter(free).copied().collect();
                wanted.peers.push(Peer {
                    allowed_ips,
                    ..peer.clone()
                });
            }
            continue;
        };
        let one = &mut wanted.peers[at];
        let in_file = file
            .settings
            .peers
            .iter()
            .filter(|one| one.public_key == *key);
        let says = |says: fn(&PeerSettings) -> bool| in_file.clone().any(says);
        let keeps_key = match known {
            Some(_) => of_file.is_none_or(|peer| !peer.preshared_key),
            None => hook_text::set_preshared_key(file, &key.to_base64()),
        };
        if keeps_key && !peer.preshared_key.is_zero() && !says(|one| one.preshared_key.is_some()) {
            left(format_args!("peer {key}: its preshared key"), BY_A_HOOK);
            one.preshared_key = peer.preshared_key.clone();
        }
        if known.is_none() {
            continue;
        }
        let keeps_alive = of_file.is_none_or(|peer| peer.persistent_keepalive.is_none());
        if keeps_alive
            && peer.persistent_keepalive != 0
            && !says(|one| one.persistent_keepalive.is_some())
        {
            left(format_args!("peer {key}: its keepalive"), BY_A_HOOK);
            one.persistent_keepalive = peer.persistent_keepalive;
        }
        let was_files =
            |ip: &AllowedIp| of_file.is_some_and(|peer| peer.allowed_ips.contains(&ip.to_string()));
        for ip in peer.allowed_ips.iter().filter(free) {
            if !was_files(ip) {
                left(format_args!("peer {key}: its allowed IP {ip}"), BY_A_HOOK);
                one.allowed_ips.push(*ip);
            }
        }
    }
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

/// The addresses of the file, and those that go.
struct Addresses {
    there: Vec<Address>,
    new: Vec<Address>,
    gone: Vec<Address>,
}

impl Addresses {
    fn new(there: Vec<Address>, file: &File, ipv6: Ipv6, known: Option<&State>) -> Self {
        let all = file.addresses.iter().map(|one| one.value);
        let new: Vec<Address> = all.filter(|address| ipv6.uses(address.ip)).collect();
        let by_kernel = |address: &Address| match address.ip {
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
            IpAddr::V4(_) => false,
        };
        let mut gone = there.clone();
        gone.retain(|address| {
            if new.contains(address) || by_kernel(address) {
                return false;
            }
            let is_ours = match known {
                Some(state) => state.addresses.contains(address),
                None => !hook_text::set_address(file, address.ip),
            };
            if !is_ours {
                left(format_args!("address {address}"), BY_A_HOOK);
            }
            is_ours
        });
        Addresses { there, new, gone }
    }

    fn add(&self, transaction: &mut Transaction) -> Result<(), Failure> {
        for address in self
            .new
            .iter()
            .filter(|address| !self.there.contains(address))
        {
            // IPv6 knows an address once, whatever its network.
            let is_twin = |old: &&Address| old.ip == address.ip && old.ip.is_ipv6();
            if let Some(twin) = self.gone.iter().find(is_twin) {
                transaction.run(Step::DeleteAddress(*twin))?;
            }
            transaction.run(Step::AddAddress(*address))?;
        }
        Ok(())
    }

    fn delete(&self, transaction: &mut Transaction) -> Result<(), Failure> {
        let there = transaction.target.addresses()?;
        let gone: Vec<_> = self
            .gone
            .iter()
            .filter(|address| there.contains(address))
            .collect();
        // With the first address of a network, the kernel takes away the others of it, unless told
        // otherwise.
        let key = format!(
            "net/ipv4/conf/{}/promote_secondaries",
            transaction.target.interface
        );
        let path = format!("/proc/sys/{key}");
        let value = transaction.target.at_home(|| fs::read_to_string(&path))?;
        let promote = gone.iter().any(|address| address.ip.is_ipv4())
            && value.is_ok_and(|value| value.trim() == "0");
        if promote {
            transaction.run(Step::Sysctl(key.clone(), "1".into(), Some("0".into())))?;
        }
        for address in gone {
            transaction.run(Step::DeleteAddress(*address))?;
        }
        if promote {
            transaction.run(Step::Sysctl(key, "0".into(), Some("1".into())))?;
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

    fn add(&self, transaction: &mut Transaction, defaults: &mut Defaults) -> Result<(), Failure> {
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
            // In the way until its address goes.
            let is_twin = |other: &Route| same(route, other) && route.to.0.is_ipv4();
            transaction.run(if self.others.iter().any(is_twin) {
                Step::AppendRoute(*route)
            } else {
                Step::AddRoute(*route)
            })?;
        }
        Ok(())
    }

    fn delete(&self, transaction: &mut Transaction) -> Result<(), Failure> {
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

/// The default routes with rules of their own: each by the firewall that goes with it.
struct Defaults {
    firewalls: Vec<Firewall>,
}

impl Defaults {
    /// With `Table = auto` by the rules; else those may be a hook's, and ours have a firewall.
    fn now(
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

    fn has(&self, family: Family, mark: u32) -> bool {
        let mut firewalls = self.firewalls.iter();
        firewalls.any(|firewall| firewall.family == family && firewall.mark == mark)
    }

    /// With what goes with it.
    fn add(&mut self, transaction: &mut Transaction, family: Family) -> Result<(), Failure> {
        let mark = default_route::add(transaction, family)?;
        let new = default_route::firewall(&mut transaction.target, family, mark)?;
        self.firewalls.push(new);
        Ok(())
    }

    /// From one mark to another, with the rules for both there, and before them two more that keep
    /// packets with either mark out of the tunnel they come from.
    fn change_mark(
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
        // The kernel puts a rule before all others.
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

    /// Those of other families go; those that stay know the addresses there are now.
    fn settle(&self, transaction: &mut Transaction, families: &[Family]) -> Result<(), Failure> {
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

fn set_dns(transaction: &mut Transaction, file: &File) -> Result<(), Failure> {
    let is_told = transaction.state.as_ref().map(|state| state.dns.is_some());
    if file.dns.is_empty() && is_told == Some(false) {
        return Ok(());
    }
    // Whom `up' told is told again: only there is something to change or to take back.
    let told = transaction
        .state
        .as_ref()
        .and_then(|state| state.dns.as_ref());
    let wanted = match told {
        Some(told) => told.with(file.dns.clone()),
        None => match Resolver::new(&file.dns, &transaction.target) {
            Some(resolver) => resolver,
            None => return Ok(()),
        },
    };
    let is_covered = told == Some(&wanted) && wanted.is_covered(&transaction.target);
    let current = wanted.current(&transaction.target, &transaction.signals);
    if is_covered || current.as_ref() == Some(&file.dns) {
        return Ok(());
    }
    // An empty record is as good as none: undone, there is none.
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
