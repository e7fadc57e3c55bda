//! The output of `show` for scripts: one line per interface or peer, with fields separated by tabs.

use std::io::{self, Write};

use wg_crypto::PrivateKey;

use crate::model::{Interface, Peer};
use crate::sys::numeric::NumericEndpoint;

/// A parameter of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parameter {
    PublicKey,
    PrivateKey,
    ListenPort,
    FwMark,
    Peers,
    PresharedKeys,
    Endpoints,
    AllowedIps,
    LatestHandshakes,
    Transfer,
    PersistentKeepalive,
    Dump,
}

impl Parameter {
    /// All parameters, with their names on the command line.
    pub const ALL: [(&str, Parameter); 12] = [
        ("public-key", Parameter::PublicKey),
        ("private-key", Parameter::PrivateKey),
        ("listen-port", Parameter::ListenPort),
        ("fwmark", Parameter::FwMark),
        ("peers", Parameter::Peers),
        ("preshared-keys", Parameter::PresharedKeys),
        ("endpoints", Parameter::Endpoints),
        ("allowed-ips", Parameter::AllowedIps),
        ("latest-handshakes", Parameter::LatestHandshakes),
        ("transfer", Parameter::Transfer),
        ("persistent-keepalive", Parameter::PersistentKeepalive),
        ("dump", Parameter::Dump),
    ];

    /// The parameter of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        let found = Parameter::ALL.iter().find(|(known, _)| *known == name);
        found.map(|(_, parameter)| *parameter)
    }

    /// Writes the parameter's lines, in the order of the interface. Each begins with `prefix`, if given.
    pub fn print(
        self,
        out: &mut impl Write,
        prefix: Option<&str>,
        interface: &Interface,
    ) -> io::Result<()> {
        match self {
            Parameter::PublicKey
            | Parameter::PrivateKey
            | Parameter::ListenPort
            | Parameter::FwMark => {
                begin(out, prefix)?;
                self.print_of_interface(out, interface)?;
                return writeln!(out);
            }
            Parameter::Dump => {
                begin(out, prefix)?;
                let first = [
                    Parameter::PrivateKey,
                    Parameter::PublicKey,
                    Parameter::ListenPort,
                ];
                for field in first {
                    field.print_of_interface(out, interface)?;
                    write!(out, "\t")?;
                }
                Parameter::FwMark.print_of_interface(out, interface)?;
                writeln!(out)?;
            }
            _ => {}
        }
        for peer in &interface.peers {
            begin(out, prefix)?;
            write!(out, "{}", peer.public_key)?;
            if self == Parameter::Dump {
                let fields = [
                    Parameter::PresharedKeys,
                    Parameter::Endpoints,
                    Parameter::AllowedIps,
                    Parameter::LatestHandshakes,
                    Parameter::Transfer,
                    Parameter::PersistentKeepalive,
                ];
                for field in fields {
                    field.print_of_peer(out, peer, ',')?;
                }
            } else {
                self.print_of_peer(out, peer, ' ')?;
            }
            writeln!(out)?;
        }
        Ok(())
    }

    fn print_of_interface(self, out: &mut impl Write, interface: &Interface) -> io::Result<()> {
        let key = interface.private_key.as_ref();
        match self {
            Parameter::PublicKey => write!(out, "{}", or_none(key.map(PrivateKey::public_key))),
            Parameter::PrivateKey => match key {
                Some(key) => write!(out, "{}", *key.to_base64()),
                None => write!(out, "(none)"),
            },
            Parameter::ListenPort => write!(out, "{}", interface.listen_port),
            Parameter::FwMark if interface.fwmark == 0 => write!(out, "off"),
            Parameter::FwMark => write!(out, "{:#x}", interface.fwmark),
            _ => Ok(()),
        }
    }

    /// Writes a tab and the value. Allowed IPs are separated by `separator`.
    fn print_of_peer(self, out: &mut impl Write, peer: &Peer, separator: char) -> io::Result<()> {
        match self {
            Parameter::PresharedKeys if peer.preshared_key.is_zero() => write!(out, "\t(none)"),
            Parameter::PresharedKeys => write!(out, "\t{}", *peer.preshared_key.to_base64()),
            Parameter::Endpoints => {
                write!(out, "\t{}", or_none(peer.endpoint.map(NumericEndpoint)))
            }
            Parameter::AllowedIps if peer.allowed_ips.is_empty() => write!(out, "\t(none)"),
            Parameter::AllowedIps => {
                for (n, ip) in peer.allowed_ips.iter().enumerate() {
                    write!(out, "{}{ip}", if n == 0 { '\t' } else { separator })?;
                }
                Ok(())
            }
            Parameter::LatestHandshakes => {
                write!(out, "\t{}", peer.last_handshake.unwrap_or_default().secs)
            }
            Parameter::Transfer => write!(out, "\t{}\t{}", peer.rx_bytes, peer.tx_bytes),
            Parameter::PersistentKeepalive if peer.persistent_keepalive == 0 => {
                write!(out, "\toff")
            }
            Parameter::PersistentKeepalive => write!(out, "\t{}", peer.persistent_keepalive),
            _ => Ok(()),
        }
    }
}

