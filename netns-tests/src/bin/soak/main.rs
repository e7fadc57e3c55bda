//! Runs two daemons for a long time under mixed traffic and changes, and checks that nothing is lost and
//! that nothing grows.
//!
//! ```text
//! crowd 198.51.100.2 ──────┐
//! restarting 203.0.113.2 ──┴─ a 192.0.2.1 ── 192.0.2.2 b
//! ```
//! a and b are daemons with timers that are 20 times as fast, so that keys change every six seconds. Between
//! them goes the honest traffic. a also has the peers of the crowd, which are added, changed and removed
//! all the time, and a peer whose daemon is killed and started again.

mod crowd;
mod flows;
mod samples;

use std::io;
use std::net::UdpSocket;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use netns_tests::{
    Churn, Config, Crew, Daemon, Dice, End, Family, Keys, PATIENCE, PeerConfig, Plan, Tunnel, Uapi,
    Via, Wg, binaries, exit_code, process, until,
};

use crowd::Crowd;
use flows::{Flows, Totals};
use samples::{Growth, Sample};

/// Runs daemons for a long time, and fails if a packet is lost or if memory or descriptors grow. Needs root.
#[derive(Debug, Parser)]
#[command(name = "soak")]
struct Options {
    /// Length in minutes.
    #[arg(long, default_value_t = 60.0)]
    minutes: f64,
    /// Number of peers that come and go.
    #[arg(long, default_value_t = 1000)]
    peers: usize,
}

/// Clients that change peers, and how often each does.
const CLIENTS: u8 = 2;
const CHANGE: Duration = Duration::from_millis(10);
/// The second byte of the first client's addresses.
const NETWORKS: u8 = 100;
/// How often each client compares all its peers with what the interface says.
const CHECK: u64 = 50;
const SHOW: Duration = Duration::from_secs(1);
/// How often datagrams are sent to the crowd, whose peers may be known or not.
const SPRAY: Duration = Duration::from_millis(10);
const RESTART: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(250);
const SAMPLE: Duration = Duration::from_secs(1);
const REPORT: Duration = Duration::from_secs(60);
/// Keys change every six seconds. Less often than this is a fault.
const REKEY: f64 = 8.0;
/// For how long the number of descriptors does not change when all connections are closed.
const SETTLED: Duration = Duration::from_secs(1);
const DISCARD: u16 = 9;
/// The number of the restarting host.
const RESTARTING: u8 = 3;

fn main() -> ExitCode {
    exit_code("soak", run(&Options::parse()))
}

fn run(options: &Options) -> io::Result<bool> {
    if !(0.1..=10_000.0).contains(&options.minutes) || options.peers < CLIENTS.into() {
        return Err(io::Error::other("at least 0.1 minutes, and 2 peers"));
    }
    let soak = Soak::start(options.peers)?;
    let end = Instant::now() + Duration::from_secs_f64(options.minutes * 60.0);
    let samples = soak.watch(end)?;
    soak.judge(&samples)
}

/// All that runs.
struct Soak {
    crew: Crew,
    flows: Flows,
    crowd: Crowd,
    rekeys: Arc<AtomicU64>,
    tunnel: Tunnel,
    restarting: Keys,
    /// What a and b used before the traffic.
    before: [Sample; 2],
    start: Instant,
}

