use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::Duration;

use wg_rs::sys::netlink::Netlink;
use wg_rs::sys::netns::NetNs;
use wg_rs::sys::poll::{self, Ready, Waker};
use wg_rs::sys::tun::{HEADER, Tun, TunOffloads};
use wg_rs::sys::udp::{Family, OuterHeader, Parcel, UdpOptions, UdpSocket};

use super::{add_address, ip, netns};

/// An IPv4 packet that every host drops silently, after an empty virtio header.
const PACKET: [u8; HEADER + 20] = {
    let mut bytes = [0; HEADER + 20];
    bytes[HEADER] = 0x45;
    bytes[HEADER + 3] = 20;
    bytes[HEADER + 8] = 64;
    bytes
};

fn send(tun: &Tun, packet: &[u8]) -> io::Result<usize> {
    let (header, packet) = packet.split_at(HEADER);
    tun.send(&[IoSlice::new(header), IoSlice::new(packet)])
}

fn errno<T: std::fmt::Debug>(result: io::Result<T>) -> Option<i32> {
    result.unwrap_err().raw_os_error()
}

fn poll_now(tun: &Tun) -> Ready {
    poll::wait([tun.as_fd()], Some(Duration::ZERO)).unwrap()[0]
}

fn read_all(tun: &Tun) -> usize {
    let mut buf = vec![0; 65536];
    std::iter::from_fn(|| tun.recv(&mut buf).ok()).count()
}

#[test]
fn a_link_has_one_owner_and_ends_with_it() {
    netns()
        .run(|| {
            let mut netlink = Netlink::open().unwrap();
            let tun = Tun::create("wg%d", TunOffloads::ALL).unwrap();
            assert_eq!(tun.name().unwrap(), "wg0");
            assert_eq!(tun.offloads(), TunOffloads::ALL);
            assert_eq!(netlink.link("wg0").unwrap().kind.as_deref(), Some("tun"));
            assert_eq!(
                errno(Tun::create("wg0", TunOffloads::ALL)),
                Some(libc::EBUSY)
            );
            assert_eq!(
                errno(Tun::create("lo", TunOffloads::ALL)),
                Some(libc::EINVAL)
            );
            for bad in ["", "a/b", "a b", "a:b", "a\0b", "sixteen-letters-"] {
                let error = Tun::create(bad, TunOffloads::ALL).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidInput, "{bad:?}");
            }
            assert!(Tun::create("fifteen-letters", TunOffloads::ALL).is_ok());
            drop(tun);
            assert!(netlink.link("wg0").unwrap_err().is_absent());
        })
        .unwrap();
}

