//! One at a time: who changes an interface holds a lock for it, and who chooses a routing table one
//! for all tables, until its route is there.
//!
//! ```text
//! open or create ─► lock ─► still the file of this name? ─► work ─► removed, and unlocked
//!        ▲                    └ no: its holder removed it
//!        └────────────────────┘
//! ```
//! The files are beside the daemons' sockets. One that is left by who was killed is in nobody's way.

use std::env;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use wg_rs::uapi::RUN_DIR;

use crate::failure::Failure;
use crate::signals::Signals;

/// The namespace we run in.
const NAMESPACE: &str = "/proc/thread-self/ns/net";
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(10);

/// Held while this is. See the head of the file.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    /// That of an interface in this namespace. `None` where there is nothing to hold: a hook's
    /// command is protected by who runs the hook, and where nothing can be written in /run nobody
    /// else can.
    ///
    /// # Errors
    /// Another one has it.
    pub fn of_interface(name: &str) -> Result<Option<Self>, Failure> {
        let is_hooks = env::var_os("CONFIG_FILE").is_some()
            && env::var_os("INTERFACE").is_some_and(|interface| interface == name);
        if is_hooks {
            return Ok(None);
        }
        // Other namespaces may have one of this name.
        let namespace = fs::metadata(NAMESPACE)?.ino();
        match Lock::take(&format!("{name}.{namespace}.lock")) {
            Ok(Some(lock)) => Ok(Some(lock)),
            Ok(None) => Err(Failure::new(format_args!(
                "`{name}' is being changed by another wg-quick-rs"
            ))),
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => Ok(None),
            Err(error) => Err(error.into()),
        }
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
                Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => return Ok(None),
                Err(error) => return Err(error.into()),
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
                return Ok(Some(Lock { path, _file: file }));
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
    use std::process;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::thread;

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
