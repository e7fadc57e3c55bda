//! `setconf`, `addconf`, `syncconf`: the configuration file.

use super::PORT;
use crate::case::{Case, InitialState, newer, refused, same};

const CLEARS: &str = "syncconf clears a preshared key or keepalive that the file lacks";

/// A file of these lines (in the words of printf), for each of the verbs.
macro_rules! conf {
    ($verb:literal, $lines:literal) => {
        same(concat!("printf '", $lines, "' > f; wg ", $verb, " $I f"))
    };
}

pub const TABLE: &[Case] = &[
    same("wg setconf"),
    same("wg setconf $I"),
    same("wg setconf --help"),
    same("wg setconf $I f x"),
    same("wg addconf $I"),
    same("wg syncconf $I"),
    same("wg setconf $I nosuch"),
    same("wg addconf $I nosuch"),
    same("wg syncconf $I nosuch"),
    same("wg setconf nosuch $F/full.conf"),
    same("wg addconf nosuch $F/full.conf"),
    same("wg syncconf nosuch $F/empty.conf"),
    same("wg syncconf nosuch $F/full.conf 2> /dev/null"),
    same("wg setconf $I $F/full.conf"),
    same("wg setconf $I $F/full.conf").on(InitialState::Empty),
    same("wg setconf $I $F/one.conf"),
    same("wg setconf $I $F/empty.conf"),
    same("wg setconf $I /dev/null"),
    same("wg setconf $I /dev/stdin < $F/one.conf"),
    same("cat $F/one.conf | wg setconf $I /dev/stdin"),
    same("wg addconf $I $F/full.conf"),
    same("wg addconf $I $F/full.conf").on(InitialState::Empty),
    same("wg addconf $I $F/empty.conf"),
    same("wg addconf $I /dev/null"),
    same("wg syncconf $I $F/full.conf"),
    same("wg syncconf $I $F/full.conf").on(InitialState::Empty),
    same("wg syncconf $I $F/one.conf"),
    same("wg syncconf $I $F/empty.conf"),
    same("wg syncconf $I /dev/null"),
    same("wg showconf $I > f; wg setconf $I f"),
    same("wg showconf $I > f; wg syncconf $I f"),
    same("wg showconf $I > f; wg addconf $I f"),
    conf!("setconf", "[Interface]\nListenPort = 7002\n"),
    conf!("addconf", "[Interface]\nListenPort = 7002\n"),
    conf!("syncconf", "[Interface]\nListenPort = 7002\n"),
    conf!("addconf", "[Interface]\nFwMark = off\n"),
    conf!("addconf", "[Interface]\nFwMark = 0x10\n"),
    conf!(
        "addconf",
        "[interface]\nFWMARK=16\n[PEER]\npublickey='$C'\n"
    ),
    conf!("addconf", "[Interface]\nFwMark = 0\nListenPort = domain\n"),
    conf!("addconf", "[Interface]\r\nFwMark = 16\r\n"),
    conf!("addconf", "  [ Inter face ]  \n  Fw Mark  =  1 6  \n"),
    conf!("addconf", "[Interface]\nFwMark = 16"),
    conf!(
        "addconf",
        "# x\n[Interface] # y\nFwMark = 16# z\n\n#FwMark = 17\n"
    ),
    conf!("addconf", "[Interface]\n;FwMark = 16\n"),
    conf!("addconf", "[Interface]\nFwMark\n"),
    conf!("addconf", "[Interface]\nFwMark = x\n"),
    conf!("addconf", "[Interface]\nFwMarks = 1\n"),
    conf!("addconf", "[Interface]\nFwMark : 1\n"),
    conf!("addconf", "[Interface]\nFwMark == 1\n"),
    conf!("addconf", "FwMark = 1\n"),
    conf!("addconf", "[Interfaces]\nFwMark = 1\n"),
    conf!("addconf", "[Interface\nFwMark = 1\n"),
    conf!("addconf", "[Interface]\nPrivateKey =\n"),
    conf!("addconf", "[Interface]\nPrivateKey = x\n"),
    conf!(
        "addconf",
        "[Interface]\nPrivateKey = AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"
    ),
    conf!("addconf", "[Interface]\nAddress = 10.0.0.1/24\n"),
    conf!(
        "addconf",
        "[Interface]\nFwMark = 1\n[Interface]\nFwMark = 2\n"
    ),
    conf!("addconf", "[Interface]\nFwMark = 1\nFwMark = 2\n"),
    conf!(
        "addconf",
        "[Peer]\nPublicKey = '$C'\n[Interface]\nFwMark = 2\n"
    ),
    conf!("addconf", "[Peer]\n"),
    conf!("addconf", "[Peer]\nAllowedIPs = 10.0.0.0/8\n"),
    conf!(
        "addconf",
        "[Peer]\nAllowedIPs = 10.0.0.0/8\n[Peer]\nPublicKey = '$C'\n"
    ),
    conf!("addconf", "[Peer]\nPublicKey = x\n"),
    conf!(
        "addconf",
        "[Peer]\nPublicKey = '$B'\nPublicKey = '$C'\nAllowedIPs = 10.0.0.0/8\n"
    ),
    conf!("addconf", "[Peer]\nPublicKey = '$A'\n"),
    conf!(
        "addconf",
        "[Peer]\nPublicKey = '$A'\nAllowedIPs = 10.3.0.0/16\n"
    ),
    conf!(
        "addconf",
        "[Peer]\nPublicKey = '$A'\nAllowedIPs = 10.3.0.0/16\nAllowedIPs = fd03::/16, 10.4.0.0/16\n"
    ),
    conf!("addconf", "[Peer]\nPublicKey = '$C'\nAllowedIPs =\n"),
    conf!(
        "addconf",
        "[Peer]\nPublicKey = '$C'\nAllowedIPs = 10.3.0.1/16\n"
    ),
    conf!(
        "addconf",
        "[Peer]\nPublicKey = '$C'\nAllowedIPs = 10.3.0.0/16,,10.4.0.0/16\n"
    ),
    conf!(
        "addconf",
        "[Peer]\nPublicKey = '$C'\nAllowedIPs = 10.3.0.0/64\n"
    ),
    conf!(
        "addconf",
        "[Peer]\nPublicKey = '$A'\nAllowedIPs = 10.3.0.0/16\n[Peer]\nPublicKey = '$A'\nAllowedIPs = 10.4.0.0/16\n"
    ),
    conf!(
        "addconf",
        "[Peer]\nPublicKey = '$A'\nPersistentKeepalive = off\n"
    ),
    conf!(
        "addconf",
        "[Peer]\nPublicKey = '$A'\nPersistentKeepalive = OFF\n"
    ),
    conf!(
        "addconf",
        "[Peer]\nPublicKey = '$A'\nPersistentKeepalive = 12\n"
    ),
    conf!(
        "addconf",
        "[Peer]\nPublicKey = '$A'\nPersistentKeepalive = 65536\n"
    ),
    conf!(
        "addconf",
        "[Peer]\nPublicKey = '$A'\nPersistentKeepAlive = 5\n"
    ),
    conf!(
        "addconf",
        "[Peer]\nPublicKey = '$A'\nEndpoint = 1.2.3.4 : 5 5\n"
    ),
    conf!(
        "addconf",
        "[Peer]\nPublicKey = '$A'\nEndpoint = [2001:db8::9]:domain\n"
    ),
    conf!(
        "addconf",
        "[Peer]\nPublicKey = '$A'\nEndpoint = localhost:9\n"
    ),
    conf!("addconf", "[Peer]\nPublicKey = '$A'\nEndpoint = 1.2.3.4\n"),
    conf!("addconf", "[Peer]\nPublicKey = '$A'\nEndpoint = [::1:5\n"),
    conf!(
        "addconf",
        "[Peer]\nPublicKey = '$A'\nPresharedKey = AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=\n"
    ),
    conf!("addconf", "[Peer]\nPublicKey = '$A'\nPresharedKey = x\n"),
    conf!("addconf", "[Peer]\nPublicKey = '$A'\nListenPort = 1\n"),
    conf!(
        "addconf",
        "[Interface]\nFwMark = 9\n[Peer]\nPublicKey = '$A'\nBogus = 1\n"
    ),
    conf!(
        "setconf",
        "[Interface]\nFwMark = 9\n[Peer]\nPublicKey = '$A'\nBogus = 1\n"
    ),
    conf!(
        "syncconf",
        "[Interface]\nFwMark = 9\n[Peer]\nPublicKey = '$A'\nBogus = 1\n"
    ),
    conf!(
        "setconf",
        "[Interface]\nListenPort = 7001\n[Peer]\nPublicKey = '$C'\n"
    ),
    conf!(
        "syncconf",
        "[Interface]\nListenPort = 7001\n[Peer]\nPublicKey = '$C'\n"
    ),
    conf!(
        "syncconf",
        "[Interface]\nListenPort = 7001\n[Peer]\nPublicKey = '$B'\n[Peer]\nPublicKey = '$C'\nAllowedIPs = 10.5.0.0/16\n"
    ),
    conf!(
        "syncconf",
        "[Interface]\nListenPort = 7001\n[Peer]\nPublicKey = '$B'\nEndpoint = 1.2.3.4:5\nAllowedIPs = ::/0\n"
    ),
    conf!("setconf", "[Interface]\nPrivateKey = '$KEY'\n"),
    refused(
        "printf '[Interface]\\nListenPort = 70000\\n' > f; wg setconf $I f",
        PORT,
        "f:2: ",
    ),
    refused(
        "printf '[Peer]\\nPublicKey = '$A'\\nEndpoint = 1.2.3.4:65536\\n' > f; wg addconf $I f",
        PORT,
        "f:3: ",
    ),
    newer(
        "printf '[Interface]\\nListenPort = 7001\\n[Peer]\\nPublicKey = '$A'\\n' > f; wg syncconf $I f",
        CLEARS,
        "wg set $I fwmark 0 private-key /dev/null peer $B remove \
         peer $A preshared-key /dev/null persistent-keepalive 0 allowed-ips ''",
    ),
    newer(
        "printf '[Peer]\\nPublicKey = '$A'\\nAllowedIPs = +10.1.0.0/16\\n' > f; wg addconf $I f",
        "allowed-ips with + and -",
        "wg set $I peer $A allowed-ips 10.9.0.0/24,fd09::/64,10.10.0.5/32,10.1.0.0/16",
    ),
];
