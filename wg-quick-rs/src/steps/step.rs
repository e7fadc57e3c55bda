//! One step each: how it is done, and what undoes it. How it is shown is in `shown`.
//!
//! A request to the kernel is done or it is not. A program may have done half its work when it
//! fails, so what undoes it is kept before it runs, and finds out itself what there is to do.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use wg_rs::model::Change;
use wg_rs::place::{self, Ending, Namespace};
use wg_rs::sys::netlink::{self, Events, Groups, Netlink, Route, Rule};
use wg_rs::sys::netns::NetNs;

use crate::file::Address;
use crate::steps::console;
use crate::steps::dns::Resolver;
use crate::steps::failure::Failure;
use crate::steps::firewall::{Firewall, Present};
use crate::steps::program::Program;
use crate::steps::signals::Signals;
use crate::steps::state::State;
use crate::steps::target::Target;

/// What can be done, and undone.
#[derive(Debug)]
pub enum Step {
    /// A link of the kernel's own kind.
    AddLink,
    /// A link by this userspace implementation.
    StartDaemon(Program),
    /// The link, and with it the daemon.
    DeleteLink,
    /// The link to the namespace it is to live in.
    MoveLink(Namespace, NetNs),
    /// The settings of the file.
    AddConf(Vec<Change>),
    /// A few changes of the configuration.
    Set {
        /// What changes.
        changes: Vec<Change>,
        /// What undoes it.
        undo: Vec<Change>,
    },
    /// A new address.
    AddAddress(Address),
    /// An address that goes.
    DeleteAddress(Address),
    /// The MTU, and the link up. What it was before is what undoes it.
    Up {
        /// The new one.
        mtu: u32,
        /// The one before.
        before: u32,
    },
    /// Servers and domains.
    SetDns(Resolver),
    /// The same, in /etc/resolv.conf itself where whoever keeps it fails.
    SetDnsOrFile(Resolver),
    /// Removes the DNS settings.
    UnsetDns(Resolver),
    /// Replaces the DNS settings.
    ChangeDns {
        /// Those before.
        old: Resolver,
        /// The new ones.
        new: Resolver,
    },
    /// `net.ipv4.…`, or `net/ipv4/…` if a name in it has dots; its new value, and the one before if
    /// that is to be put back.
    Sysctl(String, String, Option<String>),
    /// A new rule.
    AddRule(Rule),
    /// A rule that goes.
    DeleteRule(Rule),
    /// A new route.
    AddRoute(Route),
    /// A new route beside one to the same destination that goes soon.
    AppendRoute(Route),
    /// A route that goes.
    DeleteRoute(Route),
    /// What keeps spoofed packets out.
    AddFirewall(Firewall),
    /// Another one in its place, at once.
    ReplaceFirewall {
        /// The one there is; `None` where it was deleted, or half of it.
        old: Option<Firewall>,
        /// The new one.
        new: Firewall,
    },
    /// It goes.
    DeleteFirewall {
        /// What there is; looked for if it is not given.
        there: Option<Present>,
        /// What there is, to be put back in this order.
        undo: Vec<Firewall>,
    },
    /// A line of shell.
    Hook {
        /// As it is run.
        command: OsString,
        /// The file it is from.
        file: PathBuf,
        /// Where it is in there, for errors.
        position: String,
    },
}

impl Step {
    /// Whether what it takes away goes with the link.
    pub fn is_of_link(&self) -> bool {
        matches!(
            self,
            Step::Set { .. }
                | Step::DeleteAddress(_)
                | Step::DeleteRoute(Route {
                    unreachable: false,
                    ..
                })
                | Step::Up { .. }
        )
    }

    /// Whether there is no way back from it.
    pub fn is_final(&self) -> bool {
        matches!(self, Step::DeleteLink)
    }

    /// Whether it runs what others wrote.
    pub fn is_others(&self) -> bool {
        matches!(self, Step::Hook { .. })
    }

