//! The configuration of an interface, as a test sets it, and its state, as a daemon reports it. The
//! former is written as UAPI text or as a config file of `wg`; the latter is read from UAPI text or
//! from `wg show … dump`.

use std::fmt::Write;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::{Key, Keys};

/// The settings to change on an interface. An absent value is not changed.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Private key.
    pub private_key: Option<Key>,
    /// UDP port; 0 asks for a random one.
    pub listen_port: Option<u16>,
    /// Mark of outgoing packets; 0 for none.
    pub fwmark: Option<u32>,
    /// Whether to remove all peers first.
    pub replace_peers: bool,
    /// Peers to add or change, in this order.
    pub peers: Vec<PeerConfig>,
}

/// The settings to change on a peer.
#[derive(Debug, Clone)]
pub struct PeerConfig {
    /// The key of the peer.
    pub public_key: Key,
    /// Whether to remove the peer.
    pub remove: bool,
    /// Preshared key.
    pub preshared_key: Option<Key>,
    /// The address to send to.
    pub endpoint: Option<SocketAddr>,
    /// Persistent keepalive, seconds; 0 for off.
    pub keepalive: Option<u16>,
    /// Whether to remove its allowed IPs first.
    pub replace_allowed_ips: bool,
    /// Allowed IPs to add.
    pub allowed_ips: Vec<(IpAddr, u8)>,
    /// Groups within which `wireguard-rs` relays for it, with commas between them.
    pub relay: Option<String>,
    /// Whether `wireguard-rs` uses it as a hub.
    pub hub: bool,
}

impl PeerConfig {
    /// A peer without further settings.
    pub fn new(public_key: Key) -> PeerConfig {
        PeerConfig {
            public_key,
            remove: false,
            preshared_key: None,
            endpoint: None,
            keepalive: None,
            replace_allowed_ips: false,
            allowed_ips: Vec::new(),
            relay: None,
            hub: false,
        }
    }

    /// Removes the peer.
    pub fn removed(public_key: Key) -> PeerConfig {
        PeerConfig {
            remove: true,
            ..PeerConfig::new(public_key)
        }
    }

    /// Adds one allowed IP.
    pub fn allow(mut self, address: impl Into<IpAddr>, prefix: u8) -> PeerConfig {
        self.allowed_ips.push((address.into(), prefix));
        self
    }

    /// Sets the endpoint.
    pub fn at(mut self, endpoint: impl Into<SocketAddr>) -> PeerConfig {
        self.endpoint = Some(endpoint.into());
        self
    }

    /// Sets the persistent keepalive, seconds.
    pub fn keepalive(mut self, seconds: u16) -> PeerConfig {
        self.keepalive = Some(seconds);
        self
    }

    /// Sets the groups within which it is relayed for.
    pub fn relayed(mut self, groups: &str) -> PeerConfig {
        self.relay = Some(groups.into());
        self
    }

    /// Makes it a hub of the interface.
    pub fn hub(mut self) -> PeerConfig {
        self.hub = true;
        self
    }

    /// Sets the preshared key.
    pub fn preshared(mut self, key: Key) -> PeerConfig {
        self.preshared_key = Some(key);
        self
    }
}

impl Config {
    /// A first configuration: a private key and a port.
    pub fn new(keys: &Keys, listen_port: u16) -> Config {
        Config {
            private_key: Some(keys.private),
            listen_port: Some(listen_port),
            ..Config::default()
        }
    }

    /// A change of only this peer.
    pub fn of(peer: PeerConfig) -> Config {
        Config::default().peer(peer)
    }

    /// Adds a peer.
    pub fn peer(mut self, peer: PeerConfig) -> Config {
        self.peers.push(peer);
        self
    }

    /// The configuration as a request of the UAPI text protocol.
    pub fn uapi(&self) -> String {
        let mut text = String::from("set=1\n");
        let mut line = |key: &str, value: &dyn std::fmt::Display| {
            let _ = writeln!(text, "{key}={value}");
        };
        if let Some(key) = self.private_key {
            line("private_key", &key.hex());
        }
        if let Some(port) = self.listen_port {
            line("listen_port", &port);
        }
        if let Some(mark) = self.fwmark {
            line("fwmark", &mark);
        }
        if self.replace_peers {
            line("replace_peers", &true);
        }
        for peer in &self.peers {
            line("public_key", &peer.public_key.hex());
            if peer.remove {
                line("remove", &true);
            }
            if let Some(key) = peer.preshared_key {
                line("preshared_key", &key.hex());
            }
            if let Some(endpoint) = peer.endpoint {
                line("endpoint", &endpoint);
            }
            if let Some(seconds) = peer.keepalive {
                line("persistent_keepalive_interval", &seconds);
            }
            if peer.replace_allowed_ips {
                line("replace_allowed_ips", &true);
            }
            for (address, prefix) in &peer.allowed_ips {
                line("allowed_ip", &format_args!("{address}/{prefix}"));
            }
            if let Some(groups) = &peer.relay {
                line("relay", groups);
            }
            if peer.hub {
                line("hub", &true);
            }
        }
        text.push('\n');
        text
    }

