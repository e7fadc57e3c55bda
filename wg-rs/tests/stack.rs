//! Two tunnels in one process, joined over the loopback interface: without root, without a TUN device.
#![cfg(feature = "stack")]

mod lossy;

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wg_rs::stack::{Config, Error, Peer, PrivateKey, Tunnel};

use lossy::{Faults, Relay};

fn run<F: Future>(test: F) -> F::Output {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().unwrap();
    let limited = async { tokio::time::timeout(Duration::from_secs(300), test).await };
    runtime.block_on(limited).expect("the test hangs")
}

fn key() -> PrivateKey {
    PrivateKey::from_bytes(rand::random())
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A UDP port that is free for now.
fn free_port() -> u16 {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().port()
}

/// A server at 10.9.0.1 and fd09::1, and a client at .2. With `faults`, they are joined by a relay.
async fn pair(faults: Option<Faults>) -> (Tunnel, Tunnel, Option<Relay>) {
    let (server_key, client_key) = (key(), key());
    let port = free_port();
    let client_peer = Peer::new(client_key.public_key());
    let client_peer = client_peer.allowed_ips("10.9.0.2/32, fd09::2/128").unwrap();
    let server_peer = Peer::new(server_key.public_key());
    let server_peer = server_peer.allowed_ips("10.9.0.0/24, fd09::/64").unwrap();
    let server = Config::new(server_key)
        .address(ip("10.9.0.1"))
        .address(ip("fd09::1"))
        .listen_port(port)
        .peer(client_peer);
    let server = Tunnel::start(server).unwrap();
    let relay = match faults {
        Some(faults) => Some(Relay::start(port, faults).await),
        None => None,
    };
    let port = relay.as_ref().map_or(port, Relay::port);
    let client = Config::new(client_key)
        .address(ip("10.9.0.2"))
        .address(ip("fd09::2"))
        .peer(server_peer.endpoint(&format!("127.0.0.1:{port}")).unwrap());
    (server, Tunnel::start(client).unwrap(), relay)
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::new(ip("10.9.0.1"), port)
}

/// Sends all data of each connection back.
fn echo(tunnel: &Tunnel, port: u16) -> tokio::task::JoinHandle<()> {
    let listener = tunnel.listen(port).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = tokio::io::split(stream);
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    })
}

