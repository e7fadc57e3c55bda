//! The reply to `status`: converts a status to lines and back. The lines of peers are those of
//! `get`, without `preshared_key` and `protocol_version`, and additional ones:
//!
//! ```text
//! version=0.1.0              of the interface
//! started_sec=1790000000     Unix time
//! up=true
//! bind_error=98              errno, if the sockets could not be opened
//! listen_port=51820
//! fwmark=51820
//! link_netns=4026531840      inodes
//! socket_netns=4026531840
//! offloads=tso,uso,tunnels,gso,gro
//! aead=ChaCha20-Poly1305 by AWS-LC
//! workers=2
//! under_load=false
//! drop_wrong_mac1=3          packets dropped, for each reason
//! nat=easy                   the NAT before us, as our hubs see it: none, easy, hard or unknown
//! refused=40 unknown-key 192.0.2.1:5 KEY    milliseconds ago, kind, and details
//! pair=KEY KEY               begins a pair of peers that the interface has relayed between
//! pair_tx=5000               bytes from the first to the second
//! pair_rx=300
//! pair_last=40               milliseconds since the last packet
//! public_key=KEY             begins a peer
//! name=alice
//! relay=lab,office           groups
//! hub=true                   we use it as a hub
//! hub_mute=false             whether it does not answer
//! hub_heard=40               milliseconds since its last answer
//! hub_rtt_us=14000           microseconds that the answer took
//! hub_sees=192.0.2.1:5       our address, as it sees it
//! path=relay                 how the peer is reached: relay, direct or none
//! path_hub=KEY               by this hub
//! path_other=KEY             and in doubt also by this one
//! path_rtt_us=48000          round trip
//! path_doubt=1200            milliseconds without an answer
//! speaks=true                whether it understands frames
//! has_preshared_key=true
//! session=false              whether data can be sent
//! handshakes=5               completed
//! unanswered=3 10250         handshakes sent, milliseconds since the first of them
//! unconfirmed=1              handshakes that were answered but never used
//! refused=40 not-allowed 10.0.0.9
//! errno=0
//! ```
//! Unknown keys and unknown kinds of refusals are ignored.

mod pair;
mod peer;
mod refusals;

use std::io::{self, Write};
use std::str;
use std::time::Duration;

use wg_crypto::PublicKey;

use super::number;
use super::reply::{ReplyContent, fill, store};
use crate::model::status::{Nat, PeerStatus, Status};
use crate::model::{AllowedIp, Peer, Wall};

/// The prefix of a reason for which packets are dropped.
const DROP: &[u8] = b"drop_";

fn print_device(status: &Status, out: &mut Vec<u8>) -> io::Result<()> {
    if let Some(version) = &status.version {
        writeln!(out, "version={version}")?;
    }
    if let Some(started) = status.started {
        writeln!(out, "started_sec={}", started.secs)?;
    }
    if let Some(up) = status.up {
        writeln!(out, "up={up}")?;
    }
    if let Some(errno) = status.bind_error {
        writeln!(out, "bind_error={errno}")?;
    }
    if status.listen_port != 0 {
        writeln!(out, "listen_port={}", status.listen_port)?;
    }
    if status.fwmark != 0 {
        writeln!(out, "fwmark={}", status.fwmark)?;
    }
    if let Some(inode) = status.link_netns {
        writeln!(out, "link_netns={inode}")?;
    }
    if let Some(inode) = status.socket_netns {
        writeln!(out, "socket_netns={inode}")?;
    }
    if let Some(offloads) = &status.offloads {
        writeln!(out, "offloads={offloads}")?;
    }
    if let Some(aead) = &status.aead {
        writeln!(out, "aead={aead}")?;
    }
    if let Some(workers) = status.workers {
        writeln!(out, "workers={workers}")?;
    }
    if let Some(under_load) = status.under_load {
        writeln!(out, "under_load={under_load}")?;
    }
    if let Some(nat) = status.nat {
        writeln!(out, "nat={}", nat.as_str())?;
    }
    for (name, packets) in &status.drops {
        writeln!(out, "drop_{name}={packets}")?;
    }
    refusals::print(&status.refusals, out)
}

impl ReplyContent for Status {
    const STEP: usize = 8192;

    /// After the lines of the interface, each step is a pair.
    fn print_device(&self, step: usize, out: &mut Vec<u8>) -> io::Result<bool> {
        match step.checked_sub(1) {
            None => print_device(self, out)?,
            Some(pair) => match self.pairs.get(pair) {
                Some(pair) => pair::print(pair, out)?,
                None => return Ok(false),
            },
        }
        Ok(true)
    }

