//! Files that stock refuses, and files that both refuse.

use super::Case;
use super::Stock::Always;

pub const CASES: &[Case] = &[
    // ---- files that stock refuses, each with a form that stock accepts
    Case {
        name: "accepted only by ours: Table = AUTO",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/24
Table = AUTO
[Peer]
PublicKey = {peer}
AllowedIPs = 0.0.0.0/0
Endpoint = 203.0.113.1:51820
",
        plain: Some((
            Always,
            "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/24
[Peer]
PublicKey = {peer}
AllowedIPs = 0.0.0.0/0
Endpoint = 203.0.113.1:51820
",
        )),
        ..Case::NEW
    },
    Case {
        name: "accepted only by ours: AllowedIPs =",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/24
[Peer]
PublicKey = {peer}
AllowedIPs =
",
        plain: Some((
            Always,
            "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/24
[Peer]
PublicKey = {peer}
",
        )),
        ..Case::NEW
    },
    // ---- files that both refuse, leaving nothing
    Case {
        name: "refused: an endpoint with only a port",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/24
[Peer]
PublicKey = {peer}
AllowedIPs = 10.5.0.0/24
Endpoint = :5
",
        fails: Some(1),
        ..Case::NEW
    },
    Case {
        name: "refused: an address listed twice",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/24, 10.0.0.2/24
",
        fails: Some(1),
        ..Case::NEW
    },
    Case {
        name: "refused: an MTU too small for IPv6",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/24, fd00::2/64
MTU = 1279
[Peer]
PublicKey = {peer}
AllowedIPs = 10.5.0.0/24, fd05::/64
",
        fails: Some(1),
        ..Case::NEW
    },
    Case {
        name: "refused: a hook fails",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/24
DNS = 10.0.0.1
PostUp = echo before >> /etc/log
PostUp = exit 3
PostUp = echo after >> /etc/log
[Peer]
PublicKey = {peer}
AllowedIPs = 0.0.0.0/0
Endpoint = 203.0.113.1:51820
",
        fails: Some(3),
        by_host: true,
        ..Case::NEW
    },
    Case {
        name: "refused: an invalid address",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/24, 10.0.0.256/24
",
        fails: Some(1),
        ..Case::NEW
    },
    Case {
        name: "refused: an unknown key",
        config: "[Interface]
PrivateKey = {key}
Adress = 10.0.0.2/24
",
        fails: Some(1),
        ..Case::NEW
    },
    Case {
        name: "refused: a table name without a number",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/24
Table = nowhere
[Peer]
PublicKey = {peer}
AllowedIPs = 10.5.0.0/24
",
        fails: Some(1),
        ..Case::NEW
    },
    Case {
        name: "refused: an endpoint without an address",
        place: "printf 'hosts: files\\n' > /etc/nsswitch.conf",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/24
[Peer]
PublicKey = {peer}
AllowedIPs = 10.5.0.0/24
Endpoint = nowhere.example:51820
",
        fails: Some(1),
        by_host: true,
        ..Case::NEW
    },
    Case {
        name: "refused: an interface of that name exists",
        place: "ip link add wg0 type veth peer other",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/24
",
        fails: Some(1),
        by_host: true,
        ..Case::NEW
    },
];
