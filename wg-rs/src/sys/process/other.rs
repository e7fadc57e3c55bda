//! Another process, held by a pidfd. A process ID may be reused, but the pidfd always refers to the
//! process that it was opened for.

use std::ffi::c_int;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use crate::sys::netns::NetNs;
use crate::sys::{check, poll};

/// A process. Whatever is read about it from /proc is discarded if the process ended meanwhile,
/// because it may describe another process with the same ID.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    pidfd: OwnedFd,
}

impl Process {
    /// Opens the process with this ID.
    ///
    /// # Errors
    /// ESRCH: there is no such process; ENOSYS: Linux before 5.3.
    pub fn open(pid: u32) -> io::Result<Self> {
        // SAFETY: both arguments are numbers.
        let pidfd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
        // SAFETY: the kernel has just opened this descriptor for us, and nobody else uses it.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd as c_int) };
        Ok(Process { pid, pidfd })
    }

    /// The process ID.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The process's open descriptors, each with the target that /proc shows.
    ///
    /// # Errors
    /// PermissionDenied: the process may not be inspected; ESRCH: the process ended.
    pub fn descriptors(&self) -> io::Result<Vec<(c_int, PathBuf)>> {
        let mut descriptors = Vec::new();
        for entry in fs::read_dir(format!("/proc/{}/fd", self.pid))? {
            let entry = entry?;
            let number = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            let leads_to = match fs::read_link(entry.path()) {
                // The descriptor was closed meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                // Root may open the folder without being allowed to read the links.
                other => other?,
            };
            descriptors.extend(number.map(|number| (number, leads_to)));
        }
        self.still_runs()?;
        Ok(descriptors)
    }

    /// A copy of one of the process's descriptors.
    ///
    /// # Errors
    /// EPERM: the process may not be inspected; EBADF: it has no such descriptor; ENOSYS: Linux
    /// before 5.6.
    pub fn copy(&self, descriptor: c_int) -> io::Result<OwnedFd> {
        let pidfd = self.pidfd.as_raw_fd();
        // SAFETY: all arguments are numbers.
        let copy = check(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd, descriptor, 0) })?;
        // SAFETY: the kernel has just opened this descriptor for us, and nobody else uses it.
        Ok(unsafe { OwnedFd::from_raw_fd(copy as c_int) })
    }

    /// The process's network namespace.
    ///
    /// # Errors
    /// PermissionDenied: the process may not be inspected; ESRCH: the process ended.
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

/// The IDs of all processes in /proc.
pub fn ids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn only_the_opened_process_is_read() {
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
