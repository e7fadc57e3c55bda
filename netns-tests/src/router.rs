//! Hosts behind routers that translate addresses with nftables, and an Internet between them.
//!
//! ```text
//! hub eth0 192.0.2.1 ── core ── wan 203.0.113.2, .6, … router lan 192.168.1.1 ── 192.168.1.2 eth0 host
//!          2001:db8::1                2001:db8:f00N::2           2001:db8:N::1   2001:db8:N::2
//! ```
//! All hosts behind routers have the same private address. IPv6 is not translated: the routers let only
//! answers in.

use std::io;
use std::net::IpAddr;

use crate::netlink::Route;
use crate::{Family, Host, Lab};

/// How a router translates UDP, in the terms of RFC 3489, section 5. The host's port 51820 is 40000
/// outside, except for [`NatKind::Symmetric`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NatKind {
    /// One outside port for all destinations, to which everybody may send.
    FullCone,
    /// The same port, but only addresses that the host has sent to may send to it, from any port.
    AddressRestricted,
    /// The same port, but only addresses and ports that the host has sent to may send to it.
    PortRestricted,
    /// A different port for each destination, and only that destination may send to it.
    Symmetric,
}

impl NatKind {
    /// All kinds.
    pub const ALL: [NatKind; 4] = [
        NatKind::FullCone,
        NatKind::AddressRestricted,
        NatKind::PortRestricted,
        NatKind::Symmetric,
    ];

    /// Returns the rules of a router whose outer address is `wan`, for `nft -f`.
    fn rules(self, wan: IpAddr) -> String {
        let source = match self {
            NatKind::Symmetric => "oifname \"wan\" masquerade fully-random".into(),
            _ => format!(
                "oifname \"wan\" udp sport 51820 snat to {wan}:40000\n  oifname \"wan\" masquerade"
            ),
        };
        let open = match self {
            NatKind::FullCone | NatKind::AddressRestricted => {
                " chain prerouting_nat {\n  type nat hook prerouting priority -100;\n  \
                 iifname \"wan\" udp dport 40000 dnat to 192.168.1.2:51820\n }\n"
            }
            _ => "",
        };
        let forward = match self {
            NatKind::FullCone => "",
            NatKind::AddressRestricted => {
                "oifname \"wan\" update @seen { ip daddr }\n  \
                 iifname \"wan\" ct state new ip saddr != @seen drop"
            }
            _ => "iifname \"wan\" ct state new drop",
        };
        // Without the drop on input, a stray packet would occupy the port that a later mapping needs.
        format!(
            "table ip nat {{\n set seen {{\n  type ipv4_addr\n  flags dynamic,timeout\n  timeout 30s\n }}\n \
             chain postrouting_nat {{\n  type nat hook postrouting priority 100;\n  {source}\n }}\n{open} \
             chain in_from_wan {{\n  type filter hook input priority 0;\n  \
             iifname \"wan\" ct state new drop\n }}\n \
             chain through {{\n  type filter hook forward priority 0;\n  {forward}\n }}\n}}\n\
             table ip6 firewall {{\n chain in_from_wan {{\n  type filter hook input priority 0;\n  \
             iifname \"wan\" meta l4proto udp ct state new drop\n }}\n \
             chain through {{\n  type filter hook forward priority 0;\n  \
             iifname \"wan\" meta l4proto udp ct state new drop\n }}\n}}\n"
        )
    }
}

/// A host behind a router.
#[derive(Debug)]
pub struct Branch {
    /// The host behind the router.
    pub host: Host,
    /// Its router.
    pub router: Host,
    /// The router's outer address.
    pub wan: IpAddr,
}

/// A host that all can reach, and branches that cannot reach each other. Dropping it ends all hosts.
#[derive(Debug)]
pub struct Internet {
    /// The host with a public address.
    pub hub: Host,
    /// The branches, each behind a router of the requested kind.
    pub branches: Vec<Branch>,
    /// The host that forwards between them.
    pub core: Host,
    /// The owner of the hosts.
    pub lab: Lab,
}

impl Internet {
    /// Creates a hub, and a branch for each kind of router. Needs `nft`.
    pub fn new(kinds: &[NatKind]) -> io::Result<Internet> {
        let lab = Lab::new()?;
        let (hub, core) = (lab.host("hub")?, lab.host("core")?);
        forwards(&core)?;
        lab.cable((&hub, "eth0"), (&core, "hub"), 1500)?;
        hub.address("eth0", Internet::hub(Family::V4), 24)?;
        hub.address("eth0", Internet::hub(Family::V6), 64)?;
        core.address("hub", [192, 0, 2, 254], 24)?;
        core.address("hub", v6(0, 254), 64)?;
        default(&hub, [192, 0, 2, 254].into(), v6(0, 254), "eth0")?;
        let mut branches = Vec::new();
        for (kind, n) in kinds.iter().zip(1u8..) {
            branches.push(branch(&lab, &core, *kind, n)?);
        }
        Ok(Internet {
            hub,
            branches,
            core,
            lab,
        })
    }

