//! An attack on a daemon: the hosts, the honest traffic, and the measurements.

use std::fmt;
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use netns_tests::netlink::Route;
use netns_tests::process::{peak_memory, resident_memory};
use netns_tests::{
    Config, Daemon, Host, Keys, Lab, Load, PATIENCE, PeerConfig, Tap, Uapi, Via, Wg,
};

use crate::arena::{Arena, FORBIDDEN_PORT, HONEST_PORT, INSIDE, INSIDER, Pace, SERVER};
use crate::cpu::{Meter, Usage};
use crate::flood;
use crate::{Attack, insider, local};

/// The result of one attack on one daemon.
#[derive(Debug)]
pub struct Outcome {
    sent: f64,
    before: f64,
    during: f64,
    /// Use of the processor before the attack.
    pub cpu_before: Usage,
    /// Use of the processor during the attack.
    pub cpu_during: Usage,
    /// Time of the newcomer's first answer, unless it had none.
    pub handshake: Option<Duration>,
    memory: u64,
    peak: u64,
    /// Packets that arrived inside although they must not.
    pub forbidden: u64,
    /// How the daemon ended, if it did.
    pub end: Option<String>,
    /// Our counters of dropped packets.
    pub counters: Vec<String>,
}

impl Outcome {
    /// The part of the rate that the transfer kept.
    pub fn kept(&self) -> f64 {
        self.during / self.before
    }

    /// By how many bytes the resident memory grew.
    pub fn growth(&self) -> u64 {
        self.peak.saturating_sub(self.memory)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let handshake = self
            .handshake
            .map_or("none".into(), |time| format!("{:.3} s", time.as_secs_f64()));
        let end = self.end.as_deref().unwrap_or("it goes on");
        write!(
            f,
            "{:9.0}{:9.0}{:9.0}{:5.0} %{handshake:>11}{:9.1}{:9.1}{:11}  {end}",
            self.sent,
            self.before / 1e6,
            self.during / 1e6,
            self.kept() * 100.0,
            mib(self.memory),
            mib(self.peak),
            self.forbidden
        )
    }
}

/// The hosts, and what keeps them.
pub struct Hosts {
    /// The host under attack.
    pub server: Host,
    /// Client, attacker and newcomer.
    pub others: [Host; 3],
    _lab: Lab,
}

impl Hosts {
    /// Makes and joins the hosts.
    pub fn new() -> io::Result<Hosts> {
        let lab = Lab::new()?;
        let server = lab.host("server")?;
        let join = |name, link, [a, b, c]: [u8; 3]| -> io::Result<Host> {
            let host = lab.host(name)?;
            lab.cable((&host, "eth0"), (&server, link), 1500)?;
            host.address("eth0", [a, b, c, 1], 24)?;
            server.address(link, [a, b, c, 2], 24)?;
            Ok(host)
        };
        let others = [
            join("client", "eth0", [192, 0, 2])?,
            join("attacker", "eth1", [198, 51, 100])?,
            join("newcomer", "eth2", [203, 0, 113])?,
        ];
        // Answers to spoofed addresses go to the attacker, as to the Internet.
        server.run(|| {
            let gateway = [198, 51, 100, 1].into();
            Route::via([0, 0, 0, 0].into(), 0, gateway, "eth1").add()
        })?;
        Ok(Hosts {
            server,
            others,
            _lab: lab,
        })
    }
}

/// Builds everything, attacks, and measures.
pub fn fight(daemon: &Daemon, attack: Attack, pace: Pace) -> io::Result<Outcome> {
    let hosts = Hosts::new()?;
    let (server, [client, attacker, newcomer]) = (&hosts.server, &hosts.others);

    let keys = [(); 4].map(|()| Keys::generate());
    let [server_keys, client_keys, newcomer_keys, insider_keys] = keys;
    let mut served = daemon.start(server, "wg0", Via::Uapi)?;
    let peer = |keys: &Keys, inside: [u8; 4]| PeerConfig::new(keys.public).allow(inside, 32);
    served.set(
        &Config::new(&server_keys, SERVER.port())
            .peer(peer(&client_keys, [10, 77, 0, 1]))
            .peer(peer(&newcomer_keys, [10, 77, 1, 1]))
            .peer(peer(&insider_keys, INSIDER.octets())),
    )?;
    served.up(1420, &[(INSIDE.into(), 16)])?;
    let inside = [
        Counter::start(server, HONEST_PORT)?,
        Counter::start(server, FORBIDDEN_PORT)?,
    ];

    // The honest ones always run our daemon, so that only the server differs.
    let ours = Daemon::ours()?;
    let start = |host: &Host, keys: &Keys, address: [u8; 4]| -> io::Result<Wg> {
        let wg = ours.start(host, "wg0", Via::Uapi)?;
        wg.set(&Config::new(keys, SERVER.port()))?;
        wg.up(1420, &[(address.into(), 16)])?;
        Ok(wg)
    };
    let to_server = |network: [u8; 3]| {
        let [a, b, c] = network;
        PeerConfig::new(server_keys.public)
            .at(([a, b, c, 2], SERVER.port()))
            .allow(INSIDE, 32)
    };
    let client_wg = start(client, &client_keys, [10, 77, 0, 1])?;
    let newcomer_wg = start(newcomer, &newcomer_keys, [10, 77, 1, 1])?;
    let tap = Tap::start(client)?;
    client_wg.set(&Config::of(to_server([192, 0, 2])))?;
    client.reach(INSIDE, PATIENCE)?;
    client.reach(INSIDE, PATIENCE)?;
    let captured = flood::captured(&tap)?;

    let load = Load::tcp(client, (server, INSIDE.into()), 1)?;
    load.flowing()?;
    let pid = served.pid()?;
    let arena = Arc::new(Arena {
        attacker: attacker.clone(),
        server: server.clone(),
        server_keys,
        insider_keys,
        captured,
        pace,
        sent: AtomicU64::new(0),
        cpu: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    });
    let meter = Meter {
        client: client_wg.pid()?,
        server: pid,
    };
    let measure = || meter.during(&arena, || Ok(rate(&load, pace.window)));
    let (before, cpu_before) = measure()?;
    let memory = resident_memory(pid)?;
    let attackers = begin(attack, &arena)?;
    let first = arena.sent.load(Relaxed);
    let start = Instant::now();
    let (during, cpu_during) = measure()?;
    let sent = (arena.sent.load(Relaxed) - first) as f64 / start.elapsed().as_secs_f64();

    newcomer_wg.set(&Config::of(to_server([203, 0, 113])))?;
    let start = Instant::now();
    let handshake = newcomer.reach(INSIDE, PATIENCE).ok();
    let handshake = handshake.map(|()| start.elapsed());
    end(&arena, attackers)?;
    let end = served.proc.as_mut().map(|proc| proc.ended()).transpose()?;
    let end = end.flatten().map(|status| status.to_string());
    let peak = peak_memory(pid).unwrap_or(0);
    let [honest, forbidden] = inside.map(Counter::finish);
    if attack == Attack::InnerSources && end.is_none() && honest? == 0 {
        return Err(io::Error::other(
            "the attacker's own packets did not arrive",
        ));
    }
    let forbidden = forbidden?;
    // The transfer of a daemon that has ended stalls.
    if end.is_none() {
        load.stop()?;
    }
    Ok(Outcome {
        sent,
        before,
        during,
        cpu_before,
        cpu_during,
        handshake,
        memory,
        peak,
        forbidden,
        counters: match end {
            None => counters(server).unwrap_or_default(),
            Some(_) => Vec::new(),
        },
        end,
    })
}

