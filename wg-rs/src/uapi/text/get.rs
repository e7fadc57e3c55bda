//! The reply to `get`: converts an interface to lines and back.

use std::io::{self, Write};

use wg_crypto::{PresharedKey, PrivateKey, PublicKey};

use super::reply::{ReplyContent, ReplyError, ReplyParser, store};
use super::set::allowed_ip;
use crate::model::{AllowedIp, Interface, Peer};

fn print_device(interface: &Interface, out: &mut Vec<u8>) -> io::Result<()> {
    if let Some(key) = &interface.private_key {
        writeln!(out, "private_key={}", *key.to_hex())?;
    }
    if interface.listen_port != 0 {
        writeln!(out, "listen_port={}", interface.listen_port)?;
    }
    if interface.fwmark != 0 {
        writeln!(out, "fwmark={}", interface.fwmark)?;
    }
    Ok(())
}

fn print_peer(peer: &Peer, out: &mut Vec<u8>) -> io::Result<()> {
    writeln!(out, "public_key={}", peer.public_key.to_hex())?;
    writeln!(out, "preshared_key={}", *peer.preshared_key.to_hex())?;
    writeln!(out, "protocol_version=1")?;
    print_state(peer, out)
}

/// Prints a peer's endpoint, counters and keepalive interval, without keys and networks.
pub(super) fn print_state(peer: &Peer, out: &mut Vec<u8>) -> io::Result<()> {
    if let Some(endpoint) = peer.endpoint {
        writeln!(out, "endpoint={endpoint}")?;
    }
    let last = peer.last_handshake.unwrap_or_default();
    writeln!(out, "last_handshake_time_sec={}", last.secs)?;
    writeln!(out, "last_handshake_time_nsec={}", last.nanos)?;
    writeln!(out, "tx_bytes={}", peer.tx_bytes)?;
    writeln!(out, "rx_bytes={}", peer.rx_bytes)?;
    writeln!(
        out,
        "persistent_keepalive_interval={}",
        peer.persistent_keepalive
    )
}

/// The content of a reply to `get`, or of a reply to `set`, which has only an errno.
impl ReplyContent for Interface {
    const STEP: usize = 512;

    fn print_device(&self, step: usize, out: &mut Vec<u8>) -> io::Result<bool> {
        if step == 0 {
            print_device(self, out)?;
        }
        Ok(step == 0)
    }

    fn print_peer(&self, peer: usize, out: &mut Vec<u8>) -> io::Result<()> {
        print_peer(&self.peers[peer], out)
    }

    fn allowed_ips(&self, peer: usize) -> Option<&[AllowedIp]> {
        Some(&self.peers.get(peer)?.allowed_ips)
    }

    fn begin_peer(&mut self, key: PublicKey) {
        self.peers.push(Peer::new(key));
    }

    fn line(&mut self, key: &[u8], value: &str) -> Result<(), &'static str> {
        match self.peers.last_mut() {
            None => device_line(self, key, value),
            Some(peer) => peer_line(peer, key, value),
        }
    }
}

fn device_line(device: &mut Interface, key: &[u8], value: &str) -> Result<(), &'static str> {
    match key {
        b"private_key" => {
            let key = PrivateKey::from_hex(value).map_err(|_| "private_key")?;
            device.private_key = (!key.is_zero()).then_some(key);
            Ok(())
        }
        b"listen_port" => store(&mut device.listen_port, super::number(value), "listen_port"),
        b"fwmark" => store(&mut device.fwmark, super::number(value), "fwmark"),
        _ => Ok(()),
    }
}

