//! The output of `show` for people.

use std::cmp::Reverse;
use std::fmt::Display;
use std::io::{self, Write};

use super::rates::Rates;
use super::terminal::{BOLD, CYAN, GREEN, RED, RESET, Styled, YELLOW, reveals_keys};
use crate::model::{Interface, Peer, Wall};
use crate::sys::numeric::{NumericEndpoint, NumericIp};
use crate::units::size;

/// Units of time in seconds, with their names in the singular. A year has 365 days.
const UNITS: [(u64, &str); 5] = [
    (365 * 24 * 60 * 60, "year"),
    (24 * 60 * 60, "day"),
    (60 * 60, "hour"),
    (60, "minute"),
    (1, "second"),
];

/// The settings of the output.
pub(super) struct Pretty<'a> {
    colour: bool,
    reveal_keys: bool,
    /// The current time, in seconds since 1970.
    now: u64,
    /// The transfer rates, if they are known.
    pub rates: Option<&'a Rates>,
}

impl Pretty<'_> {
    /// Uses the current time and no rates. The environment decides whether keys are shown.
    pub fn new(colour: bool) -> Self {
        Pretty {
            colour,
            reveal_keys: reveals_keys(),
            now: Wall::now().secs,
            rates: None,
        }
    }

    /// Writes an interface and its peers, of which the one with the latest handshake comes first.
    pub fn print(&self, out: &mut impl Write, name: &str, interface: &Interface) -> io::Result<()> {
        if self.colour {
            write!(out, "{RESET}")?;
        }
        let heading = self.style(&[GREEN, BOLD], "interface");
        writeln!(out, "{heading}: {}", self.style(&[GREEN], name))?;
        if let Some(key) = &interface.private_key {
            self.line(out, "public key", key.public_key())?;
            self.secret(out, "private key", &key.to_base64())?;
        }
        if interface.listen_port != 0 {
            self.line(out, "listening port", interface.listen_port)?;
        }
        if interface.fwmark != 0 {
            self.line(out, "fwmark", format_args!("{:#x}", interface.fwmark))?;
        }
        let mut peers: Vec<&Peer> = interface.peers.iter().collect();
        peers.sort_by_key(|peer| Reverse(peer.last_handshake));
        for peer in peers {
            writeln!(out)?;
            self.peer(out, name, peer)?;
        }
        Ok(())
    }

    fn peer(&self, out: &mut impl Write, interface: &str, peer: &Peer) -> io::Result<()> {
        let heading = self.style(&[YELLOW, BOLD], "peer");
        writeln!(out, "{heading}: {}", self.style(&[YELLOW], peer.public_key))?;
        if !peer.preshared_key.is_zero() {
            self.secret(out, "preshared key", &peer.preshared_key.to_base64())?;
        }
        if let Some(endpoint) = peer.endpoint {
            self.line(out, "endpoint", NumericEndpoint(endpoint))?;
        }
        write!(out, "  {}: ", self.style(&[BOLD], "allowed ips"))?;
        let slash = self.style(&[CYAN], "/");
        for (n, ip) in peer.allowed_ips.iter().enumerate() {
            let comma = if n == 0 { "" } else { ", " };
            write!(out, "{comma}{}{slash}{}", NumericIp(ip.addr), ip.cidr)?;
        }
        writeln!(
            out,
            "{}",
            if peer.allowed_ips.is_empty() {
                "(none)"
            } else {
                ""
            }
        )?;
        if let Some(last) = peer.last_handshake.filter(|last| last.secs != 0) {
            self.line(out, "latest handshake", self.ago(last.secs))?;
        }
        let Peer {
            rx_bytes, tx_bytes, ..
        } = *peer;
        if rx_bytes != 0 || tx_bytes != 0 {
            let (rx, tx) = (self.bytes(rx_bytes), self.bytes(tx_bytes));
            self.line(out, "transfer", format_args!("{rx} received, {tx} sent"))?;
        }
        if let Some(rate) = self.rates.and_then(|rates| rates.of(interface, peer)) {
            let (rx, tx) = (self.bytes(rate.rx), self.bytes(rate.tx));
            self.line(out, "rate", format_args!("{rx}/s received, {tx}/s sent"))?;
        }
        if peer.persistent_keepalive != 0 {
            let every = self.duration(peer.persistent_keepalive.into());
            self.line(out, "persistent keepalive", format_args!("every {every}"))?;
        }
        Ok(())
    }

    fn line(&self, out: &mut impl Write, label: &str, value: impl Display) -> io::Result<()> {
        writeln!(out, "  {}: {value}", self.style(&[BOLD], label))
    }

    fn secret(&self, out: &mut impl Write, label: &str, key: &str) -> io::Result<()> {
        self.line(out, label, if self.reveal_keys { key } else { "(hidden)" })
    }

    fn style<'s, T>(&self, codes: &'s [&'static str], text: T) -> Styled<'s, T> {
        Styled {
            colour: self.colour,
            codes,
            text,
        }
    }

    /// The time since `then`, which is in seconds since 1970.
    fn ago(&self, then: u64) -> String {
        match self.now.checked_sub(then) {
            Some(0) => "Now".into(),
            Some(seconds) => self.duration(seconds) + " ago",
            None => {
                let warning = "System clock wound backward; connection problems may ensue.";
                format!("({})", self.style(&[RED], warning))
            }
        }
    }

    /// A duration in words; empty for zero seconds.
    fn duration(&self, mut seconds: u64) -> String {
        let mut parts = Vec::new();
        for (length, name) in UNITS {
            let count = seconds / length;
            seconds %= length;
            let plural = if count == 1 { "" } else { "s" };
            if count != 0 {
                let unit = self.style(&[CYAN], [name, plural].concat());
                parts.push(format!("{count} {unit}"));
            }
        }
        parts.join(", ")
    }

    fn bytes(&self, bytes: u64) -> String {
        let (number, unit) = size(bytes, 2);
        format!("{number} {}", self.style(&[CYAN], unit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wg_crypto::{PresharedKey, PrivateKey, PublicKey};

    fn plain() -> Pretty<'static> {
        Pretty {
            colour: false,
            reveal_keys: false,
            now: 1_000_000_000,
            rates: None,
        }
    }

    fn coloured() -> Pretty<'static> {
        Pretty {
            colour: true,
            ..plain()
        }
    }

    fn shown(pretty: &Pretty, interface: &Interface) -> String {
        let mut out = Vec::new();
        pretty.print(&mut out, "wg0", interface).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// An interface that has every setting.
    fn full() -> Interface {
        let mut peer = Peer::new(PublicKey::from_bytes([2; 32]));
        peer.preshared_key = PresharedKey::from_bytes([3; 32]);
        peer.endpoint = Some("[::1]:7002".parse().unwrap());
        peer.last_handshake = Some(Wall {
            secs: 1_000_000_000 - 63,
            nanos: 5,
        });
        (peer.rx_bytes, peer.tx_bytes) = (1536, 4);
        peer.persistent_keepalive = 25;
        peer.allowed_ips = ["10.9.0.2/32", "fd09::2/128"]
            .map(|ip| {
                let (addr, cidr) = ip.split_once('/').unwrap();
                crate::model::AllowedIp::new(addr.parse().unwrap(), cidr.parse().unwrap()).unwrap()
            })
            .to_vec();
        Interface {
            private_key: Some(PrivateKey::from_bytes([1; 32])),
            listen_port: 7001,
            fwmark: 51820,
            peers: vec![Peer::new(PublicKey::from_bytes([4; 32])), peer],
        }
    }

    #[test]
    fn every_setting_is_shown() {
        let interface = full();
        let text = "\
interface: wg0
  public key: pOCSkraZrzBp8d7bfyIpe7Z4SIY6tATyc3rENMYR9Rw=
  private key: (hidden)
  listening port: 7001
  fwmark: 0xca6c

peer: AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=
  preshared key: (hidden)
  endpoint: [::1]:7002
  allowed ips: 10.9.0.2/32, fd09::2/128
  latest handshake: 1 minute, 3 seconds ago
  transfer: 1.50 KiB received, 4 B sent
  persistent keepalive: every 25 seconds

peer: BAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQ=
  allowed ips: (none)
";
        let key = interface.private_key.as_ref().unwrap();
        let public = key.public_key().to_string();
        let text = text.replace("pOCSkraZrzBp8d7bfyIpe7Z4SIY6tATyc3rENMYR9Rw=", &public);
        assert_eq!(shown(&plain(), &interface), text);

        let revealing = Pretty {
            reveal_keys: true,
            ..plain()
        };
        let text = text.replacen("(hidden)", &key.to_base64(), 1).replacen(
            "(hidden)",
            "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=",
            1,
        );
        assert_eq!(shown(&revealing, &interface), text);
    }

    #[test]
    fn an_empty_interface_has_only_a_heading() {
        assert_eq!(shown(&plain(), &Interface::default()), "interface: wg0\n");
    }

    #[test]
    fn colours_are_escape_sequences() {
        let mut interface = full();
        interface.private_key = None;
        interface.peers.remove(0);
        interface.peers[0].preshared_key = PresharedKey::default();
        let text = "\
^[0m^[32m^[1minterface^[0m: ^[32mwg0^[0m
  ^[1mlistening port^[0m: 7001
  ^[1mfwmark^[0m: 0xca6c

^[33m^[1mpeer^[0m: ^[33mAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=^[0m
  ^[1mendpoint^[0m: [::1]:7002
  ^[1mallowed ips^[0m: 10.9.0.2^[36m/^[0m32, fd09::2^[36m/^[0m128
  ^[1mlatest handshake^[0m: 1 ^[36mminute^[0m, 3 ^[36mseconds^[0m ago
  ^[1mtransfer^[0m: 1.50 ^[36mKiB^[0m received, 4 ^[36mB^[0m sent
  ^[1mpersistent keepalive^[0m: every 25 ^[36mseconds^[0m
";
        assert_eq!(shown(&coloured(), &interface).replace('\x1b', "^"), text);
        assert_eq!(
            coloured().ago(2_000_000_000),
            "(\x1b[31mSystem clock wound backward; connection problems may ensue.\x1b[0m)"
        );
    }

    #[test]
    fn the_latest_handshake_comes_first_and_ties_keep_their_order() {
        let at = |n: u8, last: Option<(u64, u32)>| Peer {
            last_handshake: last.map(|(secs, nanos)| Wall { secs, nanos }),
            ..Peer::new(PublicKey::from_bytes([n; 32]))
        };
        let interface = Interface {
            peers: vec![
                at(1, None),
                at(2, Some((5, 1))),
                at(3, Some((6, 0))),
                at(4, Some((5, 2))),
                at(5, None),
                at(6, Some((6, 0))),
            ],
            ..Interface::default()
        };
        let text = shown(&plain(), &interface);
        let order: Vec<u8> = text
            .lines()
            .filter_map(|line| PublicKey::from_base64(line.strip_prefix("peer: ")?).ok())
            .map(|key| key.as_bytes()[0])
            .collect();
        assert_eq!(order, [3, 6, 4, 2, 1, 5]);
    }

    #[test]
    fn times() {
        let day = 24 * 60 * 60;
        for (seconds, text) in [
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "1 minute"),
            (3601, "1 hour, 1 second"),
            (day, "1 day"),
            (65535, "18 hours, 12 minutes, 15 seconds"),
            (
                367 * day + 3 * 3600 + 4 * 60 + 6,
                "1 year, 2 days, 3 hours, 4 minutes, 6 seconds",
            ),
            (2 * 365 * day, "2 years"),
        ] {
            assert_eq!(plain().duration(seconds), text);
            assert_eq!(plain().ago(1_000_000_000 - seconds), format!("{text} ago"));
        }
        assert_eq!(plain().ago(1_000_000_000), "Now");
        assert!(plain().ago(1_000_000_001).starts_with("(System clock"));
    }

    #[test]
    fn sizes() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (1536, "1.50 KiB"),
            (1_048_575, "1024.00 KiB"),
            (1 << 20, "1.00 MiB"),
            (5 << 29, "2.50 GiB"),
            ((1 << 40) - 1, "1024.00 GiB"),
            (1 << 40, "1.00 TiB"),
            (1 << 50, "1024.00 TiB"),
            (u64::MAX, "16777216.00 TiB"),
        ] {
            assert_eq!(plain().bytes(bytes), text);
        }
    }
}