    /// Notes in `state` what this step would undo.
    pub fn record(&self, state: &mut State) {
        match self {
            Step::DeleteAddress(added) => state.addresses.push(*added),
            Step::AddAddress(deleted) => state.addresses.retain(|one| one != deleted),
            Step::DeleteRoute(added) => state.routes.push(*added),
            Step::AddRoute(deleted) => state.routes.retain(|one| one != deleted),
            Step::DeleteRule(added) => state.rules.push(*added),
            Step::AddRule(deleted) => state.rules.retain(|one| one != deleted),
            Step::Up { before: set, .. } => state.mtu = Some(*set),
            Step::UnsetDns(set) | Step::ChangeDns { old: set, .. } => {
                state.dns = Some(set.clone());
            }
            Step::SetDns(_) => state.dns = None,
            Step::DeleteFirewall { undo: added, .. } => {
                added.iter().for_each(|one| state.set_firewall(one));
            }
            Step::ReplaceFirewall { old: Some(set), .. } => state.set_firewall(set),
            Step::ReplaceFirewall { old: None, new } => {
                state.firewalls.retain(|one| one.family != new.family);
            }
            _ => {}
        }
    }

    /// Does it, and keeps what undoes it.
    ///
    /// # Errors
    /// It failed.
    pub fn run(
        self,
        target: &mut Target,
        signals: &Signals,
        undo: &mut Vec<Step>,
    ) -> Result<(), Failure> {
        match self {
            Step::AddLink => {
                target.birth.add_link(&target.interface, "wireguard")?;
                undo.push(Step::DeleteLink);
            }
            Step::StartDaemon(program) => {
                let name = target.interface.clone();
                // One that is there is not ours to delete.
                match target.birth.link(&name) {
                    Ok(_) => return Err(Failure::new(format_args!("`{name}' already exists"))),
                    Err(error) if error.is_absent() => undo.push(Step::DeleteLink),
                    Err(error) => return Err(error.into()),
                }
                let path = program.path().display().to_string();
                // A name that begins with `-' is none of its options.
                let end_of_options = program.is_ours() && name.starts_with('-');
                let outcome = program
                    .args(end_of_options.then_some("--"))
                    .args([name])
                    .of_terminal()
                    .run(target, signals)?;
                if !outcome.status.success() {
                    return Err(Failure::new(format_args!("{path}: {}", outcome.status)));
                }
            }
            Step::DeleteLink => delete_link(target)?,
            Step::MoveLink(namespace, netns) => {
                let name = target.interface.clone();
                // Once it has moved, it has to be found there to be undone.
                let home = netns.run(Netlink::open)??;
                target.birth.move_link(&name, netns.as_fd())?;
                target.home = home;
                target.elsewhere = Some((namespace, netns));
                // It is a new link to the IPv6 of this namespace.
                target.home.set_addr_gen_mode_none(&name)?;
                target.at_home(|| place::allow_ipv6(&name))?;
            }
            Step::AddConf(changes) => target.set(&changes)?,
            Step::Set {
                changes,
                undo: back,
            } => {
                target.set(&changes)?;
                undo.push(Step::Set {
                    changes: back,
                    undo: changes,
                });
            }
            Step::AddAddress(address) => {
                let full = of_link(address, target)?;
                target.home.add_address_checked(&full)?;
                undo.push(Step::DeleteAddress(address));
            }
            Step::DeleteAddress(address) => {
                let full = of_link(address, target)?;
                target.home.delete_address(&full)?;
                undo.push(Step::AddAddress(address));
            }
            Step::Up { mtu, before } => {
                let name = &target.interface;
                target.home.set_mtu_and_up(name, mtu)?;
                undo.push(Step::Up {
                    mtu: before,
                    before: mtu,
                });
            }
            Step::SetDns(resolver) => {
                let resolver = resolver.knowing(target, dns_of)?;
                undo.push(Step::UnsetDns(resolver.clone()));
                resolver.set(target, signals)?;
            }
            Step::SetDnsOrFile(resolver) => {
                let mut of_program = Vec::new();
                let set = Step::SetDns(resolver.clone()).run(target, signals, &mut of_program);
                if let Err(failure) = &set
                    && signals.caught().is_none()
                    && let Some(file) = resolver.fallback(target, signals)
                {
                    console::error(failure);
                    file.show_set(&target.interface);
                    return Step::SetDns(file).run(target, signals, undo);
                }
                undo.append(&mut of_program);
                set?;
            }
            Step::UnsetDns(resolver) => {
                undo.push(Step::SetDns(resolver.clone()));
                resolver.unset(target, signals)?;
            }
            Step::ChangeDns { old, new } => {
                undo.push(Step::ChangeDns {
                    old: new.clone(),
                    new: old,
                });
                new.set(target, signals)?;
            }
            Step::Sysctl(key, value, before) => {
                let path = match key.contains('/') {
                    true => format!("/proc/sys/{key}"),
                    false => format!("/proc/sys/{}", key.replace('.', "/")),
                };
                let written = target.at_home(|| fs::write(&path, &value))?;
                written.map_err(|error| Failure::new(format_args!("{key}: {error}")))?;
                undo.extend(before.map(|before| Step::Sysctl(key, before, Some(value))));
            }
            Step::AddRule(rule) => add_rule(rule, target, undo)?,
            Step::DeleteRule(rule) => {
                target.home.delete_rule(&rule)?;
                undo.push(Step::AddRule(rule));
            }
            Step::AddRoute(route) => {
                target.home.add_route(&route)?;
                undo.push(Step::DeleteRoute(route));
            }
            Step::AppendRoute(route) => {
                target.home.append_route(&route)?;
                undo.push(Step::DeleteRoute(route));
            }
            Step::DeleteRoute(route) => {
                target.home.delete_route(&route)?;
                undo.push(Step::AddRoute(route));
            }
            Step::AddFirewall(firewall) => {
                undo.push(Step::DeleteFirewall {
                    there: None,
                    undo: vec![firewall.clone()],
                });
                firewall.add(target, signals)?;
            }
            Step::ReplaceFirewall { old, new } => {
                undo.push(match old {
                    Some(old) => Step::ReplaceFirewall {
                        old: Some(new.clone()),
                        new: old,
                    },
                    None => Step::DeleteFirewall {
                        there: None,
                        undo: vec![new.clone()],
                    },
                });
                new.replace(target, signals)?;
            }
            Step::DeleteFirewall {
                there,
                undo: before,
            } => {
                // All of it may be there still.
                undo.extend(
                    before
                        .into_iter()
                        .rev()
                        .map(|firewall| Step::ReplaceFirewall {
                            old: None,
                            new: firewall,
                        }),
                );
                let there = there.unwrap_or_else(|| Present::look(target, signals));
                there.delete(target, signals)?;
            }
            Step::Hook {
                command,
                file,
                position,
            } => match hook(&command, &file, target, signals)? {
                0 => {}
                code => return Err(Failure::Hook(position, code)),
            },
        }
        Ok(())
    }
}