pub(super) fn peer_line(peer: &mut Peer, key: &[u8], value: &str) -> Result<(), &'static str> {
    match key {
        b"preshared_key" => store(
            &mut peer.preshared_key,
            PresharedKey::from_hex(value).ok(),
            "preshared_key",
        ),
        b"endpoint" => {
            peer.endpoint = Some(super::endpoint(value).ok_or("endpoint")?);
            Ok(())
        }
        b"last_handshake_time_sec" => {
            let secs: u64 = super::number(value).ok_or("last_handshake_time_sec")?;
            if secs != 0 {
                peer.last_handshake.get_or_insert_default().secs = secs;
            }
            Ok(())
        }
        b"last_handshake_time_nsec" => {
            let nanos = super::number(value).filter(|n| *n < 1_000_000_000);
            let nanos = nanos.ok_or("last_handshake_time_nsec")?;
            if nanos != 0 {
                peer.last_handshake.get_or_insert_default().nanos = nanos;
            }
            Ok(())
        }
        b"tx_bytes" => store(&mut peer.tx_bytes, super::number(value), "tx_bytes"),
        b"rx_bytes" => store(&mut peer.rx_bytes, super::number(value), "rx_bytes"),
        b"persistent_keepalive_interval" => {
            let secs = super::number(value);
            store(
                &mut peer.persistent_keepalive,
                secs,
                "persistent_keepalive_interval",
            )
        }
        b"allowed_ip" => {
            peer.allowed_ips
                .push(allowed_ip(value).ok_or("allowed_ip")?);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Reads a complete reply, including its empty line.
///
/// # Errors
/// [`ReplyError`].
pub fn parse_get(text: &[u8]) -> Result<Interface, ReplyError> {
    let mut parser = ReplyParser::<Interface>::default();
    let mut lines = text.split_inclusive(|b| *b == b'\n');
    loop {
        match lines.next().and_then(|line| line.strip_suffix(b"\n")) {
            Some([]) => return parser.finish(),
            Some(line) => parser.line(line)?,
            None => return Err(ReplyError::Incomplete),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Wall;
    use crate::uapi::text::ReplyPrinter;
    use proptest::prelude::*;

    fn print(interface: &Interface, enough: usize) -> Vec<u8> {
        let mut whole = Vec::new();
        let mut piece = Vec::with_capacity(enough + Interface::STEP);
        let mut printer = ReplyPrinter::new(interface);
        let mut more = true;
        while more {
            more = printer.print(&mut piece, enough);
            assert!(piece.len() < enough + Interface::STEP);
            whole.append(&mut piece);
        }
        whole
    }

    #[test]
    fn output_has_wireguard_gos_order() {
        assert_eq!(print(&Interface::default(), 1), b"errno=0\n\n");
        let key = "60".repeat(32);
        let interface = Interface {
            private_key: Some(PrivateKey::from_hex(&key).unwrap()),
            listen_port: 7001,
            fwmark: 0xca6c,
            peers: vec![
                Peer {
                    endpoint: Some("[fe80::1%3]:7002".parse().unwrap()),
                    last_handshake: Some(Wall {
                        secs: 1_700_000_000,
                        nanos: 5,
                    }),
                    tx_bytes: u64::MAX,
                    rx_bytes: 1,
                    persistent_keepalive: 25,
                    allowed_ips: vec![
                        AllowedIp::new("10.0.0.2".parse().unwrap(), 32).unwrap(),
                        AllowedIp::new("::".parse().unwrap(), 0).unwrap(),
                    ],
                    ..Peer::new(PublicKey::from_bytes([1; 32]))
                },
                Peer::new(PublicKey::from_bytes([2; 32])),
            ],
        };
        let expected = format!(
            "private_key={key}\nlisten_port=7001\nfwmark=51820\n\
             public_key={}\npreshared_key={zero}\nprotocol_version=1\n\
             endpoint=[fe80::1%3]:7002\n\
             last_handshake_time_sec=1700000000\nlast_handshake_time_nsec=5\n\
             tx_bytes=18446744073709551615\nrx_bytes=1\npersistent_keepalive_interval=25\n\
             allowed_ip=10.0.0.2/32\nallowed_ip=::/0\n\
             public_key={}\npreshared_key={zero}\nprotocol_version=1\n\
             last_handshake_time_sec=0\nlast_handshake_time_nsec=0\n\
             tx_bytes=0\nrx_bytes=0\npersistent_keepalive_interval=0\n\
             errno=0\n\n",
            "01".repeat(32),
            "02".repeat(32),
            zero = "0".repeat(64),
        );
        assert_eq!(
            String::from_utf8(print(&interface, 1 << 16)).unwrap(),
            expected
        );
    }

    #[test]
    fn unusable_replies_are_errors() {
        let refused = |text: &str| parse_get(text.as_bytes()).unwrap_err();
        assert_eq!(refused("errno=98\n\n"), ReplyError::Refused(98));
        assert_eq!(refused("fwmark=1\nerrno=-98\n\n"), ReplyError::Refused(98));
        assert_eq!(
            ReplyError::Refused(98).to_string(),
            "Address already in use (os error 98)"
        );
        for text in [
            "",
            "\n",
            "fwmark=1\n",
            "fwmark=1\n\n",
            "errno=0",
            "errno=0\n",
        ] {
            assert_eq!(refused(text), ReplyError::Incomplete, "{text:?}");
        }
        let peer = format!("public_key={:064}\n", 0);
        for (line, key) in [
            ("nothing", "line"),
            ("errno=", "errno"),
            ("errno=--1", "errno"),
            ("errno=4294967296", "errno"),
            ("public_key=00", "public_key"),
            ("preshared_key=", "preshared_key"),
            ("endpoint=nowhere", "endpoint"),
            ("last_handshake_time_sec=-1", "last_handshake_time_sec"),
            (
                "last_handshake_time_nsec=1000000000",
                "last_handshake_time_nsec",
            ),
            ("tx_bytes=18446744073709551616", "tx_bytes"),
            ("rx_bytes=1k", "rx_bytes"),
            (
                "persistent_keepalive_interval=65536",
                "persistent_keepalive_interval",
            ),
            ("allowed_ip=1.1.1.1", "allowed_ip"),
        ] {
            let text = format!("{peer}{line}\nerrno=0\n\n");
            assert_eq!(
                refused(&text),
                ReplyError::BadLine { line: 2, key },
                "{line}"
            );
        }
        for (line, key) in [
            ("private_key=1", "private_key"),
            ("listen_port=a", "listen_port"),
            ("fwmark=", "fwmark"),
        ] {
            assert_eq!(
                refused(&format!("{line}\n")),
                ReplyError::BadLine { line: 1, key }
            );
        }
    }

    #[test]
    fn unknown_and_misplaced_keys_are_ignored() {
        let text = format!(
            "colour=red\nrx_bytes=x\nfwmark=7\npublic_key={:064}\nfwmark=x\nmood=\n\
             last_handshake_time_nsec=3\nerrno=0\n\n",
            0
        );
        let interface = parse_get(text.as_bytes()).unwrap();
        assert_eq!(interface.fwmark, 7);
        assert_eq!(
            interface.peers[0].last_handshake,
            Some(Wall { secs: 0, nanos: 3 })
        );
        let none = format!("private_key={:064}\nerrno=0\n\n", 0);
        assert_eq!(parse_get(none.as_bytes()), Ok(Interface::default()));
    }

    proptest! {
        #[test]
        fn printed_interfaces_read_back(
            interface in super::super::arbitrary::interface(),
            enough in 1usize..3000,
        ) {
            prop_assert_eq!(parse_get(&print(&interface, enough)), Ok(interface));
        }

        #[test]
        fn arbitrary_bytes_cause_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_get(&bytes);
        }
    }
}
