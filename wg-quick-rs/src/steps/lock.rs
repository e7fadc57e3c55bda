//! Locks: a command that changes an interface holds a lock for that interface. A command that chooses a
//! routing table holds a lock for all tables until its route is there.
//!
//! ```text
//! open or create ─► lock ─► still the file of this name? ─► work ─► removed, and unlocked
//!        ▲                    └ no: its holder removed it
//!        └────────────────────┘
//! ```
//! The file contains the process ID of its holder. Others wait for the lock, with a note and for a
//! limited time; but a command in a hook does not wait for the command that runs the hook. The files are
//! beside the daemons' sockets. A file that a killed process left is no obstacle: its lock is gone.

use std::env;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use wg_rs::uapi::RUN_DIR;

use crate::steps::console;
use crate::steps::failure::Failure;
use crate::steps::signals::Signals;

/// The network namespace of this process.
const NAMESPACE: &str = "/proc/thread-self/ns/net";
/// The time between two attempts to lock the tables.
const PAUSE: Duration = Duration::from_millis(10);

/// The time between two attempts to lock an interface.
const TURN: Duration = Duration::from_millis(100);
/// How long to wait for another process to unlock an interface.
const PATIENCE: Duration = Duration::from_secs(60);
/// Follows the process ID in the file while its holder waits for names to be resolved.
const WAITS_FOR_NAMES: &str = " waits for names";

/// A lock that is held until this is dropped.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    file: File,
}

/// The turn of this process to change an interface.
#[derive(Debug, Default)]
pub struct InterfaceLock {
    /// The lock. `None` in a hook's command, which the lock of the command that runs the hook protects,
    /// and if no lock file can be created.
    pub lock: Option<Lock>,
    /// Whether another process was ended for this one.
    pub ended_other: bool,
}

impl InterfaceLock {
    /// Waits for the lock of an interface in this namespace. With `ends_waiting`, a holder that waits
    /// for names is ended, as it may wait forever.
    ///
    /// # Errors
    /// Another process holds the lock for too long, or a signal arrived.
    pub fn of_interface(
        name: &str,
        ends_waiting: bool,
        signals: &Signals,
    ) -> Result<Self, Failure> {
        // Another namespace may have an interface of this name.
        let namespace = fs::metadata(NAMESPACE)?.ino();
        let path = Path::new(RUN_DIR).join(format!("{name}.{namespace}.lock"));
        let mut turn = InterfaceLock::default();
        let start = Instant::now();
        let mut is_told = false;
        loop {
            match Lock::take_at(&path) {
                Ok(Some(lock)) => {
                    lock.hold(false);
                    turn.lock = Some(lock);
                    return Ok(turn);
                }
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => return Ok(turn),
                // `down` must work even if /run is full.
                Err(error) => {
                    console::note(format_args!(
                        "{}: {error}. Going on without a lock for `{name}'.",
                        path.display()
                    ));
                    return Ok(turn);
                }
            }
            let holder = Holder::read(&path);
            if is_hooks(name)
                && !signals.in_background()
                && holder
                    .as_ref()
                    .is_some_and(|holder| is_ancestor(holder.pid))
            {
                return Ok(turn);
            }
            let of = holder.as_ref().map_or(String::new(), |holder| {
                let what = match holder.waits_for_names {
                    true => ", which is waiting for a name to be resolved",
                    false => "",
                };
                format!(" (process {}{what})", holder.pid)
            });
            if start.elapsed() > PATIENCE {
                return Err(Failure::new(format_args!(
                    "`{name}' is being changed by another wg-quick-rs{of}"
                )));
            }
            if ends_waiting
                && !turn.ended_other
                && let Some(holder) = holder.filter(|holder| holder.waits_for_names)
            {
                console::note(format_args!(
                    "Another wg-quick-rs (process {}) is waiting for a name to be resolved for `{name}'. Ending it.",
                    holder.pid
                ));
                turn.ended_other = kill(Pid::from_raw(holder.pid), Signal::SIGTERM).is_ok();
            } else if !is_told && !turn.ended_other {
                console::note(format_args!(
                    "`{name}' is being changed by another wg-quick-rs{of}. Waiting for it."
                ));
                is_told = true;
            }
            signals.wait(Some(TURN));
            if let Some(signal) = signals.caught() {
                return Err(Failure::Signal(signal));
            }
        }
    }
}

/// The holder of a lock.
#[derive(Debug, PartialEq, Eq)]
struct Holder {
    pid: i32,
    waits_for_names: bool,
}

