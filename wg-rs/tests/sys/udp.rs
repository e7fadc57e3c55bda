use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use wg_rs::datapath::egress::Egress;
use wg_rs::datapath::now;
use wg_rs::sys::netlink::{Netlink, Route, Rule};
use wg_rs::sys::poll;
use wg_rs::sys::udp::{Family, MAX_SEGMENTS, OuterHeader, Parcel, Received, UdpOptions, UdpSocket};
use wg_rs::tunnel::peer::{Endpoint, Source};

use super::{Cable, add_address, ip};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
const PLAIN: UdpOptions = UdpOptions {
    gso: false,
    gro: false,
    fwmark: 0,
};

/// Address of the left (1) or right (2) host.
fn host(family: Family, number: u8) -> IpAddr {
    match family {
        Family::V4 => ip(&format!("10.0.0.{number}")),
        Family::V6 => ip(&format!("fd00::{number}")),
    }
}

/// A socket on each side; the left one as the data path uses it. Also returns the right one's
/// address.
fn pair(
    cable: &Cable,
    family: Family,
    left: UdpOptions,
    right: UdpOptions,
) -> (Egress, UdpSocket, SocketAddr) {
    let left = egress(cable.left(|_| UdpSocket::bind(family, 0, &left).unwrap()));
    let right = cable.right(|_| UdpSocket::bind(family, 0, &right).unwrap());
    let to = SocketAddr::new(host(family, 2), right.port());
    (left, right, to)
}

fn egress(socket: UdpSocket) -> Egress {
    let gso = socket.features().gso;
    Egress::new(Arc::new(socket), gso)
}

/// Sends a burst. Returns the error of the first datagram that was refused.
fn send(
    by: &Egress,
    datagrams: &[u8],
    stride: usize,
    to: SocketAddr,
    source: Option<(IpAddr, u32)>,
    tos: u8,
) -> io::Result<()> {
    let src = source.map(|(ip, ifindex)| Source { ip, ifindex });
    let header = OuterHeader::with_tos(tos);
    let sent = by.send(
        datagrams,
        stride,
        &Endpoint { addr: to, src },
        header,
        now(),
    );
    match sent.error {
        Some(error) => Err(error),
        None => {
            assert_eq!((sent.bytes, sent.refused), (datagrams.len(), 0));
            Ok(())
        }
    }
}

fn recv(socket: &UdpSocket, buf: &mut [u8]) -> Received {
    let [ready] = poll::wait([socket.as_fd()], Some(Duration::from_secs(5))).unwrap();
    assert!(ready.readable, "nothing arrived in 5 s");
    socket.recv(buf).unwrap()
}

/// Datagrams of `stride` bytes, each filled with its number; the last has `tail` bytes.
fn burst(count: usize, stride: usize, tail: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..count).flat_map(|n| vec![n as u8; stride]).collect();
    bytes.truncate((count - 1) * stride + tail);
    bytes
}

/// Receives until `len` bytes have arrived. Returns the bytes and the number of calls.
fn collect(socket: &UdpSocket, stride: usize, len: usize) -> (Vec<u8>, usize) {
    let mut all = Vec::new();
    let mut buf = vec![0; 65536];
    let mut calls = 0;
    while all.len() < len {
        let received = recv(socket, &mut buf);
        assert!(!received.truncated);
        assert_eq!(received.stride, stride.min(received.len));
        assert!(received.len.is_multiple_of(stride) || all.len() + received.len == len);
        all.extend_from_slice(&buf[..received.len]);
        calls += 1;
    }
    (all, calls)
}

