//! The steps: how each is done, and which step undoes it. How a step is shown is in `shown`.
//!
//! A request to the kernel is done or not done. A program may have done half of its work when it fails:
//! the step that undoes it is noted before the program runs, and finds out itself what there is to undo.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use wg_rs::model::Change;
use wg_rs::place::{self, Ending, Namespace};
use wg_rs::sys::netlink::{self, Events, MulticastGroups, Netlink, Route, Rule};
use wg_rs::sys::netns::NetNs;
use zeroize::Zeroizing;

use crate::file::Address;
use crate::file::replace::{create, replace};
use crate::steps::conflict;
use crate::steps::console;
use crate::steps::dns::DnsSettings;
use crate::steps::failure::Failure;
use crate::steps::firewall::{Firewall, Present};
use crate::steps::program::Program;
use crate::steps::signals::Signals;
use crate::steps::state::State;
use crate::steps::target::{Target, within};

/// A text with keys, which is not shown.
#[derive(Clone)]
pub struct Secret(pub Zeroizing<Vec<u8>>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// A change of the host that can be undone.
#[derive(Debug)]
pub enum Step {
    /// Creates an interface of the kernel's module.
    AddLink,
    /// Starts a userspace implementation, which creates the link.
    StartDaemon(Program),
    /// Deletes the link, which also ends its daemon.
    DeleteLink,
    /// Moves the link to another namespace.
    MoveLink(Namespace, NetNs),
    /// Applies the settings of the file.
    AddConf {
        /// The settings, as changes.
        changes: Vec<Change>,
        /// The config file, to show it.
        file: PathBuf,
    },
    /// Changes the configuration.
    Set {
        /// The changes.
        changes: Vec<Change>,
        /// The changes that undo them.
        undo: Vec<Change>,
    },
    /// Adds an address.
    AddAddress(Address),
    /// Deletes an address.
    DeleteAddress(Address),
    /// Sets the MTU and the link up. The former MTU undoes it.
    Up {
        /// The new MTU, bytes.
        mtu: u32,
        /// The former MTU, bytes.
        before: u32,
    },
    /// Sets name servers and domains.
    SetDns(DnsSettings),
    /// The same; if the program for it fails, in /etc/resolv.conf itself.
    SetDnsOrFile(DnsSettings),
    /// Removes the DNS settings.
    UnsetDns(DnsSettings),
    /// Replaces the DNS settings.
    ChangeDns {
        /// The former settings.
        old: DnsSettings,
        /// The new settings.
        new: DnsSettings,
    },
    /// Sets a sysctl: its name (`net.ipv4.…`, or `net/ipv4/…` if a part of it has dots), its new value,
    /// and its former value if that is to be restored.
    Sysctl(String, String, Option<String>),
    /// Adds a rule.
    AddRule(Rule),
    /// Deletes a rule.
    DeleteRule(Rule),
    /// Adds a route.
    AddRoute(Route),
    /// Adds a route although there is one to the same destination, which is deleted later.
    AppendRoute(Route),
    /// Deletes a route.
    DeleteRoute(Route),
    /// Adds the firewall of a default route.
    AddFirewall(Firewall),
    /// Replaces a firewall at once.
    ReplaceFirewall {
        /// The current one; `None` if it was deleted, wholly or in part.
        old: Option<Firewall>,
        /// The new firewall.
        new: Firewall,
    },
    /// Deletes the firewall.
    DeleteFirewall {
        /// What is there; the step looks for it if this is `None`.
        there: Option<Present>,
        /// The firewalls to add again, in this order, if the deletion is undone.
        undo: Vec<Firewall>,
    },
    /// A new file, its owner's alone.
    CreateFile(PathBuf, Secret),
    /// A file that goes.
    RemoveFile(PathBuf, Secret),
    /// The text of a config file.
    ReplaceFile {
        /// The file.
        path: PathBuf,
        /// Its former text.
        old: Secret,
        /// Its new text.
        new: Secret,
    },
    /// Runs a shell command of the file.
    Hook {
        /// The command.
        command: OsString,
        /// The config file.
        file: PathBuf,
        /// The position of the command in the file, for errors.
        position: String,
    },
}

impl Step {
    /// Whether the link's deletion does the work of this step.
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

    /// Whether the step cannot be undone.
    pub fn is_final(&self) -> bool {
        matches!(self, Step::DeleteLink)
    }

    /// Whether the step runs a command of the user's, which may do anything.
    pub fn is_others(&self) -> bool {
        matches!(self, Step::Hook { .. })
    }

    /// Records in `state` the change that this step would undo.
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

    /// Does the step, and adds the steps that undo it to `undo`.
    ///
    /// # Errors
    /// The step failed.
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
                // An existing link must not be deleted when this step is undone.
                match target.birth.link(&name) {
                    Ok(_) => return Err(Failure::new(format_args!("`{name}' already exists"))),
                    Err(error) if error.is_absent() => undo.push(Step::DeleteLink),
                    Err(error) => return Err(error.into()),
                }
                let path = program.path().display().to_string();
                // A name that begins with `-' must not be taken for an option.
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
                // Opened before the move: to undo it, the link must be reached in its new namespace.
                let home = within(&namespace, &netns, Netlink::open)??;
                target.birth.move_link(&name, netns.as_fd())?;
                target.home = home;
                target.elsewhere = Some((namespace, netns));
                // For the IPv6 of this namespace the link is new, so its settings are the defaults.
                target.home.set_addr_gen_mode_none(&name)?;
                target.at_home(|| place::allow_ipv6(&name))?;
            }
            Step::AddConf { changes, .. } => target.set(&changes)?,
            Step::Set {
                changes,
                undo: back,
            } => {
                let set = target.set(&changes);
                // An interface that refuses a change may have applied those before it.
                undo.push(Step::Set {
                    changes: back,
                    undo: changes,
                });
                set?;
            }
            Step::CreateFile(path, text) => {
                create(&path, &text.0).map_err(Failure::new)?;
                undo.push(Step::RemoveFile(path, text));
            }
            Step::RemoveFile(path, text) => {
                fs::remove_file(&path)?;
                undo.push(Step::CreateFile(path, text));
            }
            Step::ReplaceFile { path, old, new } => {
                replace(&path, &new.0).map_err(Failure::new)?;
                undo.push(Step::ReplaceFile {
                    path,
                    old: new,
                    new: old,
                });
            }
            Step::AddAddress(address) => {
                let full = of_link(address, target)?;
                let added = target.home.add_address_checked(&full);
                added.map_err(|error| conflict::of_address(error, address, target))?;
                undo.push(Step::DeleteAddress(address));
            }
            Step::DeleteAddress(address) => {
                let full = of_link(address, target)?;
                target.home.delete_address(&full)?;
                undo.push(Step::AddAddress(address));
            }
            Step::Up { mtu, before } => {
                let name = &target.interface;
                let up = target.home.set_mtu_and_up(name, mtu);
                up.map_err(|error| conflict::of_port(error, target))?;
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
                let added = target.home.add_route(&route);
                added.map_err(|error| conflict::of_route(error, &route, target))?;
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
                // If the deletion fails, all of the firewall may still be there.
                undo.extend(
                    before
                        .into_iter()
                        .rev()
                        .map(|firewall| Step::ReplaceFirewall {
                            old: None,
                            new: firewall,
                        }),
                );
                let there = there.unwrap_or_else(|| {
                    let there = Present::look(target, signals);
                    there.commands().iter().for_each(console::command);
                    there
                });
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

/// The recorded name servers and domains of a tunnel.
fn dns_of(tunnel: &str) -> Option<DnsSettings> {
    State::load(tunnel).ok().flatten()?.dns
}

fn of_link(address: Address, target: &mut Target) -> Result<netlink::LinkAddress, netlink::Error> {
    Ok(netlink::LinkAddress {
        link: target.link()?,
        ip: address.ip,
        prefix: address.prefix,
    })
}

/// Deletes the link and waits for the end of its daemon. It is no error if there is no link.
fn delete_link(target: &mut Target) -> Result<(), Failure> {
    let name = &target.interface;
    // The socket of this name may belong to a daemon whose link is in another namespace.
    let ending = match target.home.link(name) {
        Ok(link) => (link.kind.as_deref() == Some("tun")).then(|| Ending::of(name)),
        Err(error) if error.is_absent() => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let links = || {
        Events::open(MulticastGroups {
            links: true,
            ..MulticastGroups::default()
        })
    };
    if let Some(ending) = &ending
        && let Ok(Ok(links)) = target.at_home(links)
        && ending.by_socket(links)
    {
        return Ok(());
    }
    match target.home.delete_link(name) {
        Ok(()) => _ = ending.map(Ending::wait),
        Err(error) if error.is_absent() => {}
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Adds a rule. If it has no priority, the kernel chooses one; the step that undoes it deletes the rule
/// with that very priority.
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

/// Runs a hook and returns its exit code.
fn hook(command: &OsStr, file: &Path, target: &Target, signals: &Signals) -> Result<i32, Failure> {
    let shell = match Program::find("bash") {
        // The options that wg-quick, a bash script, sets for itself.
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
