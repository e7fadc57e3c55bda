//! The honest traffic between the two ends: nothing of it may be lost.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use netns_tests::{Count, Crew, Datagrams, End, Family, Host, Paced, Ping, Tunnel, transfer};

/// A TCP stream's rate in bytes a second, and how much is sent before the next one begins.
const RATE: f64 = 1e6;
const STREAM: u64 = 8_000_000;
/// Bytes between two pauses of a TCP stream.
const BLOCK: f64 = 16384.0;
/// Pings are sent in rounds of this number.
const PINGS: usize = 50;
const BETWEEN_PINGS: Duration = Duration::from_millis(20);

/// The running traffic.
pub struct Flows {
    datagrams: Vec<Paced>,
    counters: Arc<Counters>,
    hosts: [Host; 2],
}

#[derive(Default)]
struct Counters {
    pings: AtomicU64,
    lost_pings: AtomicU64,
    streams: AtomicU64,
}

/// What has become of the traffic so far.
#[derive(Clone, Copy)]
pub struct Totals {
    /// Datagrams of all flows.
    pub datagrams: Count,
    /// Pings that were sent and that were not answered.
    pub pings: (u64, u64),
    /// TCP streams that arrived completely.
    pub streams: u64,
    /// Segments that TCP sent again, which may be for lack of CPU time.
    pub retransmissions: u64,
    /// Datagrams that the kernel dropped because a socket's buffer was full.
    pub overflows: u64,
}

impl Flows {
    /// Starts all traffic. Pings and TCP are jobs of `crew`.
    pub fn start(crew: &mut Crew, tunnel: &Tunnel) -> io::Result<Flows> {
        let (a, b) = (&tunnel.a, &tunnel.b);
        let counters = Arc::new(Counters::default());
        for (n, (here, there)) in tunnel.ways().into_iter().enumerate() {
            let (from, to) = (here.host.clone(), target(there, n));
            let counters = counters.clone();
            crew.repeat("pings", Duration::ZERO, move || counters.ping(&from, to.1));
        }
        for (n, (here, there)) in tunnel.ways().into_iter().enumerate() {
            let (from, to) = (here.host.clone(), target(there, n));
            let counters = counters.clone();
            crew.repeat("TCP", Duration::ZERO, move || {
                let pace = Duration::from_secs_f64(BLOCK / RATE);
                transfer(&from, (&to.0, to.1), STREAM, |_| std::thread::sleep(pace))?;
                counters.streams.fetch_add(1, Relaxed);
                Ok(())
            });
        }
        let flow = |len, milliseconds, (from, to): (&End, &End), family| {
            let pace = Duration::from_millis(milliseconds);
            let to = (&to.host, to.inner(family));
            Paced::of(Datagrams { len, pace }, &from.host, to)
        };
        let datagrams = vec![
            flow(60, 1, (a, b), Family::V4)?,
            flow(1372, 2, (b, a), Family::V6)?,
            // These are sent as several packets.
            flow(4000, 10, (a, b), Family::V6)?,
            flow(4000, 10, (b, a), Family::V4)?,
        ];
        Ok(Flows {
            datagrams,
            counters,
            hosts: [a.host.clone(), b.host.clone()],
        })
    }

    /// Whether a flow has ended with an error.
    pub fn have_failed(&self) -> bool {
        self.datagrams.iter().any(Paced::has_failed)
    }

    /// The totals so far. What is on its way is missing.
    pub fn totals(&self) -> io::Result<Totals> {
        self.totals_with(self.datagrams.iter().map(Paced::count))
    }

    /// Ends the flows of datagrams. The jobs of the crew must have ended.
    pub fn finish(mut self) -> io::Result<Totals> {
        let flows = std::mem::take(&mut self.datagrams);
        let counts: io::Result<Vec<Count>> = flows.into_iter().map(Paced::finish).collect();
        self.totals_with(counts?.into_iter())
    }

    fn totals_with(&self, counts: impl Iterator<Item = Count>) -> io::Result<Totals> {
        let sum = |get: fn(&Host) -> io::Result<u64>| {
            let values = self.hosts.iter().map(get);
            values.sum::<io::Result<u64>>()
        };
        Ok(Totals {
            datagrams: counts.fold(Count::default(), |a, b| a + b),
            pings: (
                self.counters.pings.load(Relaxed),
                self.counters.lost_pings.load(Relaxed),
            ),
            streams: self.counters.streams.load(Relaxed),
            retransmissions: sum(Host::tcp_retransmissions)?,
            overflows: sum(Host::udp_overflows)?,
        })
    }
}

/// Each direction uses another family.
fn target(there: &End, way: usize) -> (Host, IpAddr) {
    (there.host.clone(), there.inner(Family::ALL[way]))
}

impl Counters {
    fn ping(&self, from: &Host, to: IpAddr) -> io::Result<()> {
        let done = from.ping(&Ping {
            count: PINGS,
            interval: BETWEEN_PINGS,
            ..Ping::to(to)
        })?;
        self.pings.fetch_add(done.sent as u64, Relaxed);
        self.lost_pings.fetch_add(done.lost() as u64, Relaxed);
        Ok(())
    }
}

impl Totals {
    /// What must not be.
    pub fn faults(&self) -> Vec<String> {
        let Count {
            repeated, damaged, ..
        } = self.datagrams;
        let counts = [
            (self.datagrams.lost(), "datagrams were lost"),
            (repeated, "datagrams arrived twice"),
            (damaged, "datagrams arrived damaged"),
            (self.pings.1, "pings were lost"),
        ];
        let bad = counts.into_iter().filter(|(count, _)| *count > 0);
        bad.map(|(count, what)| format!("{count} {what}")).collect()
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Count {
            sent,
            received,
            repeated,
            damaged,
        } = self.datagrams;
        let (pings, lost_pings) = self.pings;
        write!(
            f,
            "datagrams {sent} sent, {} not arrived, {repeated} repeated, {damaged} damaged; pings {pings}, \
             {lost_pings} lost; TCP streams {}, {} segments again; {} overflows",
            sent - received,
            self.streams,
            self.retransmissions,
            self.overflows
        )
    }
}
