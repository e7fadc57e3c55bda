//! The text format of Prometheus, version 0.0.4:
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>. Unknown values have no sample.

use std::fmt::{Display, Write};

use crate::model::status::{PeerStatus, Status};

/// Formats the metrics of these interfaces.
pub(super) fn exposition(all: &[(String, Status)]) -> String {
    let mut text = Text::default();
    of_interfaces(&mut text, all);
    of_peers(&mut text, all);
    text.0
}

fn of_interfaces(text: &mut Text, all: &[(String, Status)]) {
    let labelled = || {
        all.iter()
            .map(|(name, status)| ([("interface", name.as_str())], status))
    };
    text.family(
        "wireguard_interface_peers",
        "gauge",
        "Number of peers.",
        labelled().map(|(labels, status)| (labels, status.peers.len())),
    );
    text.family(
        "wireguard_interface_info",
        "gauge",
        "The version and the cipher implementation of wireguard-rs; always 1.",
        all.iter().filter_map(|(name, status)| {
            let labels = [
                ("interface", name.as_str()),
                ("version", status.version.as_deref()?),
                ("aead", status.aead.as_deref().unwrap_or_default()),
            ];
            Some((labels, 1))
        }),
    );
    text.family(
        "wireguard_interface_start_time_seconds",
        "gauge",
        "When the daemon started, in Unix time: it changes with each restart.",
        labelled().filter_map(|(labels, status)| Some((labels, status.started?.secs))),
    );
    text.family(
        "wireguard_interface_up",
        "gauge",
        "Whether the link is up and the sockets are open.",
        labelled().filter_map(|(labels, status)| Some((labels, u8::from(status.up?)))),
    );
    text.family(
        "wireguard_interface_under_load",
        "gauge",
        "Whether handshakes are answered with cookies.",
        labelled().filter_map(|(labels, status)| Some((labels, u8::from(status.under_load?)))),
    );
    text.family(
        "wireguard_interface_dropped_packets_total",
        "counter",
        "Packets dropped since the daemon started, by reason.",
        all.iter().flat_map(|(name, status)| {
            let drops = status.drops.iter();
            drops.map(move |(reason, packets)| {
                let labels = [("interface", name.as_str()), ("reason", reason)];
                (labels, *packets)
            })
        }),
    );
}

fn of_peers(text: &mut Text, all: &[(String, Status)]) {
    let keys: Vec<Vec<String>> = (all.iter())
        .map(|(_, status)| {
            let keys = status.peers.iter().map(|peer| peer.peer.public_key);
            keys.map(|key| key.to_base64()).collect()
        })
        .collect();
    let each = || {
        all.iter().zip(&keys).flat_map(|((name, status), keys)| {
            status.peers.iter().zip(keys).map(move |(peer, key)| {
                let labels = [
                    ("interface", name.as_str()),
                    ("public_key", key.as_str()),
                    ("name", peer.name().unwrap_or_default()),
                ];
                (labels, peer)
            })
        })
    };
    type Value = fn(&PeerStatus) -> Option<u64>;
    let families: [(&str, &str, &str, Value); 7] = [
        (
            "wireguard_peer_received_bytes_total",
            "counter",
            "Bytes received from the peer.",
            |peer| Some(peer.peer.rx_bytes),
        ),
        (
            "wireguard_peer_sent_bytes_total",
            "counter",
            "Bytes sent to the peer.",
            |peer| Some(peer.peer.tx_bytes),
        ),
        (
            "wireguard_peer_last_handshake_seconds",
            "gauge",
            "When the last handshake was completed, in Unix time; 0 if there was none.",
            |peer| Some(peer.peer.last_handshake.map_or(0, |last| last.secs)),
        ),
        (
            "wireguard_peer_handshakes_total",
            "counter",
            "Handshakes completed.",
            |peer| peer.handshakes,
        ),
        (
            "wireguard_peer_session",
            "gauge",
            "Whether there is a session for sending data.",
            |peer| peer.session.map(u64::from),
        ),
        (
            "wireguard_peer_unanswered_handshakes",
            "gauge",
            "Handshakes sent since the last one that was completed.",
            |peer| {
                let count = peer.unanswered.map_or(0, |sent| sent.count);
                peer.session.map(|_| count.into())
            },
        ),
        (
            "wireguard_peer_allowed_ips",
            "gauge",
            "Number of allowed IPs of the peer.",
            |peer| Some(peer.peer.allowed_ips.len() as u64),
        ),
    ];
    for (name, kind, help, value) in families {
        let samples = each().filter_map(|(labels, peer)| Some((labels, value(peer)?)));
        text.family(name, kind, help, samples);
    }
}

/// The text that was written so far.
#[derive(Default)]
struct Text(String);

impl Text {
    /// Writes a family of metrics, unless it has no sample.
    fn family<'a, const N: usize, V: Display>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        samples: impl Iterator<Item = ([(&'static str, &'a str); N], V)>,
    ) {
        let mut samples = samples.peekable();
        if samples.peek().is_none() {
            return;
        }
        let Text(text) = self;
        // Writing to a String cannot fail.
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for (labels, value) in samples {
            let labels = labels.map(|(label, value)| format!("{label}=\"{}\"", escaped(value)));
            let _ = writeln!(text, "{name}{{{}}} {value}", labels.join(","));
        }
    }
}

/// Escapes the value of a label.
fn escaped(value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"");
    value.replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Peer, Wall};
    use wg_crypto::PublicKey;

    #[test]
    fn unknown_values_have_no_sample() {
        assert_eq!(exposition(&[]), "");
        let kernel = Status {
            peers: vec![PeerStatus::new(Peer {
                rx_bytes: 5,
                ..Peer::new(PublicKey::from_bytes([1; 32]))
            })],
            ..Status::default()
        };
        let text = exposition(&[("wg0".into(), kernel)]);
        let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let names: Vec<_> = names.collect();
        assert_eq!(
            names,
            [
                "wireguard_interface_peers gauge",
                "wireguard_peer_received_bytes_total counter",
                "wireguard_peer_sent_bytes_total counter",
                "wireguard_peer_last_handshake_seconds gauge",
                "wireguard_peer_allowed_ips gauge",
            ]
        );
        let sample = "\nwireguard_peer_received_bytes_total{interface=\"wg0\",\
                      public_key=\"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\",name=\"\"} 5\n";
        assert!(text.contains(sample), "{text}");
    }

    #[test]
    fn each_family_is_written_once_with_all_samples() {
        let status = |secs| Status {
            started: Some(Wall { secs, nanos: 0 }),
            drops: vec![("wrong_mac1".into(), secs)],
            ..Status::default()
        };
        let text = exposition(&[("wg0".into(), status(7)), ("a\"\\b".into(), status(8))]);
        let expected = "\
# HELP wireguard_interface_start_time_seconds When the daemon started, in Unix time: it changes with each restart.
# TYPE wireguard_interface_start_time_seconds gauge
wireguard_interface_start_time_seconds{interface=\"wg0\"} 7
wireguard_interface_start_time_seconds{interface=\"a\\\"\\\\b\"} 8
# HELP wireguard_interface_dropped_packets_total Packets dropped since the daemon started, by reason.
# TYPE wireguard_interface_dropped_packets_total counter
wireguard_interface_dropped_packets_total{interface=\"wg0\",reason=\"wrong_mac1\"} 7
wireguard_interface_dropped_packets_total{interface=\"a\\\"\\\\b\",reason=\"wrong_mac1\"} 8
";
        assert!(text.ends_with(expected), "{text}");
    }
}