impl Soak {
    fn start(peers: usize) -> io::Result<Soak> {
        let daemon = Daemon::ours_with_fast_timers()?;
        let wg_rs = binaries::build("wg-rs")?;
        let wg_rs = wg_rs.to_string_lossy().into_owned();
        let tunnel = Tunnel::established(&Plan::new(&daemon, &daemon))?;
        let (a, b) = (&tunnel.a, &tunnel.b);
        let before = [settled(&a.wg)?, settled(&b.wg)?];

        let mut crew = Crew::default();
        let host = tunnel.lab.host("crowd")?;
        let (outer, link) = ([198, 51, 100, 2], "eth1");
        tunnel.lab.cable((&a.host, link), (&host, "eth0"), 1500)?;
        a.host.address(link, [198, 51, 100, 1], 24)?;
        host.address("eth0", outer, 24)?;
        let crowd = Crowd::start(&mut crew, &host, outer.into(), a.keys.public, peers)?;
        churn(&mut crew, &crowd, a, peers)?;
        let restarting = restart(&mut crew, &tunnel, &daemon)?;
        let host = a.host.clone();
        for arguments in [&["show", "wg0"][..], &["show", "all", "dump"]] {
            let (host, wg_rs) = (host.clone(), wg_rs.clone());
            crew.repeat("show", SHOW, move || host.sh(&wg_rs, arguments).map(drop));
        }
        let rekeys = Arc::new(AtomicU64::new(0));
        let (mut uapi, key) = (Uapi::connect(&b.host, "wg0")?, a.keys.public);
        let (mut last, counter) = (None, rekeys.clone());
        crew.repeat("handshakes", LOOK, move || {
            let handshake = uapi.get()?.peer(key)?.last_handshake;
            if last
                .replace(handshake)
                .is_some_and(|last| last != handshake)
            {
                counter.fetch_add(1, Relaxed);
            }
            Ok(())
        });
        let flows = Flows::start(&mut crew, &tunnel)?;
        Ok(Soak {
            crew,
            flows,
            crowd,
            rekeys,
            tunnel,
            restarting,
            before,
            start: Instant::now(),
        })
    }

    fn ends(&self) -> [&End; 2] {
        [&self.tunnel.a, &self.tunnel.b]
    }

    fn sample(&self) -> io::Result<[Sample; 2]> {
        let [a, b] = self.ends();
        Ok([Sample::of(a.wg.pid()?)?, Sample::of(b.wg.pid()?)?])
    }

    /// Takes samples until the end, or until something has failed, and prints each minute what there is.
    fn watch(&self, end: Instant) -> io::Result<Vec<[Sample; 2]>> {
        let mut samples = Vec::new();
        let mut report = self.start + REPORT;
        while Instant::now() < end && !self.crew.has_failed() && !self.flows.have_failed() {
            thread::sleep(SAMPLE);
            samples.push(self.sample()?);
            if Instant::now() >= report {
                report += REPORT;
                self.report(self.flows.totals()?)?;
            }
        }
        Ok(samples)
    }

    fn report(&self, totals: Totals) -> io::Result<()> {
        let elapsed = self.start.elapsed().as_secs_f64();
        let [a, b] = self.sample()?;
        let mut cpu = process::cpu_time(std::process::id() as i32)?;
        for end in self.ends() {
            cpu += process::cpu_time(end.wg.pid()?)?;
        }
        println!("{:.1} minutes: a {a}; b {b}", elapsed / 60.0);
        println!("  {totals}");
        let changes = self.crew.turns("changes");
        let restarts = self.crew.turns("restarts");
        println!(
            "  {} rekeys, {} handshakes of the crowd, {changes} changes of peers, {restarts} restarts; \
             {:.0} % of a core in use",
            self.rekeys.load(Relaxed),
            self.crowd.answered(),
            100.0 * cpu.as_secs_f64() / elapsed
        );
        Ok(())
    }

    /// Ends everything, and prints what was wrong.
    fn judge(self, samples: &[[Sample; 2]]) -> io::Result<bool> {
        let elapsed = self.start.elapsed().as_secs_f64();
        let rekeys = self.rekeys.load(Relaxed);
        self.report(self.flows.totals()?)?;
        self.crew.finish()?;
        let totals = self.flows.finish()?;
        println!("{totals}");
        let mut faults = totals.faults();
        if (rekeys as f64) < elapsed / REKEY {
            faults.push(format!("only {rekeys} rekeys in {elapsed:.0} seconds"));
        }
        let [a, b] = [&self.tunnel.a, &self.tunnel.b];
        let kept = [b.keys.public, self.restarting.public];
        let peers =
            a.wg.get()?
                .peers
                .into_iter()
                .filter_map(|peer| peer.public_key);
        let peers = peers
            .filter(|key| !kept.contains(key))
            .map(PeerConfig::removed);
        a.wg.set(&Config {
            peers: peers.collect(),
            ..Config::default()
        })?;
        for (n, end) in [a, b].into_iter().enumerate() {
            let of_this: Vec<Sample> = samples.iter().map(|both| both[n]).collect();
            let after = settled(&end.wg)?;
            let growth = Growth::of(self.before[n], &of_this, after);
            println!("{}: {growth}", end.host.name());
            faults.extend(
                growth
                    .faults()
                    .into_iter()
                    .map(|fault| format!("{}: {fault}", end.host.name())),
            );
        }
        for fault in &faults {
            println!("FAULT: {fault}");
        }
        if faults.is_empty() {
            println!("nothing was lost, and nothing has grown");
        }
        Ok(faults.is_empty())
    }
}