    fn print_peer(&self, peer: usize, out: &mut Vec<u8>) -> io::Result<()> {
        peer::print(&self.peers[peer], out)
    }

    fn allowed_ips(&self, peer: usize) -> Option<&[AllowedIp]> {
        Some(&self.peers.get(peer)?.peer.allowed_ips)
    }

    fn begin_peer(&mut self, key: PublicKey) {
        self.peers.push(PeerStatus::new(Peer::new(key)));
    }

    fn line(&mut self, key: &[u8], value: &str) -> Result<(), &'static str> {
        match self.peers.last_mut() {
            None => device_line(self, key, value),
            Some(peer) => peer::read(peer, key, value),
        }
    }
}

fn device_line(status: &mut Status, key: &[u8], value: &str) -> Result<(), &'static str> {
    let text = || Some(value.to_owned());
    match key {
        b"version" => fill(&mut status.version, text(), "version"),
        b"started_sec" => {
            let started = number(value).map(|secs| Wall { secs, nanos: 0 });
            fill(&mut status.started, started, "started_sec")
        }
        b"up" => fill(&mut status.up, value.parse().ok(), "up"),
        b"bind_error" => fill(&mut status.bind_error, number(value), "bind_error"),
        b"listen_port" => store(&mut status.listen_port, number(value), "listen_port"),
        b"fwmark" => store(&mut status.fwmark, number(value), "fwmark"),
        b"link_netns" => fill(&mut status.link_netns, number(value), "link_netns"),
        b"socket_netns" => fill(&mut status.socket_netns, number(value), "socket_netns"),
        b"offloads" => fill(&mut status.offloads, text(), "offloads"),
        b"aead" => fill(&mut status.aead, text(), "aead"),
        b"workers" => fill(&mut status.workers, number(value), "workers"),
        b"under_load" => fill(&mut status.under_load, value.parse().ok(), "under_load"),
        b"nat" => {
            let nat = Nat::WORDS.iter().find(|(_, word)| *word == value);
            fill(&mut status.nat, nat.map(|(nat, _)| *nat), "nat")
        }
        b"refused" => refusals::read(&mut status.refusals, value),
        b"pair" => {
            status.pairs.push(pair::begin(value).ok_or("pair")?);
            Ok(())
        }
        b"pair_tx" => pair::of_last(status, value, "pair_tx", |pair, bytes| {
            pair.tx_bytes = bytes
        }),
        b"pair_rx" => pair::of_last(status, value, "pair_rx", |pair, bytes| {
            pair.rx_bytes = bytes
        }),
        b"pair_last" => pair::of_last(status, value, "pair_last", |pair, millis| {
            pair.age = Duration::from_millis(millis);
        }),
        _ => {
            if let Some(name) = key.strip_prefix(DROP)
                && let Ok(name) = str::from_utf8(name)
            {
                let packets = number(value).ok_or("drop")?;
                status.drops.push((name.to_owned(), packets));
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::arbitrary;
    use super::super::reply::{ReplyError, ReplyParser, ReplyPrinter};
    use super::*;
    use crate::model::status::{HubStatus, PairStatus, PathStatus, Refusal, Refused, Unanswered};
    use proptest::prelude::*;

    fn print(status: &Status) -> String {
        let mut out = Vec::new();
        let mut printer = ReplyPrinter::new(status);
        while printer.print(&mut out, usize::MAX) {}
        String::from_utf8(out).unwrap()
    }

    fn parse(text: &str) -> Result<Status, ReplyError> {
        let mut parser = ReplyParser::<Status>::default();
        for line in text.lines().take_while(|line| !line.is_empty()) {
            parser.line(line.as_bytes())?;
        }
        parser.finish()
    }

    /// A status in which every field is set.
    fn full() -> Status {
        let key = PublicKey::from_bytes([7; 32]);
        let from = "[fe80::1]:9".parse().unwrap();
        let by = "192.0.2.1".parse().unwrap();
        let age = Duration::from_millis(1250);
        let refused = |refusal| Refused { refusal, age };
        let mut peer = PeerStatus::new(Peer {
            endpoint: Some("192.0.2.7:51820".parse().unwrap()),
            tx_bytes: 148,
            ..Peer::new(key)
        });
        peer.peer.extensions.name = "alice".parse().ok();
        peer.peer.extensions.relay = "lab,office".parse().unwrap();
        peer.peer.extensions.hub = true;
        peer.hub = Some(HubStatus {
            heard: Some(age),
            rtt: Some(Duration::from_micros(14_000)),
            sees: Some(from),
            is_mute: true,
        });
        peer.path = Some(PathStatus {
            hub: Some(key),
            other: Some(PublicKey::from_bytes([8; 32])),
            rtt: Some(Duration::from_micros(48_001)),
            speaks: true,
            doubt: Some(age),
        });
        peer.handshakes = Some(5);
        peer.has_preshared_key = true;
        peer.session = Some(false);
        peer.unanswered = Some(Unanswered { count: 3, age });
        peer.unconfirmed = 2;
        peer.refusals = [
            Refusal::PresharedKey,
            Refusal::Timestamp,
            Refusal::NotAllowed {
                source: "10.0.0.9".parse().unwrap(),
            },
            Refusal::UnderLoad,
            Refusal::SendFailed { errno: 101 },
        ]
        .into_iter()
        .chain(refusals::UNREACHABLE.map(|(what, _)| Refusal::Unreachable { what, by }))
        .map(refused)
        .collect();
        Status {
            version: Some("0.1.0".into()),
            started: Some(Wall { secs: 5, nanos: 0 }),
            up: Some(false),
            bind_error: Some(98),
            listen_port: 51820,
            fwmark: 7,
            link_netns: Some(1),
            socket_netns: Some(2),
            offloads: Some("tso,gro".into()),
            aead: Some("ChaCha20-Poly1305 by AWS-LC".into()),
            workers: Some(2),
            under_load: Some(true),
            nat: Some(Nat::Hard),
            drops: vec![("wrong_mac1".into(), 3)],
            refusals: vec![
                refused(Refusal::OtherKey { from }),
                refused(Refusal::UnknownKey { from, key }),
            ],
            pairs: vec![
                PairStatus {
                    keys: [key, PublicKey::from_bytes([8; 32])],
                    tx_bytes: u64::MAX,
                    rx_bytes: 5,
                    age,
                };
                2
            ],
            peers: vec![peer, PeerStatus::new(Peer::new(key))],
        }
    }

    #[test]
    fn printed_statuses_read_back() {
        let status = full();
        assert_eq!(parse(&print(&status)), Ok(status));
    }

    #[test]
    fn unknown_lines_are_ignored() {
        let text = "up=true\nroute=relay\npublic_key=".to_owned()
            + &"07".repeat(32)
            + "\nwhy=hard-nat\nrefused=5 tomorrow 1 2 3\nname=bob\nerrno=0\n\n";
        let status = parse(&text).unwrap();
        assert_eq!(status.up, Some(true));
        let peer = &status.peers[0];
        assert_eq!((peer.name(), peer.refusals.len()), (Some("bob"), 0));
    }

    #[test]
    fn invalid_values_of_known_keys_are_refused() {
        let key = format!("public_key={}\n", "07".repeat(32));
        for (text, key) in [
            ("up=maybe\n".to_owned(), "up"),
            ("drop_wrong_mac1=-1\n".to_owned(), "drop"),
            ("refused=soon timestamp\n".to_owned(), "refused"),
            ("pair=07\n".to_owned(), "pair"),
            ("pair_tx=\n".to_owned(), "pair_tx"),
            (key.clone() + "unanswered=3\n", "unanswered"),
            (key.clone() + "refused=1 not-allowed\n", "refused"),
            (key + "refused=1 unreachable port\n", "refused"),
        ] {
            let refused = parse(&text).unwrap_err();
            assert!(
                matches!(refused, ReplyError::BadLine { key: bad, .. } if bad == key),
                "{text}: {refused}"
            );
        }
        assert_eq!(parse("up=true\n"), Err(ReplyError::Incomplete));
        assert_eq!(parse("errno=-95\n\n"), Err(ReplyError::Refused(95)));
    }

    proptest! {
        #[test]
        fn no_secret_is_printed(interface in arbitrary::interface()) {
            let secrets: Vec<_> = interface.private_key.iter().map(|key| key.to_hex().to_string())
                .chain(interface.peers.iter().filter(|peer| peer.preshared_key != Default::default())
                    .map(|peer| peer.preshared_key.to_hex().to_string()))
                .collect();
            let status = Status::from(interface);
            let text = print(&status);
            prop_assert!(!secrets.iter().any(|secret| text.contains(secret)));
            prop_assert_eq!(parse(&text), Ok(status));
        }
    }
}