/// What was recorded of the servers and domains of a tunnel.
fn dns_of(tunnel: &str) -> Option<Resolver> {
    State::load(tunnel).ok().flatten()?.dns
}

fn of_link(address: Address, target: &mut Target) -> Result<netlink::Address, netlink::Error> {
    Ok(netlink::Address {
        link: target.link()?,
        ip: address.ip,
        prefix: address.prefix,
    })
}

/// Without an error if there is none, and with the end of its daemon.
fn delete_link(target: &mut Target) -> Result<(), Failure> {
    let name = &target.interface;
    let ending = Ending::of(name);
    let links = target.at_home(|| {
        Events::open(Groups {
            links: true,
            ..Groups::default()
        })
    });
    if let Ok(Ok(links)) = links
        && ending.by_socket(links)
    {
        return Ok(());
    }
    match target.home.delete_link(name) {
        Ok(()) => ending.wait(),
        Err(error) if error.is_absent() => {}
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// The kernel chooses where among the others, unless that is said. It is this very one that is
/// deleted again, not one like it.
fn add_rule(rule: Rule, target: &mut Target, undo: &mut Vec<Step>) -> Result<(), Failure> {
    target.home.add_rule(&rule)?;
    undo.push(Step::DeleteRule(rule));
    if rule.priority.is_none() {
        let same = |other: &&Rule| {
            Rule {
                priority: None,
                ..**other
            } == rule
        };
        let rules = target.home.rules(rule.family)?;
        let added = rules.iter().find(same).copied();
        undo.pop();
        undo.push(Step::DeleteRule(added.unwrap_or(rule)));
    }
    Ok(())
}

/// Runs a hook; its exit code.
fn hook(command: &OsStr, file: &Path, target: &Target, signals: &Signals) -> Result<i32, Failure> {
    let shell = match Program::find("bash") {
        // As within wg-quick, which is a script.
        Some(bash) => bash.args(["-e", "-o", "pipefail", "-O", "extglob", "-c"]),
        None => Program::find("sh")
            .ok_or_else(|| Failure::new("there is no shell to run hooks"))?
            .args(["-e", "-c"]),
    };
    let outcome = shell
        .args([command, console::program().as_ref()])
        .variable("INTERFACE", &target.interface)
        .variable("CONFIG_FILE", file)
        .of_terminal()
        .run(target, signals)?;
    Ok(outcome.code())
}
