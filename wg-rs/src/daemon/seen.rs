//! Remembers where the clients of a hub were, for the time when the daemon is started again.
//!
//! Clients without wg-rs notice only after up to three minutes that their hub was started again. So
//! the hub calls them, at the addresses in `<interface>.seen` beside the configuration socket:
//!
//! ```text
//! KEY 192.0.2.7:51820 1790000000      the peer's public key, its address, when it was there
//! ```
//! Addresses are used for ten minutes; an older one may belong to another host by now.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;
use wg_crypto::PublicKey;

use crate::model::Wall;

/// How often to look at the addresses.
const INTERVAL: Duration = Duration::from_secs(5);
/// How often to write the times of addresses that have not changed.
const REFRESH: u64 = 60;
/// For how many seconds an address is used.
const LIFE: u64 = 600;
/// A longer file is not read.
const MAX_SIZE: u64 = 16 << 20;

/// The file, and what it contains.
pub struct Seen {
    path: PathBuf,
    /// By key: the address, and the Unix time.
    clients: BTreeMap<[u8; 32], (SocketAddr, u64)>,
    /// The Unix time of the last write. None: nothing was written.
    written: Option<u64>,
    told_failure: bool,
}

impl Seen {
    /// The file of this interface in a folder. Reads what a former daemon left there.
    pub fn new(dir: &Path, interface: &str, now: Wall) -> Self {
        let path = path(dir, interface);
        let clients = read(&path).unwrap_or_default();
        let mut seen = Seen {
            path,
            clients,
            written: None,
            told_failure: false,
        };
        seen.forget_old(now);
        seen
    }

    /// The addresses that can still be used.
    pub fn addresses(&self) -> impl Iterator<Item = (PublicKey, SocketAddr)> {
        let clients = self.clients.iter();
        clients.map(|(key, (addr, _))| (PublicKey::from_bytes(*key), *addr))
    }

    /// When to call [`Seen::update`] next.
    pub fn next() -> Instant {
        Instant::now() + INTERVAL
    }

    /// When the addresses that were read can no longer be used.
    pub fn end_of_life() -> Instant {
        Instant::now() + Duration::from_secs(LIFE)
    }

    /// The interface has another name.
    pub fn rename(&mut self, interface: &str) {
        let dir = self.path.parent().unwrap_or(Path::new("."));
        let path = path(dir, interface);
        if self.written.is_some() && fs::rename(&self.path, &path).is_err() {
            let _ = fs::remove_file(&self.path);
            self.written = None;
        }
        self.path = path;
    }

    /// Records where clients are now, and writes the file if necessary. None: the interface is not a
    /// hub; the file is then removed.
    pub fn update(&mut self, clients: Option<Vec<(PublicKey, SocketAddr)>>, now: Wall) {
        let Some(clients) = clients else {
            if self.written.take().is_some() {
                let _ = fs::remove_file(&self.path);
            }
            return;
        };
        let mut has_changed = false;
        for (key, addr) in clients {
            let former = self.clients.insert(*key.as_bytes(), (addr, now.secs));
            has_changed |= former.is_none_or(|(former, _)| former != addr);
        }
        self.forget_old(now);
        let is_old = |written| now.secs.saturating_sub(written) >= REFRESH;
        if !has_changed && !self.written.is_none_or(is_old) {
            return;
        }
        self.written = Some(now.secs);
        if let Err(error) = self.write()
            && !std::mem::replace(&mut self.told_failure, true)
        {
            let path = self.path.display();
            tracing::error!(
                %path, %error,
                "cannot write where the clients of this hub are; if it is started again, they may \
                 be cut off for three minutes"
            );
        }
    }

    fn forget_old(&mut self, now: Wall) {
        let is_new = |at: u64| now.secs.abs_diff(at) <= LIFE;
        self.clients.retain(|_, (_, at)| is_new(*at));
    }

