//! Interfaces with a UAPI socket.
//!
//! A socket is live if somebody listens on it. This is tested by connecting, and closing at once.
//! Only a refused connection means that the daemon has ended; then the file is deleted. A daemon
//! whose socket we may not use also counts, and the request then reports why it fails.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::errno::{Errno, with_wgs_text};
use crate::model::status::Status;
use crate::model::{Change, Interface};
use crate::uapi::client::{self, Client, ClientError};
use crate::uapi::text::ReplyError;
use crate::uapi::{self, SUFFIX};

/// The names of all interfaces with a live socket in `dir`.
pub(super) fn list(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = names(dir)?;
    names.retain(|name| socket(dir, name).is_some());
    Ok(names)
}

/// The names of all interfaces with a live socket in `dir`, and of those whose socket was left by a
/// daemon that was killed. Nothing is deleted.
pub(super) fn survey(dir: &Path) -> io::Result<(Vec<String>, Vec<String>)> {
    let (mut live, mut left) = (Vec::new(), Vec::new());
    for name in names(dir)? {
        match look(dir, &name) {
            Some((_, State::Live)) => live.push(name),
            Some((_, State::Left)) => left.push(name),
            None => {}
        }
    }
    Ok((live, left))
}

/// Whether the socket of this interface was left by a daemon that was killed.
pub(super) fn is_left(dir: &Path, name: &str) -> bool {
    look(dir, name).is_some_and(|(_, state)| state == State::Left)
}

/// The path of the interface's socket, if it is live. Nothing is deleted.
pub(super) fn live(dir: &Path, name: &str) -> Option<PathBuf> {
    let (path, state) = look(dir, name)?;
    (state == State::Live).then_some(path)
}

/// The path of the interface's socket, if it is live; otherwise the socket is deleted.
pub(super) fn socket(dir: &Path, name: &str) -> Option<PathBuf> {
    match look(dir, name)? {
        (path, State::Live) => Some(path),
        (path, State::Left) => {
            let _ = fs::remove_file(&path);
            None
        }
    }
}

/// Whether somebody listens on a socket.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Live,
    /// The daemon was killed.
    Left,
}

fn look(dir: &Path, name: &str) -> Option<(PathBuf, State)> {
    if name.is_empty() || name.contains('/') {
        return None;
    }
    let path = uapi::socket_in(dir, name);
    if !fs::metadata(&path).ok()?.file_type().is_socket() {
        return None;
    }
    let state = match client::connect(&path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => State::Left,
        _ => State::Live,
    };
    Some((path, state))
}

/// The names of the files in `dir` that may be sockets.
fn names(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(with_wgs_text)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let file = entry.map_err(with_wgs_text)?.file_name();
        let name = file.to_str().and_then(|file| file.strip_suffix(SUFFIX));
        names.extend(name.map(str::to_owned));
    }
    Ok(names)
}

pub(super) fn get(socket: &Path) -> io::Result<Interface> {
    let mut client = Client::connect(socket).map_err(with_wgs_text)?;
    client.get().map_err(reason)
}

/// Other daemons do not know this request: of them it is what they tell of their configuration.
pub(super) fn status(socket: &Path) -> io::Result<Status> {
    let mut client = Client::connect(socket).map_err(with_wgs_text)?;
    match client.status().map_err(reason)? {
        Some(status) => Ok(status),
        None => get(socket).map(Status::from),
    }
}

pub(super) fn log(socket: &Path, level: &str) -> io::Result<bool> {
    let mut client = Client::connect(socket).map_err(with_wgs_text)?;
    client.log(level).map_err(reason)
}

pub(super) fn set(socket: &Path, changes: &[Change]) -> io::Result<()> {
    let mut client = Client::connect(socket).map_err(with_wgs_text)?;
    client.set(changes).map_err(reason)
}

