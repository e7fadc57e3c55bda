//! The configuration of a tunnel: read from a file of `wg` or `wg-quick`, or built by calls.

use std::borrow::Cow;
use std::net::IpAddr;
use std::path::Path;

use wg_crypto::{PresharedKey, PrivateKey, PublicKey};
use zeroize::Zeroizing;

use super::error::Error;
use super::resolve::PeerNames;
use crate::config::lines::{Line, Section, What, lines};
use crate::config::{
    self, AllowedIpSetting, ConfigEndpoint, Dialect, PeerSettings, Reason, Settings, WG_QUICK,
    value,
};
use crate::model::Extension;
use crate::sys::{reason, secrets};

/// The default MTU: what fits a path of 1500 bytes, also over IPv6.
const MTU: u32 = 1420;
/// The least MTUs of IPv4 and IPv6 (RFC 791; RFC 8200, section 5), and the longest that WireGuard carries.
const MTU_V4: u32 = 576;
const MTU_V6: u32 = 1280;
const LARGEST_MTU: u32 = 65440;

/// The configuration of a tunnel.
///
/// Of the lines that only wg-quick knows, `Address`, `DNS` and `MTU` are used. The others (`Table`, hooks,
/// `SaveConfig`) are ignored, as they change the machine, which a tunnel in a process does not touch: no
/// hook is run. `FwMark` is ignored too: it needs a privilege, and its purpose, to keep the tunnel's own
/// packets from being routed into the tunnel, is void here.
///
/// ```
/// use wg_rs::stack::{Config, Error, Peer, PrivateKey, PublicKey};
///
/// let key = PrivateKey::from_base64("yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=")?;
/// let office = PublicKey::from_base64("xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=")?;
/// let config = Config::new(key)
///     .address("10.9.0.2".parse()?)
///     .dns("10.9.0.1".parse()?)
///     .peer(
///         Peer::new(office)
///             .endpoint("vpn.example.com:51820")?
///             .allowed_ips("10.9.0.0/24, fd09::/64")?
///             .persistent_keepalive(25),
///     );
///
/// // Errors of a file name it and each wrong line.
/// let error = Config::parse("wg0.conf", b"[Interface]\nPrivateKey = x\nMTU = many\n").unwrap_err();
/// let Error::Wrong(faults) = error else { panic!() };
/// assert!(faults[1].starts_with("wg0.conf:3: MTU: "));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Config {
    pub(super) settings: Settings,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) servers: Vec<IpAddr>,
    pub(super) search: Vec<String>,
    /// The name of the interface, by its file.
    name: Option<String>,
    mtu: Option<u32>,
}

/// A peer of a [`Config`].
#[derive(Clone, Debug)]
pub struct Peer(PeerSettings);

impl Config {
    /// Creates a configuration with this key, without peers and addresses.
    pub fn new(private_key: PrivateKey) -> Self {
        let mut config = Config::default();
        config.settings.private_key = Some(Box::new(private_key));
        config
    }

