//! One at a time: who changes an interface holds a lock for it, and who chooses a routing table one
//! for all tables, until its route is there.
//!
//! ```text
//! open or create ─► lock ─► still the file of this name? ─► work ─► removed, and unlocked
//!        ▲                    └ no: its holder removed it
//!        └────────────────────┘
//! ```
//! The file says who has it, and whoever wants it waits, with a note and for a limited time; a command
//! of a hook does not wait for the one that waits for it. The files are beside the daemons' sockets. One that is left by who was killed is in nobody's way.

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

/// The namespace we run in.
const NAMESPACE: &str = "/proc/thread-self/ns/net";
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(10);

/// Between two attempts to have an interface.
const TURN: Duration = Duration::from_millis(100);
/// How long another one is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// In the file, behind the process ID: its holder waits for names to be resolved.
const WAITS_FOR_NAMES: &str = " waits for names";

/// Held while this is. See the head of the file.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    file: File,
}

/// How an interface's lock was had.
#[derive(Debug, Default)]
pub struct Turn {
    /// `None` where there is nothing to hold: a hook's command is protected by who runs the hook,
    /// and where no file can be made there is none.
    pub lock: Option<Lock>,
    /// Another one was told to end, and did.
    pub ended_other: bool,
}

impl Turn {
    /// Waits for the lock of an interface in this namespace. With `ends_waiting`, one that waits for
    /// names, as it may for ever, is ended.
    ///
    /// # Errors
    /// Another one has it for too long; or a signal came.
    pub fn of_interface(
        name: &str,
        ends_waiting: bool,
        signals: &Signals,
    ) -> Result<Self, Failure> {
        // Other namespaces may have one of this name.
        let namespace = fs::metadata(NAMESPACE)?.ino();
        let path = Path::new(RUN_DIR).join(format!("{name}.{namespace}.lock"));
        let mut turn = Turn::default();
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
                // A full one is no reason to stay up.
                Err(error) => {
                    console::note(format_args!(
                        "{}: {error}. Another wg-quick-rs is not kept from changing `{name}'.",
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
            let of = holder
                .as_ref()
                .map_or(String::new(), |holder| format!(" (process {})", holder.pid));
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
                    "Another wg-quick-rs (process {}) waits for names of `{name}' to be resolved. Ending it.",
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

/// Who has a lock.
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

/// Whether the environment is that of a hook for this interface.
fn is_hooks(name: &str) -> bool {
    let interface = env::var_os("INTERFACE");
    env::var_os("CONFIG_FILE").is_some() && interface.is_some_and(|interface| interface == name)
}

/// Whether a process is our parent, or a parent of that and so on. Anybody may have a hook's
/// environment, and so have its jobs in the background, which it does not wait for.
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
    /// Says who has it. One that cannot be written is a lock still.
    pub fn hold(&self, waits_for_names: bool) {
        let state = if waits_for_names { WAITS_FOR_NAMES } else { "" };
        let text = format!("{}{state}\n", process::id());
        let _ = self.file.set_len(0);
        let _ = self.file.write_at(text.as_bytes(), 0);
    }

    /// That of all routing tables, which nobody has for long.
    ///
    /// # Errors
    /// A signal came meanwhile.
    pub fn of_tables(signals: &Signals) -> Result<Option<Self>, Failure> {
        loop {
            match Lock::take("tables.lock") {
                Ok(Some(lock)) => return Ok(Some(lock)),
                Ok(None) => {}
                // Where no file can be made, nobody waits for another one.
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

    /// `None` if another one has it.
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
        // While it is locked: nobody else's goes.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::thread;

    #[test]
    fn who_has_it_is_said() {
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
    fn one_has_it_and_leaves_nothing() {
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
