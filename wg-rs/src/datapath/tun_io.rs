//! The TUN device as a trait, so that tests can use a device that fails on purpose.

use std::io::{self, IoSlice};

use crate::sys::tun::{Tun, TunOffloads};

/// A TUN device. Several threads may use it at once.
pub trait TunIo: Send + Sync {
    /// See [`Tun::recv`].
    ///
    /// # Errors
    /// Those of the kernel.
    fn recv(&self, buf: &mut [u8]) -> io::Result<usize>;
    /// See [`Tun::send`].
    ///
    /// # Errors
    /// Those of the kernel.
    fn send(&self, parts: &[IoSlice<'_>]) -> io::Result<usize>;
    /// See [`Tun::offloads`].
    fn offloads(&self) -> TunOffloads;
}

impl TunIo for Tun {
    fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.recv(buf)
    }

    fn send(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.send(parts)
    }

    fn offloads(&self) -> TunOffloads {
        self.offloads()
    }
}