    /// The address of the hub.
    pub fn hub(family: Family) -> IpAddr {
        match family {
            Family::V4 => [192, 0, 2, 1].into(),
            Family::V6 => v6(0, 1),
        }
    }
}

fn branch(lab: &Lab, core: &Host, kind: NatKind, n: u8) -> io::Result<Branch> {
    let (host, router) = (
        lab.host(&format!("branch{n}"))?,
        lab.host(&format!("router{n}"))?,
    );
    forwards(&router)?;
    let (link, net) = (format!("branch{n}"), u16::from(n));
    lab.cable((&router, "wan"), (core, &link), 1500)?;
    lab.cable((&host, "eth0"), (&router, "lan"), 1500)?;
    let wan: IpAddr = [203, 0, 113, 4 * n + 2].into();
    core.address(&link, [203, 0, 113, 4 * n + 1], 30)?;
    core.address(&link, v6(0xf000 + net, 1), 64)?;
    router.address("wan", wan, 30)?;
    router.address("wan", v6(0xf000 + net, 2), 64)?;
    router.address("lan", [192, 168, 1, 1], 24)?;
    router.address("lan", v6(net, 1), 64)?;
    host.address("eth0", [192, 168, 1, 2], 24)?;
    host.address("eth0", v6(net, 2), 64)?;
    default(
        &router,
        [203, 0, 113, 4 * n + 1].into(),
        v6(0xf000 + net, 1),
        "wan",
    )?;
    default(&host, [192, 168, 1, 1].into(), v6(net, 1), "eth0")?;
    core.run(|| Route::via(v6(net, 0), 64, v6(0xf000 + net, 2), &link).add())?;
    router.sh_with("nft", &["-f", "-"], &kind.rules(wan))?;
    for timeout in [
        "nf_conntrack_udp_timeout",
        "nf_conntrack_udp_timeout_stream",
    ] {
        router.write(&format!("/proc/sys/net/netfilter/{timeout}"), "30")?;
    }
    Ok(Branch { host, router, wan })
}

fn v6(net: u16, host: u16) -> IpAddr {
    [0x2001, 0xdb8, net, 0, 0, 0, 0, host].into()
}

fn forwards(host: &Host) -> io::Result<()> {
    host.write("/proc/sys/net/ipv4/ip_forward", "1")?;
    host.write("/proc/sys/net/ipv6/conf/all/forwarding", "1")
}

fn default(host: &Host, v4: IpAddr, v6: IpAddr, link: &str) -> io::Result<()> {
    host.run(|| {
        Route::via([0, 0, 0, 0].into(), 0, v4, link).add()?;
        Route::via([0u16; 8].into(), 0, v6, link).add()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PATIENCE, binaries, require, until};
    use std::net::{SocketAddr, UdpSocket};
    use std::time::Duration;

    /// Sends from one socket to an address, and returns the source address that the receiver sees. `None` if
    /// the datagram did not arrive.
    fn passes(from: &UdpSocket, to: SocketAddr, at: &UdpSocket) -> io::Result<Option<SocketAddr>> {
        from.send_to(b"x", to)?;
        match at.recv_from(&mut [0; 8]) {
            Ok((_, seen)) => Ok(Some(seen)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn socket(host: &Host, port: u16) -> io::Result<UdpSocket> {
        let socket = host.run(|| UdpSocket::bind(("0.0.0.0", port)))?;
        socket.set_read_timeout(Some(Duration::from_millis(300)))?;
        Ok(socket)
    }

    #[test]
    fn each_kind_of_router_translates_and_filters_as_defined() -> io::Result<()> {
        if require("nft", binaries::on_path("nft")).is_none() {
            return Ok(());
        }
        let net = Internet::new(&NatKind::ALL)?;
        let (first, second) = (socket(&net.hub, 1000)?, socket(&net.hub, 2000)?);
        let other = socket(&net.core, 3000)?;
        let hub = Internet::hub(Family::V4);
        for (kind, branch) in NatKind::ALL.into_iter().zip(&net.branches) {
            let inside = socket(&branch.host, 51820)?;
            // The first datagram may be lost during neighbour discovery.
            let seen = until(PATIENCE, "a datagram to leave", || {
                passes(&inside, (hub, 1000).into(), &first)
            })?;
            let again = passes(&inside, (hub, 2000).into(), &second)?;
            assert_eq!(seen.ip(), branch.wan, "{kind:?}");
            assert_eq!(again == Some(seen), kind != NatKind::Symmetric, "{kind:?}");
            assert!(
                passes(&first, seen, &inside)?.is_some(),
                "{kind:?}: an answer"
            );
            let third = socket(&net.hub, 4000)?;
            let by_address = [NatKind::FullCone, NatKind::AddressRestricted].contains(&kind);
            assert_eq!(
                passes(&third, seen, &inside)?.is_some(),
                by_address,
                "{kind:?}: another port"
            );
            let by_any = kind == NatKind::FullCone;
            assert_eq!(
                passes(&other, seen, &inside)?.is_some(),
                by_any,
                "{kind:?}: anybody"
            );
        }
        Ok(())
    }
}
