//! `init`: writes the file of a new server.

use std::fs::DirBuilder;
use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::unix::fs::DirBuilderExt;
use std::process::ExitCode;

use wg_crypto::key::PrivateKey;
use wg_rs::config::{ConfigEndpoint, value};
use zeroize::Zeroizing;

use crate::file::own_endpoint::OwnEndpoint;
use crate::file::replace::create;
use crate::file::roster::{free_address, overlap};
use crate::file::{Address, Location};
use crate::plan::network;
use crate::steps::console;
use crate::steps::failure::Failure;
use crate::steps::program::Program;
use crate::verbs::random;

/// The arguments of the command.
#[derive(Debug)]
pub struct InitArguments<'a> {
    /// An interface, or the path of its file.
    pub file: &'a str,
    /// Its addresses; by default those of unused networks.
    pub addresses: &'a [Address],
    /// The port to listen on.
    pub port: u16,
    /// The endpoint for clients.
    pub endpoint: Option<&'a OwnEndpoint>,
    /// Whether clients can reach the Internet through the server.
    pub nat: bool,
}

/// Runs the command.
pub fn run(request: &InitArguments) -> ExitCode {
    match init(request) {
        Ok(next) => {
            console::line(next);
            ExitCode::SUCCESS
        }
        Err(failure) => {
            console::error(&failure);
            failure.code()
        }
    }
}

/// Writes the file. Returns a text that says what to do next.
fn init(request: &InitArguments) -> Result<String, Failure> {
    let Location { path, interface } = Location::of_new(request.file).map_err(Failure::new)?;
    check_port(request.port)?;
    if request.nat && Program::find("nft").is_none() {
        return Err(Failure::new(
            "--nat needs the program nft, which is not installed",
        ));
    }
    let addresses = match request.addresses {
        [] => network::unused()?,
        chosen => {
            warn_of_used(chosen)?;
            chosen.to_vec()
        }
    };
    let endpoint = match request.endpoint {
        Some(endpoint) => endpoint.with_port(Some(request.port)),
        None => network::public_address().map(|ip| ConfigEndpoint {
            host: ip.to_string(),
            port: request.port,
            line: 0,
        }),
    };
    let key = PrivateKey::from_bytes(*random::key()?).to_base64();
    let endpoint_line = match &endpoint {
        Some(endpoint) => format!("#@ Endpoint = {endpoint}\n"),
        None => String::new(),
    };
    let list: Vec<_> = addresses.iter().map(Address::to_string).collect();
    let list = list.join(", ");
    let hooks = if request.nat {
        hooks(&addresses)
    } else {
        String::new()
    };
    let port = request.port.to_string();
    // Allocated once, so that no copy of the key stays in memory.
    let parts: [&str; 10] = [
        "[Interface]\n",
        &endpoint_line,
        "PrivateKey = ",
        &key,
        "\nAddress = ",
        &list,
        "\nListenPort = ",
        &port,
        "\n",
        &hooks,
    ];
    let text = Zeroizing::new(parts.concat());
    if let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(folder)?;
    }
    create(&path, text.as_bytes()).map_err(Failure::new)?;
    let (program, file) = (console::program(), request.file);
    let (reached, option) = match endpoint {
        Some(endpoint) => (format!(" Clients reach it at {endpoint} (UDP)."), ""),
        None => (String::new(), " --endpoint HOST"),
    };
    Ok(format!(
        "`{}' is written: {interface} has {list}.{reached} Next: `{program} up {file}', then `{program} add \
         {file} NAME{option}' for each client.",
        path.display()
    ))
}

/// # Errors
/// The port is in use.
fn check_port(port: u16) -> Result<(), Failure> {
    match UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(Failure::new(format_args!(
            "port {port} is taken by another program: choose one with --port"
        ))),
        // Without the right to try, the user finds out when the interface is brought up.
        _ => Ok(()),
    }
}

fn warn_of_used(chosen: &[Address]) -> Result<(), Failure> {
    let used = network::used()?;
    for own in chosen {
        let other = own
            .network()
            .and_then(|network| used.iter().find(|used| overlap(&network, used)));
        if let Some(other) = other {
            console::note(format_args!(
                "{own} overlaps {other}, which this host uses already."
            ));
        }
    }
    Ok(())
}

/// Hooks that switch on forwarding, unless it is on (in a container it may have to be), and masquerading
/// of the clients' addresses while the interface is up.
fn hooks(addresses: &[Address]) -> String {
    let mut forwarding = String::new();
    let mut rules = Vec::new();
    for (is_ipv4, family, switch, before) in [
        (true, "ip", "ipv4/ip_forward", ""),
        (
            false,
            "ip6",
            "ipv6/conf/all/forwarding",
            // A host that forwards ignores router advertisements, unless this sysctl is set.
            "for f in /proc/sys/net/ipv6/conf/*/accept_ra; do if [ \"$(cat $f)\" = 1 ]; then echo 2 > $f; \
             fi; done; ",
        ),
    ] {
        let own = addresses.iter().filter(|own| own.ip.is_ipv4() == is_ipv4);
        let networks = own.filter_map(Address::network);
        let new = networks
            .map(|network| format!("{family} saddr {network} oifname != \"%i\" masquerade;"));
        let had = rules.len();
        rules.extend(new);
        if rules.len() > had {
            forwarding += &format!(
                "PostUp = [ \"$(cat /proc/sys/net/{switch})\" = 1 ] || {{ {before}echo 1 > \
                 /proc/sys/net/{switch}; }}\n"
            );
        }
    }
    format!(
        "{forwarding}PostUp = nft 'table inet nat-%i; delete table inet nat-%i; table inet nat-%i {{ chain srcnat {{ type \
         nat hook postrouting priority 100; {} }}; }}'\nPostDown = nft delete table inet nat-%i\n",
        rules.join(" ")
    )
}

/// An address of `--address`.
///
/// # Errors
/// It is not an address, or its network has no room for a client.
pub fn address(text: &str) -> Result<Address, String> {
    let own = value::address(text).map_err(|reason| reason.to_string())?;
    if free_address(&own, &[]).is_none() {
        return Err(format!(
            "it has no room for clients; use something like {}",
            example(own.ip)
        ));
    }
    match own.network().is_some_and(|network| network.addr == own.ip) {
        true => Err("this is the address of a network; give the server's address in it".into()),
        false => Ok(own),
    }
}

fn example(ip: IpAddr) -> String {
    format!("{ip}/{}", if ip.is_ipv4() { 24 } else { 64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_needs_a_network_with_room() {
        for text in ["10.0.0.1/24", "10.0.0.1/30", "fd00::1/64"] {
            assert_eq!(address(text).unwrap().to_string(), text);
        }
        for text in [
            "10.0.0.1",
            "10.0.0.0/24",
            "fd00::/64",
            "fd00::1",
            "10.0.0.1/31",
            "x",
        ] {
            assert!(address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hooks_are_for_the_families_of_the_addresses() {
        let v4 = hooks(&[address("10.0.0.1/24").unwrap()]);
        assert!(
            v4.contains("ip saddr 10.0.0.0/24 oifname != \"%i\" masquerade; }; }'\n"),
            "{v4}"
        );
        assert!(!v4.contains("ip6") && !v4.contains("ipv6"), "{v4}");
        let both = hooks(&[
            address("10.0.0.1/24").unwrap(),
            address("fd00::1/64").unwrap(),
        ]);
        assert!(
            both.contains("ip6 saddr fd00::/64") && both.contains("accept_ra"),
            "{both}"
        );
    }
}
