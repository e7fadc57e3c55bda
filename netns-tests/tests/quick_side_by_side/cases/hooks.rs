//! Hooks.

use super::Stock::Before;
use super::{Case, IPTABLES};

pub const CASES: &[Case] = &[
    // ---- hooks
    Case {
        name: "hooks of all kinds, in their order",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/24
DNS = 10.0.0.1
PostDown = echo post-down 1 %i >> /etc/log
PreDown = echo pre-down 1 %i $(ip -o link show %i | wc -l) >> /etc/log
PostUp = echo post-up 1 %i $(ip -o -4 addr show %i | wc -l) >> /etc/log
PreUp = echo pre-up 1 '%i%i' >> /etc/log
PreUp = echo pre-up 2 \"$(wg show %i 2>&1 | wc -l)\" > /dev/null; echo pre-up 2 >> /etc/log
PostUp = wg show %i listen-port > /dev/null && echo post-up 2 >> /etc/log
PreDown = echo pre-down 2 >> /etc/log
PostDown = if ip link show %i; then echo still there; else echo gone; fi >> /etc/log 2> /dev/null
[Peer]
PublicKey = {peer}
AllowedIPs = 10.5.0.0/24
",
        ..Case::NEW
    },
    Case {
        name: "hooks: the state in which PreUp runs",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/24
PreUp = ip -o link show %i > /dev/null 2>&1 && echo a link >> /etc/log || echo no link >> /etc/log
PreUp = ip -o -4 addr show %i 2> /dev/null >> /etc/log || :
",
        differs: &[(Before("add_if\n\texecute_hooks"), &["log: - no link", "log: + a link"])],
        ..Case::NEW
    },
    Case {
        name: "hooks: a key from a file, by process substitution",
        place: "echo {key} > /etc/wireguard/wg0.key",
        config: "[Interface]
Address = 10.0.0.2/24
ListenPort = 51820
PostUp = wg set %i private-key /etc/wireguard/%i.key
PostUp = wg set %i peer {peer} preshared-key <(echo {psk})
[Peer]
PublicKey = {peer}
AllowedIPs = 10.5.0.0/24
",
        ..Case::NEW
    },
    Case {
        name: "hooks: resolvconf by hand, quotes, arrays, here strings",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/24
PostUp = echo nameserver 10.0.0.1 | resolvconf -a %i -m 0 -x
PostUp = a=( 'x y' \"z\" ); [[ ${a[1]} == z ]] && cat <<< \"${a[0]} = it's\" >> /etc/log
PostDown = resolvconf -d %i
",
        ..Case::NEW
    },
    Case {
        name: "hooks: a `#` in them is not a comment",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/24
PostUp = echo one '#' two >> /etc/log
",
        // The older script cuts the hook at the `#`, and a quote is left open.
        plain: Some((
            Before("unstripped_value"),
            "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/24
PostUp = printf 'one \\x23 two\\n' >> /etc/log
",
        )),
        ..Case::NEW
    },
    Case {
        name: "hooks: a comment after one",
        config: "[Interface]
PrivateKey = {key}
Address = 10.0.0.2/24
PostUp = echo one >> /etc/log # says one
",
        ..Case::NEW
    },
    Case {
        name: "hooks: the kill switch of wg-quick's manual page",
        place: IPTABLES,
        config: "[Interface]
PrivateKey = {key}
Address = 10.200.100.8/24
DNS = 10.200.100.1
PostUp = iptables -I OUTPUT ! -o %i -m mark ! --mark $(wg show %i fwmark) -m addrtype ! --dst-type LOCAL -j REJECT
PreDown = iptables -D OUTPUT ! -o %i -m mark ! --mark $(wg show %i fwmark) -m addrtype ! --dst-type LOCAL -j REJECT

[Peer]
PublicKey = {peer}
PresharedKey = {psk}
AllowedIPs = 0.0.0.0/0
Endpoint = vpn.example:51820
",
        ..Case::NEW
    },
];
