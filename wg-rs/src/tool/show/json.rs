//! The output of `show --json`, with the fields of wireguard-tools' JSON script. Absent values are
//! left out, and so are secret keys unless they may be shown.

use std::fmt::Display;
use std::io::{self, Write};

use serde::ser::{Serialize, SerializeMap, Serializer};
use zeroize::Zeroizing;

use super::terminal::reveals_keys;
use crate::model::{Interface, Peer};
use crate::sys::numeric::NumericEndpoint;
use crate::tool::json::{JsonLayout, write};

/// Writes one object that contains all interfaces by name, and a newline.
pub(super) fn print(
    out: &mut impl Write,
    all: &[(String, Interface)],
    layout: JsonLayout,
) -> io::Result<()> {
    let all = All {
        interfaces: all,
        reveal_keys: reveals_keys(),
    };
    write(out, &all, layout)
}

struct All<'a> {
    interfaces: &'a [(String, Interface)],
    reveal_keys: bool,
}

impl Serialize for All<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.interfaces.iter().map(|(name, interface)| {
            let interface = InterfaceFields {
                interface,
                reveal_keys: self.reveal_keys,
            };
            (name, interface)
        }))
    }
}

struct InterfaceFields<'a> {
    interface: &'a Interface,
    reveal_keys: bool,
}

impl Serialize for InterfaceFields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Interface {
            private_key,
            listen_port,
            fwmark,
            peers,
        } = self.interface;
        let mut map = serializer.serialize_map(None)?;
        if let Some(key) = private_key {
            if self.reveal_keys {
                map.serialize_entry("privateKey", &Secret(key.to_base64()))?;
            }
            map.serialize_entry("publicKey", &Text(key.public_key()))?;
        }
        if *listen_port != 0 {
            map.serialize_entry("listenPort", listen_port)?;
        }
        if *fwmark != 0 {
            map.serialize_entry("fwmark", fwmark)?;
        }
        map.serialize_entry("peers", &Peers(peers, self.reveal_keys))?;
        map.end()
    }
}

struct Peers<'a>(&'a [Peer], bool);

impl Serialize for Peers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Peers(peers, reveal_keys) = *self;
        serializer.collect_map(
            peers
                .iter()
                .map(|peer| (Text(peer.public_key), PeerFields { peer, reveal_keys })),
        )
    }
}

struct PeerFields<'a> {
    peer: &'a Peer,
    reveal_keys: bool,
}

impl Serialize for PeerFields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let peer = self.peer;
        let mut map = serializer.serialize_map(None)?;
        if self.reveal_keys && !peer.preshared_key.is_zero() {
            map.serialize_entry("presharedKey", &Secret(peer.preshared_key.to_base64()))?;
        }
        if let Some(endpoint) = peer.endpoint {
            map.serialize_entry("endpoint", &Text(NumericEndpoint(endpoint)))?;
        }
        let numbers = [
            (
                "latestHandshake",
                peer.last_handshake.map_or(0, |last| last.secs),
            ),
            ("transferRx", peer.rx_bytes),
            ("transferTx", peer.tx_bytes),
            ("persistentKeepalive", peer.persistent_keepalive.into()),
        ];
        for (field, number) in numbers {
            if number != 0 {
                map.serialize_entry(field, &number)?;
            }
        }
        let allowed_ips: Vec<_> = peer.allowed_ips.iter().map(Text).collect();
        map.serialize_entry("allowedIps", &allowed_ips)?;
        map.end()
    }
}

struct Text<T>(T);

impl<T: Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

struct Secret(Zeroizing<String>);

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AllowedIp, Wall};
    use wg_crypto::{PresharedKey, PrivateKey, PublicKey};

    fn shown(interfaces: &[(String, Interface)], reveal_keys: bool) -> String {
        let mut out = Vec::new();
        let all = All {
            interfaces,
            reveal_keys,
        };
        write(&mut out, &all, JsonLayout::Lines).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_fields_of_wg_json() {
        assert_eq!(shown(&[], false), "{}\n");
        let key = PrivateKey::from_bytes([1; 32]);
        let mut peer = Peer::new(PublicKey::from_bytes([2; 32]));
        peer.preshared_key = PresharedKey::from_bytes([3; 32]);
        peer.endpoint = Some("[::1]:7".parse().unwrap());
        peer.last_handshake = Some(Wall { secs: 12, nanos: 5 });
        (peer.rx_bytes, peer.tx_bytes) = (5, 6);
        peer.persistent_keepalive = 25;
        let ip = AllowedIp::new("10.0.0.0".parse().unwrap(), 8);
        peer.allowed_ips.push(ip.unwrap());
        let interface = Interface {
            private_key: Some(key.clone()),
            listen_port: 7,
            fwmark: 255,
            peers: vec![peer, Peer::new(PublicKey::from_bytes([4; 32]))],
        };
        let all = [
            ("wg0".into(), interface),
            ("wg1".into(), Interface::default()),
        ];
        let text = format!(
            r#"{{
	"wg0": {{
		"privateKey": "{}",
		"publicKey": "{}",
		"listenPort": 7,
		"fwmark": 255,
		"peers": {{
			"AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=": {{
				"presharedKey": "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=",
				"endpoint": "[::1]:7",
				"latestHandshake": 12,
				"transferRx": 5,
				"transferTx": 6,
				"persistentKeepalive": 25,
				"allowedIps": [
					"10.0.0.0/8"
				]
			}},
			"BAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQ=": {{
				"allowedIps": []
			}}
		}}
	}},
	"wg1": {{
		"peers": {{}}
	}}
}}
"#,
            *key.to_base64(),
            key.public_key()
        );
        assert_eq!(shown(&all, true), text);
        let hidden: String = text
            .split_inclusive('\n')
            .filter(|line| !line.contains("privateKey") && !line.contains("presharedKey"))
            .collect();
        assert_eq!(shown(&all, false), hidden);
    }
}
