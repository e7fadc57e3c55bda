//! The body of `set`: converts changes to lines and back.

use std::io::Write;
use std::str;

use nix::errno::Errno;
use wg_crypto::{PresharedKey, PrivateKey, PublicKey};

use crate::model::{AllowedIp, Change, Extension};

/// More lines than a million peers need. It limits the memory that a request can use.
const MAX_CHANGES: usize = 1 << 23;

/// An invalid line of a `set`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct BadLine {
    /// The line; the first one after `set=1` is 1.
    pub line: usize,
    /// What is wrong.
    pub reason: Problem,
}

impl BadLine {
    /// The errno for the reply.
    pub fn errno(&self) -> Errno {
        match self.reason {
            Problem::NotAnAssignment | Problem::TooLong => Errno::EPROTO,
            Problem::UnknownKey | Problem::Misplaced(_) | Problem::BadValue(..) => Errno::EINVAL,
            Problem::TooMany => Errno::ENOMEM,
        }
    }
}

/// What is wrong with a line. The value is not repeated, because it may be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// There is no `=`.
    #[error("not of the form key=value")]
    NotAnAssignment,
    /// The key does not exist, or exists only in `get`.
    #[error("no such key")]
    UnknownKey,
    /// A key of the interface after the first peer, or a key of a peer before the first peer.
    #[error("{0} does not belong in this section")]
    Misplaced(&'static str),
    /// The key, and what its value should be.
    #[error("{0} should be {1}")]
    BadValue(&'static str, &'static str),
    /// Longer than any valid line.
    #[error("line too long")]
    TooLong,
    /// More lines than any configuration has.
    #[error("too many lines")]
    TooMany,
}

/// Collects the changes of a `set` line by line.
#[derive(Default)]
pub struct SetParser {
    changes: Vec<Change>,
    lines: usize,
    in_peer: bool,
}

impl SetParser {
    /// Adds the next line, without its newline. After an error the changes cannot be used.
    ///
    /// # Errors
    /// [`BadLine`].
    pub fn line(&mut self, line: &[u8]) -> Result<(), BadLine> {
        self.lines += 1;
        let change = self.change(line).map_err(|reason| self.bad(reason))?;
        if self.changes.len() == MAX_CHANGES {
            return Err(self.bad(Problem::TooMany));
        }
        self.in_peer |= matches!(change, Change::Peer(_));
        self.changes.push(change);
        Ok(())
    }

    /// The error for a next line that was too long to be kept.
    pub fn too_long(&mut self) -> BadLine {
        self.lines += 1;
        self.bad(Problem::TooLong)
    }

    /// The changes.
    pub fn finish(self) -> Vec<Change> {
        self.changes
    }

    fn bad(&self, reason: Problem) -> BadLine {
        BadLine {
            line: self.lines,
            reason,
        }
    }

    fn change(&self, line: &[u8]) -> Result<Change, Problem> {
        let (key, value) = super::split(line).ok_or(Problem::NotAnAssignment)?;
        let Some(key) = KEYS.iter().find(|k| k.name.as_bytes() == key) else {
            return Err(Problem::UnknownKey);
        };
        if key.of_peer.is_some_and(|of_peer| of_peer != self.in_peer) {
            return Err(Problem::Misplaced(key.name));
        }
        let change = str::from_utf8(value).ok().and_then(key.parse);
        change.ok_or(Problem::BadValue(key.name, key.value))
    }
}

struct Key {
    name: &'static str,
    /// A description of the value, for errors.
    value: &'static str,
    /// Whether the key belongs to a peer or to the interface. None for the key that is allowed in
    /// both sections and begins the next peer.
    of_peer: Option<bool>,
    parse: fn(&str) -> Option<Change>,
}

const HEX: &str = "64 hexadecimal digits";
const TRUE: &str = "true";

