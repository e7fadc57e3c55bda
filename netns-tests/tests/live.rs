//! Configuration changed under a running transfer: not a packet is lost.
//!
//! The transfer is a stream of numbered datagrams, each way, paced well below what the daemon can:
//! every one that does not arrive is known by its number.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

use netns_tests::{
    Config, Daemon, Family, Host, Key, Keys, PATIENCE, Peer, Plan, SOCKETS, Tunnel, binaries, until,
};

/// Peers of the file, besides the one with the transfer.
const OTHERS: usize = 999;
/// Between two datagrams.
const PACE: Duration = Duration::from_millis(1);
/// The receiver's buffer, bytes: enough for a busy machine that lets it wait for a second.
const BUFFER: usize = 8 << 20;
const LEN: usize = 1000;
/// Datagrams that arrive before, between and after changes.
const BETWEEN: u64 = 150;

/// A stream of numbered datagrams that runs until it is stopped.
struct Stream {
    stop: Arc<AtomicBool>,
    arrived: Arc<AtomicU64>,
    sender: JoinHandle<io::Result<u64>>,
    receiver: JoinHandle<io::Result<BTreeSet<u64>>>,
}

impl Stream {
    fn start(from: &Host, to: (&Host, IpAddr)) -> io::Result<Stream> {
        let socket = to.0.run(|| UdpSocket::bind((to.1, 0)))?;
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)?;
        let target = socket.local_addr()?;
        let (stop, arrived) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let sender = from.thread({
            let stop = stop.clone();
            move || {
                let any = if target.is_ipv4() {
                    "0.0.0.0:0"
                } else {
                    "[::]:0"
                };
                let socket = UdpSocket::bind(any)?;
                let (start, mut number) = (Instant::now(), 0_u64);
                let mut datagram = [0; LEN];
                while !stop.load(Ordering::Relaxed) {
                    datagram[..8].copy_from_slice(&number.to_le_bytes());
                    socket.send_to(&datagram, target)?;
                    number += 1;
                    // After a pause of this thread no burst makes up for it.
                    let due = start + PACE * u32::try_from(number).unwrap_or(u32::MAX);
                    std::thread::sleep(due.saturating_duration_since(Instant::now()).max(PACE / 4));
                }
                Ok(number)
            }
        });
        let receiver = to.0.thread({
            let (stop, arrived) = (stop.clone(), arrived.clone());
            move || {
                let mut numbers = BTreeSet::new();
                let mut datagram = [0; LEN];
                loop {
                    match socket.recv(&mut datagram) {
                        Ok(LEN) => {
                            let number = datagram.first_chunk().expect("longer than a number");
                            numbers.insert(u64::from_le_bytes(*number));
                            arrived.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(_) => return Err(io::Error::other("a datagram of another length")),
                        // Nothing for so long after the end: nothing more will come.
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                            if stop.load(Ordering::Relaxed) {
                                return Ok(numbers);
                            }
                        }
                        Err(error) => return Err(error),
                    }
                }
            }
        });
        Ok(Stream {
            stop,
            arrived,
            sender,
            receiver,
        })
    }

    /// Waits until so many more have arrived.
    fn go_on(&self) -> io::Result<()> {
        let enough = self.arrived.load(Ordering::Relaxed) + BETWEEN;
        until(PATIENCE, "datagrams to arrive", || {
            Ok((self.arrived.load(Ordering::Relaxed) >= enough).then_some(()))
        })
    }

    /// Ends it: how many were sent, and the numbers of those lost.
    fn end(self) -> io::Result<(u64, Vec<u64>)> {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sender.join().expect("no panic")?;
        let arrived = self.receiver.join().expect("no panic")?;
        let lost = (0..sent).filter(|number| !arrived.contains(number));
        Ok((sent, lost.collect()))
    }
}

/// A tunnel whose end `a` has 999 more peers, each with networks of its own, by a file.
struct Site {
    tunnel: Tunnel,
    file: Config,
    program: String,
}

impl Site {
    fn new() -> io::Result<Site> {
        let daemon = Daemon::ours()?;
        let tunnel = Tunnel::established(&Plan::new(&daemon, &daemon))?;
        let mut file = Config::new(&tunnel.a.keys, netns_tests::End::PORT);
        for n in 0..OTHERS {
            let [high, low] = u16::try_from(n).expect("few").to_be_bytes();
            let peer = Peer::new(Keys::generate().public).allow([10, 100, high, low], 32);
            file = file.peer(peer.at(([198, 51, 100, 1], 1000)));
        }
        let b = Peer::new(tunnel.b.keys.public)
            .allow(tunnel.b.inner(Family::V4), 32)
            .allow(tunnel.b.inner(Family::V6), 128)
            .at(tunnel.b.endpoint(Family::V4));
        // In the middle, so that there are peers before and behind it.
        file.peers.insert(OTHERS / 2, b);
        let site = Site {
            tunnel,
            file,
            program: binaries::wg_rs()?,
        };
        site.apply("setconf", &site.file)?;
        Ok(site)
    }