/// What the daemon of an interface uses when it has closed the connections of its clients.
fn settled(wg: &Wg) -> io::Result<Sample> {
    let pid = wg.pid()?;
    let mut last = (Sample::of(pid)?, Instant::now());
    until(PATIENCE, "the daemon to close connections", || {
        let now = Sample::of(pid)?;
        if now.descriptors != last.0.descriptors {
            last = (now, Instant::now());
        }
        Ok((last.1.elapsed() > SETTLED).then_some(now))
    })
}

/// Clients that change the peers of the crowd on `a`, and datagrams to them.
fn churn(crew: &mut Crew, crowd: &Crowd, a: &End, peers: usize) -> io::Result<()> {
    let each = peers / usize::from(CLIENTS);
    for number in 0..CLIENTS {
        let (crowd, first) = (crowd.clone(), usize::from(number) * each);
        let make = move |n| crowd.replace(first + n);
        let mut client = Churn::new(NETWORKS + number, &a.host, each, make)?;
        client.fill()?;
        let mut turns = 0;
        crew.repeat("changes", CHANGE, move || {
            turns += 1;
            client.change()?;
            match turns % CHECK {
                0 => client.check(),
                _ => Ok(()),
            }
        });
        a.wg.route([10, NETWORKS + number, 0, 0], 16)?;
    }
    let socket = a.host.run(|| UdpSocket::bind(("0.0.0.0", 0)))?;
    let mut dice = Dice::new();
    crew.repeat("datagrams to the crowd", SPRAY, move || {
        let number = NETWORKS + dice.roll(CLIENTS.into()) as u8;
        let to = Churn::address(number, &mut dice);
        // The peer may be unknown, and the errors that ICMP reports are those of earlier datagrams.
        let _ = socket.send_to(&[0; 100], (to, DISCARD));
        Ok(())
    });
    Ok(())
}

/// A host whose daemon is killed and started again. It must reach a each time. Returns its keys.
fn restart(crew: &mut Crew, tunnel: &Tunnel, daemon: &Daemon) -> io::Result<Keys> {
    let a = &tunnel.a;
    let host = tunnel.lab.host("restarting")?;
    let link = "eth2";
    tunnel.lab.cable((&a.host, link), (&host, "eth0"), 1500)?;
    a.host.address(link, [203, 0, 113, 1], 24)?;
    host.address("eth0", [203, 0, 113, 2], 24)?;
    let (keys, inside) = (Keys::generate(), Family::V4.inside(RESTARTING));
    let peer = PeerConfig::new(keys.public).allow(inside, 32);
    a.wg.set(&Config::of(peer))?;
    let hub = PeerConfig::new(a.keys.public)
        .allow(a.inner(Family::V4), 32)
        .at(([203, 0, 113, 1], End::PORT));
    let config = Config::new(&keys, End::PORT).peer(hub);
    let (daemon, to) = (daemon.clone(), a.inner(Family::V4));
    let mut running: Option<Wg> = None;
    crew.repeat("restarts", RESTART, move || {
        if let Some(mut former) = running.take() {
            former.kill()?;
        }
        let wg = daemon.start(&host, "wg0", Via::Uapi)?;
        wg.set(&config)?;
        wg.up(1420, &[(inside, 24)])?;
        running = Some(wg);
        host.reach(to, PATIENCE)
    });
    Ok(keys)
}