impl Holder {
    fn read(path: &Path) -> Option<Self> {
        Holder::parse(&fs::read_to_string(path).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let line = text.lines().next()?;
        let (pid, waits_for_names) = match line.strip_suffix(WAITS_FOR_NAMES) {
            Some(pid) => (pid, true),
            None => (line, false),
        };
        let pid = pid.parse().ok().filter(|pid| *pid > 1)?;
        Some(Holder {
            pid,
            waits_for_names,
        })
    }
}

/// Whether this process has the environment of a hook for this interface.
fn is_hooks(name: &str) -> bool {
    let interface = env::var_os("INTERFACE");
    env::var_os("CONFIG_FILE").is_some() && interface.is_some_and(|interface| interface == name)
}

/// Whether a process is an ancestor of this one. A hook's environment alone proves nothing: its
/// background jobs have it too, and the command does not wait for those.
fn is_ancestor(pid: i32) -> bool {
    let parent = |of: i32| -> Option<i32> {
        let status = fs::read_to_string(format!("/proc/{of}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
        line.trim().parse().ok()
    };
    let mut at = process::id().cast_signed();
    while let Some(above) = parent(at).filter(|above| *above > 0) {
        if above == pid {
            return true;
        }
        at = above;
    }
    false
}

impl Lock {
    /// Writes the holder into the file. If that fails, the lock is held all the same.
    pub fn hold(&self, waits_for_names: bool) {
        let state = if waits_for_names { WAITS_FOR_NAMES } else { "" };
        let text = format!("{}{state}\n", process::id());
        let _ = self.file.set_len(0);
        let _ = self.file.write_at(text.as_bytes(), 0);
    }

    /// Waits for the lock of all routing tables, which is never held for long. `None` if no lock file
    /// can be created.
    ///
    /// # Errors
    /// A signal arrived.
    pub fn of_tables(signals: &Signals) -> Result<Option<Self>, Failure> {
        loop {
            match Lock::take("tables.lock") {
                Ok(Some(lock)) => return Ok(Some(lock)),
                Ok(None) => {}
                // Without a file there is no lock to wait for.
                Err(_) => return Ok(None),
            }
            if let Some(signal) = signals.caught() {
                return Err(Failure::Signal(signal));
            }
            signals.wait(Some(PAUSE));
        }
    }

    fn take(name: &str) -> io::Result<Option<Self>> {
        Lock::take_at(&Path::new(RUN_DIR).join(name))
    }

    /// Takes the lock; `None` if another process has it.
    fn take_at(path: &Path) -> io::Result<Option<Self>> {
        if let Some(folder) = path.parent()
            && !folder.exists()
        {
            DirBuilder::new()
                .mode(0o755)
                .recursive(true)
                .create(folder)?;
            fs::set_permissions(folder, Permissions::from_mode(0o755))?;
        }
        loop {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            let ours = file.metadata()?;
            let is_same = |there: fs::Metadata| there.ino() == ours.ino();
            if fs::metadata(path).is_ok_and(is_same) {
                let path = path.into();
                return Ok(Some(Lock { path, file }));
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // It is still locked, so the file cannot be another process's.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::thread;

    #[test]
    fn the_holder_is_in_the_file() {
        let holder = |pid, waits_for_names| {
            Some(Holder {
                pid,
                waits_for_names,
            })
        };
        assert_eq!(Holder::parse("77\n"), holder(77, false));
        assert_eq!(Holder::parse("77 waits for names\n"), holder(77, true));
        assert_eq!(Holder::parse(""), None);
        assert_eq!(Holder::parse("-1\n"), None);
        assert!(is_ancestor(
            std::os::unix::process::parent_id().cast_signed()
        ));
        assert!(!is_ancestor(process::id().cast_signed()));
    }

    #[test]
    fn only_one_holds_the_lock_and_no_file_is_left() {
        let path = env::temp_dir().join(format!("wg-quick-rs-lock-{}", process::id()));
        let held = Lock::take_at(&path).unwrap().unwrap();
        assert!(Lock::take_at(&path).unwrap().is_none());
        drop(held);
        assert!(!path.exists());
        let (inside, times) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while times.load(SeqCst) < 200 {
                        let Some(_lock) = Lock::take_at(&path).unwrap() else {
                            continue;
                        };
                        assert_eq!(inside.fetch_add(1, SeqCst), 0);
                        times.fetch_add(1, SeqCst);
                        inside.fetch_sub(1, SeqCst);
                    }
                });
            }
        });
        assert!(!path.exists());
    }
}
