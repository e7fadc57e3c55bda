//! The socket file `<interface>.sock`. Only its owner can connect to it at any time. A file that a
//! dead daemon left behind is replaced; if its daemon lives, binding fails.
//!
//! Programs such as `wg` delete a socket that refuses connections. So the file gets its name only
//! after the socket listens.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::sys::socket::{
    self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr, getsockopt, sockopt,
};
use nix::sys::stat::{Mode, fchmod};
use rand_core::{OsRng, TryRngCore};

use crate::sys::unix_file;

/// A listening configuration socket and its file, which is removed when this is dropped.
#[derive(Debug)]
pub struct Listener {
    // Dropped first, so that every existing socket file accepts connections.
    file: Option<Arc<SocketFile>>,
    socket: UnixListener,
}

/// Why the configuration socket could not be created.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The name is not a valid interface name.
    #[error("`{0}` is not a valid interface name")]
    Name(String),
    /// Another daemon listens on this socket.
    #[error("{}: another daemon is using this socket; `wg-rs link list' shows where its interface is", .0.display())]
    InUse(PathBuf),
    /// The folder or the socket could not be created.
    #[error("{}: {source}", path.display())]
    Io {
        /// The path that failed.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl Listener {
    /// Creates `dir` if necessary (mode 0755), and listens at `<interface>.sock` in it (mode 0700,
    /// like wireguard-go). A socket that refuses connections was left behind, and is replaced.
    ///
    /// # Errors
    /// [`BindError`].
    pub fn bind(dir: &Path, interface: &str) -> Result<Self, BindError> {
        if interface.is_empty() || interface.len() > 15 || interface.contains(['/', '\0']) {
            return Err(BindError::Name(interface.to_owned()));
        }
        make_dir(dir).map_err(|source| BindError::Io {
            path: dir.to_owned(),
            source,
        })?;
        let path = super::socket_in(dir, interface);
        let listening = || -> io::Result<Listener> {
            // The suffix is not that of a socket, so no program looks for this name.
            let mut name = path.clone().into_os_string();
            let number = OsRng.try_next_u64();
            let number = number.map_err(|error| io::Error::other(error.to_string()))?;
            name.push(format!(".{number:016x}"));
            let socket = listen(Path::new(&name))?;
            let file = SocketFile::at(Path::new(&name))?;
            file.move_to(&mut file.path(), &path)?;
            Ok(Listener {
                socket,
                file: Some(Arc::new(file)),
            })
        };
        match listening() {
            Ok(listener) => Ok(listener),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(BindError::InUse(path)),
            Err(source) => Err(BindError::Io { path, source }),
        }
    }

    /// Takes over a listening socket from another process, with its file if it has one. From then
    /// on clients see this process as the listener (SO_PEERCRED).
    ///
    /// # Errors
    /// InvalidInput: the descriptor is not a listening socket.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        if !getsockopt(&fd, sockopt::AcceptConn)? {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a listening socket",
            ));
        }
        socket::listen(&fd, Backlog::MAXCONN)?;
        let socket = UnixListener::from(fd);
        let bound_to = socket.local_addr()?.as_pathname().map(Path::to_owned);
        let path = unix_file::path_of(socket.as_fd()).ok().or(bound_to);
        let file = path.map(|path| SocketFile::at(&path)).transpose()?;
        let file = file.map(Arc::new);
        Ok(Listener { socket, file })
    }

    /// The socket's file, if it has one. The file is removed when the last reference is dropped.
    pub fn file(&self) -> Option<Arc<SocketFile>> {
        self.file.clone()
    }

    /// Releases the socket for another process. The file stays.
    pub fn into_fd(self) -> OwnedFd {
        if let Some(file) = self.file {
            std::mem::forget(file);
        }
        self.socket.into()
    }

    pub(super) fn into_parts(self) -> (UnixListener, Option<Arc<SocketFile>>) {
        (self.socket, self.file)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The file of a socket. When dropped, it removes the file, if the file is still the same.
#[derive(Debug)]
pub struct SocketFile {
    path: Mutex<PathBuf>,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        let file = fs::symlink_metadata(path)?;
        Ok(SocketFile {
            path: Mutex::new(path.to_owned()),
            device: file.dev(),
            inode: file.ino(),
        })
    }

    pub(super) fn path(&self) -> MutexGuard<'_, PathBuf> {
        self.path.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this file is still at its path.
    pub(super) fn is_there(&self) -> bool {
        self.is_at(&self.path())
    }

    fn is_at(&self, path: &Path) -> bool {
        let there = fs::symlink_metadata(path);
        there.is_ok_and(|file| (file.dev(), file.ino()) == (self.device, self.inode))
    }

    /// The folder of the file.
    pub fn folder(&self) -> Option<PathBuf> {
        self.path().parent().map(Path::to_owned)
    }

    /// Whether the file is named after the interface.
    pub fn is_named_for(&self, interface: &str) -> bool {
        let path = self.path();
        path.parent()
            .is_some_and(|dir| *path == super::socket_in(dir, interface))
    }

    /// Renames the file after the interface was renamed. A file that was removed is not recreated.
    ///
    /// # Errors
    /// AddrInUse: another daemon listens at the new name; errors of the file system.
    pub fn follow(&self, interface: &str) -> io::Result<()> {
        let mut path = self.path();
        match path.parent().map(Path::to_owned) {
            Some(dir) if self.is_at(&path) => {
                self.move_to(&mut path, &super::socket_in(&dir, interface))
            }
            _ => Ok(()),
        }
    }

    /// Moves the file to a path where there is nothing, or a socket without a listener.
    fn move_to(&self, path: &mut PathBuf, to: &Path) -> io::Result<()> {
        if let Err(error) = rename(path, to) {
            if error.kind() != io::ErrorKind::AlreadyExists {
                return Err(error);
            }
            remove_stale(to)?;
            rename(path, to)?;
        }
        to.clone_into(path);
        Ok(())
    }
}

