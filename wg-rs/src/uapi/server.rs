//! The daemon's side of the configuration protocol.
//!
//! Each connection is a task, so a client that writes or reads slowly delays neither the handler nor other
//! clients.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::task::JoinSet;
use tracing::{debug, warn};

pub use super::connection::Handler;

use super::connection::Connection;
use super::socket::Listener;
use super::watch::{SocketWatch, deleted};

/// Most clients at once; further ones wait in the listen queue.
const MAX_CONNECTIONS: usize = 256;

/// Serves all clients. Returns when the socket file is deleted or replaced, which tells a daemon to
/// end. If the future is dropped before that, it removes the file. In both cases all connections
/// are closed.
///
/// Requires a tokio runtime with I/O and time enabled.
pub async fn serve<H: Handler>(socket: Listener, handler: Arc<H>) -> io::Result<SocketWatch> {
    let (listener, file) = socket.into_parts();
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    // Dropped before the listener, so that every existing socket file accepts connections.
    let file = file;
    let mut connections = JoinSet::new();
    let mut deleted = std::pin::pin!(deleted(file.as_deref()));
    loop {
        tokio::select! {
            result = &mut deleted => return result,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    let handler = Arc::clone(&handler);
                    connections.spawn(async move {
                        if let Err(error) = Connection::new(stream).converse(&*handler).await {
                            debug!(%error, "configuration client disconnected");
                        }
                    });
                }
                Err(error) => {
                    // No descriptors or memory: waits, because trying again at once would only use
                    // CPU time.
                    warn!(%error, "cannot accept a configuration client");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::status::Status;
    use crate::model::{AllowedIp, Change, Interface, Peer};
    use crate::uapi::client::{Client, ClientError};
    use crate::uapi::socket::tests::TempDir;
    use crate::uapi::text::{ReplyError, parse_get};
    use nix::errno::Errno;
    use std::fs::{self, Permissions};
    use std::net::Ipv4Addr;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Mutex;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;
    use tokio::task::JoinHandle;
    use wg_crypto::PublicKey;

    /// A handler with a stored interface. Port 98 is refused as in use, and mark 19 removes the
    /// interface.
    #[derive(Default)]
    struct Fake {
        interface: Mutex<Interface>,
        sets: Mutex<Vec<Vec<Change>>>,
    }

    impl Handler for Fake {
        fn get(&self) -> Result<Interface, Errno> {
            let interface = self.interface.lock().unwrap();
            if interface.fwmark == 19 {
                Err(Errno::ENODEV)
            } else {
                Ok(interface.clone())
            }
        }

        fn log(&self, level: &str) -> Result<(), Errno> {
            match level {
                "verbose" => Ok(()),
                _ => Err(Errno::EINVAL),
            }
        }

        fn status(&self) -> Result<Status, Errno> {
            self.get().map(Status::from)
        }

        fn set(&self, changes: Vec<Change>) -> Result<(), Errno> {
            self.sets.lock().unwrap().push(changes.clone());
            let mut interface = self.interface.lock().unwrap();
            for change in changes {
                match change {
                    Change::ListenPort(98) => return Err(Errno::EADDRINUSE),
                    Change::ListenPort(port) => interface.listen_port = port,
                    Change::FwMark(mark) => interface.fwmark = mark,
                    Change::Peer(key) => interface.peers.push(Peer::new(key)),
                    _ => {}
                }
            }
            Ok(())
        }
    }

    struct Fixture {
        temp: TempDir,
        fake: Arc<Fake>,
        server: JoinHandle<io::Result<SocketWatch>>,
    }

    impl Fixture {
        fn new() -> Self {
            let temp = TempDir::new();
            let fake = Arc::new(Fake::default());
            let listener = Listener::bind(&temp.0, "wg0").unwrap();
            let server = tokio::spawn(serve(listener, Arc::clone(&fake)));
            Fixture { temp, fake, server }
        }

        async fn connect(&self) -> UnixStream {
            UnixStream::connect(self.temp.socket()).await.unwrap()
        }

        /// The complete reply to `request`, after which the client closes its side.
        async fn ask(&self, request: impl AsRef<[u8]>) -> String {
            let mut stream = self.connect().await;
            stream.write_all(request.as_ref()).await.unwrap();
            stream.shutdown().await.unwrap();
            rest(&mut stream).await
        }

        fn sets(&self) -> usize {
            self.fake.sets.lock().unwrap().len()
        }

        /// An interface with so many peers that its listing exceeds a socket's buffers many times.
        fn many_peers(&self) -> Interface {
            let mut interface = self.fake.interface.lock().unwrap();
            for i in 0..20_000u32 {
                let mut key = [0; 32];
                key[..4].copy_from_slice(&i.to_be_bytes());
                let ip = AllowedIp::new(Ipv4Addr::from_bits(i).into(), 32).unwrap();
                let peer = Peer::new(PublicKey::from_bytes(key));
                interface.peers.push(Peer {
                    allowed_ips: vec![ip],
                    ..peer
                });
            }
            interface.clone()
        }
    }

    /// Reads until the server closes.
    async fn rest(stream: &mut UnixStream) -> String {
        let mut reply = String::new();
        match stream.read_to_string(&mut reply).await {
            Ok(_) => {}
            // The server closed with unread input.
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
        }
        reply
    }

    /// Reads one reply; the connection stays open.
    async fn answer(stream: &mut UnixStream) -> String {
        let mut reply = Vec::new();
        while !reply.ends_with(b"\n\n") {
            reply.push(stream.read_u8().await.unwrap());
        }
        String::from_utf8(reply).unwrap()
    }

    #[tokio::test]
    async fn pipelined_requests_are_answered_in_order() {
        let f = Fixture::new();
        let reply =
            f.ask("get=1\n\nset=1\nfwmark=7\n\nget=1\n\nset=1\n\nset=1\nlisten_port=98\n\n");
        let expected = "errno=0\n\nerrno=0\n\nfwmark=7\nerrno=0\n\nerrno=0\n\nerrno=-98\n\n";
        assert_eq!(reply.await, expected);

        let reply = f.ask("status=1\n\nget=1\n\nstatus=1\nx=1\n\n");
        assert_eq!(
            reply.await,
            "fwmark=7\nerrno=0\n\nfwmark=7\nerrno=0\n\nerrno=22\n\n"
        );

        let reply = f.ask("log=verbose\n\nlog=x\n\nlog=verbose\nx=1\n\n");
        assert_eq!(reply.await, "errno=0\n\nerrno=22\n\nerrno=22\n\n");

        let mut stream = f.connect().await;
        for mark in 1..5 {
            let request = format!("set=1\nfwmark={mark}\n\nget=1\n\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            assert_eq!(answer(&mut stream).await, "errno=0\n\n");
            assert_eq!(
                answer(&mut stream).await,
                format!("fwmark={mark}\nerrno=0\n\n")
            );
        }
    }

    #[tokio::test]
    async fn a_half_closed_set_is_applied() {
        let f = Fixture::new();
        assert_eq!(f.ask("set=1\nfwmark=7\n").await, "errno=0\n\n");
        assert_eq!(f.ask("set=1\nfwmark=8").await, "errno=0\n\n");
        assert_eq!(f.ask("get=1\n\n").await, "fwmark=8\nerrno=0\n\n");
    }

    #[tokio::test]
    async fn an_invalid_line_changes_nothing_and_the_rest_is_read() {
        let f = Fixture::new();
        for (line, errno) in [("bogus=1", -22), ("listen_port=x", -22), ("nonsense", -71)] {
            let request = format!("set=1\nfwmark=7\n{line}\nfwmark=8\nget=1\n\nget=1\n\n");
            assert_eq!(
                f.ask(request).await,
                format!("errno={errno}\n\nerrno=0\n\n")
            );
        }
        let request = format!(
            "set=1\nfwmark={}\nfwmark=8\n\nget=1\n\n",
            "7".repeat(100_000)
        );
        assert_eq!(f.ask(request).await, "errno=-71\n\nerrno=0\n\n");
        assert_eq!(f.sets(), 0);
    }

    #[tokio::test]
    async fn errors_of_get_are_positive() {
        let f = Fixture::new();
        assert_eq!(
            f.ask("set=1\nfwmark=19\n\nget=1\n\nset=1\n\n")
                .await
                .as_str(),
            { "errno=0\n\nerrno=19\n\nerrno=0\n\n" }
        );
    }

    #[tokio::test]
    async fn an_invalid_request_ends_the_connection() {
        let f = Fixture::new();
        let long = "x".repeat(1 << 20);
        for request in [
            "\n",
            "get=2\n\n",
            "get\n\n",
            "hello\n\nget=1\n\n",
            "\r\n",
            &long,
        ] {
            let mut stream = f.connect().await;
            // The server may have closed before a long request is fully written.
            let _ = stream.write_all(request.as_bytes()).await;
            if !request.contains('\n') {
                let _ = stream.write_all(b"\n").await;
            }
            assert_eq!(
                rest(&mut stream).await,
                "",
                "{:?}",
                &request[..3.min(request.len())]
            );
        }
        let mut stream = f.connect().await;
        stream
            .write_all(b"get=1\nfwmark=1\n\nget=1\n\n")
            .await
            .unwrap();
        assert_eq!(rest(&mut stream).await, "errno=22\n\n");
        assert_eq!(f.ask("get=1\n").await, "", "the request is incomplete");
        assert_eq!(f.ask(b"\xff\0\xfe\n").await, "");
        assert_eq!(f.ask("get=1\n\n").await, "errno=0\n\n");
    }

    #[tokio::test]
    async fn a_slow_writer_blocks_no_other_client() {
        let f = Fixture::new();
        let mut slow = f.connect().await;
        slow.write_all(b"set=1\nfwmark=7\nlisten_").await.unwrap();
        assert_eq!(
            f.ask("get=1\n\nset=1\nfwmark=1\n\n").await,
            "errno=0\n\nerrno=0\n\n"
        );
        assert_eq!(f.sets(), 1, "the slow request is still incomplete");
        slow.write_all(b"port=9\n\n").await.unwrap();
        assert_eq!(answer(&mut slow).await, "errno=0\n\n");
        assert_eq!(
            f.ask("get=1\n\n").await,
            "listen_port=9\nfwmark=7\nerrno=0\n\n"
        );
    }

    #[tokio::test]
    async fn a_slow_reader_blocks_no_other_client() {
        let f = Fixture::new();
        let interface = f.many_peers();
        let mut slow = f.connect().await;
        slow.write_all(b"get=1\n\n").await.unwrap();
        assert_eq!(slow.read_u8().await.unwrap(), b'p');
        // The reply is blocked halfway; its snapshot does not change.
        assert_eq!(f.ask("set=1\nfwmark=7\n\n").await, "errno=0\n\n");
        let now = parse_get(f.ask("get=1\n\n").await.as_bytes()).unwrap();
        assert_eq!(
            now,
            Interface {
                fwmark: 7,
                ..interface.clone()
            }
        );
        slow.shutdown().await.unwrap();
        let reply = format!("p{}", rest(&mut slow).await);
        assert_eq!(parse_get(reply.as_bytes()), Ok(interface));
    }

    #[tokio::test]
    async fn probes_and_disconnecting_clients_cause_no_error() {
        let f = Fixture::new();
        f.many_peers();
        for request in [
            "",
            "set=1\nfwmark=",
            "get=1\n\n",
            "get=1\n\nget=1\n\nget=1\n\n",
        ] {
            for _ in 0..10 {
                let mut stream = f.connect().await;
                stream.write_all(request.as_bytes()).await.unwrap();
            }
        }
        assert!(f.ask("get=1\n\n").await.ends_with("errno=0\n\n"));
        assert!(!f.server.is_finished());
    }

    #[tokio::test]
    async fn clients_above_the_limit_wait() {
        let f = Fixture::new();
        let mut idle = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            let mut stream = f.connect().await;
            stream.write_all(b"get=1\n\n").await.unwrap();
            assert_eq!(answer(&mut stream).await, "errno=0\n\n");
            idle.push(stream);
        }
        let mut next = f.connect().await;
        next.write_all(b"get=1\n\n").await.unwrap();
        // Connected clients are still served; the one that waits is not.
        idle[0].write_all(b"set=1\nfwmark=7\n\n").await.unwrap();
        assert_eq!(answer(&mut idle[0]).await, "errno=0\n\n");
        assert_eq!(
            next.try_read(&mut [0]).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        drop(idle.pop());
        assert_eq!(answer(&mut next).await, "fwmark=7\nerrno=0\n\n");
    }

    #[tokio::test]
    async fn serving_ends_when_the_file_is_deleted() {
        let f = Fixture::new();
        let mut stream = f.connect().await;
        // This is not a deletion, although it causes the same kind of event.
        fs::set_permissions(f.temp.socket(), Permissions::from_mode(0o660)).unwrap();
        stream.write_all(b"get=1\n\n").await.unwrap();
        assert_eq!(answer(&mut stream).await, "errno=0\n\n");
        assert!(!f.server.is_finished());
        fs::remove_file(f.temp.socket()).unwrap();
        f.server.await.unwrap().unwrap();
        assert_eq!(rest(&mut stream).await, "", "closed");
    }

    #[tokio::test]
    async fn serving_ends_when_the_file_is_moved_or_replaced() {
        let f = Fixture::new();
        assert_eq!(f.ask("get=1\n\n").await, "errno=0\n\n");
        fs::rename(f.temp.socket(), f.temp.0.join("away")).unwrap();
        f.server.await.unwrap().unwrap();

        let f = Fixture::new();
        assert_eq!(f.ask("get=1\n\n").await, "errno=0\n\n");
        fs::write(f.temp.0.join("other"), "").unwrap();
        fs::rename(f.temp.0.join("other"), f.temp.socket()).unwrap();
        f.server.await.unwrap().unwrap();
        assert!(
            f.temp.socket().is_file(),
            "the file belongs to another daemon"
        );
    }

    #[tokio::test]
    async fn serving_ends_at_once_without_a_file() {
        let temp = TempDir::new();
        let listener = Listener::bind(&temp.0, "wg0").unwrap();
        fs::remove_file(temp.socket()).unwrap();
        serve(listener, Arc::new(Fake::default())).await.unwrap();
    }

    #[tokio::test]
    async fn dropping_removes_the_file_and_closes_connections() {
        let f = Fixture::new();
        let mut stream = f.connect().await;
        stream.write_all(b"get=1\n\n").await.unwrap();
        assert_eq!(answer(&mut stream).await, "errno=0\n\n");
        f.server.abort();
        assert!(f.server.await.unwrap_err().is_cancelled());
        assert!(!f.temp.socket().exists());
        assert_eq!(rest(&mut stream).await, "");
    }

    #[tokio::test]
    async fn an_inherited_socket_is_served() {
        let temp = TempDir::new();
        let fd = Listener::bind(&temp.0, "wg0").unwrap().into_fd();
        let fake = Arc::new(Fake::default());
        let server = tokio::spawn(serve(Listener::from_fd(fd).unwrap(), Arc::clone(&fake)));
        let f = Fixture { temp, fake, server };
        assert_eq!(f.ask("get=1\n\n").await, "errno=0\n\n");
        fs::remove_file(f.temp.socket()).unwrap();
        f.server.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn our_client_works_with_the_server() {
        let f = Fixture::new();
        let interface = f.many_peers();
        let path = f.temp.socket();
        let changes: Vec<_> = (0..20_000u32)
            .flat_map(|i| {
                let ip = AllowedIp::new(Ipv4Addr::from_bits(i).into(), 32).unwrap();
                [
                    Change::Peer(interface.peers[i as usize].public_key),
                    Change::PresharedKey(Box::default()),
                    Change::AllowedIp { ip, remove: false },
                ]
            })
            .collect();
        let asked = changes.clone();
        tokio::task::spawn_blocking(move || {
            let mut client = Client::connect(&path).unwrap();
            assert_eq!(client.get().unwrap(), interface);
            let error = client.set(&[Change::ListenPort(98)]).unwrap_err();
            assert!(
                matches!(error, ClientError::Reply(ReplyError::Refused(98))),
                "{error}"
            );
            client.set(&asked).unwrap();
            assert_eq!(client.get().unwrap().peers.len(), 40_000);
            client.set(&[Change::FwMark(19)]).unwrap();
            let error = client.get().unwrap_err();
            assert!(
                matches!(error, ClientError::Reply(ReplyError::Refused(19))),
                "{error}"
            );
        })
        .await
        .unwrap();
        assert_eq!(f.fake.sets.lock().unwrap()[1], changes);
    }
}
