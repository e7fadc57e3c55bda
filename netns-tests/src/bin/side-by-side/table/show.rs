//! Dispatch, `show` and `showconf`.

use crate::case::{Case, InitialState, Ours, Outcome, Then, departs, same};

const REMAINS: Then = Then::Unchanged;

/// All keys that a daemon may report.
const FULL: &str = "\
private_key=c809f3e5317e957d5c9ed78b5b4cf3ce530dabe85ddab614220241801ddf0669
listen_port=7001
fwmark=51820
public_key=0101010101010101010101010101010101010101010101010101010101010101
preshared_key=0202020202020202020202020202020202020202020202020202020202020202
protocol_version=1
endpoint=[fd00::1]:7002
last_handshake_time_sec=1000000000
last_handshake_time_nsec=5
tx_bytes=4
rx_bytes=1536
persistent_keepalive_interval=65535
allowed_ip=10.9.0.2/32
allowed_ip=fd09::/16
public_key=0303030303030303030303030303030303030303030303030303030303030303
preshared_key=0000000000000000000000000000000000000000000000000000000000000000
last_handshake_time_sec=0
last_handshake_time_nsec=0
tx_bytes=0
rx_bytes=0
persistent_keepalive_interval=0
errno=0

";

/// Handshakes in all orders, among them two at the same time and one in the future.
const TIMES: &str = "\
public_key=0101010101010101010101010101010101010101010101010101010101010101
last_handshake_time_sec=0
last_handshake_time_nsec=0
public_key=0202020202020202020202020202020202020202020202020202020202020202
last_handshake_time_sec=1600000000
last_handshake_time_nsec=5
public_key=0303030303030303030303030303030303030303030303030303030303030303
last_handshake_time_sec=1600000000
last_handshake_time_nsec=6
public_key=0404040404040404040404040404040404040404040404040404040404040404
last_handshake_time_sec=1700000000
last_handshake_time_nsec=0
public_key=0505050505050505050505050505050505050505050505050505050505050505
last_handshake_time_sec=1600000000
last_handshake_time_nsec=5
public_key=0606060606060606060606060606060606060606060606060606060606060606
last_handshake_time_sec=9999999999
last_handshake_time_nsec=0
public_key=0707070707070707070707070707070707070707070707070707070707070707
errno=0

";

/// Every unit of size, at its edges.
const SIZES: &str = "\
public_key=0101010101010101010101010101010101010101010101010101010101010101
rx_bytes=1023
tx_bytes=1024
public_key=0202020202020202020202020202020202020202020202020202020202020202
rx_bytes=1048575
tx_bytes=1048576
public_key=0303030303030303030303030303030303030303030303030303030303030303
rx_bytes=1073741823
tx_bytes=1073741824
public_key=0404040404040404040404040404040404040404040404040404040404040404
rx_bytes=1099511627775
tx_bytes=1099511627776
public_key=0505050505050505050505050505050505050505050505050505050505050505
rx_bytes=1125899906842624
tx_bytes=18446744073709551615
public_key=0606060606060606060606060606060606060606060606060606060606060606
rx_bytes=0
tx_bytes=1
persistent_keepalive_interval=1
public_key=0707070707070707070707070707070707070707070707070707070707070707
persistent_keepalive_interval=3600
errno=0

";

/// Addresses of all kinds.
const ADDRESSES: &str = "\
public_key=0101010101010101010101010101010101010101010101010101010101010101
endpoint=[::ffff:1.2.3.4]:2
allowed_ip=::ffff:1.2.3.0/120
allowed_ip=::1.2.3.4/128
allowed_ip=::/0
allowed_ip=0.0.0.0/0
allowed_ip=::1:0/112
allowed_ip=fd00:0:0:1::/64
public_key=0202020202020202020202020202020202020202020202020202020202020202
endpoint=[fe80::1%1]:1
public_key=0303030303030303030303030303030303030303030303030303030303030303
endpoint=0.0.0.0:65535
public_key=0404040404040404040404040404040404040404040404040404040404040404
endpoint=[::1.2.3.4]:80
errno=0

";

