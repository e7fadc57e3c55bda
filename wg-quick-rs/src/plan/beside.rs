//! What `up` sets up beside the link, and what does not disappear with the link: DNS, rules, a firewall,
//! and the routes that make destinations unreachable.

use wg_rs::model::Interface;
use wg_rs::sys::netlink::{Route, Rule};
use wg_rs::sys::udp::Family;

use crate::file::File;
use crate::file::table::Table;
use crate::plan::default_route;
use crate::steps::dns::DnsSettings;
use crate::steps::failure::Failure;
use crate::steps::firewall::{Firewall, Present};
use crate::steps::signals::Signals;
use crate::steps::state::State;
use crate::steps::step::Step;
use crate::steps::target::{self, Target};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// See the head of the file.
#[derive(Debug, Default)]
pub struct Beside {
    /// The servers and domains that were set.
    pub resolver: Option<DnsSettings>,
    /// Rules, in the order in which they are deleted.
    pub rules: Vec<Rule>,
    /// The parts of a firewall that are there.
    pub firewall: Present,
    /// The firewalls, to add them again if the deletion is undone.
    pub firewalls: Vec<Firewall>,
    /// The unreachable routes.
    pub routes: Vec<Route>,
}

impl Beside {
    /// What `up` recorded, without what somebody has removed since.
    ///
    /// # Errors
    /// An error of the kernel or of nft.
    pub fn recorded(
        target: &mut Target,
        signals: &Signals,
        state: &State,
    ) -> Result<Self, Failure> {
        let mut beside = Beside {
            resolver: state.dns.clone(),
            firewalls: state.firewalls.clone(),
            ..Beside::default()
        };
        for family in FAMILIES {
            let ours = |rule: &&Rule| rule.family == family;
            if state.rules.iter().any(|rule| ours(&rule)) {
                let mut there = target.home.rules(family)?;
                for rule in state.rules.iter().filter(ours) {
                    if let Some(at) = there.iter().position(|one| one == rule) {
                        beside.rules.push(there.remove(at));
                    }
                }
            }
            for route in state.routes.iter().filter(|route| route.unreachable) {
                if target::family(route.to.0) == family
                    && target
                        .home
                        .unreachable_routes(family, route.table)?
                        .contains(route)
                {
                    beside.routes.push(*route);
                }
            }
        }
        beside.rules.sort_by_key(|rule| !rule.not);
        if !state.firewalls.is_empty() {
            beside.firewall = Present::find(target, signals)?;
        }
        Ok(beside)
    }

    /// All that `up` recorded, for when it cannot be found out which parts still exist.
    pub fn assumed(state: &State) -> Self {
        let mut rules = state.rules.clone();
        rules.sort_by_key(|rule| !rule.not);
        let routes = state.routes.iter().filter(|route| route.unreachable);
        Beside {
            resolver: state.dns.clone(),
            rules,
            firewall: Present::assumed(&state.firewalls),
            firewalls: state.firewalls.clone(),
            routes: routes.copied().collect(),
        }
    }

    /// The rules and routes of a default route with this mark, without a record of `up`.
    ///
    /// # Errors
    /// An error of the kernel.
    pub fn of_mark(target: &mut Target, mark: u32) -> Result<Self, Failure> {
        let mut beside = Beside {
            rules: rules(target, mark)?,
            ..Beside::default()
        };
        for family in FAMILIES {
            let unreachable = default_route::unreachable(family, mark);
            let there = target.home.unreachable_routes(family, mark)?;
            beside
                .routes
                .extend(there.contains(&unreachable).then_some(unreachable));
        }
        Ok(beside)
    }

    /// What belongs to an interface, by its file and its configuration, without a record of `up`.
    ///
    /// # Errors
    /// An error of the kernel or of nft.
    pub fn of_interface(
        target: &mut Target,
        signals: &Signals,
        file: &File,
        interface: &Interface,
    ) -> Result<Self, Failure> {
        let mut beside = Beside::default();
        if target.elsewhere.is_none() && may_have_default_route(interface, file) {
            beside = Beside::of_mark(target, interface.fwmark)?;
            beside.firewall = Present::find(target, signals)?;
            for family in beside.firewall.families().into_iter().rev() {
                let firewall = default_route::firewall(target, family, interface.fwmark)?;
                beside.firewalls.push(firewall);
            }
        }
        if !file.dns.is_empty() {
            beside.resolver = DnsSettings::new(&file.dns, target);
        }
        Ok(beside)
    }

    /// The mark of the packets that the rules keep out of the tunnel.
    pub fn mark(&self) -> Option<u32> {
        self.rules.iter().find(|rule| rule.not)?.fwmark
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        let none = self.rules.is_empty() && self.routes.is_empty();
        none && self.firewall.is_empty() && self.resolver.is_none()
    }

    /// The steps of [`Beside::steps`] without those for the firewall.
    pub fn without_firewall(self) -> Vec<Step> {
        let firewall = Present::default();
        Beside { firewall, ..self }.steps()
    }

    /// The steps that remove all this, in an order in which traffic never goes to a tunnel that is not
    /// there.
    pub fn steps(self) -> Vec<Step> {
        let mut steps = Vec::new();
        steps.extend(self.resolver.map(Step::UnsetDns));
        steps.extend(self.rules.into_iter().map(Step::DeleteRule));
        if !self.firewall.is_empty() {
            steps.push(Step::DeleteFirewall {
                there: Some(self.firewall),
                undo: self.firewalls,
            });
        }
        steps.extend(self.routes.into_iter().map(Step::DeleteRoute));
        steps
    }
}

/// Whether `up` may have added rules for a default route, for a peer of now or of the file.
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

/// The rules of both families, in the order in which they are deleted.
fn rules(target: &mut Target, mark: u32) -> Result<Vec<Rule>, Failure> {
    let mut rules = Vec::new();
    for family in FAMILIES {
        let of_family = default_route::rules(&mut target.home, family, mark, None)?;
        rules.extend(of_family.into_iter().rev());
    }
    Ok(rules)
}
