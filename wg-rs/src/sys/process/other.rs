//! Another process, held by a descriptor: its ID may be reused, the descriptor always means the process
//! that it was opened for.

use std::ffi::c_int;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use crate::sys::netns::NetNs;
use crate::sys::{check, poll};

/// A process. Everything read about it by way of /proc is thrown away if the process ended meanwhile:
/// then it may be about the next one with its ID.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    pidfd: OwnedFd,
}

impl Process {
    /// Opens the process with this ID.
    ///
    /// # Errors
    /// ESRCH: there is none; ENOSYS: Linux before 5.3.
    pub fn open(pid: u32) -> io::Result<Self> {
        // SAFETY: two numbers.
        let pidfd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
        // SAFETY: a descriptor the kernel just opened for us, that nobody else knows of.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd as c_int) };
        Ok(Process { pid, pidfd })
    }

    /// Its ID.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its open descriptors, each with what /proc says that it leads to.
    ///
    /// # Errors
    /// PermissionDenied: it may not be looked into; ESRCH: it ended.
    pub fn descriptors(&self) -> io::Result<Vec<(c_int, PathBuf)>> {
        let mut descriptors = Vec::new();
        for entry in fs::read_dir(format!("/proc/{}/fd", self.pid))? {
            let entry = entry?;
            let number = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            let leads_to = match fs::read_link(entry.path()) {
                // It was closed meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                // Root may open the folder without the right to look inside.
                other => other?,
            };
            descriptors.extend(number.map(|number| (number, leads_to)));
        }
        self.still_runs()?;
        Ok(descriptors)
    }

    /// A copy of one of its descriptors.
    ///
    /// # Errors
    /// EPERM: it may not be looked into; EBADF: it has none of this number; ENOSYS: Linux before 5.6.
    pub fn copy(&self, descriptor: c_int) -> io::Result<OwnedFd> {
        let pidfd = self.pidfd.as_raw_fd();
        // SAFETY: three numbers.
        let copy = check(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd, descriptor, 0) })?;
        // SAFETY: a descriptor the kernel just opened for us, that nobody else knows of.
        Ok(unsafe { OwnedFd::from_raw_fd(copy as c_int) })
    }

    /// The network namespace that it is in.
    ///
    /// # Errors
    /// PermissionDenied: it may not be looked into; ESRCH: it ended.
    pub fn netns(&self) -> io::Result<NetNs> {
        let netns = NetNs::of_pid(self.pid)?;
        self.still_runs()?;
        Ok(netns)
    }

    fn still_runs(&self) -> io::Result<()> {
        let [ended] = poll::wait([self.pidfd.as_fd()], Some(Duration::ZERO))?;
        if ended.any() {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        Ok(())
    }
}

/// The IDs of all processes that /proc shows.
pub fn ids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn what_is_read_is_of_the_process_that_was_opened() {
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let process = Process::open(child.id()).unwrap();
        assert_eq!(process.pid(), child.id());
        let descriptors = process.descriptors().unwrap();
        let null = descriptors.iter().find(|(number, _)| *number == 1);
        assert_eq!(null.unwrap().1, PathBuf::from("/dev/null"));
        assert!(
            process
                .netns()
                .unwrap()
                .is(&NetNs::current().unwrap())
                .unwrap()
        );
        process.copy(1).unwrap();

        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(process.descriptors().is_err() && process.netns().is_err());
        assert!(process.copy(1).is_err());
        assert!(Process::open(4_194_305).is_err());
    }
}
