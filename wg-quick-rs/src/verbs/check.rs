//! `check`: errors and likely mistakes in a file.
//!
//! An error is what `up` refuses; everything else is a warning. What depends on the host is not checked,
//! for example whether a name can be resolved, or whether a hook fails. But if the interface is up, it is
//! compared with the lines of its file that only our programs see.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;

use wg_crypto::key::PublicKey;
use wg_rs::backend::Backends;
use wg_rs::config::AllowedIpSetting;
use wg_rs::config::lines::{Section, What, lines};
use wg_rs::model::{AllowedIp, Extensions};
use wg_rs::sys::reason;
use zeroize::Zeroizing;

use crate::file::overridden::overridden;
use crate::file::table::Table;
use crate::file::{self, Address, ConfigValue, Error, FOLDER, File, Location, hubs};
use crate::plan::loops;

/// The smallest MTU for IPv6, bytes (RFC 8200, section 5).
const IPV6_MTU: u32 = 1280;
/// The smallest MTU for IPv4 (RFC 791), and the largest of a TUN device, bytes.
const MTU: std::ops::RangeInclusive<u32> = 68..=65535;

/// Runs the command: prints all findings about these files, and fails if one of them is an error.
pub fn run(arguments: &[String]) -> ExitCode {
    let found: Vec<_> = arguments
        .iter()
        .flat_map(|argument| check(argument))
        .collect();
    let mut out = io::stdout().lock();
    let told = found
        .iter()
        .try_for_each(|finding| writeln!(out, "{}", finding.text));
    let errors = found.iter().any(|finding| finding.is_error);
    if told.and_then(|()| out.flush()).is_ok() && !errors {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// An error or a warning, one line.
#[derive(Debug)]
struct Finding {
    /// Whether `up` would refuse the file because of it.
    is_error: bool,
    text: Error,
}

impl Finding {
    fn error(text: Error) -> Self {
        Finding {
            is_error: true,
            text,
        }
    }

    /// A warning about a line, or about the file as a whole.
    fn warning(name: &str, line: Option<usize>, message: impl Display) -> Self {
        let message = match line {
            Some(_) => format!("Warning: {message}"),
            None => format!("{name}: Warning: {message}"),
        };
        let file = name.into();
        Finding {
            is_error: false,
            text: Error {
                file,
                line,
                message,
            },
        }
    }
}

/// The findings about the file of an argument, in the order of its lines.
fn check(argument: &str) -> Vec<Finding> {
    let location = match Location::of(argument) {
        Ok(location) => location,
        Err(error) => return vec![Finding::error(error)],
    };
    let name = location.path.to_string_lossy();
    let text = match std::fs::read(&location.path) {
        Ok(text) => Zeroizing::new(text),
        Err(error) => {
            return vec![Finding::error(Error {
                file: name.as_ref().into(),
                line: None,
                message: format!("{name}: {}", reason(&error)),
            })];
        }
    };
    let running = running(&location).unwrap_or_default();
    let mut found = judge(&name, &location.interface, &text, running.as_ref());
    if let Some(path) = location.world_accessible() {
        let path = shown(&path, &location.path);
        found.insert(
            0,
            Finding::warning(
                &name,
                None,
                format_args!(
                    "everybody can read this file, and it contains keys{path}: run chmod 600"
                ),
            ),
        );
    }
    found
}

/// The extensions of the interface that is up, if this is its file. None if it is not up.
///
/// # Errors
/// Those of [`Backends::extensions`].
fn running(location: &Location) -> io::Result<Option<HashMap<PublicKey, Extensions>>> {
    let backends = Backends::new();
    let name = &location.interface;
    if location.path.parent() != Some(Path::new(FOLDER)) || backends.kind(name)?.is_none() {
        return Ok(None);
    }
    backends.extensions(name).map(Some)
}

/// The real path of the file, if the given one is a symbolic link.
fn shown(real: &Path, given: &Path) -> String {
    if std::fs::symlink_metadata(given).is_ok_and(|file| file.is_symlink()) {
        format!(" (`{}')", real.display())
    } else {
        String::new()
    }
}

/// The findings about a text, and about the peers of the interface if it is up.
fn judge(
    name: &str,
    interface: &str,
    text: &[u8],
    running: Option<&HashMap<PublicKey, Extensions>>,
) -> Vec<Finding> {
    let (file, errors) = file::parse(name, interface, text);
    let found = errors.into_iter().map(Finding::error).collect();
    let mut findings = Findings { name, found };
    findings.interface(&file, text);
    for ConfigValue { line, value } in overridden(&file) {
        findings.warn(line, value);
    }
    findings.dns(text);
    findings.addresses(&file);
    findings.peers(&file);
    findings.endpoints(&file);
    findings.networks(&file);
    for ConfigValue { line, value } in hubs::mistakes(&file) {
        findings.warn(line, value);
    }
    for (line, message) in running
        .map(|now| hubs::differences(&file, now))
        .unwrap_or_default()
    {
        let warning = Finding::warning(name, line, message);
        findings.found.push(warning);
    }
    // A stable sort: findings about one line stay in the order in which they were found.
    findings.found.sort_by_key(|finding| finding.text.line);
    findings.found
}

struct Findings<'a> {
    name: &'a str,
    found: Vec<Finding>,
}

impl Findings<'_> {
    fn error(&mut self, line: usize, message: impl Display) {
        self.found.push(Finding::error(Error {
            file: self.name.into(),
            line: Some(line),
            message: message.to_string(),
        }));
    }

    fn warn(&mut self, line: usize, message: impl Display) {
        let warning = Finding::warning(self.name, Some(line), message);
        self.found.push(warning);
    }

    fn interface(&mut self, file: &File, text: &[u8]) {
        let no_key = file.settings.private_key.is_none();
        // Another finding explains it already.
        if no_key && self.found.is_empty() && !hooks_mention(file, "private-key") {
            let warning = Finding::warning(self.name, None, "no PrivateKey in [Interface]");
            self.found.push(warning);
        }
        // A hub that only relays needs no address.
        if file.addresses.is_empty()
            && networks(file).next().is_some()
            && !hooks_mention(file, "addr")
            && let Some(head) = lines(text).find(|line| line.what == What::Head(Section::Interface))
        {
            self.warn(
                head.number,
                "Address: there is none, so this host has no address of its own in the tunnel",
            );
        }
        let Some(mtu) = &file.mtu else {
            return;
        };
        let (line, value) = (mtu.line, mtu.value);
        let too_small = format!("MTU: {value} is less than the {IPV6_MTU} that IPv6 needs");
        let routes = networks(file).any(|(_, network)| network.ip.addr.is_ipv6());
        if !MTU.contains(&value) {
            let (least, most) = MTU.into_inner();
            self.error(
                line,
                format_args!("MTU: {value} is not within {least}-{most}"),
            );
        } else if value < IPV6_MTU && routes && file.table != Table::Off {
            self.error(line, too_small);
        } else if value < IPV6_MTU && file.addresses.iter().any(|at| at.value.ip.is_ipv6()) {
            self.warn(line, too_small);
        }
    }

    /// Checks the servers: `wg-quick` takes a word that looks like an address for a server.
    fn dns(&mut self, text: &[u8]) {
        let mut section = Section::Other;
        for line in lines(text) {
            if let What::Head(head) = line.what {
                section = head;
            }
            if section != Section::Interface || !line.is("DNS") {
                continue;
            }
            for word in file::words(&line.value().unwrap_or_default()) {
                if file::is_server(word) && word.parse::<IpAddr>().is_err() {
                    self.warn(
                        line.number,
                        format_args!("DNS: `{word}' is not an IP address"),
                    );
                }
            }
        }
    }

    fn addresses(&mut self, file: &File) {
        let networks: Vec<_> = networks(file).map(|(_, network)| network.ip).collect();
        for (n, at) in file.addresses.iter().enumerate() {
            let Address { ip, prefix } = at.value;
            // An IPv6 address can be added only once, whatever its prefix length.
            let is_twin = |other: &&ConfigValue<Address>| {
                other.value == at.value || ip.is_ipv6() && other.value.ip == ip
            };
            if let IpAddr::V6(ip) = ip
                && (ip.is_unspecified() || ip.is_loopback() || ip.is_multicast())
            {
                self.error(
                    at.line,
                    format_args!("Address: {ip} cannot be the address of an interface"),
                );
            } else if let Some(first) = file.addresses[..n].iter().find(is_twin) {
                self.error(
                    at.line,
                    format_args!("Address: {ip} is already listed in line {}", first.line),
                );
            } else if let Some(own) = at.value.network()
                // In a network of one address there is nobody else.
                && prefix < if ip.is_ipv4() { 32 } else { 128 }
                && !networks.is_empty()
                && !networks.iter().any(|network| overlap(&own, network))
            {
                self.warn(
                    at.line,
                    format_args!(
                        "Address: no peer's AllowedIPs have an address of {}",
                        at.value
                    ),
                );
            }
        }
    }

    fn endpoints(&mut self, file: &File) {
        let of_peers = file.settings.peers.iter();
        for endpoint in of_peers.filter_map(|peer| peer.endpoint.as_ref()) {
            let (line, host) = (endpoint.line, &endpoint.host);
            if host.is_empty() {
                self.error(
                    line,
                    format_args!("Endpoint: `{endpoint}' has neither an address nor a name"),
                );
            } else if let Some(why) = endpoint.not_a_host() {
                self.error(line, format_args!("Endpoint: `{host}': {why}"));
            } else if !host.contains(':')
                && host.parse::<IpAddr>().is_err()
                && let Some(used) = endpoint.numeric()
            {
                // The C library completes an address, and reads numbers that begin with 0 as octal.
                self.warn(
                    line,
                    format_args!("Endpoint: `{host}' is read as {}", used.ip()),
                );
            }
        }
        if let Some(own) = &file.settings.own_endpoint
            && let Some(why) = own.not_a_host()
        {
            self.warn(own.line, format_args!("Endpoint: `{}': {why}", own.host));
        }
        for ConfigValue { line, value } in loops::in_file(file) {
            self.warn(line, format_args!("Endpoint: {value}"));
        }
    }

    fn peers(&mut self, file: &File) {
        let own = file
            .settings
            .private_key
            .as_ref()
            .map(|key| key.public_key());
        let peers = &file.settings.peers;
        let with_networks: HashSet<PublicKey> = peers
            .iter()
            .filter(|peer| !peer.allowed_ips.is_empty())
            .map(|peer| peer.public_key)
            .collect();
        let hooks_help = hooks_mention(file, "allowed-ips");
        for peer in peers {
            // A peer without AllowedIPs may be reached by others through this hub, or be a hub.
            let is_relayed = peer.relay().is_some_and(|groups| !groups.is_empty());
            if Some(peer.public_key) == own {
                self.warn(
                    peer.public_key_line,
                    "PublicKey: this is the interface's own public key; the peer will be ignored",
                );
            } else if !with_networks.contains(&peer.public_key)
                && !is_relayed
                && !peer.is_hub()
                && !hooks_help
            {
                let message = "AllowedIPs: this peer has none, so nothing is sent to it, and nothing \
                               that it sends is accepted";
                self.warn(peer.line, message);
            }
        }
    }

    fn networks(&mut self, file: &File) {
        let mut owners: HashMap<AllowedIp, (PublicKey, usize)> = HashMap::new();
        for (peer, network) in networks(file) {
            let AllowedIpSetting {
                ip, line, written, ..
            } = *network;
            if written != ip.addr {
                let message = format!(
                    "AllowedIPs: {written}/{} has host bits set; it will be used as {ip}",
                    ip.cidr
                );
                self.warn(line, message);
            }
            if let Some(at) = file.addresses.iter().find(|at| at.value.ip == ip.addr)
                && ip == AllowedIp::host(ip.addr)
            {
                let message = format!(
                    "AllowedIPs: {} is the interface's own Address (line {})",
                    ip.addr, at.line
                );
                self.warn(line, message);
            }
            if let Some((owner, first)) = owners.insert(ip, (peer, line))
                && owner == peer
            {
                self.warn(
                    line,
                    format_args!("AllowedIPs: {ip} is already listed in line {first}"),
                );
            }
        }
    }
}