#[test]
fn reading_writing_and_polling_in_each_state_of_the_device() {
    netns()
        .run(|| {
            let mut netlink = Netlink::open().unwrap();
            let tun = Tun::create("tun0", TunOffloads::ALL).unwrap();
            netlink.set_addr_gen_mode_none("tun0").unwrap();
            let mut buf = vec![0; 65536];
            let quiet = Ready::default();

            // Down.
            assert_eq!(
                tun.recv(&mut buf).unwrap_err().kind(),
                ErrorKind::WouldBlock
            );
            assert_eq!(errno(send(&tun, &PACKET)), Some(libc::EIO));
            assert_eq!(poll_now(&tun), quiet);

            // Up.
            netlink.set_up("tun0", true).unwrap();
            read_all(&tun);
            assert_eq!(
                tun.recv(&mut buf).unwrap_err().kind(),
                ErrorKind::WouldBlock
            );
            assert_eq!(send(&tun, &PACKET).unwrap(), PACKET.len());
            assert_eq!(poll_now(&tun), quiet);
            let neither = [&PACKET[..HEADER], &[0x15; 20]].concat();
            assert_eq!(errno(send(&tun, &neither)), Some(libc::EINVAL));

            // Down again.
            netlink.set_up("tun0", false).unwrap();
            assert_eq!(
                tun.recv(&mut buf).unwrap_err().kind(),
                ErrorKind::WouldBlock
            );
            assert_eq!(errno(send(&tun, &PACKET)), Some(libc::EIO));
            assert_eq!(poll_now(&tun), quiet);

            // Moving sets the link down; it is found and set up in the new namespace.
            netlink.set_up("tun0", true).unwrap();
            let there = NetNs::new().unwrap();
            assert!(
                NetNs::from(tun.netns().unwrap())
                    .is(&NetNs::current().unwrap())
                    .unwrap()
            );
            netlink.move_link("tun0", there.as_fd()).unwrap();
            assert_eq!(tun.name().unwrap(), "tun0");
            let netns = tun.netns().unwrap();
            let nsid = netlink.nsid_or_new(netns.as_fd()).unwrap();
            assert!(NetNs::from(netns).is(&there).unwrap());
            assert!(netlink.link("tun0").unwrap_err().is_absent());
            assert!(!netlink.link_in(nsid, "tun0").unwrap().up);
            assert_eq!(errno(send(&tun, &PACKET)), Some(libc::EIO));
            there
                .run(|| Netlink::open().unwrap().set_up("tun0", true).unwrap())
                .unwrap();
            assert!(netlink.link_in(nsid, "tun0").unwrap().up);
            assert_eq!(send(&tun, &PACKET).unwrap(), PACKET.len());
            assert!(!poll_now(&tun).error);

            // Deleted.
            there
                .run(|| Netlink::open().unwrap().delete_link("tun0").unwrap())
                .unwrap();
            assert!(netlink.link_in(nsid, "tun0").unwrap_err().is_absent());
            assert_eq!(errno(tun.recv(&mut buf)), Some(libc::EBADFD));
            assert_eq!(errno(send(&tun, &PACKET)), Some(libc::EBADFD));
            assert_eq!(errno(tun.name()), Some(libc::EBADFD));
            assert_eq!(errno(tun.netns()), Some(libc::EBADFD));
            assert!(poll_now(&tun).error);
        })
        .unwrap();
}

#[test]
fn a_device_is_deleted_with_its_namespace() {
    let home = netns();
    let away = netns();
    let tun = home
        .run(|| Tun::create("tun0", TunOffloads::ALL).unwrap())
        .unwrap();
    home.run(|| {
        Netlink::open()
            .unwrap()
            .move_link("tun0", away.as_fd())
            .unwrap()
    })
    .unwrap();
    drop(away);
    let [ready] = poll::wait([tun.as_fd()], Some(Duration::from_secs(10))).unwrap();
    assert!(ready.error);
    assert_eq!(errno(tun.recv(&mut [0; 100])), Some(libc::EBADFD));
}

#[test]
fn a_passed_descriptor_works_with_or_without_the_header() {
    netns()
        .run(|| {
            let mut netlink = Netlink::open().unwrap();
            for made in [TunOffloads::ALL, TunOffloads::NONE] {
                let original = Tun::create("tun0", made).unwrap();
                let fd = original.as_fd().try_clone_to_owned().unwrap();
                let tun = Tun::from_fd(fd, TunOffloads::ALL).unwrap();
                drop(original);
                assert_eq!(tun.offloads(), made);
                netlink.set_addr_gen_mode_none("tun0").unwrap();
                netlink.set_up("tun0", true).unwrap();
                add_address(&mut netlink, "tun0", ip("10.1.0.1"), 24);
                read_all(&tun);
                let socket = std::net::UdpSocket::bind("10.1.0.1:99").unwrap();
                socket.send_to(b"over", "10.1.0.2:7").unwrap();
                let mut buf = [0xff; 100];
                assert_eq!(tun.recv(&mut buf).unwrap(), HEADER + 32);
                assert_eq!(buf[HEADER], 0x45);
                assert_eq!(&buf[HEADER + 28..HEADER + 32], b"over");
                // The same packet in the other direction belongs to that socket.
                let mut back = [0; HEADER + 32];
                back[HEADER..].copy_from_slice(&buf[HEADER..HEADER + 32]);
                back[HEADER + 12..HEADER + 20].rotate_left(4);
                back[HEADER + 20..HEADER + 24].rotate_left(2);
                back[HEADER + 26..HEADER + 28].fill(0);
                assert_eq!(send(&tun, &back).unwrap(), back.len());
                socket
                    .set_read_timeout(Some(Duration::from_secs(5)))
                    .unwrap();
                assert_eq!(socket.recv(&mut buf).unwrap(), 4);
            }
            let file: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
            assert_eq!(
                errno(Tun::from_fd(file, TunOffloads::ALL)),
                Some(libc::ENOTTY)
            );
            let file: OwnedFd = std::fs::File::open("/dev/net/tun").unwrap().into();
            assert_eq!(
                errno(Tun::from_fd(file, TunOffloads::ALL)),
                Some(libc::EBADFD)
            );
        })
        .unwrap();
}