/// Renames a file if the new name does not exist.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
        // The file system does not support this flag.
        Err(Errno::EINVAL) if fs::symlink_metadata(to).is_err() => fs::rename(from, to),
        Err(Errno::EINVAL) => Err(io::ErrorKind::AlreadyExists.into()),
        result => Ok(result?),
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let path = self.path();
        if self.is_at(&path) {
            let _ = fs::remove_file(&*path);
        }
    }
}

/// `DirBuilder` alone would apply the umask to the mode.
fn make_dir(dir: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o755).create(dir) {
        Ok(()) => fs::set_permissions(dir, Permissions::from_mode(0o755)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    let fd = local_socket(SockType::Stream)?;
    // Linux gives the file the mode of the socket (less the umask). So the file never has another
    // mode, and the umask, which all threads share, does not change.
    fchmod(&fd, Mode::S_IRWXU)?;
    socket::bind(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    socket::listen(&fd, Backlog::MAXCONN)?;
    Ok(UnixListener::from(fd))
}

/// Removes a socket that no process has any more. The test uses a datagram socket: it is refused with
/// another error if there is a process, whether or not that listens and has room in its queue. So it
/// disturbs no daemon, and the sandbox need not allow stream sockets.
fn remove_stale(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "exists and is not a socket",
        ));
    }
    let datagrams = local_socket(SockType::Datagram)?;
    match socket::connect(datagrams.as_raw_fd(), &UnixAddr::new(path)?) {
        Err(Errno::ECONNREFUSED) => {}
        _ => return Err(Errno::EADDRINUSE.into()),
    }
    fs::remove_file(path)
}