fn begin(out: &mut impl Write, prefix: Option<&str>) -> io::Result<()> {
    match prefix {
        Some(prefix) => write!(out, "{prefix}\t"),
        None => Ok(()),
    }
}

fn or_none(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "(none)".into(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AllowedIp, Wall};
    use wg_crypto::{PresharedKey, PublicKey};

    const ONE: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
    const TWO: &str = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";
    const PSK: &str = "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=";

    fn interface() -> Interface {
        let mut peer = Peer::new(PublicKey::from_bytes([2; 32]));
        peer.preshared_key = PresharedKey::from_bytes([3; 32]);
        peer.endpoint = Some("192.0.2.1:7".parse().unwrap());
        peer.last_handshake = Some(Wall { secs: 12, nanos: 5 });
        (peer.rx_bytes, peer.tx_bytes) = (5, 6);
        peer.persistent_keepalive = 25;
        for cidr in [8, 32] {
            let ip = AllowedIp::new("10.0.0.0".parse().unwrap(), cidr);
            peer.allowed_ips.push(ip.unwrap());
        }
        Interface {
            listen_port: 7,
            fwmark: 255,
            peers: vec![Peer::new(PublicKey::from_bytes([1; 32])), peer],
            ..Interface::default()
        }
    }

    fn shown(name: &str, prefix: Option<&str>, interface: &Interface) -> String {
        let mut out = Vec::new();
        let parameter = Parameter::of_name(name).unwrap();
        parameter.print(&mut out, prefix, interface).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_parameter() {
        for (name, text) in [
            ("public-key", "(none)\n".into()),
            ("private-key", "(none)\n".into()),
            ("listen-port", "7\n".into()),
            ("fwmark", "0xff\n".into()),
            ("peers", format!("{ONE}\n{TWO}\n")),
            ("preshared-keys", format!("{ONE}\t(none)\n{TWO}\t{PSK}\n")),
            ("endpoints", format!("{ONE}\t(none)\n{TWO}\t192.0.2.1:7\n")),
            (
                "allowed-ips",
                format!("{ONE}\t(none)\n{TWO}\t10.0.0.0/8 10.0.0.0/32\n"),
            ),
            ("latest-handshakes", format!("{ONE}\t0\n{TWO}\t12\n")),
            ("transfer", format!("{ONE}\t0\t0\n{TWO}\t5\t6\n")),
            ("persistent-keepalive", format!("{ONE}\toff\n{TWO}\t25\n")),
            (
                "dump",
                format!(
                    "(none)\t(none)\t7\t0xff\n{ONE}\t(none)\t(none)\t(none)\t0\t0\t0\toff\n\
                     {TWO}\t{PSK}\t192.0.2.1:7\t10.0.0.0/8,10.0.0.0/32\t12\t5\t6\t25\n"
                ),
            ),
        ] {
            assert_eq!(shown(name, None, &interface()), text, "{name}");
            let prefixed: String = text.lines().map(|line| format!("wg0\t{line}\n")).collect();
            assert_eq!(shown(name, Some("wg0"), &interface()), prefixed, "{name}");
        }
        assert_eq!(Parameter::of_name("Dump"), None);
    }

    #[test]
    fn keys_and_empty_values() {
        let interface = Interface {
            private_key: Some(PrivateKey::from_bytes([1; 32])),
            ..Interface::default()
        };
        let key = interface.private_key.as_ref().unwrap();
        let (private, public) = (key.to_base64(), key.public_key());
        assert_eq!(
            shown("private-key", None, &interface),
            format!("{}\n", *private)
        );
        assert_eq!(shown("public-key", None, &interface), format!("{public}\n"));
        assert_eq!(
            shown("dump", None, &interface),
            format!("{}\t{public}\t0\toff\n", *private)
        );
        assert_eq!(shown("peers", None, &interface), "");
    }
}
