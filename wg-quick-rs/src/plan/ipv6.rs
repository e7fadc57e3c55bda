//! Hosts with IPv6 switched off. Files of VPN providers have both IPv4 and IPv6: on such a host, the
//! tunnel is brought up without the IPv6 parts, and one warning names them. For a file with only IPv6,
//! the kernel's refusal is the error.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use wg_rs::model::Interface;

use crate::file::File;
use crate::file::table::Table;
use crate::steps::console;
use crate::steps::failure::Failure;
use crate::steps::target::Target;

/// Which addresses and networks of a file are used on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6 {
    left_out: bool,
}

impl Ipv6 {
    /// Finds out for the interface of this file, which must exist.
    ///
    /// # Errors
    /// The interface's namespace cannot be entered.
    pub fn of(target: &Target, file: &File) -> Result<Self, Failure> {
        Ok(Ipv6 {
            left_out: has_ipv4(file) && is_off(target)?,
        })
    }

    /// Whether this address or network is used.
    pub fn uses(self, ip: IpAddr) -> bool {
        ip.is_ipv4() || !self.left_out
    }

    /// Whether IPv6 is left out.
    pub fn is_left_out(self) -> bool {
        self.left_out
    }

    /// Prints a warning that names what is left out.
    ///
    /// # Errors
    /// The interface cannot be read.
    pub fn warn(self, target: &Target, file: &File) -> Result<(), Failure> {
        if self.left_out {
            let parts = parts(file, &target.get()?);
            if !parts.is_empty() {
                let parts = parts.join(" and ");
                console::note(format_args!(
                    "Warning: IPv6 is disabled on this host; going on without {parts}."
                ));
            }
        }
        Ok(())
    }
}

/// The IPv6 parts, such as `Address fd00::1/64` and `routes to ::/0`.
fn parts(file: &File, interface: &Interface) -> Vec<String> {
    let list = |what: &str, items: Vec<String>| {
        (!items.is_empty()).then(|| format!("{what} {}", items.join(", ")))
    };
    let addresses = file.addresses.iter().map(|address| address.value);
    let addresses = addresses.filter(|address| address.ip.is_ipv6());
    let networks = interface.peers.iter().flat_map(|peer| &peer.allowed_ips);
    let networks = networks.filter(|network| network.addr.is_ipv6() && file.table != Table::Off);
    [
        list("Address", addresses.map(|one| one.to_string()).collect()),
        list("routes to", networks.map(|one| one.to_string()).collect()),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Whether the file uses IPv4: judged by its addresses, or if it has none, by its peers' networks.
fn has_ipv4(file: &File) -> bool {
    let peers = file.settings.peers.iter();
    let mut networks = peers.flat_map(|peer| &peer.allowed_ips);
    let mut addresses = file.addresses.iter().map(|address| address.value.ip);
    match file.addresses.is_empty() {
        true => networks.any(|network| network.ip.addr.is_ipv4()),
        false => addresses.any(|ip| ip.is_ipv4()),
    }
}

/// Whether the kernel refuses IPv6 addresses on this link: IPv6 is switched off by sysctl or at boot.
fn is_off(target: &Target) -> io::Result<bool> {
    let switch = format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", target.interface);
    let read = target.at_home(|| fs::read_to_string(switch))?;
    Ok(match read {
        Ok(value) => value.trim() == "1",
        // A kernel without IPv6 has no such switch. Without /proc/sys it cannot be known.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Path::new("/proc/sys/net/ipv4").exists()
        }
        Err(_) => false,
    })
}
