//! What `up` did, kept in /run/wireguard until `down`: so `down`, `reload` and `save` need not guess
//! it from the file, which may have changed, nor from what is there, which others may have made.
//!
//! ```text
//! up ─► each step done is recorded ─► written before each hook, and at the end ─► down: removed
//! ```
//! There is one file for each interface and namespace that `up` runs in, since another namespace may
//! have an interface of the same name. Where none can be written that is a note and no failure, and
//! where there is none (wg-quick brought the interface up, or an older version) `down`, `reload` and
//! `save` act on what certainly is the file's own.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;

use serde::{Deserialize, Serialize};
use wg_crypto::key::PublicKey;
use wg_rs::config::{Endpoint, Settings};
use wg_rs::sys::netlink::{Route, Rule};
use wg_rs::uapi::RUN_DIR;

use crate::file::Address;
use crate::steps::dns::Resolver;
use crate::steps::firewall::Firewall;

/// Of the format. What is added to it has a default and needs no new one.
const VERSION: u32 = 1;
/// The namespace we run in.
const NAMESPACE: &str = "/proc/thread-self/ns/net";

/// See the head of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    version: u32,
    /// The interface.
    pub interface: String,
    /// The namespace where `up` ran: the inode of its file in /proc. The tunnel's sockets are there.
    pub birth: u64,
    /// Where the link was moved to, if it was.
    pub home: Option<Home>,
    /// The link's index, in the namespace where it lives.
    pub link: u32,
    /// The interface's own public key, in base64.
    pub public_key: Option<String>,
    /// The port that the system chose, because the file has none.
    pub chosen_port: Option<u16>,
    /// The mark that the file had.
    pub mark_of_file: Option<u32>,
    /// The mark that `up` chose, because the file has none and a default route needs one.
    pub chosen_mark: Option<u32>,
    /// The MTU that was set.
    pub mtu: Option<u32>,
    /// The addresses that were added.
    pub addresses: Vec<Address>,
    /// The routes that were added.
    pub routes: Vec<Route>,
    /// The rules that were added, in this order, with the priority that the kernel gave them.
    pub rules: Vec<Rule>,
    /// What was added to the firewall, one for each family.
    pub firewalls: Vec<Firewall>,
    /// The servers and domains that were set, and whom they were told to.
    pub dns: Option<Resolver>,
    /// The peers of the file.
    pub peers: Vec<PeerOfFile>,
    /// The daemon was killed, and PreDown and PostDown were run since: not to be run twice.
    pub is_after_hooks: bool,
}

/// The namespace that a link was moved to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Home {
    /// As the user named it.
    pub namespace: String,
    /// The inode of its file in /proc.
    pub inode: u64,
}

/// What the file said about a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PeerOfFile {
    /// In base64.
    pub public_key: String,
    /// As it is written in the file.
    pub endpoint: Option<String>,
    /// Whether the file had a preshared key.
    pub preshared_key: bool,
    /// In seconds.
    pub persistent_keepalive: Option<u16>,
    /// `10.0.0.0/8` and the like.
    pub allowed_ips: Vec<String>,
}

impl PeerOfFile {
    /// Those of a file.
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
            let endpoint = peer.endpoint.as_ref().map(Endpoint::to_string);
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

/// The inode of the network namespace we run in.
///
/// # Errors
/// There is no /proc.
pub fn namespace() -> io::Result<u64> {
    Ok(fs::metadata(NAMESPACE)?.ino())
}

impl State {
    /// Of an interface about to be made where we run.
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

    /// What is known of the interface that `up` made where we run. `None` if nothing is.
    ///
    /// # Errors
    /// There is a file, but it cannot be read or understood.
    pub fn load(interface: &str) -> io::Result<Option<Self>> {
        let path = path(Path::new(RUN_DIR), interface, namespace()?);
        match fs::read(path) {
            Ok(text) => State::parse(&text).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What is known of interfaces of this name that `up` made in other namespaces.
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
            Err(io::Error::other("it is of another version"))
        }
    }

    /// Writes it: whoever reads finds all of it, or what was there before.
    ///
    /// # Errors
    /// The folder cannot be written, or is full. What was there before is there still.
    pub fn save(&self) -> io::Result<()> {
        self.save_in(Path::new(RUN_DIR))
    }

    fn save_in(&self, folder: &Path) -> io::Result<()> {
        let path = path(folder, &self.interface, self.birth);
        // One at a time by the interface's lock: what is there by this name was left.
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

    /// What the file said about a peer.
    pub fn peer(&self, key: &PublicKey) -> Option<&PeerOfFile> {
        let key = key.to_base64();
        self.peers.iter().find(|peer| peer.public_key == key)
    }

    /// In place of the one for the same family.
    pub fn set_firewall(&mut self, firewall: &Firewall) {
        self.firewalls.retain(|one| one.family != firewall.family);
        self.firewalls.push(firewall.clone());
    }

    /// Whether the interface is the link of this index in that namespace.
    pub fn is_at(&self, namespace: u64, link: u32) -> bool {
        self.is_in(namespace) && self.link == link
    }

    /// Whether the interface lives in that namespace.
    pub fn is_in(&self, namespace: u64) -> bool {
        self.home.as_ref().map_or(self.birth, |home| home.inode) == namespace
    }

    /// Forgets it.
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
    fn it_is_read_as_it_was_written_and_private() {
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
    fn another_version_is_not_taken_for_this_one() {
        let text = serde_json::to_string(&state()).unwrap();
        let older = text.replace("\"version\":1", "\"version\":2");
        assert_ne!(older, text);
        assert!(State::parse(older.as_bytes()).is_err());
        assert!(State::parse(b"{").is_err());
        let less = State::parse(b"{\"version\":1,\"interface\":\"wg0\",\"new\":5}").unwrap();
        assert_eq!(less.interface, "wg0");
    }
}
