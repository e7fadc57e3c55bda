//! Interfaces found: one of the caller's namespace, to act on it, or all, to show them.

use std::io;

use super::daemon::{self, Daemon};
use super::error::{Error, reason};
use super::namespace::Namespace;
use super::survey::Survey;
use crate::backend::{Backends, Kind};
use crate::sys::netlink::{self, Link, Netlink};
use crate::sys::netns::{NetNs, NetNsId};

/// The kind that the kernel gives to links of its WireGuard module.
pub(super) const WIREGUARD: &str = "wireguard";
/// The kind of the link of a daemon.
const TUN: &str = "tun";

/// An interface as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedInterface {
    /// What `wg` calls it.
    pub name: String,
    /// Whether it belongs to a daemon or to the kernel.
    pub backend: Kind,
    /// The namespace of its link. `None`: it cannot be seen, or the namespace has no name.
    pub lives_in: Option<Namespace>,
    /// The namespace of its sockets, where encrypted packets leave. `None`: as above; and the kernel
    /// does not tell.
    pub born_in: Option<Namespace>,
    /// Whether its link is up. `None`: it cannot be seen.
    pub up: Option<bool>,
    /// The ID of the daemon's process.
    pub pid: Option<u32>,
}

/// An interface that was created or found: this very one is moved and deleted, and not another one of
/// the same name.
#[derive(Debug)]
pub struct FoundInterface {
    /// What `wg` calls it.
    pub(super) name: String,
    pub(super) kind: Kind,
    /// What its link is called now.
    pub(super) link: String,
    /// Where its link is now.
    pub(super) netns: NetNs,
}

impl FoundInterface {
    pub(super) fn new(name: &str, kind: Kind, netns: NetNs) -> Self {
        FoundInterface {
            name: name.into(),
            kind,
            link: name.into(),
            netns,
        }
    }

    /// Runs `work` in the namespace of its link.
    ///
    /// # Errors
    /// As [`NetNs::run`]; none where the link is in the calling thread's namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        inside(&self.netns, work)
    }
}

/// Finds the interface `name` in the calling thread's namespace: the kernel's, else that of the daemon
/// that answers at the socket of this name.
///
/// # Errors
/// [`Error::Elsewhere`], [`Error::Absent`], [`Error::Hidden`], [`Error::NoLink`].
pub fn find(name: &str) -> Result<FoundInterface, Error> {
    let here = NetNs::current()?;
    let links = links_in(&here)?;
    let is_here = |kind: &str| links.iter().any(|link| link.name == name && is(link, kind));
    if is_here(WIREGUARD) {
        return Ok(FoundInterface::new(name, Kind::Kernel, here));
    }
    if Backends::new().kind(name)? != Some(Kind::Userspace) {
        return Err(not_here(name));
    }
    match daemon::find(name) {
        Ok(Daemon { link, netns, .. }) if netns.is(&here)? => Ok(FoundInterface {
            link,
            ..FoundInterface::new(name, Kind::Userspace, netns)
        }),
        Ok(_) => Err(not_here(name)),
        // In a container not even root may look into a daemon (CAP_SYS_PTRACE). A TUN of this name right
        // here, where only an administrator can make one, is the daemon's.
        Err(Error::Hidden { .. }) if is_here(TUN) => {
            Ok(FoundInterface::new(name, Kind::Userspace, here))
        }
        Err(error) => Err(error),
    }
}

/// Whether the link of the daemon that answers at the socket of `name` is in the calling thread's
/// namespace. One that cannot be seen is not.
pub fn lives_here(name: &str) -> bool {
    let here = || Ok::<_, Error>(daemon::find(name)?.netns.is(&NetNs::current()?)?);
    here().unwrap_or(false)
}

/// Whether the daemon that answers at the socket of `name` was started in the calling thread's
/// namespace. `None` where its process cannot be seen.
pub fn born_here(name: &str) -> Option<bool> {
    let born_in = daemon::find(name).ok()?.born_in?;
    born_in.is(&NetNs::current().ok()?).ok()
}

/// There is no interface `name` in the caller's namespace: says where there is one.
fn not_here(name: &str) -> Error {
    let name = name.to_owned();
    let mut listed = list().unwrap_or_default();
    listed.retain(|other| other.name == name);
    if listed.is_empty() {
        return Error::Absent { name };
    }
    let places = listed.into_iter().map(|other| match other.lives_in {
        Some(namespace) => namespace.to_string(),
        None => "a namespace without a name".into(),
    });
    let places: Vec<_> = places.collect();
    let places = places.join(", ");
    Error::Elsewhere { name, places }
}

