//! The lines `refused` of a status: why messages of a peer or to it did not arrive.

use std::io::{self, Write};
use std::time::Duration;

use wg_crypto::PublicKey;

use super::super::number;
use crate::model::status::{Refusal, Refused, Unreachable};
use crate::sys::numeric::NumericIp;

/// The reasons of ICMP messages, and their words.
pub(super) const UNREACHABLE: [(Unreachable, &str); 4] = [
    (Unreachable::Port, "port"),
    (Unreachable::Host, "host"),
    (Unreachable::Network, "network"),
    (Unreachable::Prohibited, "prohibited"),
];

/// Prints a line for each refusal.
pub(super) fn print(refusals: &[Refused], out: &mut Vec<u8>) -> io::Result<()> {
    for Refused { refusal, age } in refusals {
        write!(out, "refused={} ", age.as_millis())?;
        match refusal {
            Refusal::OtherKey { from } => write!(out, "other-key {from}")?,
            Refusal::UnknownKey { from, key } => {
                write!(out, "unknown-key {from} {}", key.to_hex())?;
            }
            Refusal::PresharedKey => write!(out, "preshared-key")?,
            Refusal::Timestamp => write!(out, "timestamp")?,
            Refusal::NotAllowed { source } => write!(out, "not-allowed {}", NumericIp(*source))?,
            Refusal::UnderLoad => write!(out, "under-load")?,
            Refusal::SendFailed { errno } => write!(out, "send-failed {errno}")?,
            Refusal::Unreachable { what, by } => {
                let word = UNREACHABLE.iter().find(|(known, _)| known == what);
                let word = word.map_or("", |(_, word)| word);
                write!(out, "unreachable {word} {}", NumericIp(*by))?;
            }
        }
        writeln!(out)?;
    }
    Ok(())
}

/// Reads a line. An unknown kind is ignored.
pub(super) fn read(refusals: &mut Vec<Refused>, value: &str) -> Result<(), &'static str> {
    let (age, rest) = value.split_once(' ').ok_or("refused")?;
    let age = Duration::from_millis(number(age).ok_or("refused")?);
    let mut words = rest.split(' ');
    let kind = words.next().unwrap_or_default();
    if let Some(refusal) = refusal(kind, words) {
        refusals.push(Refused {
            refusal: refusal.ok_or("refused")?,
            age,
        });
    }
    Ok(())
}

/// None if the kind is unknown. `Some(None)` if the details are invalid.
fn refusal<'a>(kind: &str, mut words: impl Iterator<Item = &'a str>) -> Option<Option<Refusal>> {
    let mut word = || words.next();
    Some(match kind {
        "other-key" => word()
            .and_then(super::super::endpoint)
            .map(|from| Refusal::OtherKey { from }),
        "unknown-key" => word().and_then(super::super::endpoint).and_then(|from| {
            let key = PublicKey::from_hex(word()?).ok()?;
            Some(Refusal::UnknownKey { from, key })
        }),
        "preshared-key" => Some(Refusal::PresharedKey),
        "timestamp" => Some(Refusal::Timestamp),
        "not-allowed" => word()
            .and_then(|source| source.parse().ok())
            .map(|source| Refusal::NotAllowed { source }),
        "under-load" => Some(Refusal::UnderLoad),
        "send-failed" => word()
            .and_then(number)
            .map(|errno| Refusal::SendFailed { errno }),
        "unreachable" => word().and_then(|what| {
            let (what, _) = *UNREACHABLE.iter().find(|(_, word)| *word == what)?;
            let by = word()?.parse().ok()?;
            Some(Refusal::Unreachable { what, by })
        }),
        _ => return None,
    })
}
