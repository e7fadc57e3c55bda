//! The names of network namespaces.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;

use super::container_engine::ContainerEngine;
use super::error::{Error, NO_PERMISSION, reason};
use crate::sys::netns::NetNs;

/// The name of a network namespace: `web`, `pid:7`, `path:/run/web.ns`, `docker:web`, `podman:web`,
/// `init`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Namespace {
    /// The namespace of process 1: the host's.
    Init,
    /// The namespace with this name in `ip netns`.
    Named(String),
    /// The namespace of a process.
    Pid(u32),
    /// The namespace that a file refers to.
    Path(PathBuf),
    /// The namespace of a Docker container, by name or ID.
    Docker(String),
    /// The namespace of a Podman container, by name or ID.
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
                    "the name of a container consists of letters, digits, `_', `.' and `-'",
                ))
            }
        };
        match text.split_once(':') {
            None if text == "init" => Ok(Namespace::Init),
            Some(("pid", pid)) => match pid.parse() {
                Ok(pid) if pid > 0 => Ok(Namespace::Pid(pid)),
                _ => Err(bad("pid: must be followed by a process ID")),
            },
            Some(("path", "")) => Err(bad("path: must be followed by a file name")),
            Some(("path", path)) => Ok(Namespace::Path(path.into())),
            Some(("docker", name)) => container(name).map(Namespace::Docker),
            Some(("podman", name)) => container(name).map(Namespace::Podman),
            _ if text.is_empty() || text.starts_with('.') || text.contains('\0') => {
                Err(bad("a name must not be empty or begin with a dot"))
            }
            _ if text.contains('/') => Err(bad("a file must be given as path:FILE")),
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
    /// Opens the namespace. On success it exists, is a network namespace, and may be entered.
    ///
    /// # Errors
    /// A message of one line with the name: the namespace or the container does not exist, the
    /// container is not running or uses the host's network, or permission is denied.
    pub fn open(&self) -> Result<NetNs, Error> {
        let failed = |reason| Error::Namespace {
            namespace: self.to_string(),
            reason,
        };
        let opened = match self {
            Namespace::Init => NetNs::of_init(),
            Namespace::Named(name) => NetNs::of_name(name),
            Namespace::Pid(pid) => NetNs::of_pid(*pid),
            Namespace::Path(path) => NetNs::of_path(path),
            Namespace::Docker(name) => return ContainerEngine::Docker.open(name).map_err(failed),
            Namespace::Podman(name) => return ContainerEngine::Podman.open(name).map_err(failed),
        };
        opened
            .and_then(|netns| netns.run(|| ()).map(|()| netns))
            .map_err(|error| failed(self.explain(&error)))
    }

    fn explain(&self, error: &io::Error) -> String {
        match (self, error.raw_os_error()) {
            (Namespace::Named(name), Some(libc::ENOENT)) if name.contains(':') => {
                "there is no namespace of this name (prefixes are pid:, path:, docker: and podman:)"
                    .into()
            }
            (Namespace::Named(_), Some(libc::ENOENT)) => {
                "there is no namespace of this name in /run/netns".into()
            }
            (Namespace::Pid(_), Some(libc::ENOENT)) => "no such process".into(),
            (_, Some(libc::EINVAL)) => "it is not a network namespace".into(),
            (_, Some(libc::EPERM | libc::EACCES)) => NO_PERMISSION.into(),
            _ => reason(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_names_equal_the_parsed_ones() {
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
    fn a_bad_name_is_refused_with_a_reason() {
        for (text, why) in [
            ("", "not be empty"),
            (".hidden", "dot"),
            ("/run/netns/web", "path:FILE"),
            ("pid:", "process ID"),
            ("pid:0", "process ID"),
            ("pid:-1", "process ID"),
            ("pid:x", "process ID"),
            ("path:", "file"),
            ("docker:", "container"),
            ("docker:../info?x", "container"),
            ("podman:a/b", "container"),
        ] {
            let error = text.parse::<Namespace>().unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("`{text}' is not a network namespace: ")),
                "{error}"
            );
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn an_absent_namespace_is_named_in_the_error() {
        for (text, line) in [
            (
                "no-such",
                "cannot enter namespace no-such: there is no namespace of this name in /run/netns",
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
                "cannot enter namespace dokcer:web: there is no namespace of this name (prefixes are pid:, path:, docker: and podman:)",
            ),
        ] {
            let error = text.parse::<Namespace>().unwrap().open().unwrap_err();
            assert_eq!(error.to_string(), line);
        }
    }
}