#[test]
fn a_burst_is_sent_and_received_in_one_call_each() {
    let cable = Cable::new();
    for family in FAMILIES {
        let (left, right, to) = pair(&cable, family, UdpOptions::default(), UdpOptions::default());
        assert!(left.wire().features().gso && right.features().gro);
        let sent = burst(45, 1452, 700);
        send(&left, &sent, 1452, to, None, 0).unwrap();
        let (got, calls) = collect(&right, 1452, sent.len());
        assert!(got == sent);
        assert_eq!(calls, 1);
        assert_eq!(
            right.recv(&mut [0; 9]).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
    }
}

#[test]
fn all_combinations_of_offloads_carry_the_same_datagrams() {
    let cable = Cable::new();
    let gso = UdpOptions { gso: true, ..PLAIN };
    let gro = UdpOptions { gro: true, ..PLAIN };
    for family in FAMILIES {
        for (left, right) in [(PLAIN, PLAIN), (gso, PLAIN), (PLAIN, gro)] {
            let (left, right, to) = pair(&cable, family, left, right);
            let sent = burst(45, 1000, 1);
            send(&left, &sent, 1000, to, None, 0).unwrap();
            let (got, calls) = collect(&right, 1000, sent.len());
            assert!(got == sent);
            assert_eq!(calls, 45);
        }
    }
}

#[test]
fn bursts_beyond_the_kernels_limits_are_divided() {
    let cable = Cable::new();
    for (count, stride) in [(3 * MAX_SEGMENTS + 5, 40), (100, 1400), (3, 30_000)] {
        for family in FAMILIES {
            let (left, right, to) =
                pair(&cable, family, UdpOptions::default(), UdpOptions::default());
            let sent = burst(count, stride, stride);
            send(&left, &sent, stride, to, None, 0).unwrap();
            assert!(collect(&right, stride, sent.len()).0 == sent);
        }
    }
}

#[test]
fn the_receiver_learns_tos_and_addresses() {
    let cable = Cable::new();
    let index = cable.right(|netlink| netlink.link("eth0").unwrap().index);
    for family in FAMILIES {
        let (left, right, to) = pair(&cable, family, UdpOptions::default(), UdpOptions::default());
        for (tos, count) in [(0, 1), (0x88, 1), (3, 1), (2, 20), (0xff, 20)] {
            let sent = burst(count, 500, 500);
            send(&left, &sent, 500, to, None, tos).unwrap();
            let received = recv(&right, &mut [0; 65536]);
            assert_eq!(received.len, sent.len());
            assert_eq!(received.tos, tos);
            assert_eq!(
                received.from,
                SocketAddr::new(host(family, 1), left.wire().port())
            );
            assert_eq!(received.to, Some(host(family, 2)));
            assert_eq!(received.ifindex, index);
        }
    }
}

#[test]
fn a_hop_limit_is_sent_and_is_reported_on_request() {
    let cable = Cable::new();
    for family in FAMILIES {
        let (left, right, to) = pair(&cable, family, UdpOptions::default(), UdpOptions::default());
        let to = Endpoint {
            addr: to,
            src: None,
        };
        for is_asked in [false, true] {
            if is_asked {
                right.report_hop_limit().unwrap();
            }
            for (hop_limit, count) in [(None, 1), (Some(1), 1), (Some(255), 20), (Some(7), 20)] {
                let sent = burst(count, 500, 500);
                let header = OuterHeader {
                    tos: 0x88,
                    hop_limit,
                };
                let result = left.send(&sent, 500, &to, header, now());
                assert_eq!((result.bytes, result.refused), (sent.len(), 0));
                let received = recv(&right, &mut [0; 65536]);
                assert_eq!((received.len, received.tos), (sent.len(), 0x88));
                let expected = is_asked.then_some(hop_limit.unwrap_or(64));
                assert_eq!(received.hop_limit, expected);
            }
        }
    }
}

#[test]
fn the_given_source_is_used() {
    let cable = Cable::new();
    for family in FAMILIES {
        let other = host(family, 77);
        cable.left(|netlink| {
            let prefix = if other.is_ipv4() { 24 } else { 64 };
            add_address(netlink, "eth0", other, prefix);
        });
        let (left, right, to) = pair(&cable, family, UdpOptions::default(), UdpOptions::default());
        for count in [1, 20] {
            let sent = burst(count, 500, 500);
            // The index of a link that no longer exists must not matter, because routing decides.
            send(&left, &sent, 500, to, Some((other, 4711)), 0).unwrap();
            let received = recv(&right, &mut [0; 65536]);
            assert_eq!((received.len, received.from.ip()), (sent.len(), other));
        }
    }
}

#[test]
fn link_local_addresses_have_their_scope() {
    let cable = Cable::new();
    let addresses = [(&cable.left, "fe80::11"), (&cable.right, "fe80::22")];
    let links = addresses.map(|(host, address)| {
        host.run(|| {
            let mut netlink = Netlink::open().unwrap();
            add_address(&mut netlink, "eth0", ip(address), 64);
            netlink.link("eth0").unwrap().index
        })
        .unwrap()
    });
    let (left, right, to) = pair(
        &cable,
        Family::V6,
        UdpOptions::default(),
        UdpOptions::default(),
    );
    let to = format!("[fe80::22%{}]:{}", links[0], to.port())
        .parse()
        .unwrap();
    send(&left, b"hello", 5, to, Some((ip("fe80::11"), links[0])), 0).unwrap();
    let received = recv(&right, &mut [0; 100]);
    assert_eq!(received.from.ip(), ip("fe80::11"));
    assert_eq!(received.ifindex, links[1]);
    assert!(matches!(received.from, SocketAddr::V6(from) if from.scope_id() == links[1]));
    // The way back, using the received addresses.
    let parcel = Parcel {
        to: received.from,
        source: received.to.map(|ip| (ip, received.ifindex)),
        header: OuterHeader::default(),
    };
    assert_eq!(right.send(b"hi", None, &parcel).unwrap(), 2);
    assert_eq!(recv(left.wire(), &mut [0; 100]).len, 2);
}

#[test]
fn a_source_that_is_not_local_is_left_out_and_reported() {
    let cable = Cable::new();
    for family in FAMILIES {
        let (left, right, to) = pair(&cable, family, UdpOptions::default(), UdpOptions::default());
        for count in [1, 20] {
            let burst = burst(count, 500, 400);
            let foreign = Endpoint {
                addr: to,
                src: Some(Source {
                    ip: host(family, 99),
                    ifindex: 0,
                }),
            };
            let parcel = Parcel {
                to,
                source: Some((host(family, 99), 0)),
                header: OuterHeader::default(),
            };
            assert!(left.wire().send(&burst[..400], None, &parcel).is_err());
            let sent = left.send(&burst, 500, &foreign, OuterHeader::default(), now());
            assert!(sent.bad_source && sent.error.is_none());
            let received = recv(&right, &mut [0; 65536]);
            assert_eq!(received.len, burst.len(), "received once, in one call");
            assert_eq!(received.from.ip(), host(family, 1));
        }
    }
}

#[test]
fn routing_uses_the_fwmark() {
    let cable = Cable::new();
    for (family, far) in [(Family::V4, "192.0.2.1"), (Family::V6, "2001:db8::1")] {
        let far = ip(far);
        let bits = if far.is_ipv4() { 32 } else { 128 };
        cable.right(|netlink| {
            add_address(netlink, "lo", far, bits);
        });
        cable.left(|netlink| {
            let link = netlink.link("eth0").unwrap().index;
            let gateway = Some(host(family, 2));
            netlink
                .add_route(&Route {
                    gateway,
                    table: 1234,
                    ..Route::new((far, bits), link)
                })
                .unwrap();
            let rule = Rule {
                fwmark: Some(0x51),
                ..Rule::new(family, 1234)
            };
            netlink.add_rule(&rule).unwrap();
        });
        let (left, right, to) = pair(&cable, family, UdpOptions::default(), UdpOptions::default());
        let to = SocketAddr::new(far, to.port());
        let error = send(&left, b"lost", 4, to, None, 0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENETUNREACH));
        left.wire().set_fwmark(0x51).unwrap();
        send(&left, b"one", 3, to, None, 0).unwrap();
        let marked = UdpOptions {
            fwmark: 0x51,
            ..UdpOptions::default()
        };
        let marked = egress(cable.left(|_| UdpSocket::bind(family, 0, &marked).unwrap()));
        send(&marked, b"three", 5, to, None, 0).unwrap();
        assert_eq!(recv(&right, &mut [0; 100]).len, 3);
        assert_eq!(recv(&right, &mut [0; 100]).len, 5);
    }
}