/// The keys that a large `set` repeats for each peer come first.
const KEYS: [Key; 16] = [
    Key {
        name: "public_key",
        value: HEX,
        of_peer: None,
        parse: |v| Some(Change::Peer(PublicKey::from_hex(v).ok()?)),
    },
    Key {
        name: "allowed_ip",
        value: "[-]address/cidr",
        of_peer: Some(true),
        parse: |v| {
            let (remove, network) = match v.strip_prefix('-') {
                Some(network) => (true, network),
                None => (false, v),
            };
            Some(Change::AllowedIp {
                ip: allowed_ip(network)?,
                remove,
            })
        },
    },
    Key {
        name: "endpoint",
        value: "numeric address:port",
        of_peer: Some(true),
        parse: |v| Some(Change::Endpoint(super::endpoint(v)?)),
    },
    Key {
        name: "replace_allowed_ips",
        value: TRUE,
        of_peer: Some(true),
        parse: |v| (v == TRUE).then_some(Change::ReplaceAllowedIps),
    },
    Key {
        name: "persistent_keepalive_interval",
        value: "0 to 65535 seconds",
        of_peer: Some(true),
        parse: |v| Some(Change::PersistentKeepalive(super::number(v)?)),
    },
    Key {
        name: "preshared_key",
        value: HEX,
        of_peer: Some(true),
        parse: |v| {
            Some(Change::PresharedKey(Box::new(
                PresharedKey::from_hex(v).ok()?,
            )))
        },
    },
    Key {
        name: "update_only",
        value: TRUE,
        of_peer: Some(true),
        parse: |v| (v == TRUE).then_some(Change::UpdateOnly),
    },
    Key {
        name: "remove",
        value: TRUE,
        of_peer: Some(true),
        parse: |v| (v == TRUE).then_some(Change::Remove),
    },
    Key {
        name: "protocol_version",
        value: "1",
        of_peer: Some(true),
        parse: |v| (v == "1").then_some(Change::ProtocolVersion),
    },
    Key {
        name: "name",
        value: "a label, or nothing for no name",
        of_peer: Some(true),
        parse: |v| {
            let name = match v {
                "" => None,
                v => Some(v.parse().ok()?),
            };
            Some(Change::Extension(Extension::Name(name)))
        },
    },
    Key {
        name: "relay",
        value: "names of groups with commas between them, or nothing for off",
        of_peer: Some(true),
        parse: |v| Some(Change::Extension(Extension::Relay(v.parse().ok()?))),
    },
    Key {
        name: "hub",
        value: "true or false",
        of_peer: Some(true),
        parse: |v| Some(Change::Extension(Extension::Hub(v.parse().ok()?))),
    },
    Key {
        name: "private_key",
        value: HEX,
        of_peer: Some(false),
        parse: |v| {
            let key = Box::new(PrivateKey::from_hex(v).ok()?);
            Some(Change::PrivateKey((!key.is_zero()).then_some(key)))
        },
    },
    Key {
        name: "listen_port",
        value: "0 to 65535",
        of_peer: Some(false),
        parse: |v| Some(Change::ListenPort(super::number(v)?)),
    },
    Key {
        name: "fwmark",
        value: "0 to 4294967295, decimal",
        of_peer: Some(false),
        parse: |v| Some(Change::FwMark(super::number(v)?)),
    },
    Key {
        name: "replace_peers",
        value: TRUE,
        of_peer: Some(false),
        parse: |v| (v == TRUE).then_some(Change::ReplacePeers),
    },
];

/// Parses `address/cidr`. The cidr is required, and host bits are cleared.
pub(super) fn allowed_ip(value: &str) -> Option<AllowedIp> {
    let (addr, cidr) = value.split_once('/')?;
    AllowedIp::new(addr.parse().ok()?, super::number(cidr)?)
}

