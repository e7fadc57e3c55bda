//! Files as in guides, and from VPN providers.

use super::{Case, IPTABLES};

pub const CASES: &[Case] = &[
    // ---- the two ends of a tunnel, as in most guides
    Case {
        name: "guide: a client, everything through the tunnel",
        config: "[Interface]
PrivateKey = {key}
Address = 10.8.0.2/24
DNS = 8.8.8.8, 8.8.4.4

[Peer]
PublicKey = {peer}
AllowedIPs = 0.0.0.0/0, ::/0
Endpoint = 203.0.113.1:51820
PersistentKeepalive = 25
",
        ..Case::NEW
    },
    Case {
        name: "guide: a server with masquerading by iptables",
        place: IPTABLES,
        config: "[Interface]
Address = 10.8.0.1/24
ListenPort = 51820
PrivateKey = {key}
PostUp = iptables -A FORWARD -i %i -j ACCEPT; iptables -t nat -A POSTROUTING -o eth0 -j MASQUERADE
PostDown = iptables -D FORWARD -i %i -j ACCEPT; iptables -t nat -D POSTROUTING -o eth0 -j MASQUERADE

[Peer]
PublicKey = {peer}
AllowedIPs = 10.8.0.2/32

[Peer]
PublicKey = {peer2}
AllowedIPs = 10.8.0.3/32
",
        ..Case::NEW
    },
    Case {
        name: "guide: a server with masquerading by nft, in several hooks",
        config: "[Interface]
Address = 10.8.0.1/24, fd0d:86fa:c3bc::1/64
ListenPort = 51820
PrivateKey = {key}
PostUp = nft add table inet %i-nat
PostUp = nft add chain inet %i-nat post '{ type nat hook postrouting priority 100; }'
PostUp = nft add rule inet %i-nat post oifname \"eth0\" masquerade
PostDown = nft delete table inet %i-nat

[Peer]
PublicKey = {peer}
AllowedIPs = 10.8.0.2/32, fd0d:86fa:c3bc::2/128
",
        ..Case::NEW
    },
    Case {
        name: "guide: site to site",
        config: "[Interface]
PrivateKey = {key}
Address = 10.99.0.1/30
ListenPort = 51821

[Peer]
PublicKey = {peer}
Endpoint = 203.0.113.1:51821
AllowedIPs = 10.99.0.2/32, 192.168.20.0/24, 192.168.21.0/24
PersistentKeepalive = 25
",
        ..Case::NEW
    },
    // ---- providers
    Case {
        name: "provider: /32 and /128, `::0/0`, own resolver",
        config: "[Interface]
PrivateKey = {key}
Address = 10.64.12.34/32,fc00:bbbb:bbbb:bb01::1:c22/128
DNS = 10.64.0.1

[Peer]
PublicKey = {peer}
AllowedIPs = 0.0.0.0/0,::0/0
Endpoint = 203.0.113.7:51820
",
        ..Case::NEW
    },
    Case {
        name: "provider: kill switch by iptables",
        place: IPTABLES,
        config: "[Interface]
PrivateKey = {key}
Address = 10.64.12.34/32,fc00:bbbb:bbbb:bb01::1:c22/128
DNS = 10.64.0.1
PostUp = iptables -I OUTPUT ! -o %i -m mark ! --mark $(wg show %i fwmark) -m addrtype ! --dst-type LOCAL -j REJECT && ip6tables -I OUTPUT ! -o %i -m mark ! --mark $(wg show %i fwmark) -m addrtype ! --dst-type LOCAL -j REJECT
PreDown = iptables -D OUTPUT ! -o %i -m mark ! --mark $(wg show %i fwmark) -m addrtype ! --dst-type LOCAL -j REJECT && ip6tables -D OUTPUT ! -o %i -m mark ! --mark $(wg show %i fwmark) -m addrtype ! --dst-type LOCAL -j REJECT

[Peer]
PublicKey = {peer}
AllowedIPs = 0.0.0.0/0,::0/0
Endpoint = 203.0.113.7:51820
",
        ..Case::NEW
    },
    Case {
        name: "provider: settings kept in comments",
        config: "[Interface]
# Bouncing = 2
# NetShield = 1
# VPN Accelerator = on
PrivateKey = {key}
Address = 10.2.0.2/32
DNS = 10.2.0.1

[Peer]
# NL-FREE#1
PublicKey = {peer}
AllowedIPs = 0.0.0.0/0
Endpoint = 203.0.113.7:51820
",
        ..Case::NEW
    },
    Case {
        name: "provider: MTU, psk, two resolvers, split default routes",
        config: "[Interface]
Address = 10.131.2.5/32,fd7d:76ee:e68f:a993::5/128
PrivateKey = {key}
MTU = 1320
DNS = 10.128.0.1, fd7d:76ee:e68f:a993::1

[Peer]
PublicKey = {peer}
PresharedKey = {psk}
Endpoint = 203.0.113.7:1637
AllowedIPs = 0.0.0.0/1, 128.0.0.0/1, ::/1, 8000::/1
PersistentKeepalive = 15
",
        ..Case::NEW
    },
    Case {
        name: "provider: everything but private networks",
        config: "[Interface]
PrivateKey = {key}
Address = 10.14.0.2/16

[Peer]
PublicKey = {peer}
Endpoint = 203.0.113.7:51820
AllowedIPs = 0.0.0.0/5, 8.0.0.0/7, 11.0.0.0/8, 12.0.0.0/6, 16.0.0.0/4, 32.0.0.0/3, 64.0.0.0/2, 128.0.0.0/3, 160.0.0.0/5, 168.0.0.0/6, 172.0.0.0/12, 172.32.0.0/11, 172.64.0.0/10, 172.128.0.0/9, 173.0.0.0/8, 174.0.0.0/7, 176.0.0.0/4, 192.0.0.0/9, 192.128.0.0/11, 192.160.0.0/13, 192.169.0.0/16, 192.170.0.0/15, 192.172.0.0/14, 192.176.0.0/12, 192.192.0.0/10, 193.0.0.0/8, 194.0.0.0/7, 196.0.0.0/6, 200.0.0.0/5, 208.0.0.0/4
",
        ..Case::NEW
    },
];
