//! Takes the measurements one after the other, on one topology.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::{Duration, Instant};

use crate::profile::{Perf, Profile};
use netns_tests::{Daemon, Family, Host, Hosts, Load, PATIENCE, Ping, Plan, Tunnel, process};

/// How long a load runs before it is measured.
const WARM_UP: Duration = Duration::from_millis(400);
/// The pause between pings without a load: long enough for every thread to go to sleep.
const IDLE_PAUSE: Duration = Duration::from_millis(2);

/// A ping without an answer after this time is not counted.
const LOST: Duration = Duration::from_secs(1);
/// Within this time, pings are answered again after a load, or beside one.
const SETTLED: Duration = Duration::from_secs(5);

/// The subject of the measurements.
#[derive(Debug, Clone)]
pub enum Setup {
    /// A tunnel by this daemon on both hosts.
    Tunnel(Daemon),
    /// No tunnel: the veth pair itself.
    Plain,
}

impl Setup {
    /// The name in the report.
    pub fn name(&self) -> &str {
        match self {
            Setup::Tunnel(daemon) => &daemon.name,
            Setup::Plain => "none",
        }
    }
}

/// A measurement that can be requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bench {
    /// TCP: streams, and which directions at once.
    Tcp(usize, Way),
    /// UDP of one payload size, one direction.
    Udp(usize),
    /// Round trips without a load.
    Rtt,
    /// Round trips beside one TCP stream in the same direction.
    RttLoad,
}

/// The directions of a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From a to b.
    Out,
    /// From b to a.
    Back,
    /// Both at once.
    Both,
}

impl Bench {
    /// Every measurement, in order.
    pub const ALL: [Bench; 10] = [
        Bench::Rtt,
        Bench::Tcp(1, Way::Out),
        Bench::Tcp(1, Way::Back),
        Bench::Tcp(1, Way::Both),
        Bench::Tcp(4, Way::Out),
        Bench::Tcp(4, Way::Back),
        Bench::Tcp(4, Way::Both),
        Bench::Udp(1200),
        Bench::Udp(64),
        Bench::RttLoad,
    ];

    /// Its name on the command line.
    pub fn name(self) -> String {
        match self {
            Bench::Tcp(streams, Way::Out) => format!("tcp{streams}"),
            Bench::Tcp(streams, Way::Back) => format!("tcp{streams}r"),
            Bench::Tcp(streams, Way::Both) => format!("tcp{streams}b"),
            Bench::Udp(size) => format!("udp{size}"),
            Bench::Rtt => "rtt".into(),
            Bench::RttLoad => "rttload".into(),
        }
    }
}

impl FromStr for Bench {
    type Err = String;

    fn from_str(name: &str) -> Result<Bench, String> {
        let known = || Bench::ALL.map(Bench::name).join(", ");
        Bench::ALL
            .into_iter()
            .find(|bench| bench.name() == name)
            .ok_or_else(|| format!("no such measurement: {name} (known: {})", known()))
    }
}

/// What is the same for every daemon.
#[derive(Debug)]
pub struct Conditions {
    /// Length of each measurement.
    pub window: Duration,
    /// MTU of the tunnel, 80 less than the veth's.
    pub mtu: u32,
    /// The congestion control, by its name in the kernel.
    pub congestion_control: String,
}

/// The file with TCP's default congestion control.
const CONGESTION_CONTROL: &str = "/proc/sys/net/ipv4/tcp_congestion_control";

/// The congestion control of this network namespace.
///
/// # Errors
/// It cannot be read.
pub fn congestion_control() -> io::Result<String> {
    Ok(fs::read_to_string(CONGESTION_CONTROL)?.trim().to_owned())
}

/// One figure of one round.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The name of the figure, for instance `tcp1`.
    pub metric: String,
    /// Its unit, for instance `Mbit/s`.
    pub unit: &'static str,
    /// Its value.
    pub value: f64,
    /// Whether more is better.
    pub more_is_better: bool,
}

struct MeasuredHosts {
    hosts: [Host; 2],
    addresses: [IpAddr; 2],
    pids: Vec<i32>,
}

