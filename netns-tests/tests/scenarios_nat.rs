//! More scenarios of the kernel module's own test script (`netns.sh`): those with a great MTU, and
//! those with rules of nftables. The numbers are the positions in that script.

use std::io;
use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use netns_tests::netlink::Route;
use netns_tests::{
    Config, Daemon, Family, Host, Keys, Lab, PATIENCE, Ping, Plan, Tunnel, Via, binaries, require,
};
use nix::sys::socket::{setsockopt, sockopt};

fn v4(last: u8) -> IpAddr {
    [192, 0, 2, last].into()
}

fn has_nft() -> bool {
    require("nft", binaries::on_path("nft")).is_some()
}

fn nft(host: &Host, rules: &str) -> io::Result<()> {
    host.sh_with("nft", &["-f", "-"], rules).map(|_| ())
}

/// 5: pings and transfers with an MTU of 34 736 bytes, with each family outside and inside.
#[test]
fn a_great_mtu() -> io::Result<()> {
    let daemon = Daemon::ours()?;
    for outer in Family::ALL {
        let tunnel = Tunnel::established(&Plan {
            outer,
            cable_mtu: 34_816,
            mtu: 34_736,
            ..Plan::new(&daemon, &daemon)
        })?;
        for inner in Family::ALL {
            let ping = Ping {
                payload: 34_000,
                ..Ping::to(tunnel.b.inner(inner))
            };
            assert_eq!(tunnel.a.host.ping(&ping)?.lost(), 0, "{outer:?} {inner:?}");
            tunnel.transfer_both_ways(inner, 20_000_000)?;
        }
    }
    Ok(())
}

/// 14: a socket that is bound to the interface, on a host whose rules change the mark of each packet,
/// so that the kernel looks up its route again.
#[test]
fn a_socket_bound_to_the_interface_with_changed_marks() -> io::Result<()> {
    if !has_nft() {
        return Ok(());
    }
    let daemon = Daemon::ours()?;
    let tunnel = Tunnel::established(&Plan::new(&daemon, &daemon))?;
    let (a, b) = (&tunnel.a, &tunnel.b);
    nft(
        &a.host,
        "table inet marks { chain out { type route hook output priority mangle; meta mark set 1; }; }",
    )?;
    let there = b.inner(Family::V4);
    let answering = b.host.run(|| UdpSocket::bind((there, 7)))?;
    answering.set_read_timeout(Some(PATIENCE))?;
    let asking = a.host.run(|| -> io::Result<_> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        setsockopt(&socket, sockopt::BindToDevice, &"wg0".into())?;
        Ok(socket)
    })?;
    asking.set_read_timeout(Some(PATIENCE))?;
    for n in 0..10 {
        asking.send_to(&[n], (there, 7))?;
        let mut datagram = [0; 16];
        let (len, from) = answering.recv_from(&mut datagram)?;
        assert_eq!(
            (&datagram[..len], from.ip()),
            (&[n][..], a.inner(Family::V4))
        );
        answering.send_to(&[n, n], from)?;
        assert_eq!(asking.recv(&mut datagram)?, 2);
    }
    Ok(())
}

/// 17: a forwarded packet, whose source is replaced on its way into the tunnel, has no peer. Its sender
/// gets host unreachable, with its own packet in it.
#[test]
fn icmp_unreachable_reaches_a_sender_behind_nat() -> io::Result<()> {
    if !has_nft() {
        return Ok(());
    }
    let lab = Lab::new()?;
    let (host, behind) = (lab.host("host")?, lab.host("behind")?);
    lab.cable((&host, "eth0"), (&behind, "eth0"), 1500)?;
    host.address("eth0", v4(1), 24)?;
    behind.address("eth0", v4(2), 24)?;
    host.write("/proc/sys/net/ipv4/conf/all/forwarding", "1")?;
    behind.run(|| Route::via([10, 77, 0, 0].into(), 24, v4(1), "eth0").add())?;
    nft(
        &host,
        "table ip nat { chain post { type nat hook postrouting priority srcnat; oifname wg0 masquerade; }; }",
    )?;
    let wg = Daemon::ours()?.start(&host, "wg0", Via::Uapi)?;
    wg.set(&Config::new(&Keys::generate(), 0))?;
    wg.up(1420, &[([10, 77, 0, 1].into(), 24)])?;
    let icmp = behind.icmp(false)?;
    let sender = behind.run(|| UdpSocket::bind("0.0.0.0:0"))?;
    // A packet may be dropped while the link comes up.
    for _ in 0..100 {
        sender.send_to(b"anybody?", "10.77.0.9:7")?;
        let heard = icmp.wait(Duration::from_millis(300), |kind, code, rest| {
            // The undeliverable packet begins 6 bytes later; its source is compared.
            let IpAddr::V4(own) = v4(2) else { return None };
            let is_own = rest.get(6..)?.get(12..16)? == own.octets();
            ((kind, code) == (3, 1) && is_own).then_some(())
        })?;
        if heard.is_some() {
            return Ok(());
        }
    }
    panic!("no ICMP message arrived");
}
