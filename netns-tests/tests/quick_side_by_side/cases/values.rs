//! Addresses, allowed IPs and DNS, in various spellings.

use super::Case;
use super::Stock::Always;

pub const CASES: &[Case] = &[
    // ---- Address and AllowedIPs
    Case {
        name: "many addresses in many lines",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/24,10.0.1.2/24 , 10.0.0.3/24
Address = 10.0.2.2
Address = fd00::2/64, fd00::3
Address = 192.168.250.1/30 10.255.0.9/31
[Peer]
PublicKey = {peer}
AllowedIPs = 10.0.0.0/24, 10.0.2.0/24, fd00::/64, fd00:1::/64
",
        ..Case::NEW
    },
    Case {
        name: "IPv6 only, link-local address too",
        config: "[Interface]
PrivateKey = {key}
Address = fd00::2/64, fe80::2/64
[Peer]
PublicKey = {peer}
AllowedIPs = fd00::1/128, 2001:db8:7::/48, fe80::1/128
Endpoint = [2001:db8:1::1]:51820
",
        ..Case::NEW
    },
    Case {
        name: "allowed IPs inside of the addresses' networks, and partly outside",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/24, fd00::2/64
[Peer]
PublicKey = {peer}
AllowedIPs = 10.0.0.0/24, 10.0.0.1/32, 10.0.0.0/23, fd00::1/128, fd00::/63
",
        ..Case::NEW
    },
    Case {
        name: "allowed IPs that nest and overlap, between peers",
        config: "[Interface]
PrivateKey = {key}
Address = 172.31.0.1/32
[Peer]
PublicKey = {peer}
AllowedIPs = 10.0.0.0/8, 10.1.0.0/16, 192.168.0.0/16
AllowedIPs = 10.1.2.0/24
[Peer]
PublicKey = {peer2}
AllowedIPs = 10.1.2.128/25, 192.168.7.0/24, 10.0.0.0/7
",
        ..Case::NEW
    },
    Case {
        name: "allowed IPs with host bits, without masks, with odd spaces",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/32
[Peer]
PublicKey = {peer}
AllowedIPs = 10.5.5.5/24 ,10.6.6.6,  fd00:5::5/48,fd00:6::6
",
        ..Case::NEW
    },
    Case {
        name: "an allowed IP that two peers have",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/32
[Peer]
PublicKey = {peer}
AllowedIPs = 10.5.0.0/24, 10.6.0.0/24
[Peer]
PublicKey = {peer2}
AllowedIPs = 10.5.0.0/24
",
        ..Case::NEW
    },
    Case {
        name: "a peer listed twice",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/32
[Peer]
PublicKey = {peer}
AllowedIPs = 10.5.0.0/24
[Peer]
PublicKey = {peer}
AllowedIPs = 10.6.0.0/24
PersistentKeepalive = 20
",
        ..Case::NEW
    },
    Case {
        name: "no peer",
        config: "[Interface]
PrivateKey = {key}
ListenPort = 51820
Address = 10.0.0.2/24, fd00::2/64
",
        ..Case::NEW
    },
    Case {
        name: "no address",
        config: "[Interface]
PrivateKey = {key}
ListenPort = 51820
[Peer]
PublicKey = {peer}
AllowedIPs = 10.5.0.0/24, fd05::/64
",
        ..Case::NEW
    },
    Case {
        name: "no allowed IPs, psk, keepalive off",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/24
FwMark = 51
[Peer]
PublicKey = {peer}
PresharedKey = {psk}
PersistentKeepalive = off
",
        ..Case::NEW
    },
    // ---- DNS
    Case {
        name: "DNS with search domains, of both families, in two lines",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/24
DNS = 10.0.0.1, corp.example
DNS = fd00::1 , lan.example,9.9.9.9
",
        ..Case::NEW
    },
    Case {
        name: "DNS with an order of interfaces",
        place: "mkdir -p /etc/resolvconf
                printf 'lo.*\\nlo.inet6\\ntun*\\ntap*\\n' > /etc/resolvconf/interface-order",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/24
DNS = 10.0.0.1
",
        ..Case::NEW
    },
    Case {
        name: "DNS with only search domains",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/24
DNS = corp.example, lan.example
",
        differs: &[(
            Always,
            &[
                "calls: + resolvconf [-a] [wg0] [-m] [0] [-x]",
                "calls: + search corp.example lan.example",
                "calls: + resolvconf [-d] [wg0] [-f]",
                "dns of wg0: + search corp.example lan.example",
            ],
        )],
        ..Case::NEW
    },
    // ---- spellings
    Case {
        name: "odd case and spacing",
        config: "  [interface]
privatekey={key}
	ADDRESS	=	10.0.0.2/24
listenPORT =51820
dns=10.0.0.1
mtu=1390
[PEER]
publickey   =   {peer}
allowedips=10.5.0.0/24,10.6.0.0/24
endPoint = 203.0.113.1 : 51820
presharedKey = {psk}
",
        ..Case::NEW
    },
    Case {
        name: "comments everywhere",
        config: "# head
[Interface] # the interface
PrivateKey = {key} # secret
#Address = 10.9.9.9/24
Address = 10.0.0.2/24 # here
   # indented
MTU = 1400# close
[Peer] # the peer
PublicKey = {peer} # = key
AllowedIPs = 10.5.0.0/24 #, 10.6.0.0/24
#Endpoint = 203.0.113.1:51820
# foot",
        ..Case::NEW
    },
    Case {
        name: "line ends of Windows",
        config: "[Interface]\r
PrivateKey = {key}\r
Address = 10.0.0.2/24, fd00::2/64\r
DNS = 10.0.0.1, corp.example\r
PostUp = echo up >> /etc/log\r
\r
[Peer]\r
PublicKey = {peer}\r
AllowedIPs = 0.0.0.0/0\r
Endpoint = 203.0.113.1:51820\r
",
        ..Case::NEW
    },
    Case {
        name: "sections in another order, and repeated",
        config: "[Peer]
PublicKey = {peer}
AllowedIPs = 10.5.0.0/24
[Interface]
PrivateKey = {key}
Address = 10.0.0.2/24
[Peer]
PublicKey = {peer2}
AllowedIPs = 10.6.0.0/24
[Interface]
Address = 10.0.1.2/24
ListenPort = 51820
",
        ..Case::NEW
    },
    Case {
        name: "a long name with all allowed characters",
        interface: "w_g=0+a.b-cdefg",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/24
DNS = 10.0.0.1
PostUp = echo %i >> /etc/log
[Peer]
PublicKey = {peer}
AllowedIPs = 10.5.0.0/24
Endpoint = 203.0.113.1:51820
",
        ..Case::NEW
    },
    Case {
        name: "full tunnel, a name of letters, digits, dash and dot",
        interface: "nl-ams.01",
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
        name: "a path instead of a name, by a symbolic link",
        place: "mkdir /etc/vpn; ln -s /etc/wireguard/wg0.conf /etc/vpn/tun7.conf",
        argument: "/etc/vpn/tun7.conf",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/24
PostUp = echo %i >> /etc/log
",
        ..Case::NEW
    },
    Case {
        name: "endpoints with names",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/24
[Peer]
PublicKey = {peer}
AllowedIPs = 10.5.0.0/24
Endpoint = vpn.example:51820
[Peer]
PublicKey = {peer2}
AllowedIPs = 10.6.0.0/24
Endpoint = vpn6.example:domain
",
        ..Case::NEW
    },
    Case {
        name: "an address with a mask, an empty MTU",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/255.255.255.0
MTU = 1300
MTU =
",
        ..Case::NEW
    },
    Case {
        name: "Table = 0",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/24
Table = 0
[Peer]
PublicKey = {peer}
AllowedIPs = 10.5.0.0/24, fd05::/64
",
        ..Case::NEW
    },
    Case {
        name: "SaveConfig = false",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/24
SaveConfig = False
",
        ..Case::NEW
    },
    Case {
        name: "SaveConfig = true",
        config: "[Interface]
Address = 10.0.0.2/24
SaveConfig = true
ListenPort = 51820
PrivateKey = {key}
PostUp = wg set %i peer {peer2} allowed-ips 10.6.0.0/24

[Peer]
PublicKey = {peer}
AllowedIPs = 10.5.0.0/24
Endpoint = 203.0.113.1:51820
PersistentKeepalive = 25
",
        ..Case::NEW
    },
];