fn local_socket(kind: SockType) -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket::socket(AddressFamily::Unix, kind, flags, None)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A folder for one test.
    pub(in crate::uapi) struct TempDir(pub(in crate::uapi) PathBuf);

    impl TempDir {
        pub(in crate::uapi) fn new() -> Self {
            static COUNT: AtomicUsize = AtomicUsize::new(0);
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("wg-rs-uapi-{}-{count}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir(&path).unwrap();
            TempDir(path)
        }

        pub(in crate::uapi) fn socket(&self) -> PathBuf {
            self.0.join("wg0.sock")
        }
    }

    impl Drop for TempDir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn the_socket_is_private_and_removed_at_the_end() {
        let temp = TempDir::new();
        let dir = temp.0.join("wireguard");
        let listener = Listener::bind(&dir, "wg0").unwrap();
        let path = dir.join("wg0.sock");
        assert_eq!((mode(&dir), mode(&path)), (0o755, 0o700));
        UnixStream::connect(&path).unwrap();
        drop(listener);
        assert!(!path.exists());
        // An existing folder keeps its mode.
        fs::set_permissions(&dir, Permissions::from_mode(0o700)).unwrap();
        Listener::bind(&dir, "wg0").unwrap();
        assert_eq!(mode(&dir), 0o700);
    }

    #[test]
    fn a_live_socket_is_kept_and_a_stale_one_replaced() {
        let temp = TempDir::new();
        let live = Listener::bind(&temp.0, "wg0").unwrap();
        let error = Listener::bind(&temp.0, "wg0").unwrap_err();
        assert!(
            matches!(&error, BindError::InUse(path) if *path == temp.socket()),
            "{error}"
        );
        Listener::bind(&temp.0, "wg1").unwrap();
        UnixStream::connect(temp.socket()).unwrap();

        // As after a kill: the socket is closed, and its file remains.
        drop(live.into_fd());
        assert!(temp.socket().exists());
        let next = Listener::bind(&temp.0, "wg0").unwrap();
        UnixStream::connect(temp.socket()).unwrap();
        assert_eq!(mode(&temp.socket()), 0o700);
        drop(next);
        assert!(!temp.socket().exists());
    }

    /// `wg` removes a socket that refuses connections, so ours must listen before it is visible.
    #[test]
    fn a_visible_socket_accepts_connections() {
        let temp = TempDir::new();
        let finder = std::thread::spawn({
            let path = temp.socket();
            move || {
                let mut found = 0;
                while found < 100 {
                    match UnixStream::connect(&path) {
                        Ok(_) => found += 1,
                        Err(error) => assert_eq!(error.kind(), io::ErrorKind::NotFound),
                    }
                }
            }
        });
        let mut kept = Vec::new();
        while !finder.is_finished() {
            kept.push(Listener::bind(&temp.0, "wg0").unwrap());
            fs::remove_file(temp.socket()).unwrap();
        }
        finder.join().unwrap();
        assert_eq!(fs::read_dir(&temp.0).unwrap().count(), 0);
    }

    #[test]
    fn the_file_follows_a_renamed_interface() {
        let temp = TempDir::new();
        let listener = Listener::bind(&temp.0, "wg0").unwrap();
        let file = listener.file().unwrap();
        let at = |name: &str| temp.0.join(format!("{name}.sock"));
        assert!(file.is_named_for("wg0"));
        file.follow("wg1").unwrap();
        assert!(file.is_named_for("wg1"));
        assert!(!at("wg0").exists());
        UnixStream::connect(at("wg1")).unwrap();
        assert!(file.is_there());

        // First a live socket is in the way, then the socket of a dead daemon.
        let other = Listener::bind(&temp.0, "wg2").unwrap();
        let error = file.follow("wg2").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        UnixStream::connect(at("wg1")).unwrap();
        drop(other.into_fd());
        file.follow("wg2").unwrap();

        // Another process that takes it over finds the new name, although the socket was bound to
        // the old one.
        let listener = {
            let fd = listener.as_fd().try_clone_to_owned().unwrap();
            std::mem::forget((listener, file));
            Listener::from_fd(fd).unwrap()
        };
        listener.file().unwrap().follow("wg3").unwrap();
        UnixStream::connect(at("wg3")).unwrap();
        drop(listener);
        assert_eq!(fs::read_dir(&temp.0).unwrap().count(), 0);
    }

    #[test]
    fn a_socket_whose_queue_is_full_is_live() {
        let temp = TempDir::new();
        let fd = local_socket(SockType::Stream).unwrap();
        socket::bind(fd.as_raw_fd(), &UnixAddr::new(&temp.socket()).unwrap()).unwrap();
        socket::listen(&fd, Backlog::new(0).unwrap()).unwrap();
        let addr = UnixAddr::new(&temp.socket()).unwrap();
        let mut waiting = Vec::new();
        loop {
            let client = local_socket(SockType::Stream).unwrap();
            match socket::connect(client.as_raw_fd(), &addr) {
                Ok(()) => waiting.push(client),
                Err(errno) => break assert_eq!(errno, Errno::EAGAIN),
            }
        }
        assert!(matches!(
            Listener::bind(&temp.0, "wg0"),
            Err(BindError::InUse(_))
        ));
        assert!(temp.socket().exists());
    }

    #[test]
    fn other_files_are_not_replaced() {
        let temp = TempDir::new();
        fs::write(temp.socket(), "precious").unwrap();
        let error = Listener::bind(&temp.0, "wg0").unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("wg0.sock: exists and is not a socket"),
            "{error}"
        );
        assert_eq!(fs::read(temp.socket()).unwrap(), b"precious");
        fs::remove_file(temp.socket()).unwrap();
        std::os::unix::fs::symlink("/nowhere", temp.socket()).unwrap();
        assert!(Listener::bind(&temp.0, "wg0").is_err());
        assert!(temp.socket().is_symlink());
    }

    #[test]
    fn invalid_names_are_refused() {
        let temp = TempDir::new();
        for name in ["", "a/b", "../x", "sixteen-letters!", "a\0"] {
            assert!(
                matches!(Listener::bind(&temp.0, name), Err(BindError::Name(_))),
                "{name}"
            );
        }
        let file = temp.0.join("file");
        fs::write(&file, "").unwrap();
        let error = Listener::bind(&file, "wg0").unwrap_err();
        assert!(
            matches!(&error, BindError::Io { path, .. } if *path == file),
            "{error}"
        );
        assert_eq!(fs::read_dir(&temp.0).unwrap().count(), 1);
    }

    #[test]
    fn a_socket_can_be_passed_to_another_process() {
        let temp = TempDir::new();
        let fd = Listener::bind(&temp.0, "wg0").unwrap().into_fd();
        let listener = Listener::from_fd(fd).unwrap();
        UnixStream::connect(temp.socket()).unwrap();
        drop(listener);
        assert!(!temp.socket().exists());
        let (one, _other) = UnixStream::pair().unwrap();
        assert!(
            Listener::from_fd(one.into()).is_err(),
            "connected, not listening"
        );
        assert!(Listener::from_fd(fs::File::open("/dev/null").unwrap().into()).is_err());
    }

    #[test]
    fn the_file_of_a_successor_is_not_removed() {
        let temp = TempDir::new();
        let old = Listener::bind(&temp.0, "wg0").unwrap();
        fs::remove_file(temp.socket()).unwrap();
        let new = Listener::bind(&temp.0, "wg0").unwrap();
        drop(old);
        UnixStream::connect(temp.socket()).unwrap();
        drop(new);
        assert!(!temp.socket().exists());
    }
}
