//! The lines of a pair of peers that a hub has relayed between.

use std::io::{self, Write};
use std::time::Duration;

use wg_crypto::PublicKey;

use super::super::number;
use crate::model::status::{PairStatus, Status};

/// Prints the lines of a pair.
pub(super) fn print(pair: &PairStatus, out: &mut Vec<u8>) -> io::Result<()> {
    let [a, b] = pair.keys.each_ref().map(PublicKey::to_hex);
    writeln!(out, "pair={a} {b}")?;
    writeln!(out, "pair_tx={}", pair.tx_bytes)?;
    writeln!(out, "pair_rx={}", pair.rx_bytes)?;
    writeln!(out, "pair_last={}", pair.age.as_millis())
}

/// A pair, of which the first line was read.
pub(super) fn begin(value: &str) -> Option<PairStatus> {
    let (a, b) = value.split_once(' ')?;
    let key = |text| PublicKey::from_hex(text).ok();
    Some(PairStatus {
        keys: [key(a)?, key(b)?],
        tx_bytes: 0,
        rx_bytes: 0,
        age: Duration::ZERO,
    })
}

/// Reads a number of the last pair. Ignored if there is no pair.
pub(super) fn of_last(
    status: &mut Status,
    value: &str,
    key: &'static str,
    set: impl FnOnce(&mut PairStatus, u64),
) -> Result<(), &'static str> {
    let value = number(value).ok_or(key)?;
    if let Some(pair) = status.pairs.last_mut() {
        set(pair, value);
    }
    Ok(())
}