fn reason(error: ClientError) -> io::Error {
    match error {
        ClientError::Io(error) => with_wgs_text(error),
        ClientError::Reply(ReplyError::Refused(errno)) => Errno(errno).into(),
        ClientError::Reply(ReplyError::BadLine { .. } | ReplyError::Incomplete) => {
            Errno(libc::EPROTO).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Backends, Kind, errno};
    use crate::model::Extension;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;
    use std::thread;
    use tempfile::TempDir;
    use wg_crypto::PublicKey;

    fn listen(dir: &TempDir, name: &str) -> UnixListener {
        UnixListener::bind(dir.path().join(format!("{name}.sock"))).unwrap()
    }

    #[test]
    fn dead_sockets_are_deleted() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(list(&dir.path().join("absent")).unwrap(), [""; 0]);
        let live = listen(&dir, "wg0");
        for dead in ["wg1", "wg2", "wg3"] {
            drop(listen(&dir, dead));
        }
        fs::write(dir.path().join("wg4.sock"), "").unwrap();
        fs::write(dir.path().join("wg5"), "").unwrap();
        let nameless = listen(&dir, "");
        std::os::unix::fs::symlink("wg0.sock", dir.path().join("wg6.sock")).unwrap();

        let backends = Backends::in_dir(dir.path());
        let (_, mut left) = backends.survey().unwrap();
        left.sort();
        assert_eq!(left, ["wg1", "wg2", "wg3"]);
        assert!(backends.is_left("wg1") && dir.path().join("wg1.sock").exists());
        for name in ["wg0", "wg4", "wg5", "wg7", "", "../wg1"] {
            assert!(!backends.is_left(name), "{name}");
        }
        // At least ours: the machine may have kernel interfaces too.
        assert_eq!(backends.kind("wg1").unwrap(), None);
        assert!(dir.path().join("wg1.sock").exists());
        for name in ["wg1", "wg2"] {
            assert!(backends.get(name).is_err());
            assert!(!dir.path().join(format!("{name}.sock")).exists());
        }
        let mut names = list(dir.path()).unwrap();
        names.sort();
        assert_eq!(names, ["wg0", "wg6"]);
        assert!(!dir.path().join("wg3.sock").exists());
        assert!(dir.path().join("wg4.sock").exists());
        assert_eq!(backends.kind("wg0").unwrap(), Some(Kind::Userspace));
        assert!(backends.list().unwrap().contains(&"wg0".to_owned()));
        for name in ["", "x/wg0", "../wg0", "wg4", "wg5"] {
            assert_eq!(socket(dir.path(), name), None, "{name}");
        }
        drop((live, nameless));
    }

    /// A daemon that answers one request after the probe.
    fn daemon(listener: UnixListener, reply: &'static str) -> thread::JoinHandle<String> {
        thread::spawn(move || {
            drop(listener.accept().unwrap());
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = String::new();
            while !request.ends_with("\n\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.push(char::from(byte[0]));
            }
            stream.write_all(reply.as_bytes()).unwrap();
            request
        })
    }

    #[test]
    fn a_request_follows_the_probe() {
        let dir = tempfile::tempdir().unwrap();
        let backends = Backends::in_dir(dir.path());
        let asked = daemon(listen(&dir, "wg0"), "listen_port=7\nerrno=0\n\n");
        assert_eq!(backends.get("wg0").unwrap().listen_port, 7);
        assert_eq!(asked.join().unwrap(), "get=1\n\n");

        let key = PublicKey::from_bytes([1; 32]);
        let asked = daemon(listen(&dir, "wg1"), "errno=0\n\n");
        let changes = [Change::ListenPort(9), Change::Peer(key), Change::Remove];
        backends.set("wg1", &changes).unwrap();
        let text = format!(
            "set=1\nlisten_port=9\npublic_key={}\nremove=true\n\n",
            "01".repeat(32)
        );
        assert_eq!(asked.join().unwrap(), text);
    }

    /// Other daemons apply what they know before they refuse, so everything is sent again.
    #[test]
    fn extensions_are_left_out_for_other_daemons() {
        let dir = tempfile::tempdir().unwrap();
        let backends = Backends::in_dir(dir.path());
        let changes = [
            Change::Peer(PublicKey::from_bytes([1; 32])),
            Change::Extension(Extension::Name("alice".parse().ok())),
            Change::PersistentKeepalive(7),
        ];
        let key = "01".repeat(32);
        let with =
            format!("set=1\npublic_key={key}\nname=alice\npersistent_keepalive_interval=7\n\n");
        let without = with.replace("name=alice\n", "");
        let listener = listen(&dir, "wg0");
        let second = listener.try_clone().unwrap();
        let daemons = thread::spawn(move || {
            let first = daemon(listener, "errno=-22\n\n").join().unwrap();
            [first, daemon(second, "errno=0\n\n").join().unwrap()]
        });
        assert!(
            backends
                .set_without_unknown("wg0", &changes)
                .unwrap()
                .is_empty()
        );
        assert_eq!(daemons.join().unwrap(), [with.clone(), without]);

        let asked = daemon(listen(&dir, "wg1"), "errno=0\n\n");
        backends.set_without_unknown("wg1", &changes).unwrap();
        assert_eq!(asked.join().unwrap(), with);
        let asked = daemon(listen(&dir, "wg2"), "errno=-98\n\n");
        let error = backends.set_without_unknown("wg2", &changes).unwrap_err();
        assert_eq!(errno(&error), Some(libc::EADDRINUSE));
        asked.join().unwrap();
    }

    #[test]
    fn refusals_keep_their_errno() {
        let dir = tempfile::tempdir().unwrap();
        let backends = Backends::in_dir(dir.path());
        for (name, reply, code) in [
            ("wg0", "errno=-98\n\n", libc::EADDRINUSE),
            ("wg1", "errno=1\n\n", libc::EPERM),
            ("wg2", "", libc::EPROTO),
            ("wg3", "nonsense\n\n", libc::EPROTO),
        ] {
            let asked = daemon(listen(&dir, name), reply);
            let error = backends.get(name).unwrap_err();
            assert_eq!(errno(&error), Some(code), "{reply:?}");
            assert_eq!(error.to_string(), Errno(code).to_string());
            asked.join().unwrap();
        }
        let asked = daemon(listen(&dir, "wg4"), "public_key=00\nerrno=0\n\n");
        let error = backends.set("wg4", &[Change::FwMark(1)]).unwrap_err();
        assert_eq!(errno(&error), Some(libc::EPROTO));
        asked.join().unwrap();
    }
}