    /// Reads a file of `wg` or `wg-quick`.
    ///
    /// # Errors
    /// [`Error::Unreadable`]; [`Error::Wrong`] with all faults of the file.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let file = path.to_string_lossy();
        let text = secrets::read(path).map_err(|source| Error::Unreadable {
            file: file.clone().into_owned(),
            source,
        })?;
        Self::parse(&file, &text)
    }

    /// Reads the text of such a file. Errors call the file `name`.
    ///
    /// # Errors
    /// [`Error::Wrong`] with all faults of the text.
    pub fn parse(name: &str, text: &[u8]) -> Result<Self, Error> {
        let mut config = Config {
            name: { Path::new(name).file_stem() }.map(|stem| stem.to_string_lossy().into_owned()),
            ..Config::default()
        };
        let mut wrong: Vec<(usize, String)> = Vec::new();
        // The lines of wg-quick are replaced by empty lines, so that the other lines keep their numbers.
        let mut rest = Zeroizing::new(Vec::with_capacity(text.len() + 1));
        let mut section = Section::Other;
        for line in lines(text) {
            if let What::Head(head) = line.what {
                section = head;
            }
            let Some((key, value)) = wg_quick_line(&line).filter(|_| section == Section::Interface)
            else {
                rest.extend_from_slice(line.raw);
                continue;
            };
            rest.push(b'\n');
            if let Err(message) = config.take(key, &value) {
                let number = line.number;
                wrong.push((number, format!("{name}:{number}: {key}: {message}")));
            }
        }
        let (settings, errors) = config::read_file(name, &rest, Dialect::WgQuick);
        config.settings = settings;
        let line = |error: &config::Error| match &error.position {
            config::Position::Line { line, .. } => *line,
            config::Position::CommandLine => 0,
        };
        wrong.extend(errors.iter().map(|error| (line(error), error.to_string())));
        if wrong.is_empty() {
            return Ok(config);
        }
        wrong.sort_by_key(|(line, _)| *line);
        Err(Error::Wrong(
            wrong.into_iter().map(|(_, text)| text).collect(),
        ))
    }

    /// Takes the value of a line of wg-quick.
    fn take(&mut self, key: &str, value: &str) -> Result<(), String> {
        let words = value
            .split([',', ' ', '\t'])
            .filter(|word| !word.is_empty());
        match key {
            "Address" => {
                for word in words {
                    let address = value::address(word).map_err(|reason| reason.to_string())?;
                    self.addresses.push(address.ip);
                }
            }
            "DNS" => {
                for word in words {
                    match word.parse() {
                        Ok(server) => self.servers.push(server),
                        Err(_) => self.search.push(word.to_owned()),
                    }
                }
            }
            "MTU" => {
                let mtu = value.parse();
                self.mtu = Some(mtu.map_err(|_| format!("`{value}' is not a number"))?);
            }
            _ => {}
        }
        Ok(())
    }

    /// Adds an address of this end of the tunnel: packets are sent from it and received at it.
    #[must_use]
    pub fn address(mut self, address: IpAddr) -> Self {
        self.addresses.push(address);
        self
    }

    /// Adds a DNS server, which is asked through the tunnel.
    #[must_use]
    pub fn dns(mut self, server: IpAddr) -> Self {
        self.servers.push(server);
        self
    }

    /// Sets the length of the longest packet in the tunnel, in bytes. The default is 1420.
    #[must_use]
    pub fn mtu(mut self, mtu: u32) -> Self {
        self.mtu = Some(mtu);
        self
    }

    /// Sets the UDP port from which encrypted packets are sent. The default is any free port.
    #[must_use]
    pub fn listen_port(mut self, port: u16) -> Self {
        self.settings.listen_port = Some(port);
        self
    }

    /// Adds a peer.
    #[must_use]
    pub fn peer(mut self, peer: Peer) -> Self {
        self.settings.peers.push(peer.0);
        self
    }

    /// Whether it has an address to send packets from.
    pub fn has_address(&self) -> bool {
        !self.addresses.is_empty()
    }

    /// Whether at least two peers have `#@ Relay`, so that it is of use as a relay.
    pub fn relays(&self) -> bool {
        let is_relayed = |extension: &Extension| match extension {
            Extension::Relay(groups) => !groups.names().is_empty(),
            _ => false,
        };
        let peers = self.settings.peers.iter();
        let relayed = peers.filter(|peer| peer.extensions.iter().any(is_relayed));
        relayed.count() >= 2
    }

    /// The peers whose endpoints are names.
    pub(super) fn endpoint_names(&self) -> Vec<(PublicKey, ConfigEndpoint)> {
        let peers = self.settings.peers.iter();
        let endpoints = peers.filter_map(|peer| Some((peer.public_key, peer.endpoint.clone()?)));
        let is_name = |(_, endpoint): &(PublicKey, ConfigEndpoint)| endpoint.numeric().is_none();
        endpoints.filter(is_name).collect()
    }

    /// The names of the peers of a file, with those of their addresses that are a single host's.
    pub(super) fn peer_names(&self) -> PeerNames {
        let Some(name) = &self.name else {
            return PeerNames::default();
        };
        let peers = self.settings.peers.iter();
        let named = peers.filter_map(|peer| Some((peer, peer.name()?.to_string())));
        PeerNames {
            domain: format!(".{}.internal", name.to_ascii_lowercase()),
            addresses: named
                .map(|(peer, name)| {
                    let is_host = |ip: &&AllowedIpSetting| {
                        !ip.remove && ip.ip.cidr == if ip.ip.addr.is_ipv4() { 32 } else { 128 }
                    };
                    let hosts = peer.allowed_ips.iter().filter(is_host);
                    (name, hosts.map(|ip| ip.ip.addr).collect())
                })
                .collect(),
        }
    }

    /// Returns the MTU if it is allowed with these addresses.
    pub(super) fn checked_mtu(&self) -> Result<usize, Error> {
        let mtu = self.mtu.unwrap_or(MTU);
        let least = if self.addresses.iter().any(IpAddr::is_ipv6) {
            MTU_V6
        } else {
            MTU_V4
        };
        if !(least..=LARGEST_MTU).contains(&mtu) {
            return Err(Error::Mtu(mtu));
        }
        Ok(mtu as usize)
    }
}