    /// The configuration as a file for `wg addconf` and `setconf`; with `extra` lines such as
    /// `Address = …` in the interface section, for `wg-quick`.
    pub fn file(&self, extra: &[&str]) -> String {
        let mut text = String::from("[Interface]\n");
        if let Some(key) = self.private_key {
            let _ = writeln!(text, "PrivateKey = {key}");
        }
        if let Some(port) = self.listen_port {
            let _ = writeln!(text, "ListenPort = {port}");
        }
        if let Some(mark) = self.fwmark {
            let _ = writeln!(text, "FwMark = {mark}");
        }
        for line in extra {
            let _ = writeln!(text, "{line}");
        }
        for peer in &self.peers {
            let _ = writeln!(text, "\n[Peer]\nPublicKey = {}", peer.public_key);
            if let Some(key) = peer.preshared_key {
                let _ = writeln!(text, "PresharedKey = {key}");
            }
            if let Some(groups) = &peer.relay {
                let _ = writeln!(text, "#@ Relay = {groups}");
            }
            if peer.hub {
                let _ = writeln!(text, "#@ Hub = on");
            }
            if let Some(endpoint) = peer.endpoint {
                let _ = writeln!(text, "Endpoint = {endpoint}");
            }
            if let Some(seconds) = peer.keepalive {
                let _ = writeln!(text, "PersistentKeepalive = {seconds}");
            }
            for (address, prefix) in &peer.allowed_ips {
                let _ = writeln!(text, "AllowedIPs = {address}/{prefix}");
            }
        }
        text
    }
}

/// The current state of an interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InterfaceState {
    /// Private key.
    pub private_key: Option<Key>,
    /// UDP port; 0 if it has none.
    pub listen_port: u16,
    /// Mark of outgoing packets; 0 is none.
    pub fwmark: u32,
    /// Peers, in the order in which they were reported.
    pub peers: Vec<PeerState>,
}

/// The current state of a peer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerState {
    /// Its key.
    pub public_key: Option<Key>,
    /// Preshared key; `None` also for a key of zeros.
    pub preshared_key: Option<Key>,
    /// The address from which it was last heard, or that was set.
    pub endpoint: Option<SocketAddr>,
    /// When the last handshake was completed.
    pub last_handshake: Option<SystemTime>,
    /// Bytes received from it, including WireGuard's own.
    pub rx_bytes: u64,
    /// Bytes sent to it, including WireGuard's own.
    pub tx_bytes: u64,
    /// Persistent keepalive, seconds; 0 is off.
    pub keepalive: u16,
    /// Allowed IPs, in the order in which they were reported.
    pub allowed_ips: Vec<(IpAddr, u8)>,
}

impl InterfaceState {
    /// The peer with this key.
    pub fn peer(&self, key: Key) -> io::Result<&PeerState> {
        self.peers
            .iter()
            .find(|peer| peer.public_key == Some(key))
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no peer {key}")))
    }

