//! Tests `wg_rs::sys` against the running kernel: real TUN devices, sockets and links, in network
//! namespaces that disappear with the test. They need root.

mod namespaces;
mod netlink;
mod tun;
mod udp;

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use wg_rs::sys::netlink::{Changes, LinkAddress, Netlink};
use wg_rs::sys::netns::NetNs;
use wg_rs::sys::poll;

/// A new, empty network namespace.
fn netns() -> NetNs {
    NetNs::new().expect("these tests create network namespaces, which needs root")
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Adds an address and waits until it is usable.
fn add_address(netlink: &mut Netlink, link: &str, ip: IpAddr, prefix: u8) {
    let changes = Changes::open().unwrap();
    let link = netlink.link(link).unwrap().index;
    netlink
        .add_address(&LinkAddress { link, ip, prefix })
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while !netlink.route_get(ip, None, 0).is_ok_and(|hop| hop.local) {
        assert!(Instant::now() < deadline, "{ip} is not in use");
        // The last event may arrive shortly before the route can be used, so this is checked again.
        poll::wait([changes.as_fd()], Some(Duration::from_millis(20))).unwrap();
        changes.take();
    }
}

/// Two hosts with a cable between their `eth0`: 10.0.0.1 and fd00::1 on the left, .2 and ::2 on the
/// right.
struct Cable {
    left: NetNs,
    right: NetNs,
}

impl Cable {
    fn new() -> Self {
        let cable = Cable {
            left: netns(),
            right: netns(),
        };
        let right = cable.right.as_fd();
        cable
            .left
            .run(|| {
                Netlink::open()
                    .unwrap()
                    .add_veth("eth0", "eth0", Some(right))
                    .unwrap()
            })
            .unwrap();
        for (host, number) in [(&cable.left, 1), (&cable.right, 2)] {
            host.run(|| {
                let mut netlink = Netlink::open().unwrap();
                netlink.set_up("lo", true).unwrap();
                netlink.set_up("eth0", true).unwrap();
                add_address(&mut netlink, "eth0", ip(&format!("10.0.0.{number}")), 24);
                add_address(&mut netlink, "eth0", ip(&format!("fd00::{number}")), 64);
            })
            .unwrap();
        }
        cable
    }

    /// Runs `work` in the left host, with a netlink connection there.
    fn left<T: Send>(&self, work: impl FnOnce(&mut Netlink) -> T + Send) -> T {
        self.left
            .run(|| work(&mut Netlink::open().unwrap()))
            .unwrap()
    }

    /// Runs `work` in the right host, with a netlink connection there.
    fn right<T: Send>(&self, work: impl FnOnce(&mut Netlink) -> T + Send) -> T {
        self.right
            .run(|| work(&mut Netlink::open().unwrap()))
            .unwrap()
    }
}
