//! Handshake messages of strangers, which put a daemon under load.

use std::io::{self, IoSlice};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg};

use crate::{Host, Key, Keys, PATIENCE, until};

/// Different messages in a burst. A responder knows none of them, so it may get each of them often.
const PREPARED: usize = 16;
/// Messages in a burst: more than any implementation lets wait without cookies.
const BURST: usize = 1024;
/// After this time without an answer the next burst follows. So a slow machine gets no more messages than it
/// can answer, and is under load all the time, as that lasts for a second after the last message.
const QUIET: Duration = Duration::from_millis(200);
/// The type and the length of a cookie reply.
const COOKIE_REPLY: ([u8; 4], usize) = ([3, 0, 0, 0], 64);

/// Initiations of a stranger, which are right in every other respect.
pub fn initiations(to: Key, count: usize) -> io::Result<Vec<Vec<u8>>> {
    let stranger = StaticSecret::from(Keys::generate().private.0);
    (0..count)
        .map(|n| {
            let to = PublicKey::from(to.0);
            let mut tunnel = Tunn::new(stranger.clone(), to, None, None, n as u32, None);
            let mut message = [0; 148];
            match tunnel.format_handshake_initiation(&mut message, true) {
                TunnResult::WriteToNetwork(message) => Ok(message.to_vec()),
                other => Err(io::Error::other(format!("no initiation: {other:?}"))),
            }
        })
        .collect()
}

/// A flood of initiations from one host, in bursts, until it is dropped. A burst follows when the one before
/// has been answered.
#[derive(Debug)]
pub struct Flood {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    answered: AtomicBool,
}

impl Flood {
    /// Starts to flood the daemon with this key, and returns when it answers by cookies.
    pub fn start(host: &Host, to: SocketAddr, key: Key) -> io::Result<Flood> {
        let messages = initiations(key, PREPARED)?;
        let any: SocketAddr = match to {
            SocketAddr::V4(_) => ([0; 4], 0).into(),
            SocketAddr::V6(_) => ([0u16; 8], 0).into(),
        };
        let socket = host.run(|| UdpSocket::bind(any))?;
        socket.set_read_timeout(Some(QUIET))?;
        let shared = Arc::new(Shared::default());
        let state = shared.clone();
        let thread = host.thread(move || flood(&socket, to, &messages, &state));
        let flood = Flood {
            shared,
            thread: Some(thread),
        };
        until(PATIENCE, "a cookie reply to a flood", || {
            let ended = flood.thread.as_ref().is_some_and(JoinHandle::is_finished);
            if ended {
                return Err(io::Error::other("the flood could not begin"));
            }
            Ok(flood.shared.answered.load(Relaxed).then_some(()))
        })?;
        Ok(flood)
    }
}

fn flood(
    socket: &UdpSocket,
    to: SocketAddr,
    messages: &[Vec<u8>],
    state: &Shared,
) -> io::Result<()> {
    let slices: Vec<_> = messages
        .iter()
        .map(|message| [IoSlice::new(message)])
        .collect();
    let burst: Vec<_> = slices.iter().cycle().take(BURST).collect();
    let to = vec![Some(SockaddrStorage::from(to)); BURST];
    let mut headers = MultiHeaders::preallocate(BURST, None);
    while !state.stop.load(Relaxed) {
        let fd = socket.as_raw_fd();
        match sendmmsg(fd, &mut headers, &burst, &to, [], MsgFlags::empty()) {
            // A full queue.
            Ok(_) | Err(Errno::ENOBUFS | Errno::EAGAIN) => {}
            Err(error) => return Err(error.into()),
        }
        let mut reply = [0; 256];
        while let Ok(len) = socket.recv(&mut reply) {
            if (&reply[..4], len) == (&COOKIE_REPLY.0[..], COOKIE_REPLY.1) {
                state.answered.store(true, Relaxed);
            }
        }
    }
    Ok(())
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
