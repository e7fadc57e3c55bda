//! The metrics over HTTP, for scrapers: `GET /metrics`.
//!
//! Each connection carries one request. A client has [`PATIENCE`] to send it, and again to read the answer.
//! Beyond [`MAX_CONNECTIONS`], clients wait in the listen queue. Interfaces are queried on another thread,
//! so that a daemon that hangs does not delay other connections.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;

use super::collect::collect;
use crate::tool::interfaces::Interfaces;

/// The default address to listen on, with the usual port of WireGuard exporters.
pub(super) const DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9586);

/// Maximum number of connections at a time.
const MAX_CONNECTIONS: usize = 16;
/// How long a client may take to send its request, and to read the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The maximum length of a request in bytes.
const MAX_REQUEST: usize = 8 << 10;

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// The program cannot listen on the address.
pub(super) fn serve(address: SocketAddr, interfaces: &Interfaces) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let served = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let listener = TcpListener::bind(address).await?;
        // If standard error is closed, the address cannot be shown.
        let _ = writeln!(io::stderr(), "http://{}/metrics", listener.local_addr()?);
        tokio::select! {
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
            never = accept(listener, interfaces) => never,
        }
    });
    // This does not wait for an interface that is being queried.
    runtime.shutdown_background();
    served
}

async fn accept(listener: TcpListener, interfaces: &Interfaces) -> io::Result<()> {
    let interfaces = Arc::new(interfaces.clone());
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    let interfaces = interfaces.clone();
                    connections.spawn(answer(stream, interfaces));
                }
                // Descriptors or memory have run out: an immediate retry would only waste time.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            },
        }
    }
}

/// Answers one request. An error concerns only this client.
async fn answer(mut stream: TcpStream, interfaces: Arc<Interfaces>) -> io::Result<()> {
    let request = timeout(PATIENCE, read(&mut stream)).await??;
    let (status, kind, body) = match wish(&request) {
        Wish::Metrics => {
            let (text, _) = spawn_blocking(move || collect(&interfaces)).await?;
            ("200 OK", "text/plain; version=0.0.4; charset=utf-8", text)
        }
        Wish::OtherPath => ("404 Not Found", "text/plain", "See /metrics\n".into()),
        Wish::OtherMethod => ("405 Method Not Allowed", "text/plain", "GET only\n".into()),
        Wish::Nonsense => ("400 Bad Request", "text/plain", String::new()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let answered = async {
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        stream.shutdown().await
    };
    timeout(PATIENCE, answered).await?
}

/// Reads the head of a request. It may be incomplete.
async fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut request = Vec::new();
    while !is_whole(&request) && request.len() <= MAX_REQUEST {
        if stream.read_buf(&mut request).await? == 0 {
            break;
        }
    }
    Ok(request)
}

/// Whether the head of a request is complete.
fn is_whole(request: &[u8]) -> bool {
    request.windows(4).any(|end| end == b"\r\n\r\n")
}

/// The kind of a request.
#[derive(Debug, PartialEq, Eq)]
enum Wish {
    Metrics,
    OtherPath,
    OtherMethod,
    Nonsense,
}

fn wish(request: &[u8]) -> Wish {
    let line = request.split(|byte| *byte == b'\r').next();
    let line = std::str::from_utf8(line.unwrap_or_default()).unwrap_or_default();
    let words: Vec<_> = line.split(' ').collect();
    match words[..] {
        _ if !is_whole(request) => Wish::Nonsense,
        ["GET", target, version] if version.starts_with("HTTP/1.") => {
            match target.split('?').next() {
                Some("/metrics") => Wish::Metrics,
                _ => Wish::OtherPath,
            }
        }
        [_, _, version] if version.starts_with("HTTP/1.") => Wish::OtherMethod,
        _ => Wish::Nonsense,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_apart() {
        for (request, wanted) in [
            ("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", Wish::Metrics),
            ("GET /metrics?x=1 HTTP/1.0\r\n\r\n", Wish::Metrics),
            ("GET / HTTP/1.1\r\n\r\n", Wish::OtherPath),
            ("POST /metrics HTTP/1.1\r\n\r\n", Wish::OtherMethod),
            ("GET /metrics HTTP/1.1\r\n", Wish::Nonsense),
            ("GET /metrics\r\n\r\n", Wish::Nonsense),
            ("\x16\x03\x01\r\n\r\n", Wish::Nonsense),
            ("", Wish::Nonsense),
        ] {
            assert_eq!(wish(request.as_bytes()), wanted, "{request:?}");
        }
    }
}
