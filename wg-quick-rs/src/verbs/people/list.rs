//! `list`: the peers of a file, and their state.

use std::collections::HashMap;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use wg_crypto::key::PublicKey;
use wg_rs::model::{AllowedIp, Peer};
use wg_rs::units;

use crate::file::Location;
use crate::file::edit::Edit;
use crate::file::roster::{PeerSection, members};
use crate::steps::failure::Failure;
use crate::verbs::people::change;

/// A line of the list.
#[derive(Debug, Serialize)]
struct Row {
    name: Option<String>,
    public_key: String,
    allowed_ips: Vec<String>,
    enabled: bool,
    /// Whether the running interface has the peer.
    running: bool,
    endpoint: Option<String>,
    /// The latest handshake, in seconds since 1970.
    latest_handshake: Option<u64>,
    /// In bytes.
    received: u64,
    /// In bytes.
    sent: u64,
}

/// Runs the command.
pub fn run(location: &Location, json: bool) -> ExitCode {
    change::with(location, |transaction, opened| {
        let running = match opened.runs {
            true => transaction.target.get()?.peers,
            false => Vec::new(),
        };
        let text = Edit::new(&opened.text);
        let rows = rows(&text, &running);
        let out = match json {
            true => serde_json::to_string_pretty(&rows).map_err(Failure::new)? + "\n",
            false => table(&rows, SystemTime::now()),
        };
        let mut stdout = io::stdout().lock();
        let written = stdout.write_all(out.as_bytes());
        Ok(written.and_then(|()| stdout.flush())?)
    })
}

impl Row {
    /// A disabled peer of which nothing else is known.
    fn new(key: &PublicKey) -> Self {
        Row {
            name: None,
            public_key: key.to_base64(),
            allowed_ips: Vec::new(),
            enabled: false,
            running: false,
            endpoint: None,
            latest_handshake: None,
            received: 0,
            sent: 0,
        }
    }
}

/// The peers of the file in order, and then those that are only in the running interface.
fn rows(text: &Edit, running: &[Peer]) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut positions: HashMap<PublicKey, usize> = HashMap::new();
    for PeerSection {
        peer, is_enabled, ..
    } in members(text)
    {
        // A peer may have several sections.
        let at = *positions.entry(peer.public_key).or_insert(rows.len());
        if at == rows.len() {
            rows.push(Row::new(&peer.public_key));
        }
        let row = &mut rows[at];
        let networks = peer.allowed_ips.iter().map(|one| one.ip.to_string());
        row.allowed_ips.extend(networks);
        let name = peer.name().map(ToString::to_string);
        row.name = row.name.take().or(name);
        row.enabled |= is_enabled;
    }
    for peer in running {
        let at = *positions.entry(peer.public_key).or_insert(rows.len());
        if at == rows.len() {
            rows.push(Row {
                allowed_ips: peer.allowed_ips.iter().map(AllowedIp::to_string).collect(),
                enabled: true,
                ..Row::new(&peer.public_key)
            });
        }
        let row = &mut rows[at];
        row.running = true;
        row.endpoint = peer.endpoint.map(|endpoint| endpoint.to_string());
        row.latest_handshake = peer.last_handshake.map(|at| at.secs);
        (row.received, row.sent) = (peer.rx_bytes, peer.tx_bytes);
    }
    rows
}

fn table(rows: &[Row], now: SystemTime) -> String {
    let now = now
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_secs());
    let head = ["NAME", "ADDRESS", "LATEST HANDSHAKE", "RECEIVED", "SENT"].map(String::from);
    let mut lines = vec![head];
    for row in rows {
        let handshake = match (row.enabled, row.running, row.latest_handshake) {
            (false, ..) => "disabled".into(),
            (true, false, _) => "not up".into(),
            (true, true, None) => "never".into(),
            (true, true, Some(at)) => ago(now.saturating_sub(at)),
        };
        let traffic = match row.running {
            true => [row.received, row.sent].map(size),
            false => [const { String::new() }; 2],
        };
        let [received, sent] = traffic;
        lines.push([
            row.name.clone().unwrap_or_else(|| row.public_key.clone()),
            row.allowed_ips.join(", "),
            handshake,
            received,
            sent,
        ]);
    }
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max();
    let widths: [usize; 5] = std::array::from_fn(|column| width(column).unwrap_or(0));
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(widths);
        let cells: Vec<_> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// A time span in its largest unit.
fn ago(seconds: u64) -> String {
    let (count, unit) = match seconds {
        0..60 => (seconds, "s"),
        60..3600 => (seconds / 60, "min"),
        3600..86_400 => (seconds / 3600, "h"),
        _ => (seconds / 86_400, "d"),
    };
    format!("{count} {unit} ago")
}

fn size(bytes: u64) -> String {
    let (number, unit) = units::size(bytes, 1);
    format!("{number} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use wg_rs::model::Wall;

    #[test]
    fn a_peer_with_two_sections_has_one_row() {
        let key = |n: u8| PublicKey::from_bytes([n; 32]).to_base64();
        let file = format!(
            "#! [Peer]\n#! PublicKey = {0}\n#! AllowedIPs = 10.0.0.2/32\n\
             [Peer]\nPublicKey = {1}\nAllowedIPs = 10.0.0.3/32\n\
             [Peer]\n#@ Name = alice\nPublicKey = {0}\nAllowedIPs = 10.0.0.4/32\n",
            key(1),
            key(2)
        );
        let rows = rows(&Edit::new(file.as_bytes()), &[]);
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0].public_key, key(1));
        assert_eq!(rows[0].name.as_deref(), Some("alice"));
        assert_eq!(rows[0].allowed_ips, ["10.0.0.2/32", "10.0.0.4/32"]);
        assert!(rows[0].enabled);
        assert_eq!(rows[1].public_key, key(2));
    }

    #[test]
    fn each_peer_has_one_line() {
        let key = |n: u8| PublicKey::from_bytes([n; 32]);
        let file = format!(
            "[Peer]\n#@ Name = alice\nPublicKey = {}\nAllowedIPs = 10.0.0.2/32, fd00::2/128\n\
             #! [Peer]\n#! #@ Name = bob\n#! PublicKey = {}\n#! AllowedIPs = 10.0.0.3/32\n\
             [Peer]\nPublicKey = {}\n",
            key(1),
            key(2),
            key(3)
        );
        let alice = Peer {
            last_handshake: Some(Wall {
                secs: 1000,
                nanos: 0,
            }),
            rx_bytes: 1536,
            tx_bytes: 7,
            ..Peer::new(key(1))
        };
        let rows = rows(&Edit::new(file.as_bytes()), &[alice, Peer::new(key(4))]);
        let table = table(&rows, UNIX_EPOCH + Duration::from_secs(1130));
        let lines: Vec<Vec<&str>> = table
            .lines()
            .map(|line| line.split("  ").collect())
            .collect();
        let cells: Vec<Vec<&str>> = lines
            .into_iter()
            .map(|line| {
                let cells = line.into_iter().map(str::trim);
                cells.filter(|cell| !cell.is_empty()).collect()
            })
            .collect();
        let (third, fourth) = (key(3).to_base64(), key(4).to_base64());
        assert_eq!(
            cells[1..],
            [
                vec![
                    "alice",
                    "10.0.0.2/32, fd00::2/128",
                    "2 min ago",
                    "1.5 KiB",
                    "7 B"
                ],
                vec!["bob", "10.0.0.3/32", "disabled"],
                vec![&third, "not up"],
                vec![&fourth, "never", "0 B", "0 B"],
            ]
        );
    }
}