/// Builds the topology and takes the measurements. `progress` is called with the result of each;
/// after a failure the next one follows.
pub fn take(
    setup: &Setup,
    benches: &[Bench],
    conditions: &Conditions,
    mut progress: impl FnMut(&str, Option<io::Error>),
) -> io::Result<Vec<Sample>> {
    let mut samples = Vec::new();
    with_hosts(setup, conditions, |hosts| {
        for bench in benches {
            let failed = match hosts.take(*bench, conditions.window) {
                Ok(taken) => {
                    samples.extend(taken);
                    None
                }
                Err(error) => Some(error),
            };
            progress(&bench.name(), failed);
        }
        if let Some(peak) = hosts.peak_memory()? {
            let mebibytes = peak as f64 / f64::from(1 << 20);
            samples.push(Sample {
                metric: "memory".into(),
                unit: "MiB",
                value: mebibytes,
                more_is_better: false,
            });
        }
        Ok(())
    })?;
    Ok(samples)
}

/// Builds the topology, and samples the daemons during each measurement.
pub fn profile(
    setup: &Setup,
    benches: &[Bench],
    conditions: &Conditions,
    perf: &Perf,
    mut told: impl FnMut(&str, Profile),
) -> io::Result<()> {
    with_hosts(setup, conditions, |hosts| {
        if hosts.pids.is_empty() {
            return Ok(());
        }
        for bench in benches {
            // The load starts before the first sample and ends after the last one.
            let around = conditions.window + WARM_UP * 4;
            let profile = std::thread::scope(|scope| {
                let load = scope.spawn(|| hosts.take(*bench, around));
                std::thread::sleep(WARM_UP * 2);
                let profile = perf.sample(&hosts.pids, conditions.window);
                load.join()
                    .unwrap_or_else(|_| Err(io::Error::other("a load panicked")))?;
                profile
            })?;
            told(&bench.name(), profile);
        }
        Ok(())
    })
}

/// Builds the topology, runs `work`, and removes the topology.
fn with_hosts(
    setup: &Setup,
    conditions: &Conditions,
    work: impl FnOnce(&MeasuredHosts) -> io::Result<()>,
) -> io::Result<()> {
    let mtu = conditions.mtu;
    match setup {
        Setup::Plain => {
            let hosts = Hosts::new(mtu + 80)?;
            let addresses = [0, 1].map(|n| hosts.address(n, Family::V4));
            let measured = MeasuredHosts {
                hosts: hosts.hosts.clone(),
                addresses,
                pids: Vec::new(),
            };
            measured.set_congestion_control(&conditions.congestion_control)?;
            work(&measured)
        }
        Setup::Tunnel(daemon) => {
            let plan = Plan {
                mtu,
                cable_mtu: mtu + 80,
                ..Plan::new(daemon, daemon)
            };
            let tunnel = Tunnel::new(&plan)?;
            tunnel.a.host.reach(tunnel.b.inner(Family::V4), PATIENCE)?;
            let ends = [&tunnel.a, &tunnel.b];
            let measured = MeasuredHosts {
                hosts: ends.map(|end| end.host.clone()),
                addresses: ends.map(|end| end.inner(Family::V4)),
                pids: ends.iter().filter_map(|end| end.wg.pid().ok()).collect(),
            };
            measured.set_congestion_control(&conditions.congestion_control)?;
            work(&measured)
        }
    }
}

impl MeasuredHosts {
    fn set_congestion_control(&self, name: &str) -> io::Result<()> {
        for host in &self.hosts {
            host.run(|| fs::write(CONGESTION_CONTROL, name))
                .map_err(|error| {
                    io::Error::new(error.kind(), format!("congestion control {name}: {error}"))
                })?;
        }
        Ok(())
    }

    fn to(&self, n: usize) -> (&Host, IpAddr) {
        (&self.hosts[n], self.addresses[n])
    }

    fn tcp(&self, streams: usize, to: usize) -> io::Result<Load> {
        Load::tcp(&self.hosts[1 - to], self.to(to), streams)
    }