    fn run(&self, args: &[&str]) -> io::Result<()> {
        self.tunnel.a.host.sh(&self.program, args).map(drop)
    }

    fn apply(&self, verb: &str, file: &Config) -> io::Result<()> {
        let path = format!("{SOCKETS}/{verb}.conf");
        self.tunnel.a.host.write(&path, &file.file(&[]))?;
        self.run(&[verb, "wg0", &path])
    }

    /// A stream each way while the changes are made, one after the other; none may lose a datagram.
    fn lossless(&self, changes: &[(&str, &dyn Fn() -> io::Result<()>)]) -> io::Result<()> {
        let (a, b) = (&self.tunnel.a, &self.tunnel.b);
        a.host.reach(b.inner(Family::V4), PATIENCE)?;
        a.host.reach(b.inner(Family::V6), PATIENCE)?;
        let streams = [
            Stream::start(&a.host, (&b.host, b.inner(Family::V4)))?,
            Stream::start(&b.host, (&a.host, a.inner(Family::V6)))?,
        ];
        let go_on = || streams.iter().try_for_each(Stream::go_on);
        go_on()?;
        let session = b.wg.peer(a.keys.public)?.last_handshake;
        for (what, change) in changes {
            change().map_err(|error| io::Error::other(format!("{what}: {error}")))?;
            go_on()?;
        }
        assert_eq!(
            b.wg.peer(a.keys.public)?.last_handshake,
            session,
            "a new handshake"
        );
        for stream in streams {
            let (sent, lost) = stream.end()?;
            assert!(lost.is_empty(), "{} of {sent} lost: {lost:?}", lost.len());
        }
        Ok(())
    }
}

#[test]
fn syncconf_of_a_thousand_peers_with_one_change() -> io::Result<()> {
    let site = Site::new()?;
    let mut changed = site.file.clone();
    changed.peers[7].keepalive = Some(25);
    let mut without = changed.clone();
    let gone = without.peers.remove(3);
    let mut with_another = without.clone();
    with_another
        .peers
        .push(Peer::new(Key::random().public()).allow([10, 200, 0, 1], 32));
    site.lossless(&[
        ("one keepalive", &|| site.apply("syncconf", &changed)),
        ("one peer less", &|| site.apply("syncconf", &without)),
        ("one peer more", &|| site.apply("syncconf", &with_another)),
        ("as it was", &|| site.apply("syncconf", &site.file)),
    ])?;
    let now = site.tunnel.a.wg.get()?;
    assert_eq!(now.peers.len(), OTHERS + 1);
    assert!(now.peer(gone.public_key).is_ok());
    Ok(())
}

#[test]
fn set_on_the_very_peer() -> io::Result<()> {
    let site = Site::new()?;
    let b = site.tunnel.b.keys.public.to_string();
    let (v4, v6) = (
        site.tunnel.b.inner(Family::V4),
        site.tunnel.b.inner(Family::V6),
    );
    let endpoint = site.tunnel.b.endpoint(Family::V4).to_string();
    let key = format!("{SOCKETS}/psk");
    site.tunnel.a.host.write(&key, &Key::random().to_string())?;
    let same = format!("{v4}/32,{v6}/128");
    let wider = format!("{v6}/128,{v4}/24,10.250.0.0/16");
    let set = |words: &[&str]| site.run(&[&["set", "wg0", "peer", &b], words].concat());
    site.lossless(&[
        ("the same allowed IPs, often", &|| {
            (0..20).try_for_each(|_| set(&["allowed-ips", &same]))
        }),
        ("wider ones", &|| set(&["allowed-ips", &wider])),
        ("the first again", &|| set(&["allowed-ips", &same])),
        ("one more", &|| set(&["allowed-ips", "+10.251.0.0/16"])),
        ("one less", &|| set(&["allowed-ips", "-10.251.0.0/16"])),
        ("a keepalive", &|| set(&["persistent-keepalive", "25"])),
        ("the same endpoint", &|| set(&["endpoint", &endpoint])),
        ("a preshared key", &|| set(&["preshared-key", &key])),
        ("none", &|| set(&["preshared-key", "/dev/null"])),
        ("no keepalive", &|| set(&["persistent-keepalive", "off"])),
    ])
}

/// What the other tests rest on: a change that does lose packets is seen.
#[test]
fn a_moment_without_allowed_ips_is_seen() -> io::Result<()> {
    let site = Site::new()?;
    let (a, b) = (&site.tunnel.a, &site.tunnel.b);
    let key = b.keys.public.to_string();
    let stream = Stream::start(&a.host, (&b.host, b.inner(Family::V4)))?;
    stream.go_on()?;
    site.run(&["set", "wg0", "peer", &key, "allowed-ips", ""])?;
    let all = format!("{}/32", b.inner(Family::V4));
    site.run(&["set", "wg0", "peer", &key, "allowed-ips", &all])?;
    stream.go_on()?;
    let (sent, lost) = stream.end()?;
    assert!(!lost.is_empty(), "none of {sent} lost");
    Ok(())
}
