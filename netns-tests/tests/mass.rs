//! Very many peers that start at the same time.

use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use netns_tests::{Config, Daemon, Host, Key, Keys, Lab, PeerConfig, Via, Wg};
use nix::sys::socket::{setsockopt, sockopt};

const INITIATION: u8 = 1;
const COOKIE_REPLY: u8 = 3;

/// Many peers behind one socket, which only answer initiations.
struct Responders {
    counts: Arc<Counts>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

#[derive(Default)]
struct Counts {
    initiations: AtomicUsize,
    cookie_replies: AtomicUsize,
    stop: AtomicBool,
}

impl Responders {
    fn start(host: &Host, port: u16, hub: Key, keys: &[Keys]) -> io::Result<Self> {
        let socket = host.run(|| UdpSocket::bind(("0.0.0.0", port)))?;
        // The responders are slower than the hub, so the buffer must hold its initiations.
        setsockopt(&socket, sockopt::RcvBufForce, &(16 << 20))?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let tunnels = keys.iter().map(|keys| {
            let private = StaticSecret::from(keys.private.0);
            Tunn::new(private, PublicKey::from(hub.0), None, None, 0, None)
        });
        let mut tunnels: Vec<Tunn> = tunnels.collect();
        let counts = Arc::new(Counts::default());
        let thread = std::thread::spawn({
            let counts = counts.clone();
            move || counts.answer(&socket, &mut tunnels)
        });
        Ok(Responders {
            counts,
            thread: Some(thread),
        })
    }
}

impl Counts {
    fn answer(&self, socket: &UdpSocket, tunnels: &mut [Tunn]) -> io::Result<()> {
        let (mut buffer, mut reply) = ([0; 2048], [0; 2048]);
        while !self.stop.load(Ordering::Relaxed) {
            let (len, from) = match socket.recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            };
            match buffer[0] {
                COOKIE_REPLY => drop(self.cookie_replies.fetch_add(1, Ordering::Relaxed)),
                INITIATION => {
                    self.initiations.fetch_add(1, Ordering::Relaxed);
                    // The first MAC of a message tells for which peer it is; the others reject it.
                    for tunnel in &mut *tunnels {
                        let done = tunnel.decapsulate(Some(from.ip()), &buffer[..len], &mut reply);
                        if let TunnResult::WriteToNetwork(reply) = done {
                            socket.send_to(reply, from)?;
                            break;
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Drop for Responders {
    fn drop(&mut self) {
        self.counts.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn sessions(wg: &Wg) -> io::Result<usize> {
    let peers = wg.get()?.peers;
    Ok(peers
        .iter()
        .filter(|peer| peer.last_handshake.is_some())
        .count())
}

/// The interface sends an initiation to each peer, and takes all responses, although a thousand
/// arrive at once. It must not answer with a cookie, which would delay a peer by five seconds.
#[test]
fn a_thousand_peers_have_sessions_soon_after_link_up() -> io::Result<()> {
    const PEERS: usize = 1000;
    const PORT: u16 = 5000;
    let lab = Lab::new()?;
    let (hub, spokes) = (lab.host("hub")?, lab.host("spokes")?);
    lab.cable((&hub, "eth0"), (&spokes, "eth0"), 1500)?;
    hub.address("eth0", [192, 0, 2, 1], 24)?;
    spokes.address("eth0", [192, 0, 2, 2], 24)?;

    let ours = Keys::generate();
    let theirs: Vec<Keys> = (0..PEERS).map(|_| Keys::generate()).collect();
    let responders = Responders::start(&spokes, PORT, ours.public, &theirs)?;
    let wg = Daemon::ours()?.start(&hub, "wg0", Via::Uapi)?;
    let mut config = Config::new(&ours, 51820);
    for keys in &theirs {
        let peer = PeerConfig::new(keys.public).at(([192, 0, 2, 2], PORT));
        config.peers.push(peer.keepalive(25));
    }
    wg.set(&config)?;

    let start = Instant::now();
    wg.up(1420, &[([10, 0, 0, 1].into(), 8)])?;
    while start.elapsed() < Duration::from_secs(5) && sessions(&wg)? < PEERS {
        std::thread::sleep(Duration::from_millis(20));
    }
    let (took, established) = (start.elapsed(), sessions(&wg)?);
    let initiations = responders.counts.initiations.load(Ordering::Relaxed);
    let cookies = responders.counts.cookie_replies.load(Ordering::Relaxed);
    println!("{established} sessions in {took:?}, {initiations} initiations");
    assert!(
        established >= PEERS * 99 / 100,
        "{established} sessions after {took:?}, {initiations} initiations, {cookies} cookie replies"
    );
    assert_eq!(cookies, 0, "many responses were taken for an attack");
    Ok(())
}

/// While initiations to ten thousand peers are created one by one, a request for the state is
/// answered at once.
#[test]
fn the_state_is_shown_at_once_while_ten_thousand_peers_start() -> io::Result<()> {
    const PEERS: u32 = 10_000;
    const AT_ONCE: Duration = Duration::from_millis(100);
    let lab = Lab::new()?;
    let host = lab.host("hub")?;
    let wg = Daemon::ours()?.start(&host, "wg0", Via::Uapi)?;
    let mut config = Config::new(&Keys::generate(), 0);
    for _ in 0..PEERS {
        let peer = PeerConfig::new(Keys::generate().public).at(([127, 0, 0, 1], 9));
        config.peers.push(peer.keepalive(25));
    }
    wg.set(&config)?;
    let ask = || -> io::Result<Duration> {
        let start = Instant::now();
        assert_eq!(wg.get()?.peers.len(), PEERS as usize);
        Ok(start.elapsed())
    };
    // The time of an answer without these initiations, on this machine.
    let mut quiet: Vec<Duration> = (0..20).map(|_| ask()).collect::<io::Result<_>>()?;
    quiet.sort();

    wg.up(1420, &[([10, 0, 0, 1].into(), 8)])?;
    let start = Instant::now();
    let mut asked = Vec::new();
    while start.elapsed() < Duration::from_secs(4) {
        asked.push(ask()?);
    }
    asked.sort();
    let (median, worst) = (asked[asked.len() / 2], asked[asked.len() - 1]);
    println!("quiet {quiet:?}, median {median:?}, worst {worst:?}");
    // If the machine is busy, that answer was late too.
    let limit = AT_ONCE + quiet[19] * 2;
    assert!(worst <= limit, "{worst:?}, quiet {quiet:?}");
    let sent = wg
        .get()?
        .peers
        .iter()
        .filter(|peer| peer.tx_bytes > 0)
        .count();
    assert!(sent > 0, "they have started");
    Ok(())
}
