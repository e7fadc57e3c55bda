//! Where interfaces live: one of them, or all.

use std::io;

use super::daemon::{self, Daemon};
use super::error::{Error, reason};
use super::namespace::Namespace;
use super::survey::{Known, Survey};
use crate::backend::{Backends, Kind};
use crate::sys::netlink::{self, Link, Netlink};
use crate::sys::netns::NetNs;

/// The kind that the kernel gives to links of its WireGuard module.
pub(super) const WIREGUARD: &str = "wireguard";

/// An interface and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// What `wg` calls it.
    pub name: String,
    /// Who keeps it.
    pub backend: Kind,
    /// Where its link is. `None`: not to be seen, or in a namespace without a name.
    pub lives_in: Option<Namespace>,
    /// Where its sockets are, and its encrypted traffic leaves. `None`: as above; and the kernel
    /// does not tell.
    pub born_in: Option<Namespace>,
    /// Whether its link is up. `None`: not to be seen.
    pub up: Option<bool>,
    /// The daemon's process.
    pub pid: Option<u32>,
}

/// An interface that was made or found: it is this very one that is moved and deleted, and not
/// another that has its name.
#[derive(Debug)]
pub struct Located {
    /// What `wg` calls it.
    pub(super) name: String,
    pub(super) kind: Kind,
    /// What its link is called there.
    pub(super) link: String,
    pub(super) netns: NetNs,
}

impl Located {
    pub(super) fn new(name: &str, kind: Kind, netns: NetNs) -> Self {
        Located {
            name: name.into(),
            kind,
            link: name.into(),
            netns,
        }
    }

    fn daemons(name: &str, daemon: Daemon) -> Self {
        Located {
            link: daemon.link,
            ..Located::new(name, Kind::Userspace, daemon.netns)
        }
    }

    /// Runs `work` where its link is.
    ///
    /// # Errors
    /// As [`NetNs::run`]; none where the link is in the calling thread's namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        inside(&self.netns, work)
    }
}

/// Finds the interface that `wg` calls `name` here, else the only one of the kernel's elsewhere.
///
/// # Errors
/// [`Error::Absent`], [`Error::Several`], [`Error::Hidden`].
pub fn locate(name: &str) -> Result<Located, Error> {
    let kind = Backends::new().kind(name)?;
    match kind {
        Some(Kind::Userspace) => return Ok(Located::daemons(name, daemon::find(name)?)),
        Some(Kind::Kernel) => return Ok(Located::new(name, Kind::Kernel, NetNs::current()?)),
        None => {}
    }
    let holds = |known: &Known| {
        let links = links_in(&known.netns).unwrap_or_default();
        links
            .iter()
            .any(|link| link.name == name && is_kernels(link))
    };
    let mut found = Survey::new(false).known;
    found.retain(holds);
    if found.len() > 1 {
        let places = found.iter().filter_map(|known| known.namespace.as_ref());
        let places: Vec<_> = places.map(Namespace::to_string).collect();
        return Err(Error::Several {
            name: name.into(),
            places: places.join(", "),
        });
    }
    match found.pop() {
        Some(known) => Ok(Located::new(name, Kind::Kernel, known.netns)),
        None => Err(Error::Absent { name: name.into() }),
    }
}

/// Finds an interface whose link is in the calling thread's namespace: the kernel's, else that of the
/// daemon that answers at the socket of `name`.
///
/// # Errors
/// [`Error::Absent`], also where the daemon's link cannot be seen.
pub fn locate_here(name: &str) -> Result<Located, Error> {
    let here = NetNs::current()?;
    let mut links = links_in(&here)?.into_iter();
    if links.any(|link| link.name == name && is_kernels(&link)) {
        return Ok(Located::new(name, Kind::Kernel, here));
    }
    if Backends::new().kind(name)? == Some(Kind::Userspace)
        && let Ok(daemon) = daemon::find(name)
        && daemon.netns.is(&here)?
    {
        return Ok(Located::daemons(name, daemon));
    }
    Err(Error::Absent { name: name.into() })
}

fn is_kernels(link: &Link) -> bool {
    link.kind.as_deref() == Some(WIREGUARD)
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
/// they live, and the kernel's in every namespace that has a name, a container or a process.
///
/// # Errors
/// Only the kernel's own trouble.
pub fn list() -> Result<Vec<Placed>, Error> {
    let survey = Survey::new(true);
    let mut placed = Vec::new();
    for known in &survey.known {
        // One that may not be entered has nothing to show.
        for link in links_in(&known.netns).unwrap_or_default() {
            if is_kernels(&link) {
                placed.push(Placed {
                    name: link.name,
                    backend: Kind::Kernel,
                    lives_in: known.namespace.clone(),
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
            placed.push(behind_socket(name, &survey));
        }
    }
    placed.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(placed)
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
    let daemon = daemon::find(name).ok()?;
    let born_in = NetNs::of_pid(daemon.pid).ok()?;
    born_in.is(&NetNs::current().ok()?).ok()
}

fn behind_socket(name: String, survey: &Survey) -> Placed {
    let up = |netns: &NetNs, link: &str| {
        let links = links_in(netns).ok()?;
        links
            .iter()
            .find(|other| other.name == link)
            .map(|link| link.up)
    };
    let (lives_in, born_in, up, pid) = match daemon::find(&name) {
        Ok(daemon) => (
            survey.name(&daemon.netns),
            NetNs::of_pid(daemon.pid)
                .ok()
                .and_then(|netns| survey.name(&netns)),
            up(&daemon.netns, &daemon.link),
            Some(daemon.pid),
        ),
        Err(error) => {
            tracing::debug!(error = reason(&error));
            // A link of this name right here is most likely its own.
            match NetNs::current().map(|here| (up(&here, &name), here)) {
                Ok((Some(up), here)) => (survey.name(&here), None, Some(up), None),
                _ => (None, None, None, None),
            }
        }
    };
    Placed {
        name,
        backend: Kind::Userspace,
        lives_in,
        born_in,
        up,
        pid,
    }
}
