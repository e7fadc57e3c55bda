//! Who holds a UDP port, for the error that it is in use.
//!
//! ```text
//! port ─► its sockets in the namespace of the interface's sockets (/proc/…/net/udp) ─► inode
//!      ─► the process with a descriptor of it ─► the interface of which it is the daemon
//! ```

use std::fs;
use std::io;

use super::daemon;
use crate::backend::{Backends, Kind, errno};
use crate::model::Change;
use crate::sys::process::other::{self, Process};

/// Who holds a port.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Holder {
    /// A WireGuard interface.
    Interface(String),
    /// A process: its name and its ID.
    Process(String, u32),
    /// Not visible from here.
    Unknown,
}

/// Why a request for these changes was refused, if it was because of a port that is in use: a sentence
/// that names the port and who holds it. It is for a line of its own after the error.
pub fn port_in_use(name: &str, changes: &[Change], error: &io::Error) -> Option<String> {
    let port = Change::listen_port(changes)
        .filter(|port| *port != 0 && errno(error) == Some(libc::EADDRINUSE))?;
    Some(sentence(port, &holder(name, port)))
}

/// The same for an interface that cannot be set up because its port is in use, or for a tunnel without an
/// interface.
pub fn own_port_in_use(name: Option<&str>, port: u16) -> String {
    sentence(port, &holder(name.unwrap_or_default(), port))
}

fn sentence(port: u16, holder: &Holder) -> String {
    let (by, or) = match holder {
        Holder::Interface(name) => (format!("the interface `{name}'"), ""),
        Holder::Process(name, pid) => (format!("`{name}' (process {pid})"), ""),
        Holder::Unknown => (
            "another program".into(),
            "; `ss -ulpn' shows all ports in use",
        ),
    };
    format!("UDP port {port} is already used by {by}: choose another ListenPort{or}")
}

fn holder(name: &str, port: u16) -> Holder {
    let backends = Backends::new();
    let own = daemon::pid(name);
    let place = own.map_or_else(|| "thread-self".into(), |pid| pid.to_string());
    let inodes: Vec<u64> = ["udp", "udp6"]
        .into_iter()
        .filter_map(|table| fs::read_to_string(format!("/proc/{place}/net/{table}")).ok())
        .flat_map(|table| inodes_of(&table, port))
        .collect();
    let holds = |pid: &u32| {
        let process = Process::open(*pid).and_then(|process| process.descriptors());
        let targets = inodes.iter().map(|inode| format!("socket:[{inode}]"));
        let targets: Vec<_> = targets.collect();
        process.is_ok_and(|descriptors| {
            let mut descriptors = descriptors.iter();
            descriptors
                .any(|(_, leads_to)| targets.iter().any(|at| leads_to.as_os_str() == at.as_str()))
        })
    };
    // A socket of the kernel has no inode.
    let by_kernel = inodes.contains(&0);
    let others = backends.list().unwrap_or_default();
    let others = others.into_iter().filter(|other| other != name);
    let pid = other::ids().filter(|pid| Some(*pid) != own).find(holds);
    for other in others {
        let is_it = match (backends.kind(&other), pid) {
            (Ok(Some(Kind::Userspace)), Some(pid)) => daemon::pid(&other) == Some(pid),
            (Ok(Some(Kind::Kernel)), _) if by_kernel => backends
                .get(&other)
                .is_ok_and(|other| other.listen_port == port),
            _ => false,
        };
        if is_it {
            return Holder::Interface(other);
        }
    }
    pid.and_then(|pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        Some(Holder::Process(name.trim().escape_debug().to_string(), pid))
    })
    .unwrap_or(Holder::Unknown)
}

/// The inodes of the sockets that have this port, in the form of /proc/net/udp.
fn inodes_of(table: &str, port: u16) -> Vec<u64> {
    let sockets = table.lines().skip(1).filter_map(|line| {
        let mut columns = line.split_ascii_whitespace();
        let (_, of_socket) = columns.nth(1)?.rsplit_once(':')?;
        let is_it = u16::from_str_radix(of_socket, 16) == Ok(port);
        let inode = columns.nth(7)?.parse().ok()?;
        is_it.then_some(inode)
    });
    sockets.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn sockets_are_found_by_port() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
            \x20 123: 00000000:CA6C 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 77 2 0000000000000000 0\n\
            \x20 124: 0100007F:15B3 00000000:CA6C 07 00000000:00000000 00:00000000 00000000     0        0 78 2 0000000000000000 0\n\
            \x20 125: 00000000000000000000000001000000:CA6C 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 0 2 0000000000000000 0\n";
        assert_eq!(inodes_of(table, 51820), [77, 0]);
        assert_eq!(inodes_of(table, 5555), [78]);
        assert_eq!(inodes_of(table, 1), [0; 0]);
        assert_eq!(inodes_of("", 1), [0; 0]);
    }

    #[test]
    fn the_process_is_named() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let in_use = io::Error::from_raw_os_error(libc::EADDRINUSE);
        let no_interface = "wg-no-such-one";
        let why = port_in_use(no_interface, &[Change::ListenPort(port)], &in_use).unwrap();
        let pid = std::process::id();
        assert!(
            why.starts_with(&format!("UDP port {port} is already used by `"))
                && why.ends_with(&format!("' (process {pid}): choose another ListenPort")),
            "{why}"
        );
        drop(socket);
        let refused = io::Error::from_raw_os_error(libc::EACCES);
        for (changes, error) in [
            (&[Change::FwMark(1)][..], &in_use),
            (&[Change::ListenPort(0)], &in_use),
            (&[Change::ListenPort(port)], &refused),
        ] {
            assert_eq!(port_in_use(no_interface, changes, error), None);
        }
    }

    #[test]
    fn sentences() {
        assert_eq!(
            sentence(51820, &Holder::Interface("wg0".into())),
            "UDP port 51820 is already used by the interface `wg0': choose another ListenPort"
        );
        assert_eq!(
            sentence(53, &Holder::Unknown),
            "UDP port 53 is already used by another program: choose another ListenPort; `ss -ulpn' \
             shows all ports in use"
        );
    }
}