fn is(link: &Link, kind: &str) -> bool {
    link.kind.as_deref() == Some(kind)
}

fn links_in(netns: &NetNs) -> Result<Vec<Link>, Error> {
    let links = || Netlink::open().and_then(|mut netlink| netlink.links());
    let links = inside(netns, links)?;
    links.map_err(|error: netlink::Error| Error::Io(error.into()))
}

/// Runs `work` in a namespace. To be in one's own takes no right.
fn inside<T: Send>(netns: &NetNs, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    if NetNs::current()?.is(netns)? {
        Ok(work())
    } else {
        netns.run(work)
    }
}

/// All WireGuard interfaces that the caller may see, by name: those with a socket here, wherever
/// they live, and the kernel's in every namespace that has a name, a container or a process. Container
/// engines are asked for names if there is anything to name.
///
/// # Errors
/// Only the kernel's own trouble.
pub fn list() -> Result<Vec<ListedInterface>, Error> {
    let mut survey = Survey::new();
    let seen = see_all(&survey)?;
    let wanted: Vec<NetNsId> = seen
        .iter()
        .flat_map(|seen| [seen.lives_in, seen.born_in])
        .flatten()
        .collect();
    survey.name_containers(&wanted);
    Ok(named(seen, &survey))
}

/// As [`list`], without asking container engines: a container's namespace goes by the ID of a process.
///
/// # Errors
/// As [`list`].
pub fn list_without_containers() -> Result<Vec<ListedInterface>, Error> {
    let survey = Survey::new();
    Ok(named(see_all(&survey)?, &survey))
}

/// An interface whose namespaces have no names yet.
struct Seen {
    name: String,
    backend: Kind,
    lives_in: Option<NetNsId>,
    born_in: Option<NetNsId>,
    up: Option<bool>,
    pid: Option<u32>,
}

fn see_all(survey: &Survey) -> Result<Vec<Seen>, Error> {
    let mut seen = Vec::new();
    for known in survey.known() {
        // A namespace that may not be entered has nothing to show.
        for link in links_in(&known.netns).unwrap_or_default() {
            if is(&link, WIREGUARD) {
                seen.push(Seen {
                    name: link.name,
                    backend: Kind::Kernel,
                    lives_in: known.netns.id().ok(),
                    born_in: None,
                    up: Some(link.up),
                    pid: None,
                });
            }
        }
    }
    let backends = Backends::new();
    for name in backends.list()? {
        if backends.kind(&name)? == Some(Kind::Userspace) {
            seen.push(behind_socket(name));
        }
    }
    Ok(seen)
}

fn behind_socket(name: String) -> Seen {
    let up = |netns: &NetNs, link: &str| {
        let links = links_in(netns).ok()?;
        let link = links.iter().find(|other| other.name == link);
        link.map(|link| link.up)
    };
    let mut seen = Seen {
        name,
        backend: Kind::Userspace,
        lives_in: None,
        born_in: None,
        up: None,
        pid: None,
    };
    match daemon::find(&seen.name) {
        Ok(daemon) => {
            seen.lives_in = daemon.netns.id().ok();
            seen.born_in = daemon.born_in.and_then(|netns| netns.id().ok());
            seen.up = up(&daemon.netns, &daemon.link);
            seen.pid = Some(daemon.pid);
        }
        Err(error) => {
            tracing::debug!(error = reason(&error));
            // As in `find`.
            if let Ok(here) = NetNs::current()
                && let Some(up) = up(&here, &seen.name)
            {
                seen.lives_in = here.id().ok();
                seen.up = Some(up);
            }
        }
    }
    seen
}

fn named(seen: Vec<Seen>, survey: &Survey) -> Vec<ListedInterface> {
    let name = |id: Option<NetNsId>| id.and_then(|id| survey.name(id));
    let mut listed: Vec<_> = seen
        .into_iter()
        .map(|seen| ListedInterface {
            name: seen.name,
            backend: seen.backend,
            lives_in: name(seen.lives_in),
            born_in: name(seen.born_in),
            up: seen.up,
            pid: seen.pid,
        })
        .collect();
    let place = |listed: &ListedInterface| listed.lives_in.as_ref().map(Namespace::to_string);
    listed.sort_by_cached_key(|listed| (listed.name.clone(), place(listed)));
    listed
}
