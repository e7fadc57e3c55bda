//! The names by which a user knows a network namespace.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;

use super::engine::Engine;
use super::error::{Error, NO_PERMISSION, reason};
use crate::sys::netns::NetNs;

/// A network namespace, as a user names it: `web`, `pid:7`, `path:/run/web.ns`, `docker:web`,
/// `podman:web`, `init`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Namespace {
    /// That of process 1: the host's.
    Init,
    /// What `ip netns` knows by this name.
    Named(String),
    /// That of a process.
    Pid(u32),
    /// The one that a file stands for.
    Path(PathBuf),
    /// That of a Docker container, by its name or id.
    Docker(String),
    /// That of a Podman container, by its name or id.
    Podman(String),
}

impl FromStr for Namespace {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = |reason| Error::NotANamespace {
            text: text.into(),
            reason,
        };
        let container = |name: &str| {
            let inner = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
            if name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(inner) {
                Ok(name.to_owned())
            } else {
                Err(bad(
                    "a container has a name of letters, digits, `_', `.' and `-'",
                ))
            }
        };
        match text.split_once(':') {
            None if text == "init" => Ok(Namespace::Init),
            Some(("pid", pid)) => match pid.parse() {
                Ok(pid) if pid > 0 => Ok(Namespace::Pid(pid)),
                _ => Err(bad("after pid: comes the number of a process")),
            },
            Some(("path", "")) => Err(bad("after path: comes the name of a file")),
            Some(("path", path)) => Ok(Namespace::Path(path.into())),
            Some(("docker", name)) => container(name).map(Namespace::Docker),
            Some(("podman", name)) => container(name).map(Namespace::Podman),
            _ if text.is_empty() || text.starts_with('.') || text.contains('\0') => {
                Err(bad("a name is not empty and does not begin with a dot"))
            }
            _ if text.contains('/') => Err(bad("a file is written path:FILE")),
            _ => Ok(Namespace::Named(text.into())),
        }
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Namespace::Init => f.write_str("init"),
            Namespace::Named(name) => f.write_str(name),
            Namespace::Pid(pid) => write!(f, "pid:{pid}"),
            Namespace::Path(path) => write!(f, "path:{}", path.display()),
            Namespace::Docker(name) => write!(f, "docker:{name}"),
            Namespace::Podman(name) => write!(f, "podman:{name}"),
        }
    }
}

impl Namespace {
    /// Opens it. It exists, is a network namespace, and may be entered.
    ///
    /// # Errors
    /// One line that names it: there is none, no such container, it is not running, it has the
    /// host's network, no permission.
    pub fn open(&self) -> Result<NetNs, Error> {
        let opened = match self {
            Namespace::Init => init(),
            Namespace::Named(name) => NetNs::of_name(name),
            Namespace::Pid(pid) => NetNs::of_pid(*pid),
            Namespace::Path(path) => NetNs::of_path(path),
            Namespace::Docker(name) => return Engine::Docker.open(self, name),
            Namespace::Podman(name) => return Engine::Podman.open(self, name),
        };
        opened
            .and_then(|netns| netns.run(|| ()).map(|()| netns))
            .map_err(|error| Error::namespace(self, self.explain(&error)))
    }

    fn explain(&self, error: &io::Error) -> String {
        match (self, error.raw_os_error()) {
            (Namespace::Named(name), Some(libc::ENOENT)) if name.contains(':') => {
                "there is none (a prefix is one of pid:, path:, docker:, podman:)".into()
            }
            (Namespace::Named(_), Some(libc::ENOENT)) => {
                "there is none of this name in /run/netns".into()
            }
            (Namespace::Pid(_), Some(libc::ENOENT)) => "no such process".into(),
            (_, Some(libc::EINVAL)) => "this is no network namespace".into(),
            (_, Some(libc::EPERM | libc::EACCES)) => NO_PERMISSION.into(),
            _ => reason(error),
        }
    }
}

/// That of process 1. Root without all capabilities may not look at that one: then it is that of the
/// kernel's threads, which is the same on a host, while a container has none.
pub(super) fn init() -> io::Result<NetNs> {
    let opened = NetNs::of_pid(1);
    if !matches!(&opened, Err(error) if error.kind() == io::ErrorKind::PermissionDenied) {
        return opened;
    }
    let stat = std::fs::read_to_string("/proc/2/stat").unwrap_or_default();
    // Behind the name: state, parent, group, session, terminal, its group, flags.
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
    let flags = fields
        .split(' ')
        .nth(6)
        .and_then(|flags| flags.parse::<u32>().ok());
    if flags.is_some_and(|flags| flags & PF_KTHREAD != 0) {
        NetNs::of_pid(2)
    } else {
        opened
    }
}

/// Flag of a kernel thread (linux/sched.h).
const PF_KTHREAD: u32 = 0x0020_0000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_shown_alike() {
        for (text, namespace) in [
            ("init", Namespace::Init),
            ("web", Namespace::Named("web".into())),
            ("a:b", Namespace::Named("a:b".into())),
            ("pid:7", Namespace::Pid(7)),
            ("path:/run/a b", Namespace::Path("/run/a b".into())),
            ("path:x:y", Namespace::Path("x:y".into())),
            ("docker:web-1.x", Namespace::Docker("web-1.x".into())),
            (
                "podman:0123456789ab",
                Namespace::Podman("0123456789ab".into()),
            ),
        ] {
            assert_eq!(text.parse::<Namespace>().unwrap(), namespace);
            assert_eq!(namespace.to_string(), text);
        }
    }

    #[test]
    fn what_names_none_is_told_why() {
        for (text, why) in [
            ("", "not empty"),
            (".hidden", "dot"),
            ("/run/netns/web", "path:FILE"),
            ("pid:", "number"),
            ("pid:0", "number"),
            ("pid:-1", "number"),
            ("pid:x", "number"),
            ("path:", "file"),
            ("docker:", "container"),
            ("docker:../info?x", "container"),
            ("podman:a/b", "container"),
        ] {
            let error = text.parse::<Namespace>().unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("`{text}' is no namespace: ")),
                "{error}"
            );
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn absent_ones_are_told_by_name() {
        for (text, line) in [
            (
                "no-such",
                "cannot enter namespace no-such: there is none of this name in /run/netns",
            ),
            (
                "pid:4194305",
                "cannot enter namespace pid:4194305: no such process",
            ),
            (
                "path:/no/such",
                "cannot enter namespace path:/no/such: No such file or directory",
            ),
            (
                "dokcer:web",
                "cannot enter namespace dokcer:web: there is none (a prefix is one of pid:, path:, docker:, podman:)",
            ),
        ] {
            let error = text.parse::<Namespace>().unwrap().open().unwrap_err();
            assert_eq!(error.to_string(), line);
        }
    }
}