/// Reads the body of a `set`: the lines after `set=1`, up to an empty line or the end.
///
/// # Errors
/// [`BadLine`]: the first invalid line.
pub fn parse_set(text: &[u8]) -> Result<Vec<Change>, BadLine> {
    let mut parser = SetParser::default();
    for line in text
        .split(|b| *b == b'\n')
        .take_while(|line| !line.is_empty())
    {
        parser.line(line)?;
    }
    Ok(parser.finish())
}

/// Appends the line for `change`: at most 320 bytes.
pub fn print_change(change: &Change, out: &mut Vec<u8>) {
    // Writing to a Vec cannot fail.
    let _ = match change {
        Change::PrivateKey(Some(key)) => writeln!(out, "private_key={}", *key.to_hex()),
        Change::PrivateKey(None) => writeln!(out, "private_key={:064}", 0),
        Change::ListenPort(port) => writeln!(out, "listen_port={port}"),
        Change::FwMark(mark) => writeln!(out, "fwmark={mark}"),
        Change::ReplacePeers => writeln!(out, "replace_peers=true"),
        Change::Peer(key) => writeln!(out, "public_key={}", key.to_hex()),
        Change::UpdateOnly => writeln!(out, "update_only=true"),
        Change::Remove => writeln!(out, "remove=true"),
        Change::PresharedKey(key) => writeln!(out, "preshared_key={}", *key.to_hex()),
        Change::Endpoint(addr) => writeln!(out, "endpoint={addr}"),
        Change::PersistentKeepalive(secs) => {
            writeln!(out, "persistent_keepalive_interval={secs}")
        }
        Change::ReplaceAllowedIps => writeln!(out, "replace_allowed_ips=true"),
        Change::AllowedIp { ip, remove } => {
            writeln!(out, "allowed_ip={}{ip}", if *remove { "-" } else { "" })
        }
        Change::ProtocolVersion => writeln!(out, "protocol_version=1"),
        Change::Extension(extension) => {
            let key = extension.key();
            match extension {
                Extension::Name(Some(name)) => writeln!(out, "{key}={name}"),
                Extension::Name(None) => writeln!(out, "{key}="),
                Extension::Relay(groups) => writeln!(out, "{key}={groups}"),
                Extension::Hub(is_hub) => writeln!(out, "{key}={is_hub}"),
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: &str = "b85996fecc9c7f1fc6d2572a76eda11d59bcd20be8e543b15ce4bd85a8e75a33";

    fn one(line: &str) -> Change {
        let mut changes = parse_set(line.as_bytes()).unwrap();
        assert_eq!(changes.len(), 1);
        changes.pop().unwrap()
    }

    fn of_peer(line: &str) -> Result<Change, BadLine> {
        let text = format!("public_key={KEY}\n{line}\n");
        parse_set(text.as_bytes()).map(|mut changes| changes.pop().unwrap())
    }

    #[test]
    fn requests_of_wg_are_read() {
        // The input of `wg syncconf`, recorded from the socket.
        let text = format!(
            "private_key={KEY}\nlisten_port=0\nfwmark=0\nreplace_peers=true\n\
             public_key={KEY}\nremove=true\n\
             public_key={}\npreshared_key={:064}\npersistent_keepalive_interval=0\n\
             replace_allowed_ips=true\nallowed_ip=2.0.0.0/8\n\nignored\n",
            KEY.to_uppercase(),
            0,
        );
        let key = PublicKey::from_hex(KEY).unwrap();
        let network = AllowedIp::new("2.0.0.0".parse().unwrap(), 8).unwrap();
        assert_eq!(
            parse_set(text.as_bytes()).unwrap(),
            [
                Change::PrivateKey(Some(Box::new(PrivateKey::from_hex(KEY).unwrap()))),
                Change::ListenPort(0),
                Change::FwMark(0),
                Change::ReplacePeers,
                Change::Peer(key),
                Change::Remove,
                Change::Peer(key),
                Change::PresharedKey(Box::default()),
                Change::PersistentKeepalive(0),
                Change::ReplaceAllowedIps,
                Change::AllowedIp {
                    ip: network,
                    remove: false
                },
            ]
        );
    }

    #[test]
    fn values() {
        assert_eq!(
            one(&format!("private_key={:064}", 0)),
            Change::PrivateKey(None)
        );
        assert_eq!(one("listen_port=0065535"), Change::ListenPort(65535));
        assert_eq!(one("fwmark=4294967295"), Change::FwMark(u32::MAX));
        let ip = |addr: &str, cidr| AllowedIp::new(addr.parse().unwrap(), cidr).unwrap();
        for (line, ip, remove) in [
            ("10.1.2.3/8", ip("10.0.0.0", 8), false),
            ("-10.1.2.3/8", ip("10.0.0.0", 8), true),
            ("0.0.0.0/0", ip("0.0.0.0", 0), false),
            ("-fe80::1/10", ip("fe80::", 10), true),
            ("::ffff:1.2.3.4/120", ip("::ffff:1.2.3.0", 120), false),
        ] {
            let change = of_peer(&format!("allowed_ip={line}")).unwrap();
            assert_eq!(change, Change::AllowedIp { ip, remove });
        }
        for text in [
            "1.2.3.4:5",
            "[::1]:65535",
            "[::ffff:1.2.3.4]:2",
            "[fe80::1%7]:1",
        ] {
            let addr = text.parse().unwrap();
            assert_eq!(
                of_peer(&format!("endpoint={text}")).unwrap(),
                Change::Endpoint(addr)
            );
        }
        // A scope by name: each network namespace has a loopback link, which is the first one.
        let change = of_peer("endpoint=[fe80::1%lo]:9").unwrap();
        assert_eq!(change, Change::Endpoint("[fe80::1%1]:9".parse().unwrap()));
    }

    #[test]
    fn invalid_lines_have_their_errno() {
        let long = "0".repeat(65);
        let short = "0".repeat(63);
        let device = [
            format!("private_key={short}"),
            format!("private_key={long}"),
            format!("private_key={}g", short),
            "private_key=".into(),
            "listen_port=65536".into(),
            "listen_port=-1".into(),
            "listen_port=+1".into(),
            "listen_port= 1".into(),
            "listen_port=".into(),
            "listen_port=1\r".into(),
            "listen_port=0x10".into(),
            "listen_port=domain".into(),
            "fwmark=0x10".into(),
            "fwmark=off".into(),
            "fwmark=4294967296".into(),
            "fwmark=99999999999999999999999".into(),
            "replace_peers=false".into(),
            "replace_peers=True".into(),
            "replace_peers=".into(),
            "public_key=".into(),
            format!("public_key={short}"),
            "protocol_version=1".into(),
            "name=alice".into(),
            "allowed_ip=1.1.1.1/32".into(),
            "remove=true".into(),
            "update_only=true".into(),
            format!("preshared_key={KEY}"),
            "last_handshake_time_sec=1".into(),
            "errno=0".into(),
            "bogus=1".into(),
            "=".into(),
            "=1".into(),
            " fwmark=1".into(),
            "FWMARK=1".into(),
        ];
        for line in device {
            let bad = parse_set(format!("fwmark=7\n{line}\n").as_bytes()).unwrap_err();
            assert_eq!((bad.errno(), bad.line), (Errno::EINVAL, 2), "{line}");
        }
        let peer = [
            format!("private_key={KEY}"),
            "listen_port=1".into(),
            "fwmark=1".into(),
            "replace_peers=true".into(),
            "update_only=false".into(),
            "remove=1".into(),
            format!("preshared_key={long}"),
            "preshared_key=".into(),
            "endpoint=".into(),
            "endpoint=1.2.3.4".into(),
            "endpoint=1.2.3.4:".into(),
            "endpoint=1.2.3.4:65536".into(),
            "endpoint=1.2.3.4:http".into(),
            "endpoint=1.2.3:4".into(),
            "endpoint=::1:80".into(),
            "endpoint=[::1]".into(),
            "endpoint=localhost:80".into(),
            "endpoint=[fe80::1%]:80".into(),
            "endpoint=[fe80::1%lo]:65536".into(),
            "endpoint=[fe80::1%no-such-link]:80".into(),
            "persistent_keepalive_interval=off".into(),
            "persistent_keepalive_interval=65536".into(),
            "persistent_keepalive_interval=".into(),
            "replace_allowed_ips=false".into(),
            "allowed_ip=".into(),
            "allowed_ip=1.2.3.4".into(),
            "allowed_ip=1.2.3.4/".into(),
            "allowed_ip=1.2.3.4/33".into(),
            "allowed_ip=1.2.3.4/-1".into(),
            "allowed_ip=1.2.3.4/256".into(),
            "allowed_ip=1.2.3/24".into(),
            "allowed_ip=::/129".into(),
            "allowed_ip=--1.2.3.4/32".into(),
            "allowed_ip=+1.2.3.4/32".into(),
            "allowed_ip=fe80::1%lo/128".into(),
            "allowed_ip=1.2.3.4/32,1.2.3.5/32".into(),
            "name=Alice".into(),
            "name=localhost".into(),
            format!("name={}", "a".repeat(32)),
            "protocol_version=2".into(),
            "protocol_version=0".into(),
            "protocol_version=".into(),
            "rx_bytes=1".into(),
            "tx_bytes=1".into(),
            "last_handshake_time_nsec=1".into(),
        ];
        for line in peer {
            let bad = of_peer(&line).unwrap_err();
            assert_eq!((bad.errno(), bad.line), (Errno::EINVAL, 2), "{line}");
        }
        for line in ["fwmark", "set", "x", "\r", " "] {
            assert_eq!(
                parse_set(line.as_bytes()).unwrap_err().errno(),
                Errno::EPROTO,
                "{line}"
            );
        }
        assert_eq!(
            parse_set(b"fwmark=\xff\xfe").unwrap_err().errno(),
            Errno::EINVAL
        );
        assert_eq!(parse_set(b"\xff=1").unwrap_err().errno(), Errno::EINVAL);
        assert_eq!(SetParser::default().too_long().errno(), Errno::EPROTO);
    }

    #[test]
    fn errors_name_the_line_but_not_the_value() {
        let bad = of_peer(&format!("preshared_key={}", &KEY[1..])).unwrap_err();
        assert_eq!(
            bad.to_string(),
            "line 2: preshared_key should be 64 hexadecimal digits"
        );
        let bad = parse_set(KEY.as_bytes()).unwrap_err();
        assert_eq!(bad.to_string(), "line 1: not of the form key=value");
    }

    proptest! {
        #[test]
        fn printed_changes_read_back(changes in super::super::arbitrary::changes()) {
            let mut text = Vec::new();
            for change in &changes {
                let before = text.len();
                print_change(change, &mut text);
                prop_assert!(text.len() - before <= 320);
            }
            prop_assert_eq!(parse_set(&text), Ok(changes));
        }

        #[test]
        fn arbitrary_bytes_cause_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_set(&bytes);
        }

        /// Accepted lines have the same meaning when printed and read again.
        #[test]
        fn arbitrary_lines_cause_no_panic(
            lines in prop::collection::vec((0..KEYS.len(), "[-0-9a-f:./%\\[\\]]{0,12}"), 0..6),
        ) {
            let mut text = format!("public_key={KEY}\n");
            for (key, value) in lines {
                text += &format!("{}={value}\n", KEYS[key].name);
            }
            if let Ok(changes) = parse_set(text.as_bytes()) {
                let mut again = Vec::new();
                changes.iter().for_each(|change| print_change(change, &mut again));
                prop_assert_eq!(parse_set(&again), Ok(changes));
            }
        }
    }
}
