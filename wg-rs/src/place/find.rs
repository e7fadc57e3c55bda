//! Finds interfaces: one in the caller's namespace, for an operation, or all of them, for a list.

use std::io;

use super::daemon::{self, RunningDaemon};
use super::error::{Error, reason};
use super::namespace::Namespace;
use super::survey::Survey;
use crate::backend::{Backends, Kind, errno};
use crate::sys::netlink::{self, Link, Netlink};
use crate::sys::netns::{NetNs, NetNsId};

/// The kind of links of the kernel's WireGuard module.
pub(super) const WIREGUARD: &str = "wireguard";
/// The kind of a daemon's link.
const TUN: &str = "tun";

/// An interface in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedInterface {
    /// The name that `wg` uses.
    pub name: String,
    /// The kind of backend.
    pub backend: Kind,
    /// The link's namespace. None if the link is not visible, or the namespace has no name.
    pub lives_in: Option<Namespace>,
    /// The namespace of the sockets, where encrypted packets leave. None if it is unknown or has no
    /// name; the kernel does not report it.
    pub born_in: Option<Namespace>,
    /// Whether the link is up. None if the link is not visible.
    pub up: Option<bool>,
    /// The daemon's process ID.
    pub pid: Option<u32>,
}

/// An interface that was created or found. Moving and deleting apply to exactly this interface, not
/// to another one of the same name.
#[derive(Debug)]
pub struct FoundInterface {
    /// The name that `wg` uses.
    pub(super) name: String,
    pub(super) kind: Kind,
    /// The link's current name.
    pub(super) link: String,
    /// The link's current namespace.
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

    /// Runs `work` in the link's namespace.
    ///
    /// # Errors
    /// Those of [`NetNs::run`]; none if the link is in the calling thread's namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        inside(&self.netns, work)
    }
}

/// Finds the interface `name` in the calling thread's namespace: the kernel's, or that of the
/// daemon at the socket of this name.
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
        Ok(RunningDaemon { link, netns, .. }) if netns.is(&here)? => Ok(FoundInterface {
            link,
            ..FoundInterface::new(name, Kind::Userspace, netns)
        }),
        Ok(_) => Err(not_here(name)),
        // In a container, not even root may inspect a daemon (CAP_SYS_PTRACE). A TUN of this name
        // in this namespace, where only an administrator can create one, is the daemon's.
        Err(Error::Hidden { .. }) if is_here(TUN) => {
            Ok(FoundInterface::new(name, Kind::Userspace, here))
        }
        Err(error) => Err(error),
    }
}

/// Why an interface cannot be accessed, in words for a command that `wg` lacks: `wg` itself reports only
/// an errno.
pub fn no_access(name: &str, error: &io::Error) -> String {
    match errno(error) {
        Some(libc::ECONNREFUSED) => left_behind(name),
        Some(libc::EPROTONOSUPPORT | libc::ENODEV | libc::EOPNOTSUPP) => {
            let link = Netlink::open().and_then(|mut netlink| netlink.link(name));
            match link {
                Ok(_) => "it is not a WireGuard interface".into(),
                Err(error) if error.is_absent() => "there is no such interface".into(),
                Err(error) => error.to_string(),
            }
        }
        _ => error.to_string(),
    }
}

/// What is known of an interface whose daemon left its socket behind.
pub fn left_behind(name: &str) -> String {
    format!(
        "its daemon was killed or has crashed, and left its socket {}: start it again, for example \
         with `wg-quick-rs up {name}', or remove the socket",
        daemon::socket(name).display()
    )
}

/// Whether the link of the daemon at the interface's socket is in the calling thread's namespace.
/// False if the link is not visible.
pub fn lives_here(name: &str) -> bool {
    let here = || Ok::<_, Error>(daemon::find(name)?.netns.is(&NetNs::current()?)?);
    here().unwrap_or(false)
}

/// Whether the daemon at the interface's socket was started in the calling thread's namespace. None
/// if its process is not visible.
pub fn born_here(name: &str) -> Option<bool> {
    let born_in = daemon::find(name).ok()?.born_in?;
    born_in.is(&NetNs::current().ok()?).ok()
}

/// The error for an interface that is not in the caller's namespace: names the namespaces that have
/// one.
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

/// Runs `work` in a namespace. For the caller's own namespace no right is needed.
fn inside<T: Send>(netns: &NetNs, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    if NetNs::current()?.is(netns)? {
        Ok(work())
    } else {
        netns.run(work)
    }
}

/// All WireGuard interfaces that the caller may see, by name: those with a socket here, in any
/// namespace, and the kernel's in all namespaces that have a name, a container or a process.
/// Container engines are only asked if a namespace needs a name.
///
/// # Errors
/// The kernel is out of resources.
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

/// Like [`list`], but without asking container engines: a container's namespace is named by a
/// process ID.
///
/// # Errors
/// Those of [`list`].
pub fn list_without_containers() -> Result<Vec<ListedInterface>, Error> {
    let survey = Survey::new();
    Ok(named(see_all(&survey)?, &survey))
}

/// An interface whose namespaces are not named yet.
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
        // Nothing can be listed in a namespace that may not be entered.
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
    for name in backends.survey()?.0 {
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
            // See `find`.
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
