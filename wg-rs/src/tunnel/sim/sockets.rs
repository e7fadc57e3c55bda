//! The sockets of a simulated host, which record the device's operations.

use std::io;

use crate::tunnel::config::Links;

/// The sockets of a host.
#[derive(Default)]
pub(crate) struct Sockets {
    pub refuse: bool,
    pub port: Option<u16>,
    pub binds: usize,
    pub fwmark: u32,
}

impl Links for Sockets {
    fn bind(&mut self, port: u16) -> io::Result<u16> {
        if self.refuse {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        self.binds += 1;
        self.port = Some(if port == 0 {
            40_000 + self.binds as u16
        } else {
            port
        });
        Ok(self.port.expect("just set"))
    }

    fn reserve(&mut self, _: u16) -> io::Result<()> {
        if self.refuse {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        Ok(())
    }

    fn close(&mut self) {
        self.port = None;
    }

    fn set_fwmark(&mut self, mark: u32) -> io::Result<()> {
        self.fwmark = mark;
        Ok(())
    }
}
