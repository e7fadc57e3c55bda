//! The TUN device as the data path uses it: what reads from it and writes to it asks through this, so
//! that a test can have a device that fails on purpose.

use std::io::{self, IoSlice};

use crate::sys::tun::{Tun, TunOffloads};

/// A TUN device. May be used from several threads at once.
pub trait TunIo: Send + Sync {
    /// As [`Tun::recv`].
    ///
    /// # Errors
    /// Of the kernel.
    fn recv(&self, buf: &mut [u8]) -> io::Result<usize>;
    /// As [`Tun::send`].
    ///
    /// # Errors
    /// Of the kernel.
    fn send(&self, parts: &[IoSlice<'_>]) -> io::Result<usize>;
    /// As [`Tun::offloads`].
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