/// Two hosts, each with a TUN. Whatever is read from one TUN is written to the other unchanged.
struct Bridge {
    hosts: [NetNs; 2],
    tuns: [Tun; 2],
}

/// A packet read from a TUN: its virtio header and its length.
#[derive(Clone, Copy, Debug)]
struct Packet {
    gso_type: u8,
    gso_size: u16,
    len: usize,
}

impl Bridge {
    /// Uses these offloads on both sides. `set_up` may change the links before they are set up.
    fn new(offloads: TunOffloads, set_up: impl Fn(&mut Netlink) + Sync) -> Self {
        let hosts = [netns(), netns()];
        let mut number = 0;
        let tuns = hosts.each_ref().map(|host| {
            number += 1;
            host.run(|| {
                let tun = Tun::create("tun0", offloads).unwrap();
                let mut netlink = Netlink::open().unwrap();
                set_up(&mut netlink);
                netlink.set_up("tun0", true).unwrap();
                add_address(&mut netlink, "tun0", ip(&format!("10.1.0.{number}")), 24);
                add_address(&mut netlink, "tun0", ip(&format!("fd01::{number}")), 64);
                tun
            })
            .unwrap()
        });
        Bridge { hosts, tuns }
    }

    /// Carries packets both ways while `work` runs; those the first host sent.
    fn carry(&self, work: impl FnOnce()) -> Vec<Packet> {
        let stop = Waker::new().unwrap();
        thread::scope(|scope| {
            let there = scope.spawn(|| self.pump(0, 1, &stop));
            scope.spawn(|| self.pump(1, 0, &stop));
            // Also stops when `work` panics; otherwise the scope would never end.
            let _stopped = StopOnDrop(&stop);
            work();
            stop.signal();
            there.join().unwrap()
        })
    }

    fn pump(&self, from: usize, to: usize, stop: &Waker) -> Vec<Packet> {
        let mut buf = vec![0; 65536 + HEADER];
        let mut packets = Vec::new();
        loop {
            let [_, stopped] = poll::wait([self.tuns[from].as_fd(), stop.as_fd()], None).unwrap();
            if stopped.readable {
                return packets;
            }
            while let Ok(len) = self.tuns[from].recv(&mut buf) {
                let gso_size = u16::from_le_bytes([buf[4], buf[5]]);
                packets.push(Packet {
                    gso_type: buf[1],
                    gso_size,
                    len: len - HEADER,
                });
                send(&self.tuns[to], &buf[..len]).unwrap();
            }
        }
    }

    /// Sends 8 MiB over one TCP connection. Returns what was read from the sender's TUN.
    fn tcp(&self, family: Family) -> Vec<Packet> {
        const LEN: usize = 8 << 20;
        let address = |number: u8| match family {
            Family::V4 => ip(&format!("10.1.0.{number}")),
            Family::V6 => ip(&format!("fd01::{number}")),
        };
        let listener = self.hosts[1]
            .run(|| TcpListener::bind((address(2), 0)).unwrap())
            .unwrap();
        let to: SocketAddr = listener.local_addr().unwrap();
        self.carry(|| {
            thread::scope(|scope| {
                scope.spawn(|| {
                    let mut stream = self.hosts[0]
                        .run(|| TcpStream::connect(to).unwrap())
                        .unwrap();
                    let bytes: Vec<u8> = (0..LEN).map(|n| (n / 7) as u8).collect();
                    stream.write_all(&bytes).unwrap();
                });
                let mut received = Vec::new();
                listener
                    .accept()
                    .unwrap()
                    .0
                    .read_to_end(&mut received)
                    .unwrap();
                assert_eq!(received.len(), LEN);
                assert!(
                    received
                        .iter()
                        .enumerate()
                        .all(|(n, byte)| *byte == (n / 7) as u8)
                );
            });
        })
    }
}

