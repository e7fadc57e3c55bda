//! The interfaces that a command may use: all that can be reached from here, or with `--netns` only
//! those in that namespace.

use std::collections::HashMap;
use std::io;

use wg_crypto::PublicKey;

use crate::backend::{Backends, Kind};
use crate::model::status::Status;
use crate::model::{Change, Extension, Extensions, Interface};
use crate::place;

/// [`Backends`], or a part of them.
#[derive(Clone)]
pub(crate) struct Interfaces {
    all: Backends,
    /// The kernel's interfaces only. Sockets are then checked one by one.
    kernels: Option<Backends>,
}

impl Interfaces {
    /// The same as for `wg`: the kernel's in this namespace, and all with a socket, wherever their
    /// links are.
    pub fn all() -> Self {
        Interfaces {
            all: Backends::new(),
            kernels: None,
        }
    }

    /// Only those with a link in the calling thread's namespace.
    pub fn here() -> Self {
        Interfaces {
            kernels: Some(Backends::kernels()),
            ..Interfaces::all()
        }
    }

    /// See [`Backends::list`].
    pub fn list(&self) -> io::Result<Vec<String>> {
        match &self.kernels {
            None => self.all.list(),
            Some(kernels) => self.list_here(kernels, self.all.list()?),
        }
    }

    /// See [`Backends::survey`]. Nobody knows in which namespace a daemon that was killed had its link.
    pub fn survey(&self) -> io::Result<(Vec<String>, Vec<String>)> {
        let (all, left) = self.all.survey()?;
        match &self.kernels {
            None => Ok((all, left)),
            Some(kernels) => Ok((self.list_here(kernels, all)?, Vec::new())),
        }
    }

    fn list_here(&self, kernels: &Backends, all: Vec<String>) -> io::Result<Vec<String>> {
        let mut names = kernels.list()?;
        for name in all {
            if !names.contains(&name) && self.is_daemons(&name)? && place::lives_here(&name) {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// See [`Backends::is_left`].
    pub fn is_left(&self, name: &str) -> bool {
        self.all.is_left(name)
    }

    /// See [`Backends::get`].
    pub fn get(&self, name: &str) -> io::Result<Interface> {
        self.of(name)?.get(name)
    }

    /// See [`Backends::status`].
    pub fn status(&self, name: &str) -> io::Result<(Kind, Status)> {
        self.of(name)?.status(name)
    }

    /// See [`Backends::log`].
    pub fn log(&self, name: &str, level: &str) -> io::Result<bool> {
        self.of(name)?.log(name, level)
    }

    /// See [`Backends::set`].
    pub fn set(&self, name: &str, changes: &[Change]) -> io::Result<()> {
        self.of(name)?.set(name, changes)
    }

    /// See [`Backends::set_without_unknown`].
    pub fn set_without_unknown(
        &self,
        name: &str,
        changes: &[Change],
    ) -> io::Result<Vec<Extension>> {
        self.of(name)?.set_without_unknown(name, changes)
    }

    /// See [`Backends::extensions`].
    pub fn extensions(&self, name: &str) -> io::Result<HashMap<PublicKey, Extensions>> {
        self.of(name)?.extensions(name)
    }

    fn of(&self, name: &str) -> io::Result<&Backends> {
        match &self.kernels {
            // This socket belongs to an interface in another namespace.
            Some(kernels) if self.is_daemons(name)? && !place::lives_here(name) => Ok(kernels),
            _ => Ok(&self.all),
        }
    }

    fn is_daemons(&self, name: &str) -> io::Result<bool> {
        Ok(self.all.kind(name)? == Some(Kind::Userspace))
    }
}
