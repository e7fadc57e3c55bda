//! Joins a connection outside the tunnel with one inside.

use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::TcpStream;

use crate::stack;

/// The size of the copy buffers in bytes.
const COPY: usize = 64 << 10;

/// Copies both ways until both directions have ended. If one connection breaks, the other is reset.
pub(super) async fn join(mut outside: TcpStream, mut inside: stack::TcpStream) {
    let _ = outside.set_nodelay(true);
    let copied = copy_bidirectional_with_sizes(&mut outside, &mut inside, COPY, COPY).await;
    if copied.is_err() {
        inside.reset();
        reset(outside);
    }
}

/// Closes a connection with a reset, so that the other end does not take it for an ordinary end.
pub(super) fn reset(stream: TcpStream) {
    let _ = stream.set_zero_linger();
}
