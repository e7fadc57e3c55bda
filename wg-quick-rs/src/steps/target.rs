//! The interface that a command works on, and its network namespaces.
//!
//! The interface's sockets are in the namespace in which the command runs (`birth`); the route to its
//! peers is looked up there. Its link, addresses, routes and rules are in the same namespace, or in the
//! one that the user asked for (`home`); programs and hooks run there.

use std::io;
use std::net::IpAddr;

use wg_rs::backend::Backends;
use wg_rs::model::{Change, Interface};
use wg_rs::place::{self, Namespace};
use wg_rs::sys::netlink::{self, Netlink};
use wg_rs::sys::netns::NetNs;
use wg_rs::sys::udp::Family;

use crate::file::Address;
use crate::file::difference::without_taking;
use crate::steps::console;
use crate::steps::failure::Failure;

/// See the head of the file.
#[derive(Debug)]
pub struct Target {
    /// The interface.
    pub interface: String,
    /// Netlink in the namespace of the link.
    pub home: Netlink,
    /// Netlink in the namespace of the sockets.
    pub birth: Netlink,
    /// The namespace of the link, if it is not the one in which the command runs.
    pub elsewhere: Option<(Namespace, NetNs)>,
    backends: Backends,
}

impl Target {
    /// An interface in the namespace in which the command runs.
    ///
    /// # Errors
    /// An error of the system.
    pub fn new(interface: &str) -> Result<Self, Failure> {
        Ok(Target {
            interface: interface.into(),
            home: Netlink::open()?,
            birth: Netlink::open()?,
            elsewhere: None,
            backends: Backends::new(),
        })
    }

    /// Makes `namespace` the home of the interface.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    pub fn move_home(&mut self, namespace: Namespace, netns: NetNs) -> Result<(), Failure> {
        self.home = within(&namespace, &netns, Netlink::open)??;
        self.elsewhere = Some((namespace, netns));
        Ok(())
    }

    /// Makes the namespace in which the command runs the home of the interface.
    ///
    /// # Errors
    /// An error of the system.
    pub fn return_home(&mut self) -> Result<(), Failure> {
        self.home = Netlink::open()?;
        self.elsewhere = None;
        Ok(())
    }

    /// Runs `work` in the namespace of the link.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    pub fn at_home<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        match &self.elsewhere {
            Some((namespace, netns)) => within(namespace, netns, work),
            None => Ok(work()),
        }
    }

    /// The configuration and state of the interface.
    ///
    /// # Errors
    /// `Unable to access interface: …`
    pub fn get(&self) -> Result<Interface, Failure> {
        let got = self.at_home(|| self.backends.get(&self.interface));
        got.and_then(|got| got)
            .map_err(|error| Failure::new(format_args!("Unable to access interface: {error}")))
    }

    /// As [`Target::get`], with what our daemon knows of peers beyond WireGuard.
    ///
    /// # Errors
    /// Those of [`Target::get`].
    pub fn get_extended(&self) -> Result<Interface, Failure> {
        let mut interface = self.get()?;
        let known = self.at_home(|| self.backends.extensions(&self.interface));
        let mut known = known
            .and_then(|known| known)
            .map_err(|error| Failure::new(format_args!("Unable to access interface: {error}")))?;
        for peer in &mut interface.peers {
            if let Some(extensions) = known.remove(&peer.public_key) {
                peer.extensions = extensions;
            }
        }
        Ok(interface)
    }

    /// Changes the configuration.
    ///
    /// # Errors
    /// `Unable to modify interface: …`
    pub fn set(&self, changes: &[Change]) -> Result<(), Failure> {
        let attempt = |changes: &[Change]| {
            let set = self.at_home(|| self.backends.set_without_unknown(&self.interface, changes));
            set.and_then(|set| set)
        };
        let mut set = attempt(changes);
        if set.is_err()
            && let Some(others) = without_taking(changes)
        {
            set = attempt(&others);
        }
        for extension in set.iter().flatten() {
            console::note(format_args!(
                "`{}' is not an interface of wireguard-rs; `{}' is ignored.",
                self.interface,
                extension.key()
            ));
        }
        set.map(drop).map_err(|error| {
            let why = place::port_in_use(&self.interface, changes, &error);
            let why = why.map(|why| format!("\n{why}")).unwrap_or_default();
            Failure::new(format_args!("Unable to modify interface: {error}{why}"))
        })
    }

    /// The link's index.
    ///
    /// # Errors
    /// There is no link.
    pub fn link(&mut self) -> Result<u32, netlink::Error> {
        Ok(self.home.link(&self.interface)?.index)
    }

    /// The link's addresses.
    ///
    /// # Errors
    /// There is no link.
    pub fn addresses(&mut self) -> Result<Vec<Address>, netlink::Error> {
        let link = self.link()?;
        let all = self.home.addresses()?;
        let ours = all.iter().filter(|address| address.link == link);
        Ok(ours
            .map(|address| Address {
                ip: address.ip,
                prefix: address.prefix,
            })
            .collect())
    }
}

/// Runs `work` in a namespace.
///
/// # Errors
/// The namespace cannot be entered; the error names it.
pub fn within<T: Send>(
    namespace: &Namespace,
    netns: &NetNs,
    work: impl FnOnce() -> T + Send,
) -> io::Result<T> {
    netns.run(work).map_err(|error| {
        let text = format!("the namespace {namespace} cannot be entered: {error}");
        io::Error::new(error.kind(), text)
    })
}

/// The family of an address.
pub fn family(ip: IpAddr) -> Family {
    if ip.is_ipv4() { Family::V4 } else { Family::V6 }
}

/// The option of ip(8): `-4` or `-6`.
pub fn flag(family: Family) -> &'static str {
    match family {
        Family::V4 => "-4",
        Family::V6 => "-6",
    }
}