/// Returns the key and the value of a line that only wg-quick knows.
fn wg_quick_line<'a>(line: &Line<'a>) -> Option<(&'static str, Cow<'a, str>)> {
    let key = WG_QUICK.iter().find(|key| line.is(key))?;
    Some((key, line.value()?))
}

/// Creates the error for a wrong value of `what`.
fn wrong(what: &str, reason: &Reason) -> Error {
    Error::Wrong(vec![format!("{what}: {}", self::reason(reason))])
}

impl Peer {
    /// Creates a peer without allowed IPs and without an endpoint.
    pub fn new(public_key: PublicKey) -> Self {
        let mut peer = PeerSettings::new(public_key);
        peer.replace_allowed_ips = true;
        Peer(peer)
    }

    /// Sets the peer's endpoint: `HOST:PORT`, `ADDRESS:PORT` or `[ADDRESS]:PORT`.
    ///
    /// # Errors
    /// [`Error::Wrong`]
    pub fn endpoint(mut self, endpoint: &str) -> Result<Self, Error> {
        let endpoint: Result<ConfigEndpoint, _> = value::endpoint(endpoint);
        self.0.endpoint = Some(endpoint.map_err(|reason| wrong("endpoint", &reason))?);
        Ok(self)
    }

    /// Adds allowed IPs: one network, as `10.0.0.0/8`, or several separated by commas.
    ///
    /// # Errors
    /// [`Error::Wrong`]
    pub fn allowed_ips(mut self, networks: &str) -> Result<Self, Error> {
        let bare: String = networks.split_whitespace().collect();
        let ips: Result<(bool, Vec<AllowedIpSetting>), _> = value::allowed_ips(&bare);
        let (_, ips) = ips.map_err(|reason| wrong("allowed IPs", &reason))?;
        self.0.allowed_ips.extend(ips);
        Ok(self)
    }

    /// Sets the preshared key.
    #[must_use]
    pub fn preshared_key(mut self, key: PresharedKey) -> Self {
        self.0.preshared_key = Some(Box::new(key));
        self
    }

    /// Sends an empty packet every `seconds`, so that a NAT on the way keeps its mapping.
    #[must_use]
    pub fn persistent_keepalive(mut self, seconds: u16) -> Self {
        self.0.persistent_keepalive = Some(seconds);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";

    #[test]
    fn a_wg_quick_file_is_read() {
        let text = format!(
            "[interface]\nPrivateKey = {KEY}\nADDRESS=10.9.0.2/24, fd09::2/64 # ours\nMTU = 1280\n\
             DNS = 10.9.0.1, corp.example\nPostUp = touch /nowhere # not run\nTable = off\nFwMark = 7\n\
             [Peer]\nPublicKey = {KEY}\nAllowedIPs = 0.0.0.0/0\nEndpoint = 192.0.2.1:51820\n"
        );
        let config = Config::parse("wg0.conf", text.as_bytes()).unwrap();
        let addresses: [IpAddr; 2] = ["10.9.0.2".parse().unwrap(), "fd09::2".parse().unwrap()];
        assert_eq!(config.addresses, addresses);
        assert_eq!(config.servers, ["10.9.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(config.search, ["corp.example"]);
        assert_eq!(config.checked_mtu().unwrap(), 1280);
        assert_eq!(config.settings.peers.len(), 1);
        assert!(config.settings.private_key.is_some());
    }

    #[test]
    fn every_fault_is_reported_with_its_line_and_no_key_is_shown() {
        let text = format!(
            "[Interface]\nPrivateKey = {}\nAddress = 10.9.0.2/99\nMTU = many\n[Peer]\nMTU = 1280\n",
            &KEY[1..]
        );
        let error = Config::parse("wg0.conf", text.as_bytes()).unwrap_err();
        let text = error.to_string();
        let starts: Vec<_> = text.lines().filter_map(|line| line.get(..11)).collect();
        assert_eq!(
            starts,
            [
                "wg0.conf:2:",
                "wg0.conf:3:",
                "wg0.conf:4:",
                "wg0.conf:5:",
                "wg0.conf:6:"
            ],
            "{text}"
        );
        assert!(!text.contains(&KEY[1..20]), "{text}");
    }

    #[test]
    fn an_mtu_must_fit_the_addresses() {
        let of = |address: &str, mtu| {
            let config = Config::default().address(address.parse().unwrap()).mtu(mtu);
            config.checked_mtu().is_ok()
        };
        assert!(of("10.0.0.1", 576) && !of("10.0.0.1", 575));
        assert!(of("fd00::1", 1280) && !of("fd00::1", 1279));
        assert!(of("fd00::1", 65440) && !of("fd00::1", 65441));
    }
}
