//! Checks of a tunnel between two implementations: the columns of the interop matrix, and its cells.
//!
//! Each check is about what one end does, which is `a` of the plan: it begins, roams, sends. So it is made with
//! ours as `a`, and with ours as `b`.

mod ecn;
pub mod endpoints;
mod known;
mod load;
mod rekey;
mod traffic;

use std::io;
use std::thread;
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

pub use self::rekey::rekey;
use crate::{Daemon, Plan, Via, vm};

/// A column of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trial {
    /// A handshake that our end starts.
    ByUs,
    /// A handshake that the other end starts.
    ByThem,
    /// A preshared key.
    Psk,
    /// A real new session after two minutes, under traffic that nothing interrupts.
    Rekey,
    /// Address and port of an end change.
    Roaming,
    /// A persistent keepalive holds the mapping of a NAT box.
    Keepalive,
    /// A handshake by a cookie while the responder is flooded with initiations.
    Cookie,
    /// IPv4 and IPv6 inside and outside.
    Families,
    /// MTUs of 9000 and 34 816 bytes outside.
    Jumbo,
    /// Bulk TCP, with a checksum.
    Tcp,
    /// Bulk UDP, without loss.
    Udp,
    /// Congestion marks between the inner and the outer header, as the kernel module treats them.
    Ecn,
}

/// The end that a check is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// `wireguard-rs`.
    Ours,
    /// The other implementation.
    Theirs,
}

impl Trial {
    /// Its name, as `--only` takes it.
    pub fn name(self) -> String {
        let value = self.to_possible_value().expect("no trial is hidden");
        value.get_name().to_owned()
    }

    fn sides(self, is_ours: bool) -> &'static [Side] {
        match self {
            _ if is_ours => &[Side::Ours],
            Trial::ByUs => &[Side::Ours],
            Trial::ByThem => &[Side::Theirs],
            _ => &[Side::Ours, Side::Theirs],
        }
    }

    /// Makes the check; see the head of the file.
    ///
    /// # Errors
    /// What does not work.
    pub fn check(self, plan: &Plan) -> io::Result<()> {
        let size = Size::here();
        match self {
            Trial::ByUs | Trial::ByThem => traffic::a_handshake(plan),
            Trial::Psk => traffic::a_preshared_key(plan),
            Trial::Rekey => rekey(plan, size.rate, size.pause),
            Trial::Roaming => {
                endpoints::a_changed_address(plan)?;
                endpoints::a_changed_port(plan)
            }
            Trial::Keepalive => endpoints::a_kept_mapping(plan),
            Trial::Cookie => load::a_cookie(plan),
            Trial::Families => traffic::both_families(plan),
            Trial::Jumbo => traffic::great_mtus(plan, size),
            Trial::Tcp => traffic::bulk_tcp(plan, size),
            Trial::Udp => traffic::bulk_udp(plan, size),
            Trial::Ecn => ecn::marks(plan),
        }
    }

    /// Makes the check with either end as `a`. If it fails, it is made between two of theirs
    /// as well. The result are the failures.
    pub fn verdict(self, ours: &Daemon, theirs: &Daemon, via: Via) -> Verdict {
        let check = |a: &Daemon, b: &Daemon| {
            let plan = Plan {
                via,
                ..Plan::new(a, b)
            };
            let checked = thread::scope(|scope| scope.spawn(|| self.check(&plan)).join());
            checked.unwrap_or_else(|_| Err(io::Error::other("it panicked")))
        };
        let failed = |side: Side| {
            let (a, b) = match side {
                Side::Ours => (ours, theirs),
                Side::Theirs => (theirs, ours),
            };
            let error = check(a, b).err()?;
            let known = known::reason(&theirs.name, self, side).filter(|_| ours != theirs);
            Some((side, error, known))
        };
        let sides = self.sides(ours == theirs);
        // These two mostly wait, a rekey for two minutes.
        let failures: Vec<_> = match self {
            Trial::Rekey | Trial::Keepalive => thread::scope(|scope| {
                let failed = &failed;
                let run = |side: Side| scope.spawn(move || failed(side));
                let runs: Vec<_> = sides.iter().copied().map(run).collect();
                let ended = runs
                    .into_iter()
                    .map(|run| run.join().expect("panics are caught"));
                ended.flatten().collect()
            }),
            _ => sides.iter().filter_map(|side| failed(*side)).collect(),
        };
        let compares = ours != theirs && self != Trial::Rekey && !failures.is_empty();
        let between_theirs = compares.then(|| match check(theirs, theirs) {
            Ok(()) => "works".into(),
            Err(error) => format!("fails, too: {error}"),
        });
        let failures = failures.into_iter().map(|(side, error, known)| Failure {
            side,
            error: error.to_string(),
            between_theirs: between_theirs.clone(),
            known: known.map(str::to_owned),
        });
        Verdict(failures.collect())
    }
}

/// What failed in a cell of the matrix; nothing if all works.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Verdict(pub Vec<Failure>);

impl Verdict {
    /// Whether all works.
    pub fn works(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all that fails is known to be the other's fault.
    pub fn is_known(&self) -> bool {
        self.0.iter().all(|failure| failure.known.is_some())
    }
}

/// A failed check.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failure {
    /// The end that it is about.
    pub side: Side,
    /// What does not work.
    pub error: String,
    /// What the same check says between two of theirs.
    pub between_theirs: Option<String>,
    /// Why it is known to be the other's fault, and how that was found.
    pub known: Option<String>,
}

/// How much traffic there is.
#[derive(Debug, Clone, Copy)]
struct Size {
    /// Bytes of a transfer.
    bytes: u64,
    /// Datagrams of a flow.
    datagrams: u64,
    /// A great ping is lost after this time.
    late: Duration,
    /// Bytes a second during a rekey, and the longest pause then.
    rate: u64,
    pause: Duration,
}

impl Size {
    /// An emulated machine is slow.
    fn here() -> Size {
        match vm::is_inside() {
            true => Size {
                bytes: 100_000,
                datagrams: 500,
                late: Duration::from_secs(20),
                rate: 20_000,
                pause: Duration::from_secs(20),
            },
            false => Size {
                bytes: 25_000_000,
                datagrams: 25_000,
                late: Duration::from_secs(2),
                rate: 1_000_000,
                pause: Duration::from_secs(3),
            },
        }
    }
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> io::Result<()> {
    match holds {
        true => Ok(()),
        false => Err(io::Error::other(what())),
    }
}