struct StopOnDrop<'a>(&'a Waker);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.signal();
    }
}

const TCPV4: u8 = 1;
const TCPV6: u8 = 4;
const UDP_L4: u8 = 5;

#[test]
fn tcp_super_packets_are_read_if_requested() {
    for (family, kind) in [(Family::V4, TCPV4), (Family::V6, TCPV6)] {
        let packets = Bridge::new(TunOffloads::ALL, |_| ()).tcp(family);
        let longest = packets.iter().max_by_key(|packet| packet.len).unwrap();
        assert!(
            longest.len > 30_000 && longest.gso_type == kind,
            "{longest:?}"
        );
        assert!(longest.gso_size <= 1460);

        for offloads in [
            TunOffloads {
                tso: false,
                ..TunOffloads::ALL
            },
            TunOffloads::NONE,
        ] {
            let packets = Bridge::new(offloads, |_| ()).tcp(family);
            assert!(
                packets
                    .iter()
                    .all(|packet| packet.gso_type == 0 && packet.len <= 1500)
            );
        }
    }
}

#[test]
fn limits_of_super_packets_are_respected() {
    for family in [Family::V4, Family::V6] {
        for (bytes, segments) in [(20_000, 64), (65_536, 10)] {
            let bridge = Bridge::new(TunOffloads::ALL, |netlink| {
                netlink.set_gso_limits("tun0", bytes, segments).unwrap();
            });
            let packets = bridge.tcp(family);
            let longest = packets.iter().max_by_key(|packet| packet.len).unwrap();
            let limit = (bytes as usize).min((segments as usize + 1) * 1500);
            assert!(
                longest.len > limit / 2 && longest.len <= limit,
                "{longest:?}"
            );
        }
    }
}

#[test]
fn udp_super_packets_are_read_if_requested() {
    for (family, to) in [(Family::V4, "10.1.0.2"), (Family::V6, "fd01::2")] {
        for uso in [true, false] {
            let bridge = Bridge::new(
                TunOffloads {
                    uso,
                    ..TunOffloads::ALL
                },
                |_| (),
            );
            assert_eq!(bridge.tuns[0].offloads().uso, uso);
            let bind = || UdpSocket::bind(family, 0, &UdpOptions::default()).unwrap();
            let sender = bridge.hosts[0].run(bind).unwrap();
            let receiver = bridge.hosts[1].run(bind).unwrap();
            let to = SocketAddr::new(ip(to), receiver.port());
            let packets = bridge.carry(|| {
                let parcel = Parcel {
                    to,
                    source: None,
                    header: OuterHeader::default(),
                };
                sender.send(&[7; 10 * 1200], Some(1200), &parcel).unwrap();
                let mut len = 0;
                while len < 10 * 1200 {
                    let wait = Some(Duration::from_secs(5));
                    assert!(poll::wait([receiver.as_fd()], wait).unwrap()[0].readable);
                    len += receiver.recv(&mut [0; 65536]).unwrap().len;
                }
            });
            let supers: Vec<_> = packets
                .iter()
                .filter(|packet| packet.gso_type == UDP_L4)
                .collect();
            assert_eq!(supers.len(), usize::from(uso));
            assert!(supers.iter().all(|packet| packet.gso_size == 1200));
            let singles = packets.iter().filter(|packet| packet.len > 1200).count();
            assert_eq!(singles, if uso { 1 } else { 10 });
        }
    }
}
