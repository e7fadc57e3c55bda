//! The least that a relay on the hub can do: it sends each burst from one end to the other end, unchanged. It
//! has no keys, no table, no limits and no counters, and one system call to receive a burst and one to
//! send it. What it reaches shows what a relay costs on this machine.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendmsg, setsockopt,
    sockopt,
};

use crate::Host;

/// Requested bytes of both buffers of the socket.
const BUFFER: usize = 8 << 20;
/// Most bytes in a burst.
const BURST: usize = 1 << 16;
/// How often the thread looks whether it must end.
const LOOK: Duration = Duration::from_millis(50);

/// A running copier between two IPv4 addresses. It stops when it is dropped.
#[derive(Debug)]
pub struct Copier {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Copier {
    /// Copies at this port of `host`, between the first two addresses that send something.
    pub fn start(host: &Host, port: u16) -> io::Result<Copier> {
        let socket = host.run(|| UdpSocket::bind(("0.0.0.0", port)))?;
        socket.set_read_timeout(Some(LOOK))?;
        setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)?;
        setsockopt(&socket, sockopt::SndBufForce, &BUFFER)?;
        setsockopt(&socket, sockopt::UdpGroSegment, &true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = host.thread(move || copy(&socket, &stopped));
        Ok(Copier {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Copier {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn copy(socket: &UdpSocket, stop: &AtomicBool) -> io::Result<()> {
    let fd = socket.as_raw_fd();
    let mut ends: Vec<SockaddrIn> = Vec::new();
    let mut buffer = vec![0; BURST];
    let mut control = nix::cmsg_space!(i32);
    while !stop.load(Relaxed) {
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let received =
            match recvmsg::<SockaddrIn>(fd, &mut parts, Some(&mut control), MsgFlags::empty()) {
                Ok(received) => received,
                Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNREFUSED) => continue,
                Err(error) => return Err(error.into()),
            };
        let mut stride = received.bytes;
        for message in received.cmsgs()? {
            if let ControlMessageOwned::UdpGroSegments(segment) = message {
                stride = segment as usize;
            }
        }
        let (len, Some(from)) = (received.bytes, received.address) else {
            continue;
        };
        match ends.iter().position(|end| end.ip() == from.ip()) {
            Some(n) => ends[n] = from,
            None if ends.len() < 2 => ends.push(from),
            None => continue,
        }
        let Some(to) = ends.iter().find(|end| end.ip() != from.ip()) else {
            continue;
        };
        let stride = stride as u16;
        let segments = [ControlMessage::UdpGsoSegments(&stride)];
        let control = if len > usize::from(stride) {
            &segments[..]
        } else {
            &[]
        };
        let parts = [IoSlice::new(&buffer[..len])];
        match sendmsg(fd, &parts, control, MsgFlags::MSG_DONTWAIT, Some(to)) {
            // What does not fit is lost, as it is in a relay.
            Ok(_) | Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ECONNREFUSED) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
