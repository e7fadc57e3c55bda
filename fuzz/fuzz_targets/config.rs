//! Configuration files and arguments of `wg set`: input that is accepted is printed, and read again
//! as the same. An error about other input does not contain a key.

#![no_main]

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use libfuzzer_sys::fuzz_target;
use wg_crypto::PublicKey;
use wg_rs::config::{
    Apply, Dialect, ConfigEndpoint, Reason, Settings, parse_args, parse_file, print, read_file,
};
use wg_rs::model::{Change, Interface, Peer};

const A: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
const B: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
/// A key with a slash at a position where a network may have one.
const C: &str = "qIY8/0Bi1rWn4T2EwJyGkXmuUPdZ+h5vOc7sLgRq6kE=";

/// Words that bytes from 128 on are replaced by, as random input would never contain them.
const WORDS: [&str; 33] = [
    A,
    B,
    C,
    "[Interface]\n",
    "[Peer]\n",
    "PrivateKey = ",
    "ListenPort = ",
    "FwMark = ",
    "PublicKey = ",
    "PresharedKey = ",
    "AllowedIPs = ",
    "Endpoint = ",
    "PersistentKeepalive = ",
    "listen-port\n",
    "fwmark\n",
    "private-key\n",
    "peer\n",
    "remove\n",
    "preshared-key\n",
    "endpoint\n",
    "persistent-keepalive\n",
    "allowed-ips\n",
    "10.1.0.0/16",
    "fd00::/8",
    "::1.2.3.4",
    "192.0.2.1:51820",
    "[2001:db8::1]:1",
    "off",
    "0x",
    "65535",
    "vpn.example:domain",
    "\r\n",
    "\u{fc}",
];

fuzz_target!(|input: &[u8]| {
    let Some((kind, text)) = input.split_first() else {
        return;
    };
    let text = written_out(text);
    if kind % 2 == 0 {
        file(&text);
    } else {
        args(&text);
    }
});

fn written_out(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    for byte in bytes {
        match byte.checked_sub(128) {
            // A byte that is not UTF-8.
            Some(127) => text.push(0xe9),
            Some(n) => text.extend(WORDS[usize::from(n) % WORDS.len()].as_bytes()),
            None => text.push(*byte),
        }
    }
    text
}

fn file(text: &[u8]) {
    let (kindly, errors) = read_file("f", text, Dialect::WgQuick);
    for error in &errors {
        tells_no_key(error);
    }
    match parse_file("f", text) {
        Ok(settings) => {
            assert!(errors.is_empty() && settings == kindly);
            let interface = applied(&settings, Apply::SetConf, Interface::default());
            again(&interface);
            let synced = applied(&settings, Apply::SyncConf(&interface), interface.clone());
            assert_eq!(in_order(synced), in_order(interface));
        }
        Err(errors) => errors.iter().for_each(tells_no_key),
    }
}

fn args(text: &[u8]) {
    let args: Vec<_> = text
        .split(|b| *b == b'\n')
        .map(|arg| OsString::from_vec(arg.to_vec()))
        .collect();
    let read = |path: &OsStr| match path.as_bytes() {
        b"off" => Ok(Vec::new().into()),
        b"65535" => Err("no such file".into()),
        b"0x" => Ok(A.as_bytes().to_vec().into()),
        other => Ok(other.to_vec().into()),
    };
    match parse_args(&args, read) {
        Ok(settings) => again(&applied(&settings, Apply::AddConf, Interface::default())),
        Err(error) => tells_no_key(&error),
    }
}

fn tells_no_key(error: &wg_rs::config::Error) {
    let said = error.to_string();
    for key in [A, B, C] {
        for at in 0..key.len() - 9 {
            assert!(!said.contains(&key[at..at + 9]), "{said}");
        }
    }
}

/// Checks that an interface is the same after it is printed and read again.
fn again(interface: &Interface) {
    let text = print(interface);
    let settings = parse_file("f", text.as_bytes()).expect("what we print is right");
    let read = applied(&settings, Apply::SetConf, Interface::default());
    assert_eq!(&read, interface);
}

fn applied(settings: &Settings, how: Apply<'_>, mut interface: Interface) -> Interface {
    let changes = settings.changes(how, resolve).expect("every name is known");
    let mut peer = PublicKey::from_bytes([0; 32]);
    for change in changes {
        if let Change::Peer(key) = change {
            peer = key;
        }
        apply(&mut interface, peer, change);
    }
    interface
}

fn resolve(endpoint: &ConfigEndpoint) -> Result<SocketAddr, Reason> {
    let ip = endpoint.host.parse().unwrap_or([192, 0, 2, 1].into());
    Ok(SocketAddr::new(ip, endpoint.port))
}

/// Applies a change as a daemon does, except that allowed IPs do not move from other peers.
fn apply(interface: &mut Interface, key: PublicKey, change: Change) {
    let at = interface
        .peers
        .iter()
        .position(|peer| peer.public_key == key);
    let peer = at.map(|at| &mut interface.peers[at]);
    match (change, peer) {
        (Change::PrivateKey(key), _) => interface.private_key = key.map(|key| *key),
        (Change::ListenPort(port), _) => interface.listen_port = port,
        (Change::FwMark(mark), _) => interface.fwmark = mark,
        (Change::ReplacePeers, _) => interface.peers.clear(),
        (Change::Peer(_), Some(_)) => {}
        (Change::Peer(key), None) => interface.peers.push(Peer::new(key)),
        (Change::Remove, _) => interface.peers.retain(|peer| peer.public_key != key),
        (Change::PresharedKey(key), Some(peer)) => peer.preshared_key = *key,
        (Change::Endpoint(addr), Some(peer)) => peer.endpoint = Some(addr),
        (Change::PersistentKeepalive(secs), Some(peer)) => peer.persistent_keepalive = secs,
        (Change::ReplaceAllowedIps, Some(peer)) => peer.allowed_ips.clear(),
        (Change::AllowedIp { ip, remove }, Some(peer)) => {
            peer.allowed_ips.retain(|other| *other != ip);
            peer.allowed_ips.extend((!remove).then_some(ip));
        }
        (Change::Extension(extension), Some(peer)) => peer.extensions.set(&extension),
        (change, _) => panic!("{change:?} is never asked"),
    }
}

fn in_order(mut interface: Interface) -> Interface {
    interface.peers.sort_by_key(|peer| peer.public_key);
    interface
}