/// Whether a command that `up` runs contains this text.
fn hooks_mention(file: &File, text: &str) -> bool {
    let hooks = &file.hooks;
    let mut hooks = hooks.pre_up.iter().chain(&hooks.post_up);
    hooks.any(|hook| hook.value.text().contains(text))
}

/// The networks of all peers, each with its peer.
fn networks(file: &File) -> impl Iterator<Item = (PublicKey, &AllowedIpSetting)> {
    let peers = file.settings.peers.iter();
    peers.flat_map(|peer| {
        let given = peer.allowed_ips.iter().filter(|network| !network.remove);
        given.map(|network| (peer.public_key, network))
    })
}

/// Whether one of two networks contains the other.
fn overlap(a: &AllowedIp, b: &AllowedIp) -> bool {
    let cidr = a.cidr.min(b.cidr);
    a.addr.is_ipv4() == b.addr.is_ipv4()
        && AllowedIp::new(a.addr, cidr) == AllowedIp::new(b.addr, cidr)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
    const B: &str = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";

    fn found(text: &str) -> Vec<String> {
        let text = text.replace("KEY_A", A).replace("KEY_B", B);
        let found = judge("wg0.conf", "wg0", text.as_bytes(), None);
        assert!(found.is_sorted_by_key(|finding| finding.text.line));
        for finding in &found {
            let told = finding.text.to_string().contains("Warning: ");
            assert_ne!(told, finding.is_error, "{finding:?}");
        }
        let texts = found.iter().map(|finding| finding.text.to_string());
        texts.collect()
    }

    #[test]
    fn good_files_have_no_findings() {
        for good in [
            "[Interface]\nPrivateKey = KEY_A\n",
            "[Interface]\nAddress = 10.0.0.1/24, fd00::1/64\nPrivateKey = KEY_A\nDNS = 1.1.1.1, x.example, ::1\n\
             [Peer]\nPublicKey = KEY_A\nAllowedIPs = 10.0.0.2, fd00::2\n\
             [Peer]\nPublicKey = KEY_B\nAllowedIPs = 10.0.0.3/32, fd00::3/128, 10.0.0.0/28\n",
            "[Interface]\nAddress = 10.0.0.2\nPrivateKey = KEY_A\nMTU = 1280\n\
             [Peer]\nPublicKey = KEY_A\nAllowedIPs = 0.0.0.0/0\n",
            "[Interface]\nPostUp = wg set %i private-key <(pass wg)\n",
            "[Interface]\nPrivateKey = KEY_A\nPostUp = ip address add 10.0.0.1/24 dev %i\n\
             [Peer]\nPublicKey = KEY_A\nAllowedIPs = 10.0.0.2, fd00::2\n",
            "[Interface]\nPrivateKey = KEY_A\nPostUp = wg set %i peer KEY_B allowed-ips ::/0\n\
             [Peer]\nPublicKey = KEY_B\nEndpoint = [fe80::1%eth9]:1\n",
            // A hub that only relays.
            "[Interface]\nPrivateKey = KEY_A\nListenPort = 1\n[Peer]\nPublicKey = KEY_A\n\
             #@ Relay = on\n[Peer]\nPublicKey = KEY_B\n#@ Relay = on\n",
            // From host to host.
            "[Interface]\nAddress = 10.0.0.1/32, fd00::1/128\nPrivateKey = KEY_A\n\
             [Peer]\nPublicKey = KEY_A\nAllowedIPs = 10.0.0.2/32, fd00::2/128\n",
        ] {
            assert_eq!(found(good), [""; 0], "{good}");
        }
    }

    #[test]
    fn all_mistakes_of_a_file_are_found_at_once() {
        let text = "[Interface]\nAdress = 10.0.0.1/24\nPrivateKey = KEY_A\nMTU = 1200\nTable = fuor\n\
            Address = 10.0.0.1/24, 10.0.0.1/24\nAddress = fd00::1/64, 10.300.0.1\nDNS = 10.0.0, ::g\n\
            [Peer]\nPublicKey = KEY_A\nAllowedIPs = 10.0.0.2/32, 10.0.0.1/32\nAllowedIPs = 10.0.0.2\n\
            [Peer]\nPublicKey = KEY_B\nAllowedIPs = 10.0.0.2, 10.9.0.1/16\nEndpiont = x:1\n\
            [Peer]\nPublicKey = KEY_A\n";
        let found = found(text);
        let want = [
            (2, "Adress"),
            (2, "`Address'"),
            (4, "MTU: 1200 is less"),
            (5, "Table"),
            (6, "Address: 10.0.0.1 is already listed in line 6"),
            (7, "10.300.0.1"),
            (7, "have an address of fd00::1/64"),
            (8, "`10.0.0'"),
            (8, "`::g'"),
            (11, "own Address (line 6)"),
            (12, "10.0.0.2/32 is already listed in line 11"),
            (15, "10.0.0.2/32 is taken from peer AQEB"),
            (15, "used as 10.9.0.0/16"),
            (16, "Endpiont"),
            (16, "`Endpoint'"),
            (18, "already listed in line 10"),
        ];
        for (line, part) in want {
            let line = format!("wg0.conf:{line}: ");
            let has = |text: &String| text.starts_with(&line) && text.contains(part);
            assert!(found.iter().any(has), "{line}{part} in {found:#?}");
        }
        assert_eq!(found.len(), want.len() - 2, "{found:#?}");
    }

    #[test]
    fn only_what_up_refuses_is_an_error() {
        let peer = "[Peer]\nPublicKey = KEY_B\nAllowedIPs = 10.0.0.0/24, fd00::/64\n";
        let is_error = |interface: &str, more: &str| {
            let address = match interface.contains("Address") {
                true => "",
                false => "Address = 10.0.0.1/24\n",
            };
            let text =
                format!("[Interface]\nPrivateKey = KEY_A\n{address}{interface}\n{peer}{more}");
            let text = text.replace("KEY_A", A).replace("KEY_B", B);
            let found = judge("wg0.conf", "wg0", text.as_bytes(), None);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            found[0].is_error
        };
        for (interface, more) in [
            ("Address = 10.0.0.1/24, 10.0.0.1/24", ""),
            ("Address = fd00::1/64, fd00::1/56", ""),
            ("Address = ff02::1/128", ""),
            ("MTU = 1200", ""),
            ("MTU = 70000", ""),
            ("", "Endpoint = :5"),
            ("", "Endpoint = 300.1.1.1:5"),
            ("", "Endpoint = udp://vpn.example:5"),
        ] {
            assert!(is_error(interface, more), "{interface}{more}");
        }
        for (interface, more) in [
            ("Address = 10.9.0.1/24", ""),
            ("MTU = 1200\nTable = off\nAddress = fd00::1/64", ""),
            ("DNS = 10.0.0", ""),
            ("", "Endpoint = 10.0.0.7:5"),
            ("", "Endpoint = 192.0.513:5"),
            ("", "Endpoint = a:5\nEndpoint = b:5"),
            ("", "[Peer]\nPublicKey = KEY_B"),
            ("", "[Peer]\nPublicKey = KEY_A"),
            ("#@ Endpoint = https://vpn.example:5", ""),
            ("", "[Peer]\nPublicKey = KEY_A\nAllowedIPs = 10.0.0.0/24"),
        ] {
            assert!(!is_error(interface, more), "{interface}{more}");
        }
    }

    #[test]
    fn what_newcomers_leave_out_or_repeat() {
        assert_eq!(
            found(
                "[Interface]\nPrivateKey = KEY_A\nListenPort = 1\nListenPort = 2\n\
                 [Peer]\nPublicKey = KEY_A\nEndpoint = 300.1.1.1:51820\n\
                 [Peer]\nPublicKey = KEY_B\nAllowedIPs = ::2\n"
            ),
            [
                "wg0.conf:1: Warning: Address: there is none, so this host has no address of its own in \
                 the tunnel",
                "wg0.conf:4: Warning: ListenPort: line 3 sets it too and is ignored: only the last one counts",
                "wg0.conf:5: Warning: AllowedIPs: this peer has none, so nothing is sent to it, and \
                 nothing that it sends is accepted",
                "wg0.conf:7: Endpoint: `300.1.1.1': an IPv4 address is four numbers from 0 to 255",
            ]
        );
        // A peer that is listed twice has the AllowedIPs of either.
        let twice = found(
            "[Interface]\nPrivateKey = KEY_A\nAddress = fd00::1/64\n[Peer]\nPublicKey = KEY_B\n\
             [Peer]\nPublicKey = KEY_B\nAllowedIPs = fd00::2\n",
        );
        assert_eq!(twice.len(), 1, "{twice:?}");
        assert!(twice[0].contains("already listed in line 5"), "{twice:?}");
    }

    #[test]
    fn missing_files_and_missing_keys() {
        assert_eq!(
            found("[Interface]\n"),
            ["wg0.conf: Warning: no PrivateKey in [Interface]"]
        );
        assert_eq!(
            found("[Interface]\nListenPort = 1\nListenPort = 2\n"),
            [
                "wg0.conf: Warning: no PrivateKey in [Interface]",
                "wg0.conf:3: Warning: ListenPort: line 2 sets it too and is ignored: only the last one counts",
            ]
        );
        let own = wg_crypto::key::PrivateKey::from_base64(A)
            .unwrap()
            .public_key();
        let text = format!("[Interface]\nPrivateKey = KEY_A\n[Peer]\nPublicKey = {own}\n");
        assert!(found(&text)[0].contains("PublicKey: this is the interface's own"));
        let missing = check("./no-such-file.conf");
        assert_eq!(
            missing[0].text.to_string(),
            "`./no-such-file.conf' does not exist"
        );
    }
}