/// Bytes that depend on their position and on `seed`.
fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Sends `len` bytes to an echo server and expects them back.
async fn round(tunnel: &Tunnel, to: SocketAddr, len: usize, seed: u64) {
    let stream = tunnel.connect(to).await.unwrap();
    let (mut read, mut write) = tokio::io::split(stream);
    let sent = pattern(len, seed);
    let expected = sent.clone();
    let writes = async move {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let reads = async move {
        let mut got = Vec::with_capacity(len);
        read.read_to_end(&mut got).await.unwrap();
        got
    };
    let ((), got) = tokio::join!(writes, reads);
    assert_eq!(got.len(), expected.len());
    assert!(got == expected, "other bytes than those sent");
}

#[test]
fn streams_go_both_ways_over_ipv4_and_ipv6() {
    run(async {
        let (server, client, _) = pair(None).await;
        let _echo = echo(&server, 7);
        round(&client, at(7), 5, 1).await;
        round(&client, SocketAddr::new(ip("fd09::1"), 7), 3_000_000, 2).await;
        round(&client, at(7), 20_000_000, 3).await;
        // And from the server, which has learned the client's endpoint by now.
        let _back = echo(&client, 8);
        round(&server, SocketAddr::new(ip("10.9.0.2"), 8), 1_000_000, 4).await;
    });
}

#[test]
fn a_thousand_connections_at_once() {
    run(async {
        let (server, client, _) = pair(None).await;
        let _echo = echo(&server, 7);
        round(&client, at(7), 1, 0).await;
        let rounds = (0..1000u64).map(|n| {
            let client = client.clone();
            tokio::spawn(async move { round(&client, at(7), 20_000, n).await })
        });
        let rounds: Vec<_> = rounds.collect();
        for round in rounds {
            round.await.unwrap();
        }
    });
}

#[test]
fn streams_survive_a_path_that_loses_repeats_and_reorders() {
    run(async {
        let faults = Faults {
            lost: 0.03,
            repeated: 0.02,
            delayed: 0.1,
            delay: Duration::from_millis(30),
        };
        let (server, client, relay) = pair(Some(faults)).await;
        let _echo = echo(&server, 7);
        let rounds = (0..8u64).map(|n| {
            let client = client.clone();
            tokio::spawn(async move { round(&client, at(7), 300_000, n).await })
        });
        for round in rounds.collect::<Vec<_>>() {
            round.await.unwrap();
        }
        assert!(relay.unwrap().lost() > 0);
    });
}

#[test]
fn a_stream_outlives_a_path_that_is_cut_for_a_while() {
    run(async {
        let (server, client, relay) = pair(Some(Faults::default())).await;
        let relay = relay.unwrap();
        let _echo = echo(&server, 7);
        let mut stream = client.connect(at(7)).await.unwrap();
        let mut bytes = [0; 5];
        for word in [b"first", b"cut 1", b"cut 2"] {
            relay.cut(true);
            stream.write_all(word).await.unwrap();
            tokio::time::sleep(Duration::from_millis(300)).await;
            relay.cut(false);
            stream.read_exact(&mut bytes).await.unwrap();
            assert_eq!(&bytes, word);
        }
    });
}

#[test]
fn unreachable_destinations_fail_at_once() {
    run(async {
        let (server, client, _) = pair(None).await;
        let connect = |to: &str| {
            let to = to.parse().unwrap();
            let client = client.clone();
            async move { client.connect(to).await.expect_err("nobody is there") }
        };
        assert!(matches!(connect("10.9.0.1:9").await, Error::Refused(_)));
        assert!(matches!(connect("192.0.2.1:9").await, Error::NoPeer(_)));
        assert!(matches!(
            connect("10.9.0.1:0").await,
            Error::NoDestination(_)
        ));
        // The server learns where the client is from the first packet only.
        let early = pair(None).await.0;
        let error = early.connect("10.9.0.2:9".parse().unwrap()).await.err();
        assert!(matches!(error, Some(Error::NoEndpoint(_))));
        let name = client.connect_to("intranet.example", 80).await.err();
        assert!(matches!(name, Some(Error::NoResolver(_))));
        let _listener = server.listen(7).unwrap();
        assert!(matches!(server.listen(7).err(), Some(Error::PortInUse(7))));
        let elsewhere = server.listen_at("10.9.0.9:8".parse().unwrap()).err();
        assert!(matches!(elsewhere, Some(Error::NotOurs(_))));
    });
}

#[test]
fn a_peer_that_does_not_answer_handshakes_is_named() {
    run(async {
        // Nobody reads from it.
        let outside = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let peer = outside.local_addr().unwrap();
        let server = Peer::new(key().public_key()).endpoint(&peer.to_string());
        let server = server.unwrap().allowed_ips("10.9.0.0/24").unwrap();
        let client = Config::new(key()).address(ip("10.9.0.2")).peer(server);
        let client = Tunnel::start(client).unwrap();
        let error = client.connect(at(80)).await.unwrap_err();
        assert!(
            matches!(error, Error::SilentPeer { to, endpoint } if to == at(80) && endpoint == peer),
            "{error}"
        );
    });
}

#[test]
fn peers_of_a_file_have_names() {
    run(async {
        let text = format!(
            "[Interface]\nPrivateKey = {}\nAddress = 10.9.0.2/24\n\
             [Peer]\n#@ Name = server\nPublicKey = {}\nAllowedIPs = 10.9.0.1/32, 10.9.1.0/24\n",
            *key().to_base64(),
            key().public_key().to_base64()
        );
        let config = Config::parse("/etc/wireguard/wg7.conf", text.as_bytes()).unwrap();
        let tunnel = Tunnel::start(config).unwrap();
        let found = tunnel.resolve("Server.wg7.internal").await.unwrap();
        assert_eq!(found, [ip("10.9.0.1")]);
        let error = tunnel.resolve("other.wg7.internal").await.unwrap_err();
        assert!(matches!(error, Error::UnknownName(_)));
        let error = tunnel.resolve("server").await.unwrap_err();
        assert!(matches!(error, Error::NoResolver(_)));
    });
}

/// Two tunnels reach each other through a third, which only relays and has no address.
#[test]
fn a_relay_passes_on_what_it_cannot_read() {
    run(async {
        let keys = [key(), key(), key()]; // of the relay, and of 10.9.0.1 and .2
        let line = |key: &PrivateKey| {
            let key = key.public_key().to_base64();
            format!("[Peer]\n#@ Relay = on\nPublicKey = {key}\n")
        };
        let text = format!(
            "[Interface]\nPrivateKey = {}\n{}{}",
            *keys[0].to_base64(),
            line(&keys[1]),
            line(&keys[2])
        );
        let config = Config::parse("relay.conf", text.as_bytes()).unwrap();
        let relay = Tunnel::relay(config).unwrap();
        let hub_at = format!("127.0.0.1:{}", relay.listen_port());
        let start = |own: usize, other: usize| {
            let hub = Peer::new(keys[0].public_key()).persistent_keepalive(1);
            let peer = Peer::new(keys[other].public_key());
            let peer = peer.allowed_ips(&format!("10.9.0.{other}/32")).unwrap();
            let config = Config::new(keys[own].clone()).address(ip(&format!("10.9.0.{own}")));
            let config = config.peer(hub.endpoint(&hub_at).unwrap());
            Tunnel::start(config.peer(peer.endpoint(&hub_at).unwrap())).unwrap()
        };
        let (client, server) = (start(2, 1), start(1, 2));
        // The relay must have heard from both.
        while relay.peers().iter().any(|peer| peer.endpoint.is_none()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let _echo = echo(&server, 7);
        round(&client, at(7), 100_000, 1).await;
        assert!(relay.connect(at(7)).await.is_err());
        assert!(relay.addresses().is_empty());
    });
}

#[test]
fn a_reset_and_an_end_are_distinguished() {
    run(async {
        let (server, client, _) = pair(None).await;
        let listener = server.listen(7).unwrap();
        let connect = client.connect(at(7));
        let (stream, accepted) = tokio::join!(connect, listener.accept());
        let (mut stream, (mut accepted, from)) = (stream.unwrap(), accepted.unwrap());
        assert_eq!(from, stream.local_addr());
        accepted.write_all(b"all").await.unwrap();
        drop(accepted);
        let mut got = Vec::new();
        stream.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"all");

        let connect = client.connect(at(7));
        let (stream, accepted) = tokio::join!(connect, listener.accept());
        let mut stream = stream.unwrap();
        accepted.unwrap().0.reset();
        let error = stream.read(&mut [0; 9]).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn data_can_be_read_long_after_the_end() {
    run(async {
        let (server, client, _) = pair(None).await;
        let listener = server.listen(7).unwrap();
        let (stream, accepted) = tokio::join!(client.connect(at(7)), listener.accept());
        let (mut stream, mut accepted) = (stream.unwrap(), accepted.unwrap().0);
        stream.shutdown().await.unwrap();
        accepted.write_all(&pattern(10_000, 1)).await.unwrap();
        drop(accepted);
        // Longer than TIME-WAIT.
        tokio::time::sleep(Duration::from_secs(12)).await;
        let mut got = Vec::new();
        stream.read_to_end(&mut got).await.unwrap();
        assert!(got == pattern(10_000, 1));
    });
}

#[test]
fn datagrams_go_both_ways() {
    run(async {
        let (server, client, _) = pair(None).await;
        let service = server.bind_udp(53).unwrap();
        let socket = client.bind_udp(0).unwrap();
        for to in [at(53), SocketAddr::new(ip("fd09::1"), 53)] {
            socket.send_to(b"question", to).await.unwrap();
            let (question, from) = service.recv_from().await.unwrap();
            assert_eq!((&*question, from.port()), (&b"question"[..], socket.port()));
            service.send_to(&question, from).await.unwrap();
            let (answer, from) = socket.recv_from().await.unwrap();
            assert_eq!((&*answer, from), (&b"question"[..], to));
        }
        let long = vec![0; 1392];
        socket.send_to(&long, at(53)).await.unwrap();
        assert_eq!(service.recv_from().await.unwrap().0, long);
        let error = socket.send_to(&[0; 1393], at(53)).await.unwrap_err();
        assert!(matches!(error, Error::TooLong { most: 1392, .. }));
    });
}

#[test]
fn close_sends_what_was_written() {
    run(async {
        let (server, client, _) = pair(None).await;
        let listener = server.listen(7).unwrap();
        let (stream, accepted) = tokio::join!(client.connect(at(7)), listener.accept());
        let (mut stream, mut accepted) = (stream.unwrap(), accepted.unwrap().0);
        let waits = tokio::spawn(async move { listener.accept().await.err() });
        stream.write_all(&pattern(300_000, 1)).await.unwrap();
        drop(stream);
        let reads = async {
            let mut got = Vec::new();
            accepted.read_to_end(&mut got).await.unwrap();
            got
        };
        let (got, ()) = tokio::join!(reads, client.clone().close());
        assert!(got == pattern(300_000, 1));
        assert!(matches!(
            client.connect(at(7)).await.err(),
            Some(Error::Closed)
        ));
        drop(accepted);
        server.close().await;
        assert!(matches!(waits.await.unwrap(), Some(Error::Closed)));
    });
}
