//! Who uses the processor: the cores are shared by the attacker, the daemons and the transfer.

use std::fmt;
use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use netns_tests::process;

use crate::arena::Arena;

/// CPU times at one moment, or in one period.
#[derive(Debug, Clone, Copy)]
struct Times {
    attacker: Duration,
    client: Duration,
    server: Duration,
    /// The rest of this process: sending and receiving the transfer.
    transfer: Duration,
}

/// Average use of the processor in a period.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    times: Times,
    period: Duration,
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = |time: Duration| time.as_secs_f64() / self.period.as_secs_f64();
        let Times {
            attacker,
            client,
            server,
            transfer,
        } = self.times;
        write!(
            f,
            "cores used: attacker {:.2}, client {:.2}, server {:.2}, transfer {:.2}; of {}",
            share(attacker),
            share(client),
            share(server),
            share(transfer),
            thread::available_parallelism().map_or(1, usize::from)
        )
    }
}

/// The processes to look at.
#[derive(Debug, Clone, Copy)]
pub struct Meter {
    /// Process ID of the client's daemon.
    pub client: i32,
    /// Process ID of the server's daemon.
    pub server: i32,
}

impl Meter {
    fn read(self, arena: &Arena) -> Times {
        // A daemon that the attack has ended uses nothing more.
        let of = |pid: i32| process::cpu_time(pid).unwrap_or_default();
        let attacker = Duration::from_nanos(arena.cpu.load(Relaxed));
        Times {
            attacker,
            client: of(self.client),
            server: of(self.server),
            transfer: of(std::process::id().cast_signed()).saturating_sub(attacker),
        }
    }

    /// Measures while `work` runs.
    pub fn during<T>(
        self,
        arena: &Arena,
        work: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<(T, Usage)> {
        let (start, first) = (Instant::now(), self.read(arena));
        let result = work()?;
        let (period, last) = (start.elapsed(), self.read(arena));
        let times = Times {
            attacker: last.attacker.saturating_sub(first.attacker),
            client: last.client.saturating_sub(first.client),
            server: last.server.saturating_sub(first.server),
            transfer: last.transfer.saturating_sub(first.transfer),
        };
        Ok((result, Usage { times, period }))
    }
}
