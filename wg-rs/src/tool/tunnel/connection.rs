//! Connections outside the tunnel: they are accepted, and joined with connections inside.

use std::fmt::Display;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};

use super::session::warn;
use crate::stack;

/// The size of the copy buffers of a connection in bytes: of the first ones, and of those that exist at the same
/// time as many others.
const COPY: usize = 64 << 10;
const COPY_IN_A_CROWD: usize = 4 << 10;
/// From this number of connections on, the buffers are small.
const CROWD: usize = 64;
/// How long to wait when no connection can be accepted, usually because too many files are open.
const REST: Duration = Duration::from_millis(100);

/// The connections that are joined now.
static JOINED: AtomicUsize = AtomicUsize::new(0);

/// Waits for the next connection. Failures are reported as those of `listener`.
pub(super) async fn accept(socket: &TcpListener, listener: impl Display) -> TcpStream {
    loop {
        match socket.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                warn(format_args!("{listener}: {error}"));
                tokio::time::sleep(REST).await;
            }
        }
    }
}

/// Counts a connection in `JOINED` as long as it exists.
struct Counted;

impl Drop for Counted {
    fn drop(&mut self) {
        JOINED.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Copies both ways until both directions have ended. If one connection breaks, the other is reset.
pub(super) async fn join(mut outside: TcpStream, mut inside: stack::TcpStream) {
    let _ = outside.set_nodelay(true);
    let is_crowd = JOINED.fetch_add(1, Ordering::Relaxed) >= CROWD;
    let _counted = Counted;
    let size = if is_crowd { COPY_IN_A_CROWD } else { COPY };
    let copied = copy_bidirectional_with_sizes(&mut outside, &mut inside, size, size).await;
    if copied.is_err() {
        inside.reset();
        reset(outside);
    }
}

/// Closes a connection with a reset, so that the other end does not take it for an ordinary end.
pub(super) fn reset(stream: TcpStream) {
    let _ = stream.set_zero_linger();
}