    fn take(&self, bench: Bench, window: Duration) -> io::Result<Vec<Sample>> {
        let name = bench.name();
        let sample = |suffix: &str, unit, value, more_is_better| Sample {
            metric: format!("{name}{suffix}"),
            unit,
            value,
            more_is_better,
        };
        Ok(match bench {
            Bench::Tcp(streams, way) => {
                let ends: &[usize] = match way {
                    Way::Out => &[1],
                    Way::Back => &[0],
                    Way::Both => &[1, 0],
                };
                let loads = ends
                    .iter()
                    .map(|to| self.tcp(streams, *to))
                    .collect::<Result<_, _>>()?;
                let run = self.run(loads, window)?;
                let rate = run.received as f64 * 8.0 / run.time.as_secs_f64() / 1e6;
                let mut samples = vec![sample("", "Mbit/s", rate, true)];
                if bench == Bench::Tcp(1, Way::Out) && !self.pids.is_empty() && run.received > 0 {
                    let cpu = run.cpu.as_secs_f64() / (run.received as f64 / 1e9);
                    samples.push(Sample {
                        metric: "cpu".into(),
                        unit: "s/GB",
                        value: cpu,
                        more_is_better: false,
                    });
                }
                samples
            }
            Bench::Udp(size) => {
                let load = Load::udp(&self.hosts[0], self.to(1), size)?;
                let run = self.run(vec![load], window)?;
                let lost = 1.0 - run.received as f64 / run.sent.max(1) as f64;
                vec![
                    sample(
                        "",
                        "kpkt/s",
                        run.received as f64 / run.time.as_secs_f64() / 1e3,
                        true,
                    ),
                    sample(" loss", "%", lost.max(0.0) * 100.0, false),
                ]
            }
            Bench::Rtt => {
                let rtts = self.ping(window, IDLE_PAUSE)?;
                rtts.map(|(p, micros)| sample(p, "µs", micros, false))
                    .to_vec()
            }
            Bench::RttLoad => {
                let load = self.tcp(1, 1)?;
                load.flowing()?;
                std::thread::sleep(WARM_UP);
                let rtts = self.ping(window, IDLE_PAUSE)?;
                load.stop()?;
                rtts.map(|(p, micros)| sample(p, "µs", micros, false))
                    .to_vec()
            }
        })
    }

    /// p50 and p99 of the round trips from a to b, in microseconds.
    fn ping(&self, window: Duration, pause: Duration) -> io::Result<[(&'static str, f64); 2]> {
        let ping = Ping {
            interval: pause,
            timeout: LOST,
            ..Ping::to(self.addresses[1])
        };
        // The queues may still be full of the load before. A ping lost there would take the whole window.
        self.hosts[0].reach(self.addresses[1], SETTLED)?;
        let start = Instant::now();
        let done = self.hosts[0].ping_while(&ping, |_| start.elapsed() < window)?;
        let mut rtts = done.rtts;
        rtts.sort_unstable();
        let rank = |part: f64| {
            let n = (rtts.len() as f64 * part).ceil() as usize;
            rtts.get(n.saturating_sub(1))
                .map(|rtt| rtt.as_secs_f64() * 1e6)
                .ok_or_else(|| io::Error::other("no ping was answered"))
        };
        Ok([(" p50", rank(0.5)?), (" p99", rank(0.99)?)])
    }

    /// Runs loads together and counts over a time window while they run.
    fn run(&self, loads: Vec<Load>, window: Duration) -> io::Result<Counted> {
        for load in &loads {
            load.flowing()?;
        }
        std::thread::sleep(WARM_UP);
        let read = || -> io::Result<_> {
            let mut cpu = Duration::ZERO;
            for pid in &self.pids {
                cpu += process::cpu_time(*pid)?;
            }
            let (sent, received) = loads
                .iter()
                .map(Load::counts)
                .fold((0, 0), |sum, counts| (sum.0 + counts.0, sum.1 + counts.1));
            Ok((Instant::now(), sent, received, cpu))
        };
        let before = read()?;
        std::thread::sleep(window);
        let after = read()?;
        for load in loads {
            load.stop()?;
        }
        Ok(Counted {
            time: after.0 - before.0,
            sent: after.1 - before.1,
            received: after.2 - before.2,
            cpu: after.3.saturating_sub(before.3),
        })
    }

    /// The peak memory of the daemon that used more, bytes.
    fn peak_memory(&self) -> io::Result<Option<u64>> {
        let peaks: io::Result<Vec<u64>> = self
            .pids
            .iter()
            .map(|pid| process::peak_memory(*pid))
            .collect();
        Ok(peaks?.into_iter().max())
    }
}

struct Counted {
    time: Duration,
    sent: u64,
    received: u64,
    cpu: Duration,
}
