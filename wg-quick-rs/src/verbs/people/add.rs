//! `add`: adds a client, or gives one new keys. The client's file is printed or written; only its
//! public key stays on the server.

use std::io::{self, IsTerminal, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::slice;

use wg_crypto::key::{PresharedKey, PrivateKey, PublicKey};
use wg_rs::config::{ConfigEndpoint, PeerSettings};
use wg_rs::model::{AllowedIp, Label};
use zeroize::Zeroizing;

use crate::file::edit::Edit;
use crate::file::own_endpoint::OwnEndpoint;
use crate::file::roster::{PeerSection, Who, free_address, is_inside, members};
use crate::file::{Address, Location, is_server};
use crate::steps::console;
use crate::steps::failure::Failure;
use crate::steps::step::{Secret, Step};
use crate::steps::transaction::Transaction;
use crate::verbs::people::change::{self, Opened};
use crate::verbs::people::client::ClientFile;
use crate::verbs::{qr, random};

/// The arguments of the command.
#[derive(Debug)]
pub struct AddArguments<'a> {
    /// The client.
    pub name: &'a Label,
    /// Whether all its traffic goes through the tunnel.
    pub full_tunnel: bool,
    /// The networks that it reaches through the tunnel; by default the tunnel's own.
    pub allowed_ips: &'a [AllowedIp],
    /// Its name servers and search domains.
    pub dns: &'a [String],
    /// The server's endpoint, if it is not the one in the file.
    pub endpoint: Option<&'a OwnEndpoint>,
    /// The path for its file; by default standard output.
    pub output: Option<&'a PathBuf>,
    /// Whether to make new keys for an existing client.
    pub replace: bool,
}

/// Runs the command.
pub fn run(location: &Location, request: &AddArguments) -> ExitCode {
    change::with(location, |transaction, opened| {
        add(transaction, opened, request)
    })
}

fn add(
    transaction: &mut Transaction,
    opened: &Opened,
    request: &AddArguments,
) -> Result<(), Failure> {
    let mut text = Edit::new(&opened.text);
    let all = members(&text);
    let server = server_key(transaction, opened)?;
    let endpoint = endpoint(opened, request)?;
    let private_key = PrivateKey::from_bytes(*random::key()?);
    let public_key = private_key.public_key();
    let preshared_key = PresharedKey::from_bytes(*random::key()?);
    let (addresses, keys) = if request.replace {
        let who = Who::Name(request.name.clone());
        let (old, sections) = opened.find(&text, &who)?;
        let addresses = addresses_of(opened, request.name, &sections)?;
        for member in &sections {
            let part = slice::from_ref(&member.section);
            let key = Some(public_key.to_base64());
            text.scalar(part, "PublicKey", key, |_| false);
        }
        let last = &sections[sections.len() - 1].section;
        text.scalar(
            slice::from_ref(last),
            "PresharedKey",
            Some(preshared_key.to_base64()),
            |_| false,
        );
        (addresses, vec![old, public_key])
    } else {
        is_new(opened, request.name, &all)?;
        let addresses = free_addresses(transaction, opened, &all)?;
        let own = addresses.iter().map(|ip| AllowedIp::host(*ip).to_string());
        let own: Vec<_> = own.collect();
        text.append(
            "[Peer]",
            vec![
                ("#@ Name", Zeroizing::new(request.name.to_string())),
                ("PublicKey", Zeroizing::new(public_key.to_base64())),
                ("PresharedKey", preshared_key.to_base64()),
                ("AllowedIPs", Zeroizing::new(own.join(", "))),
            ],
        );
        (addresses, vec![public_key])
    };
    if request.full_tunnel && request.dns.is_empty() {
        console::note(
            "Without --dns the client goes on asking the name servers that it has, if it reaches them \
             through the tunnel.",
        );
    }
    let client = ClientFile {
        private_key: &private_key,
        preshared_key: &preshared_key,
        addresses: &addresses,
        dns: request.dns,
        server: &server,
        endpoint: &endpoint,
        allowed_ips: &routed(opened, request),
    }
    .text();
    if let Some(path) = request.output {
        let text = Secret(Zeroizing::new(client.as_bytes().to_vec()));
        transaction.run(Step::CreateFile(path.clone(), text))?;
    }
    opened.apply(transaction, text.finish(), &keys)?;
    // If the client's file cannot be handed over, the client is removed again.
    print(&client, request).map_err(|error| {
        Failure::new(format_args!(
            "the client's file could not be printed: {error}"
        ))
    })?;
    if !opened.runs {
        console::note(format_args!(
            "`{0}' is not up; `{1} up {0}' brings it up.",
            opened.file.interface,
            console::program()
        ));
    }
    Ok(())
}

/// The interface's public key. A hook may have set the private one.
fn server_key(transaction: &Transaction, opened: &Opened) -> Result<PublicKey, Failure> {
    let running = match opened.runs {
        true => transaction.target.get()?.private_key,
        false => None,
    };
    let of_file = opened.file.settings.private_key.as_deref();
    let key = running.as_ref().or(of_file);
    key.map(PrivateKey::public_key).ok_or_else(|| {
        Failure::new(format_args!(
            "{} has no PrivateKey, and a client needs the key that belongs to it",
            opened.file.path.display()
        ))
    })
}