#[test]
fn a_stride_above_the_mtu_is_fragmented_and_does_not_disable_offloads() {
    let cable = Cable::new();
    cable.left(|netlink| netlink.set_mtu("eth0", 1280).unwrap());
    for family in FAMILIES {
        let (left, right, to) = pair(&cable, family, UdpOptions::default(), UdpOptions::default());
        for _ in 0..20 {
            let sent = burst(10, 1400, 9);
            send(&left, &sent, 1400, to, None, 2).unwrap();
            assert!(collect(&right, 1400, sent.len()).0 == sent);
            let small = burst(10, 1000, 9);
            send(&left, &small, 1000, to, None, 2).unwrap();
            let (got, calls) = collect(&right, 1000, small.len());
            assert!(got == small);
            assert_eq!(calls, 1, "datagrams that fit are sent in one call");
        }
    }
}

#[test]
fn a_datagram_above_the_mtu_goes_out_without_df() {
    let cable = Cable::new();
    cable.left(|netlink| netlink.set_mtu("eth0", 1280).unwrap());
    for family in FAMILIES {
        let (left, right, to) = pair(&cable, family, PLAIN, PLAIN);
        send(&left, &[7; 4000], 4000, to, None, 0).unwrap();
        assert_eq!(recv(&right, &mut [0; 65536]).len, 4000);
    }
}

