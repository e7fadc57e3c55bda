//! The record of what `up` did, kept in /run/wireguard until `down`. So `down`, `reload` and `save` need
//! not guess it from the config file, which may have changed, nor from the host's state, which others
//! may have changed.
//!
//! ```text
//! up ─► each step is recorded ─► written before each hook, and at the end ─► down: removed
//! ```
//! There is one record for each interface and each namespace that `up` ran in, as another namespace may
//! have an interface of the same name. If the record cannot be written, a note says so. If there is no
//! record (because wg-quick or an older version brought the interface up), `down`, `reload` and `save`
//! act only on what certainly belongs to the file.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;

use serde::{Deserialize, Serialize};
use wg_crypto::key::PublicKey;
use wg_rs::config::{ConfigEndpoint, Settings};
use wg_rs::sys::netlink::{Route, Rule};
use wg_rs::uapi::RUN_DIR;

use crate::file::Address;
use crate::steps::dns::DnsSettings;
use crate::steps::firewall::Firewall;

/// The version of the format. A new field has a default and needs no new version.
const VERSION: u32 = 1;
/// The network namespace of this process.
const NAMESPACE: &str = "/proc/thread-self/ns/net";

/// The record of an interface. See the head of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    version: u32,
    /// The interface.
    pub interface: String,
    /// The namespace in which `up` ran, and in which the tunnel's sockets are: its inode in /proc.
    pub birth: u64,
    /// The namespace to which the link was moved, if it was.
    pub home: Option<Home>,
    /// The link's index, in the namespace where the link is.
    pub link: u32,
    /// The interface's own public key, in base64.
    pub public_key: Option<String>,
    /// The port that the system chose, because the file has none.
    pub chosen_port: Option<u16>,
    /// The mark in the file.
    pub mark_of_file: Option<u32>,
    /// The mark that `up` chose, because the file has none and a default route needs one.
    pub chosen_mark: Option<u32>,
    /// The MTU that was set.
    pub mtu: Option<u32>,
    /// The addresses that were added.
    pub addresses: Vec<Address>,
    /// The routes that were added.
    pub routes: Vec<Route>,
    /// The rules that were added, in order, with the priorities that the kernel gave them.
    pub rules: Vec<Rule>,
    /// The firewalls that were added, one for each family.
    pub firewalls: Vec<Firewall>,
    /// The name servers and domains that were set, and where.
    pub dns: Option<DnsSettings>,
    /// The peers of the file.
    pub peers: Vec<PeerOfFile>,
    /// Whether PreDown and PostDown were run after the daemon was killed: they must not be run twice.
    pub is_after_hooks: bool,
}

/// The namespace that a link was moved to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Home {
    /// The name that the user gave.
    pub namespace: String,
    /// Its inode in /proc.
    pub inode: u64,
}

/// The settings of a peer in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PeerOfFile {
    /// In base64.
    pub public_key: String,
    /// The endpoint as it is written in the file.
    pub endpoint: Option<String>,
    /// Whether the file had a preshared key.
    pub preshared_key: bool,
    /// In seconds.
    pub persistent_keepalive: Option<u16>,
    /// Networks such as `10.0.0.0/8`.
    pub allowed_ips: Vec<String>,
}

impl PeerOfFile {
    /// The peers of a file.
    pub fn all(settings: &Settings) -> Vec<Self> {
        let mut all: Vec<PeerOfFile> = Vec::new();
        for peer in &settings.peers {
            let public_key = peer.public_key.to_base64();
            // A peer may have several sections.
            let known = all.iter().position(|one| one.public_key == public_key);
            let before = known.map(|at| all.remove(at)).unwrap_or_default();
            if peer.remove {
                continue;
            }
            let allowed = peer.allowed_ips.iter().filter(|one| !one.remove);
            let endpoint = peer.endpoint.as_ref().map(ConfigEndpoint::to_string);
            all.push(PeerOfFile {
                public_key,
                endpoint: endpoint.or(before.endpoint),
                preshared_key: peer.preshared_key.is_some() || before.preshared_key,
                persistent_keepalive: peer.persistent_keepalive.or(before.persistent_keepalive),
                allowed_ips: before
                    .allowed_ips
                    .into_iter()
                    .chain(allowed.map(|one| one.ip.to_string()))
                    .collect(),
            });
        }
        all
    }
}

/// The inode of this process's network namespace.
///
/// # Errors
/// There is no /proc.
pub fn namespace() -> io::Result<u64> {
    Ok(fs::metadata(NAMESPACE)?.ino())
}

impl State {
    /// A record for an interface that is about to be created in this namespace.
    ///
    /// # Errors
    /// There is no /proc.
    pub fn new(interface: &str) -> io::Result<Self> {
        Ok(State {
            version: VERSION,
            interface: interface.into(),
            birth: namespace()?,
            ..State::default()
        })
    }