/// Starts the threads of an attack, and returns when it has begun.
pub fn begin(attack: Attack, arena: &Arc<Arena>) -> io::Result<Vec<JoinHandle<io::Result<()>>>> {
    let thread = |host: &Host, work: fn(&Arena) -> io::Result<()>| {
        let arena = arena.clone();
        host.thread(move || work(&arena))
    };
    let attacker = &arena.attacker;
    let threads = match attack {
        Attack::Random => vec![thread(attacker, flood::random)],
        Attack::Handshakes => vec![thread(attacker, flood::handshakes)],
        Attack::Spoofed => vec![thread(attacker, flood::spoofed)],
        Attack::Replay => vec![thread(attacker, flood::replay)],
        Attack::Lengths => vec![thread(attacker, flood::lengths)],
        Attack::InnerSources => vec![thread(attacker, insider::sources)],
        Attack::InnerPackets => vec![thread(attacker, insider::packets)],
        Attack::Uapi => [local::stall, local::flood, local::lie]
            .into_iter()
            .map(|work| thread(&arena.server, work))
            .collect(),
    };
    let started = Instant::now();
    while arena.sent.load(Relaxed) == 0 {
        if started.elapsed() > PATIENCE || threads.iter().any(JoinHandle::is_finished) {
            return Err(io::Error::other("the attacker could not begin"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(threads)
}

/// Ends an attack, and returns when its threads have ended.
pub fn end(arena: &Arena, attackers: Vec<JoinHandle<io::Result<()>>>) -> io::Result<()> {
    arena.stop.store(true, Relaxed);
    let panicked = |_| Err(io::Error::other("the attacker panicked"));
    let mut attackers = attackers.into_iter();
    attackers.try_for_each(|attacker| attacker.join().unwrap_or_else(panicked))
}

/// Bits per second that a load receives.
pub fn rate(load: &Load, window: Duration) -> f64 {
    let (_, first) = load.counts();
    let start = Instant::now();
    std::thread::sleep(window);
    let (_, last) = load.counts();
    (last - first) as f64 * 8.0 / start.elapsed().as_secs_f64()
}

/// Our daemon's counters of dropped packets; others have none.
fn counters(server: &Host) -> io::Result<Vec<String>> {
    let status = Uapi::connect(server, "wg0")?.ask("status=1\n\n")?;
    let drops = status.lines().filter(|line| line.starts_with("drop_"));
    Ok(drops
        .filter(|line| !line.ends_with("=0"))
        .map(str::to_owned)
        .collect())
}

/// Counts the datagrams that arrive inside at a port of the server.
struct Counter {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<u64>>,
}

impl Counter {
    fn start(host: &Host, port: u16) -> io::Result<Counter> {
        let any: IpAddr = [0, 0, 0, 0].into();
        let socket = host.run(|| UdpSocket::bind((any, port)))?;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = host.thread(move || {
            let mut count = 0;
            let mut datagram = [0; 2048];
            loop {
                match socket.recv(&mut datagram) {
                    Ok(_) => count += 1,
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                    Err(_) if stopped.load(Relaxed) => return Ok(count),
                    Err(_) => {}
                }
            }
        });
        Ok(Counter { stop, thread })
    }

    /// The number of datagrams.
    fn finish(self) -> io::Result<u64> {
        self.stop.store(true, Relaxed);
        let panicked = |_| Err(io::Error::other("the counter panicked"));
        self.thread.join().unwrap_or_else(panicked)
    }
}