/// The endpoint of this interface for clients.
fn endpoint(opened: &Opened, request: &AddArguments) -> Result<ConfigEndpoint, Failure> {
    let settings = &opened.file.settings;
    let path = opened.file.path.display();
    if let Some(endpoint) = request.endpoint {
        let port = settings.own_endpoint.as_ref().map(|own| own.port);
        let port = port.or(settings.listen_port).filter(|port| *port != 0);
        return endpoint.with_port(port).ok_or_else(|| {
            Failure::new(format_args!(
                "{path} has no ListenPort: give --endpoint {endpoint}:PORT"
            ))
        });
    }
    settings.own_endpoint.clone().ok_or_else(|| {
        Failure::new(format_args!(
            "{path} does not say where clients reach this server: give --endpoint HOST, or write it into \
             [Interface] once and for all: `#@ Endpoint = HOST:PORT'"
        ))
    })
}

fn is_new(opened: &Opened, name: &Label, all: &[PeerSection]) -> Result<(), Failure> {
    match all.iter().find(|member| member.peer.name() == Some(name)) {
        Some(_) => Err(Failure::new(format_args!(
            "{}: `{name}' already exists; --replace gives it new keys",
            opened.file.path.display()
        ))),
        None => Ok(()),
    }
}

/// Returns a free address in the first network of each family. Addresses of the file, of disabled peers and
/// of the running interface are not free.
fn free_addresses(
    transaction: &Transaction,
    opened: &Opened,
    all: &[PeerSection],
) -> Result<Vec<IpAddr>, Failure> {
    let file = &opened.file;
    let of_peer = |peer: &PeerSettings| -> Vec<AllowedIp> {
        peer.allowed_ips.iter().map(|one| one.ip).collect()
    };
    let mut taken: Vec<_> = all
        .iter()
        .flat_map(|member| of_peer(&member.peer))
        .collect();
    let own = file.addresses.iter().map(|own| own.value);
    taken.extend(own.clone().map(|own| AllowedIp::host(own.ip)));
    if opened.runs {
        let peers = transaction.target.get()?.peers;
        taken.extend(peers.into_iter().flat_map(|peer| peer.allowed_ips));
    }
    let path = file.path.display();
    let mut addresses = Vec::new();
    for is_ipv4 in [true, false] {
        let networks: Vec<Address> = own
            .clone()
            .filter(|own| own.ip.is_ipv4() == is_ipv4)
            .collect();
        let free = networks.iter().find_map(|own| free_address(own, &taken));
        match (free, networks.first()) {
            (Some(free), _) => addresses.push(free),
            (None, Some(network)) => {
                return Err(Failure::new(format_args!(
                    "{path}: no address is left in {network} for another client"
                )));
            }
            (None, None) => {}
        }
    }
    if addresses.is_empty() {
        return Err(Failure::new(format_args!(
            "{path} has no Address, so there is no network to take an address from"
        )));
    }
    Ok(addresses)
}

/// The addresses of a client in the file.
fn addresses_of(
    opened: &Opened,
    name: &Label,
    sections: &[PeerSection],
) -> Result<Vec<IpAddr>, Failure> {
    let path = opened.file.path.display();
    if sections.iter().any(|member| !member.is_enabled) {
        return Err(Failure::new(format_args!(
            "{path}: `{name}' is disabled; enable it before it gets new keys"
        )));
    }
    let networks = opened.networks();
    let allowed = sections.iter().flat_map(|member| &member.peer.allowed_ips);
    let alone = allowed.map(|one| one.ip).filter(|ip| {
        *ip == AllowedIp::host(ip.addr) && networks.iter().any(|network| is_inside(ip, network))
    });
    let addresses: Vec<_> = alone.map(|ip| ip.addr).collect();
    match addresses.is_empty() {
        true => Err(Failure::new(format_args!(
            "{path}: `{name}' has no address of its own in AllowedIPs"
        ))),
        false => Ok(addresses),
    }
}

/// The networks that the client reaches through the tunnel.
fn routed(opened: &Opened, request: &AddArguments) -> Vec<AllowedIp> {
    if request.full_tunnel {
        let any = [IpAddr::from([0; 4]), IpAddr::from([0; 16])];
        return any.iter().filter_map(|ip| AllowedIp::new(*ip, 0)).collect();
    }
    match request.allowed_ips {
        [] => opened.networks(),
        allowed => allowed.to_vec(),
    }
}

/// Prints the client's file, unless it was written to a path; on a terminal also the QR code.
fn print(client: &str, request: &AddArguments) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let to_file = request.output.is_some();
    if !to_file {
        out.write_all(client.as_bytes())?;
    }
    if to_file || out.is_terminal() {
        match qr::code(client, out.is_terminal()) {
            Ok(code) => out.write_all(code.as_bytes())?,
            Err(error) => console::note(format_args!("{error}.")),
        }
    }
    out.flush()
}

/// A word of `--dns`.
///
/// # Errors
/// It looks like an address, but is not one.
pub fn dns(text: &str) -> Result<String, String> {
    let is_wrong = is_server(text) && text.parse::<IpAddr>().is_err();
    let is_word = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
    match is_word && !is_wrong {
        true => Ok(text.into()),
        false => Err("neither the address of a name server nor a domain to search".into()),
    }
}