pub const TABLE: &[Case] = &[
    same("wg"),
    same("wg help"),
    same("wg -h"),
    same("wg --help"),
    Case {
        ours: Ours::Newer(
            "the version is that of the wireguard-tools that wg-rs follows",
            Outcome {
                code: 0,
                stdout: "wireguard-tools v1.0.20260223 - https://git.zx2c4.com/wireguard-tools/\n",
                stderr: "",
                then: REMAINS,
            },
        ),
        ..same("wg --version")
    },
    same("wg version | cut -d' ' -f1,3,4"),
    same("wg -v x"),
    same("wg help me"),
    same("wg bogus"),
    same("wg SHOW"),
    same("wg sho"),
    same("wg ''"),
    same("wg show"),
    same("wg show all"),
    same("wg show interfaces"),
    same("wg show interfaces x"),
    same("wg show --help"),
    same("wg show -h"),
    same("wg show help"),
    same("wg show a b c"),
    same("wg show $I"),
    same("wg show $I").on(InitialState::One),
    same("wg show $I").on(InitialState::Empty),
    same("wg").on(InitialState::Empty),
    same("WG_COLOR_MODE=always wg show $I"),
    same("WG_COLOR_MODE=always wg show $I").on(InitialState::Empty),
    same("WG_COLOR_MODE=always wg"),
    same("WG_COLOR_MODE=never wg show $I"),
    same("WG_COLOR_MODE=maybe wg show $I"),
    same("NO_COLOR=1 WG_COLOR_MODE=always wg show $I"),
    same("WG_HIDE_KEYS=never wg show $I"),
    same("WG_HIDE_KEYS=never WG_COLOR_MODE=always wg show all"),
    same("WG_HIDE_KEYS=always wg show $I"),
    same("WG_HIDE_KEYS= wg show $I"),
    same("wg show $I public-key"),
    same("wg show $I private-key"),
    same("WG_HIDE_KEYS=always wg show $I private-key"),
    same("wg show $I listen-port"),
    same("wg show $I fwmark"),
    same("wg show $I peers"),
    same("wg show $I preshared-keys"),
    same("wg show $I endpoints"),
    same("wg show $I allowed-ips"),
    same("wg show $I latest-handshakes"),
    same("wg show $I transfer"),
    same("wg show $I persistent-keepalive"),
    same("wg show $I dump"),
    same("wg show $I public-key").on(InitialState::Empty),
    same("wg show $I private-key").on(InitialState::Empty),
    same("wg show $I fwmark").on(InitialState::Empty),
    same("wg show $I peers").on(InitialState::Empty),
    same("wg show $I dump").on(InitialState::Empty),
    same("wg show $I bogus"),
    same("wg show $I Dump"),
    same("wg show $I help"),
    same("wg show $I ''"),
    same("wg show all public-key"),
    same("wg show all private-key"),
    same("wg show all listen-port"),
    same("wg show all fwmark"),
    same("wg show all peers"),
    same("wg show all preshared-keys"),
    same("wg show all endpoints").on(InitialState::One),
    Case {
        ours: Ours::Newer(
            "each line of `show all endpoints' has the interface",
            Outcome {
                code: 0,
                stdout: concat!(
                    "I xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\t192.0.2.1:7002\n",
                    "I TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=\t[2001:db8::1]:7003\n",
                ),
                stderr: "",
                then: REMAINS,
            },
        ),
        ..same("wg show all endpoints | sed \"s/^$I./I /\"").our_daemon()
    },
    same("wg show all allowed-ips"),
    same("wg show all latest-handshakes"),
    same("wg show all transfer"),
    same("wg show all persistent-keepalive"),
    same("wg show all dump"),
    same("wg show all bogus"),
    same("wg show nosuch"),
    same("wg show nosuch dump"),
    same("wg show nosuch bogus"),
    same("wg show lo"),
    same("wg show a/b"),
    same("wg show ''"),
    same("wg show ./$I"),
    Case {
        ours: Ours::Newer(
            "the error says that a name is too long",
            Outcome {
                code: 1,
                stdout: "",
                stderr: "Unable to access interface: File name too long\n",
                then: REMAINS,
            },
        ),
        ..same("wg show sixteen-letters-")
    },
    same("wg show fifteen-letters"),
    departs(
        "wg show $I > /dev/full",
        "an error of writing is reported",
        Outcome {
            code: 1,
            stdout: "",
            stderr: "Unable to write: No space left on device\n",
            then: REMAINS,
        },
    ),
    same("wg show $I >&-; true"),
    // With one peer, as wireguard-go lists several in random order.
    same("wg show $I peers | head -n 1").on(InitialState::One),
    same("wg showconf $I"),
    same("wg showconf $I").on(InitialState::One),
    same("wg showconf $I").on(InitialState::Empty),
    same("WG_HIDE_KEYS=always wg showconf $I"),
    same("WG_COLOR_MODE=always wg showconf $I"),
    same("wg showconf"),
    same("wg showconf $I x"),
    same("wg showconf --help"),
    same("wg showconf nosuch"),
    same("wg showconf all"),
    // Answers of a fake daemon.
    same("wg show fake").fake(FULL),
    same("wg show fake dump").fake(FULL),
    same("WG_COLOR_MODE=always wg show fake").fake(FULL),
    same("wg showconf fake").fake(FULL),
    same("wg show all dump").fake(FULL),
    same("wg show fake").fake(TIMES),
    same("wg show fake latest-handshakes").fake(TIMES),
    same("WG_COLOR_MODE=always wg show fake").fake(TIMES),
    same("wg show fake").fake(SIZES),
    same("wg show fake transfer").fake(SIZES),
    same("WG_COLOR_MODE=always wg show fake").fake(SIZES),
    same("wg show fake").fake(ADDRESSES),
    same("wg show fake dump").fake(ADDRESSES),
    same("wg showconf fake").fake(ADDRESSES),
    same("wg show fake").fake("errno=0\n\n"),
    same("wg show fake dump").fake("nonsense=1\nerrno=0\n\n"),
    same("wg show fake").fake("errno=22\n\n"),
    same("wg show fake").fake(""),
    same("wg show fake").fake("listen_port=7\n\n"),
    same("wg show fake").fake("listen_port=65536\nerrno=0\n\n"),
    same("wg show fake").fake("private_key=00\nerrno=0\n\n"),
    same("wg show fake").fake("listen_port\nerrno=0\n\n"),
    same("wg show; echo $?").fake("errno=1\n\n"),
    same("wg show all dump; echo $?").fake("errno=1\n\n"),
    same("wg set fake fwmark 1").fake("errno=0\n\n"),
    same("wg set fake fwmark 1").fake("errno=-98\n\n"),
    same("wg set fake fwmark 1").fake("errno=-22\n\n"),
    same("wg set fake fwmark 1").fake(""),
    same("wg show fake; ls /var/run/wireguard").stale(),
    same("wg show interfaces; ls /var/run/wireguard").stale(),
    same("wg set fake fwmark 1; ls /var/run/wireguard").stale(),
    departs(
        "wg show $I --json | grep -c listenPort",
        "show --json",
        Outcome {
            code: 0,
            stdout: "1\n",
            stderr: "",
            then: REMAINS,
        },
    ),
];