#[test]
fn a_burst_longer_than_the_buffer_is_marked() {
    let cable = Cable::new();
    for family in FAMILIES {
        let (left, right, to) = pair(&cable, family, PLAIN, PLAIN);
        send(&left, &[1; 300], 300, to, None, 0).unwrap();
        let received = recv(&right, &mut [0; 200]);
        assert!(received.truncated);
        assert_eq!((received.len, received.stride), (200, 200));
        send(&left, &[1; 200], 200, to, None, 0).unwrap();
        assert!(!recv(&right, &mut [0; 200]).truncated);
    }
}

#[test]
fn an_empty_datagram_is_received_as_such() {
    let cable = Cable::new();
    let (_, right, to) = pair(&cable, Family::V4, PLAIN, UdpOptions::default());
    let sender = cable.left(|_| std::net::UdpSocket::bind("0.0.0.0:0").unwrap());
    sender.send_to(&[], to).unwrap();
    let received = recv(&right, &mut [0; 10]);
    assert_eq!((received.len, received.stride), (0, 0));
}

#[test]
fn ports_are_exclusive_within_a_family() {
    let cable = Cable::new();
    cable.left(|_| {
        let v4 = UdpSocket::bind(Family::V4, 0, &PLAIN).unwrap();
        assert_ne!(v4.port(), 0);
        let v6 = UdpSocket::bind(Family::V6, v4.port(), &PLAIN).unwrap();
        assert_eq!(v6.port(), v4.port());
        for family in FAMILIES {
            let error = UdpSocket::bind(family, v4.port(), &PLAIN).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EADDRINUSE));
        }
        let parcel = Parcel {
            to: SocketAddr::new(host(Family::V6, 2), 9),
            source: None,
            header: OuterHeader::default(),
        };
        let error = v4.send(b"x", None, &parcel).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    });
}

/// Packets that the kernel cannot forward yet, because no host answers for that address, fill the
/// buffer.
#[test]
fn a_full_send_buffer_is_an_error_and_our_buffer_is_never_full() {
    let cable = Cable::new();
    let (left, _right, to) = pair(&cable, Family::V4, PLAIN, PLAIN);
    let nobody = SocketAddr::new(host(Family::V4, 200), to.port());
    let sent = burst(400, 1400, 1400);
    send(&left, &sent, 1400, nobody, None, 0).unwrap();
    assert!(left.wire().queued() > 0);
    nix::sys::socket::setsockopt(left.wire(), nix::sys::socket::sockopt::SndBuf, &1).unwrap();
    let error = send(&left, &sent, 1400, nobody, None, 0).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn the_receive_buffer_holds_a_hundred_bursts_and_the_send_buffer_is_never_the_limit() {
    use nix::sys::socket::{getsockopt, sockopt};
    let cable = Cable::new();
    for family in FAMILIES {
        let socket = cable.left(|_| UdpSocket::bind(family, 0, &PLAIN).unwrap());
        assert!(getsockopt(&socket, sockopt::RcvBuf).unwrap() >= 100 << 16);
        assert!(getsockopt(&socket, sockopt::SndBuf).unwrap() >= 1 << 30);
    }
}