    /// The record of the interface that `up` created from this namespace; `None` if there is none.
    ///
    /// # Errors
    /// The record cannot be read or understood.
    pub fn load(interface: &str) -> io::Result<Option<Self>> {
        let path = path(Path::new(RUN_DIR), interface, namespace()?);
        match fs::read(path) {
            Ok(text) => State::parse(&text).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The records of interfaces of this name that `up` created from other namespaces.
    pub fn of_others(interface: &str) -> Vec<Self> {
        let here = namespace().unwrap_or_default();
        let entries = fs::read_dir(RUN_DIR).into_iter().flatten().flatten();
        let states = entries.filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let inode = name
                .strip_prefix(interface)?
                .strip_prefix('.')?
                .strip_suffix(".state")?;
            let inode: u64 = inode.parse().ok()?;
            State::parse(&fs::read(entry.path()).ok()?)
                .ok()
                .filter(|_| inode != here)
        });
        states.collect()
    }

    fn parse(text: &[u8]) -> io::Result<Self> {
        let state: State = serde_json::from_slice(text)?;
        if state.version == VERSION {
            Ok(state)
        } else {
            Err(io::Error::other(
                "it was written by another version of wg-quick-rs",
            ))
        }
    }

    /// Writes the record. Readers find either the old or the new one, complete.
    ///
    /// # Errors
    /// The folder cannot be written, or is full. The old record is kept.
    pub fn save(&self) -> io::Result<()> {
        self.save_in(Path::new(RUN_DIR))
    }

    fn save_in(&self, folder: &Path) -> io::Result<()> {
        let path = path(folder, &self.interface, self.birth);
        // The interface is locked, so a temporary file of this name is a leftover.
        let new = path.with_extension(format!("state.{}", process::id()));
        let _ = fs::remove_file(&new);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        let written = file
            .write_all(&serde_json::to_vec(self)?)
            .and_then(|()| fs::rename(&new, path));
        if written.is_err() {
            let _ = fs::remove_file(&new);
        }
        written
    }

    /// The settings of a peer in the file.
    pub fn peer(&self, key: &PublicKey) -> Option<&PeerOfFile> {
        let key = key.to_base64();
        self.peers.iter().find(|peer| peer.public_key == key)
    }

    /// Records a firewall in place of the one for the same family.
    pub fn set_firewall(&mut self, firewall: &Firewall) {
        self.firewalls.retain(|one| one.family != firewall.family);
        self.firewalls.push(firewall.clone());
    }

    /// Whether the interface is the link with this index in this namespace (its inode).
    pub fn is_at(&self, namespace: u64, link: u32) -> bool {
        self.is_in(namespace) && self.link == link
    }

    /// Whether the interface is in this namespace (its inode).
    pub fn is_in(&self, namespace: u64) -> bool {
        self.home.as_ref().map_or(self.birth, |home| home.inode) == namespace
    }

    /// Removes the record.
    pub fn remove(&self) {
        let _ = fs::remove_file(path(Path::new(RUN_DIR), &self.interface, self.birth));
    }
}

fn path(folder: &Path, interface: &str, birth: u64) -> PathBuf {
    folder.join(format!("{interface}.{birth}.state"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use wg_rs::sys::udp::Family;

    fn state() -> State {
        State {
            home: Some(Home {
                namespace: "docker:web".into(),
                inode: 7,
            }),
            addresses: vec![Address {
                ip: "10.0.0.1".parse().unwrap(),
                prefix: 24,
            }],
            routes: vec![Route::unreachable(("0.0.0.0".parse().unwrap(), 0))],
            rules: vec![Rule::new(Family::V6, 51820)],
            peers: vec![PeerOfFile::default()],
            ..State::new("wg0").unwrap()
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_is_private() {
        let folder = std::env::temp_dir().join(format!("wg-quick-rs-state-{}", process::id()));
        fs::create_dir(&folder).unwrap();
        let state = state();
        state.save_in(&folder).unwrap();
        state.save_in(&folder).unwrap();
        let written = path(&folder, "wg0", state.birth);
        let names = fs::read_dir(&folder).unwrap().count();
        let read = State::parse(&fs::read(&written).unwrap());
        let mode = fs::metadata(&written).unwrap().permissions().mode();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(read.unwrap(), state);
        assert_eq!((names, mode & 0o777), (1, 0o600));
        assert!(state.save_in(&folder).is_err());
    }

    #[test]
    fn a_record_of_another_version_is_refused() {
        let text = serde_json::to_string(&state()).unwrap();
        let older = text.replace("\"version\":1", "\"version\":2");
        assert_ne!(older, text);
        assert!(State::parse(older.as_bytes()).is_err());
        assert!(State::parse(b"{").is_err());
        let less = State::parse(b"{\"version\":1,\"interface\":\"wg0\",\"new\":5}").unwrap();
        assert_eq!(less.interface, "wg0");
    }
}