    /// Replaces the file in one step. Only its owner can read it.
    fn write(&self) -> io::Result<()> {
        let mut text = String::new();
        for (key, (addr, at)) in &self.clients {
            let key = PublicKey::from_bytes(*key).to_base64();
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{key} {addr} {at}");
        }
        let mut new = self.path.clone().into_os_string();
        new.push(".new");
        let new = PathBuf::from(new);
        let _ = fs::remove_file(&new);
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&new, &self.path)
    }
}

fn path(dir: &Path, interface: &str) -> PathBuf {
    dir.join(format!("{interface}.seen"))
}

/// Reads the lines that are valid.
fn read(path: &Path) -> io::Result<BTreeMap<[u8; 32], (SocketAddr, u64)>> {
    if fs::metadata(path)?.len() > MAX_SIZE {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let line = |line: &str| {
        let mut words = line.split(' ');
        let mut word = || words.next();
        let key = PublicKey::from_base64(word()?).ok()?;
        let addr = word()?.parse().ok()?;
        Some((*key.as_bytes(), (addr, word()?.parse().ok()?)))
    };
    Ok(fs::read_to_string(path)?.lines().filter_map(line).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A folder that is removed afterwards.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let name = format!("wireguard-rs-seen-{}-{name}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir(&path).unwrap();
            Folder(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn wall(secs: u64) -> Wall {
        Wall { secs, nanos: 0 }
    }

    fn client(n: u8, addr: &str) -> (PublicKey, SocketAddr) {
        (PublicKey::from_bytes([n; 32]), addr.parse().unwrap())
    }

    #[test]
    fn addresses_are_kept_for_ten_minutes() {
        let folder = Folder::new("kept");
        let known = |at| {
            let seen = Seen::new(&folder.0, "wg0", wall(at));
            seen.addresses().collect::<Vec<_>>()
        };
        let (a, b) = (client(1, "192.0.2.1:5"), client(2, "[2001:db8::1]:6"));
        assert!(known(1000).is_empty(), "there is no file");
        let mut seen = Seen::new(&folder.0, "wg0", wall(1000));
        seen.update(Some(vec![a, b]), wall(1000));
        assert_eq!(known(1001), [a, b]);
        let file = folder.0.join("wg0.seen");
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // One moves, the other is gone.
        let moved = client(1, "192.0.2.9:5");
        seen.update(Some(vec![moved]), wall(1300));
        assert_eq!(known(1301), [moved, b]);
        assert_eq!(known(1601), [moved]);
        assert!(known(1901).is_empty());
        assert!(known(5).is_empty(), "the clock was set back");
        seen.rename("wg7");
        assert!(!file.exists() && folder.0.join("wg7.seen").exists());
        seen.update(None, wall(1302));
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 0);
    }

    #[test]
    fn invalid_lines_are_ignored() {
        let folder = Folder::new("invalid");
        let (key, addr) = client(1, "192.0.2.1:5");
        let line = format!("{key} {addr} 1000");
        let text = format!("\nx\n{key}\n{key} x 1000\n{line}\n{key} {addr} -1\n\u{0}\n");
        fs::write(folder.0.join("wg0.seen"), text).unwrap();
        let seen = Seen::new(&folder.0, "wg0", wall(1000));
        assert_eq!(seen.addresses().collect::<Vec<_>>(), [(key, addr)]);
    }

    #[test]
    fn only_changes_are_written() {
        let folder = Folder::new("changes");
        let file = folder.0.join("wg0.seen");
        let mut seen = Seen::new(&folder.0, "wg0", wall(1000));
        let clients = || Some(vec![client(1, "192.0.2.1:5")]);
        seen.update(clients(), wall(1000));
        fs::remove_file(&file).unwrap();
        seen.update(clients(), wall(1059));
        assert!(!file.exists());
        seen.update(clients(), wall(1060));
        assert!(file.exists());
    }
}
