//! A connection outside of the tunnel, joined with one inside.

use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::TcpStream;

use crate::stack;

/// Bytes that are copied at a time.
const COPY: usize = 64 << 10;

/// Copies both ways until both have ended; a connection that breaks breaks the other.
pub(super) async fn join(mut outside: TcpStream, mut inside: stack::TcpStream) {
    let _ = outside.set_nodelay(true);
    let copied = copy_bidirectional_with_sizes(&mut outside, &mut inside, COPY, COPY).await;
    if copied.is_err() {
        inside.reset();
        reset(outside);
    }
}

/// Closes a connection so that the other end finds it broken, not ended.
pub(super) fn reset(stream: TcpStream) {
    let _ = stream.set_zero_linger();
}