    /// Parses the answer to `get=1`. An `errno` in it other than 0 is the error.
    pub fn from_uapi(text: &str) -> io::Result<InterfaceState> {
        let mut interface = InterfaceState::default();
        let (mut seconds, mut errno) = (0, None);
        for line in text.lines().filter(|line| !line.is_empty()) {
            let unreadable =
                || io::Error::new(io::ErrorKind::InvalidData, format!("UAPI line {line:?}"));
            let (key, value) = line.split_once('=').ok_or_else(unreadable)?;
            let number = || value.parse::<u64>().map_err(|_| unreadable());
            let hex = || Key::from_hex(value).ok_or_else(unreadable);
            match (key, interface.peers.last_mut()) {
                ("errno", _) => errno = Some(value.parse::<i32>().map_err(|_| unreadable())?),
                ("private_key", None) => interface.private_key = Some(hex()?),
                ("listen_port", None) => interface.listen_port = number()? as u16,
                ("fwmark", None) => interface.fwmark = number()? as u32,
                ("public_key", _) => interface.peers.push(PeerState {
                    public_key: Some(hex()?),
                    ..PeerState::default()
                }),
                ("preshared_key", Some(peer)) => {
                    peer.preshared_key = Some(hex()?).filter(|key| *key != Key([0; 32]));
                }
                ("endpoint", Some(peer)) => {
                    peer.endpoint = Some(value.parse().map_err(|_| unreadable())?);
                }
                ("last_handshake_time_sec", Some(peer)) => {
                    seconds = number()?;
                    peer.last_handshake = at(seconds, 0);
                }
                ("last_handshake_time_nsec", Some(peer)) => {
                    peer.last_handshake = at(seconds, number()?);
                }
                ("rx_bytes", Some(peer)) => peer.rx_bytes = number()?,
                ("tx_bytes", Some(peer)) => peer.tx_bytes = number()?,
                ("persistent_keepalive_interval", Some(peer)) => peer.keepalive = number()? as u16,
                ("allowed_ip", Some(peer)) => {
                    peer.allowed_ips
                        .push(network(value).ok_or_else(unreadable)?);
                }
                _ => {}
            }
        }
        match errno {
            Some(0) => Ok(interface),
            Some(errno) => Err(io::Error::from_raw_os_error(errno.abs())),
            None => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "UAPI answer has no errno",
            )),
        }
    }

    /// Parses the output of `wg show IFACE dump`.
    pub fn from_dump(text: &str) -> io::Result<InterfaceState> {
        let mut interface = InterfaceState::default();
        for (n, line) in text.lines().enumerate() {
            let unreadable =
                || io::Error::new(io::ErrorKind::InvalidData, format!("wg dump line {line:?}"));
            let fields: Vec<&str> = line.split('\t').collect();
            match fields[..] {
                [private, _public, port, mark] if n == 0 => {
                    interface.private_key = Key::from_base64(private);
                    interface.listen_port = port.parse().map_err(|_| unreadable())?;
                    interface.fwmark = mark
                        .strip_prefix("0x")
                        .map_or(Ok(0), |hex| u32::from_str_radix(hex, 16))
                        .map_err(|_| unreadable())?;
                }
                [
                    public,
                    psk,
                    endpoint,
                    networks,
                    handshake,
                    rx,
                    tx,
                    keepalive,
                ] => {
                    let number = |text: &str| text.parse::<u64>().map_err(|_| unreadable());
                    interface.peers.push(PeerState {
                        public_key: Some(Key::from_base64(public).ok_or_else(unreadable)?),
                        preshared_key: Key::from_base64(psk),
                        endpoint: endpoint.parse().ok(),
                        last_handshake: at(number(handshake)?, 0),
                        rx_bytes: number(rx)?,
                        tx_bytes: number(tx)?,
                        keepalive: keepalive.parse().unwrap_or(0),
                        allowed_ips: networks.split(',').filter_map(network).collect(),
                    });
                }
                _ => return Err(unreadable()),
            }
        }
        Ok(interface)
    }
}

fn at(seconds: u64, nanos: u64) -> Option<SystemTime> {
    (seconds != 0).then(|| UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_nanos(nanos))
}

fn network(text: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = text.split_once('/')?;
    Some((address.parse().ok()?, prefix.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_give_the_same_state() {
        let (keys, peer, psk) = (Keys::generate(), Keys::generate(), Key::random());
        let uapi = format!(
            "private_key={}\nlisten_port=7\nfwmark=51820\npublic_key={}\npreshared_key={}\n\
             protocol_version=1\nendpoint=[fd00::1]:9\nlast_handshake_time_sec=12\n\
             last_handshake_time_nsec=0\ntx_bytes=5\nrx_bytes=6\n\
             persistent_keepalive_interval=25\nallowed_ip=10.0.0.0/8\nallowed_ip=fd00::/16\n\
             errno=0\n\n",
            keys.private.hex(),
            peer.public.hex(),
            psk.hex()
        );
        let dump = format!(
            "{}\t{}\t7\t0xca6c\n{}\t{psk}\t[fd00::1]:9\t10.0.0.0/8,fd00::/16\t12\t6\t5\t25\n",
            keys.private, keys.public, peer.public
        );
        let interface = InterfaceState::from_uapi(&uapi).unwrap();
        assert_eq!(interface, InterfaceState::from_dump(&dump).unwrap());
        assert_eq!(interface.peer(peer.public).unwrap().rx_bytes, 6);
        assert_eq!(
            InterfaceState::from_uapi("errno=-22\n\n")
                .unwrap_err()
                .raw_os_error(),
            Some(libc::EINVAL)
        );
        assert!(InterfaceState::from_uapi("listen_port=7\n").is_err());
    }
}
