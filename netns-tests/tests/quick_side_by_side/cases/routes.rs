//! The default route, `Table`, MTU.

use super::Stock::{Always, Before};
use super::{Case, IPTABLES};

pub const CASES: &[Case] = &[
    // ---- the default route
    Case {
        name: "full tunnel, IPv4 only",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/32
[Peer]
PublicKey = {peer}
AllowedIPs = 0.0.0.0/0
Endpoint = [2001:db8:1::1]:51820
",
        ..Case::NEW
    },
    Case {
        name: "full tunnel, IPv6 only",
        config: "[Interface]
PrivateKey = {key}
Address = fd00::2/64
Address = fd01::2/128
[Peer]
PublicKey = {peer}
AllowedIPs = ::/0
Endpoint = [2001:db8:1::1]:51820
",
        ..Case::NEW
    },
    Case {
        name: "full tunnel without an address",
        config: "[Interface]
PrivateKey = {key}
[Peer]
PublicKey = {peer}
AllowedIPs = 0.0.0.0/0, ::/0
Endpoint = 203.0.113.1:51820
",
        ..Case::NEW
    },
    Case {
        name: "full tunnel beside narrower networks and another peer",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/24
[Peer]
PublicKey = {peer}
AllowedIPs = 10.0.0.1/32, 0.0.0.0/0, 172.16.0.0/12, ::/0, fd00::/8
Endpoint = 203.0.113.1:51820
[Peer]
PublicKey = {peer2}
AllowedIPs = 172.16.5.0/24
",
        ..Case::NEW
    },
    Case {
        name: "full tunnel, FwMark given",
        config: "[Interface]
PrivateKey = {key}
FwMark = 0x33
Address = 10.0.0.2/32
[Peer]
PublicKey = {peer}
AllowedIPs = 0.0.0.0/0, ::/0
Endpoint = 203.0.113.1:51820
",
        ..Case::NEW
    },
    Case {
        name: "full tunnel, src_valid_mark already set",
        place: "echo 1 > /proc/sys/net/ipv4/conf/all/src_valid_mark",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/32
[Peer]
PublicKey = {peer}
AllowedIPs = 0.0.0.0/0
Endpoint = 203.0.113.1:51820
",
        ..Case::NEW
    },
    Case {
        name: "full tunnel, tables 51820 and 51821 in use",
        place: "ip route add 10.1.0.0/16 dev eth0 table 51820
                ip -6 route add fd01::/16 dev eth0 table 51821",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/32, fd00::2/128
[Peer]
PublicKey = {peer}
AllowedIPs = 0.0.0.0/0, ::/0
Endpoint = 203.0.113.1:51820
",
        ..Case::NEW
    },
    Case {
        name: "full tunnel beside rules of others",
        place: "ip rule add from 192.0.2.2 lookup 100 pref 100; ip route add default dev eth0 table 100
                ip -6 rule add fwmark 7 lookup 100",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/32
[Peer]
PublicKey = {peer}
AllowedIPs = 0.0.0.0/0, ::/0
Endpoint = 203.0.113.1:51820
",
        ..Case::NEW
    },
    Case {
        name: "full tunnel without nft: by iptables",
        place: IPTABLES,
        without: "nft",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/32, fd00::2/128
[Peer]
PublicKey = {peer}
AllowedIPs = 0.0.0.0/0, ::/0
Endpoint = 203.0.113.1:51820
",
        ..Case::NEW
    },
    Case {
        name: "full tunnel, IPv6 switched off",
        place: "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6
                echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/32
[Peer]
PublicKey = {peer}
AllowedIPs = 0.0.0.0/0
Endpoint = 203.0.113.1:51820
",
        ..Case::NEW
    },
    // ---- Table
    Case {
        name: "Table = off",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/24
Table = off
[Peer]
PublicKey = {peer}
AllowedIPs = 0.0.0.0/0, ::/0, 10.9.0.0/16
Endpoint = 203.0.113.1:51820
",
        ..Case::NEW
    },
    Case {
        name: "Table = off, routes by hooks",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/24
Table = off
PostUp = ip route add 10.9.0.0/16 dev %i metric 50 && ip rule add to 10.9.0.0/16 lookup main pref 1000
PreDown = ip rule del pref 1000
[Peer]
PublicKey = {peer}
AllowedIPs = 0.0.0.0/0, ::/0
Endpoint = 203.0.113.1:51820
",
        ..Case::NEW
    },
    Case {
        name: "Table = a number, default routes too",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/24, fd00::2/64
Table = 1234
PostUp = ip rule add from 10.0.0.2 table 1234
PreDown = ip rule delete from 10.0.0.2 table 1234
[Peer]
PublicKey = {peer}
AllowedIPs = 0.0.0.0/0, ::/0, 10.0.0.0/24, fd00::/64
Endpoint = 203.0.113.1:51820
",
        ..Case::NEW
    },
    Case {
        name: "Table = a name",
        place: "echo 200 vpn >> /etc/iproute2/rt_tables",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/24
Table = vpn
[Peer]
PublicKey = {peer}
AllowedIPs = 10.9.0.0/16, 0.0.0.0/0
",
        ..Case::NEW
    },
    Case {
        name: "Table = auto",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/24
Table = auto
[Peer]
PublicKey = {peer}
AllowedIPs = 10.9.0.0/16, ::/0
Endpoint = 203.0.113.1:51820
",
        ..Case::NEW
    },
    Case {
        name: "Table twice: the last counts",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/24
Table = off
Table = main
[Peer]
PublicKey = {peer}
AllowedIPs = 10.9.0.0/16
",
        ..Case::NEW
    },
    // ---- MTU
    Case {
        name: "MTU given twice",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/24, fd00::2/64
MTU = 1400
MTU = 1281
",
        ..Case::NEW
    },
    Case {
        name: "MTU of a PPPoE link",
        place: "ip link set eth0 mtu 1492",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/24, fd00::2/64
[Peer]
PublicKey = {peer}
AllowedIPs = 10.5.0.0/24
Endpoint = 203.0.113.1:51820
",
        ..Case::NEW
    },
    Case {
        name: "MTU of the route to the endpoint",
        place: "ip route add 203.0.113.0/24 via 192.0.2.1 mtu 1400",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/24
[Peer]
PublicKey = {peer}
AllowedIPs = 10.5.0.0/24
Endpoint = 203.0.113.1:51820
",
        ..Case::NEW
    },
    Case {
        name: "MTU of the default route, locked",
        place: "ip route replace default via 192.0.2.1 mtu lock 1450",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/24
",
        // Stock does not understand `mtu lock 1450`.
        differs: &[(
            Always,
            &[
                "links: - wg0: <POINTOPOINT,MULTICAST,NOARP,UP,LOWER_UP> mtu 1420 ",
                "links: + wg0: <POINTOPOINT,MULTICAST,NOARP,UP,LOWER_UP> mtu 1370 ",
                "sysctls: - ipv6.wg0.mtu = 1420",
                "sysctls: + ipv6.wg0.mtu = 1370",
            ],
        )],
        ..Case::NEW
    },
    Case {
        name: "MTU of the default route's link, no endpoint",
        place: "ip link set eth0 mtu 9000",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/24
[Peer]
PublicKey = {peer}
AllowedIPs = 10.5.0.0/24
",
        ..Case::NEW
    },
    Case {
        name: "MTU without any route",
        place: "ip route del default; ip -6 route del default",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/24
[Peer]
PublicKey = {peer}
AllowedIPs = 10.5.0.0/24
Endpoint = 203.0.113.1:51820
",
        ..Case::NEW
    },
    Case {
        name: "MTU of two endpoints: the smaller",
        place: "ip route add 203.0.113.0/24 via 192.0.2.1 mtu 1380
                ip -6 route add 2001:db8:1::/48 via 2001:db8::1 mtu 1450",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/24
[Peer]
PublicKey = {peer}
AllowedIPs = 10.5.0.0/24
Endpoint = 203.0.113.1:51820
[Peer]
PublicKey = {peer2}
AllowedIPs = 10.6.0.0/24
Endpoint = [2001:db8:1::1]:51820
",
        differs: &[(
            Before("-lt $mtu"),
            &[
                "links: - wg0: <POINTOPOINT,MULTICAST,NOARP,UP,LOWER_UP> mtu 1370 ",
                "links: + wg0: <POINTOPOINT,MULTICAST,NOARP,UP,LOWER_UP> mtu 1300 ",
                "sysctls: - ipv6.wg0.mtu = 1370",
                "sysctls: + ipv6.wg0.mtu = 1300",
            ],
        )],
        ..Case::NEW
    },
];
