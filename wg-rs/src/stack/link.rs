//! What a smoltcp interface is attached to: it receives at most one packet a call, and writes at most one.

use std::net::IpAddr;

use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{self, Checksum, DeviceCapabilities, Medium, PacketMeta};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpCidr};

use super::packet::header_of;
use crate::datapath::ip::MAX_LEN;
use crate::datapath::virtio;
use crate::tunnel::time::Time;

/// Room for the longest packet after its virtio header.
pub(super) const ROOM: usize = virtio::LEN + MAX_LEN;
/// More than the headers of any packet that smoltcp writes. It changes single bits of them, so they must be
/// zero before; it writes the payload as a whole.
const HEADERS: usize = 128;

/// Converts to smoltcp's clock.
pub(super) fn instant(now: Time) -> Instant {
    Instant::from_micros(i64::try_from(now.as_nanos() / 1000).unwrap_or(i64::MAX))
}

/// The device of a smoltcp interface for the duration of one call.
pub(super) struct Link<'a> {
    mtu: usize,
    incoming: Option<&'a [u8]>,
    /// Room for a packet after its virtio header, and how many bytes of it are used.
    room: &'a mut [u8],
    used: &'a mut usize,
}

impl<'a> Link<'a> {
    pub fn new(
        mtu: usize,
        incoming: Option<&'a [u8]>,
        room: &'a mut [u8],
        used: &'a mut usize,
    ) -> Self {
        *used = 0;
        Link {
            mtu,
            incoming,
            room,
            used,
        }
    }
}

pub(super) struct IncomingToken<'a>(&'a [u8]);

pub(super) struct OutgoingToken<'a> {
    room: &'a mut [u8],
    used: &'a mut usize,
    segment: Option<u16>,
}

impl phy::RxToken for IncomingToken<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(self.0)
    }
}

impl phy::TxToken for OutgoingToken<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let packet = &mut self.room[virtio::LEN..virtio::LEN + len];
        packet[..len.min(HEADERS)].fill(0);
        let result = write(packet);
        let header = header_of(packet, self.segment);
        self.room[..virtio::LEN].copy_from_slice(&header);
        *self.used = virtio::LEN + len;
        result
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.segment = meta.segmentation_offload_size.map(u16::from);
    }
}

impl phy::Device for Link<'_> {
    type RxToken<'b>
        = IncomingToken<'b>
    where
        Self: 'b;
    type TxToken<'b>
        = OutgoingToken<'b>
    where
        Self: 'b;

    fn receive(&mut self, now: Instant) -> Option<(IncomingToken<'_>, OutgoingToken<'_>)> {
        let packet = self.incoming.take()?;
        Some((IncomingToken(packet), self.transmit(now)?))
    }

    fn transmit(&mut self, _: Instant) -> Option<OutgoingToken<'_>> {
        // One packet at a time.
        (*self.used == 0).then_some(OutgoingToken {
            room: self.room,
            used: self.used,
            segment: None,
        })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        // The data path verifies checksums of received packets and computes those of sent packets.
        capabilities.checksum.tcp = Checksum::None;
        // Not for IPv6: there smoltcp 0.14 drops packets longer than the MTU even if the device would cut
        // them. The data path gathers those segments into bursts all the same.
        capabilities.segmentation.tcpv4 = MAX_LEN.try_into().ok();
        capabilities
    }
}

/// Creates a smoltcp interface with this one address and a default route.
pub(super) fn interface(address: IpAddr, mtu: usize, seed: u64, now: Time) -> Interface {
    let mut used = 0;
    let mut link = Link::new(mtu, None, &mut [], &mut used);
    let mut config = Config::new(HardwareAddress::Ip);
    config.random_seed = seed;
    let mut interface = Interface::new(config, &mut link, instant(now));
    set_address(&mut interface, address);
    interface
}

/// Replaces the address of a smoltcp interface.
pub(super) fn set_address(interface: &mut Interface, address: IpAddr) {
    let prefix = if address.is_ipv4() { 32 } else { 128 };
    interface.update_ip_addrs(|addresses| {
        addresses.clear();
        // The list has room for two.
        let _ = addresses.push(IpCidr::new(address.into(), prefix));
    });
    // Any gateway serves, as there is no link layer. The table has room for a route of each family.
    let routes = interface.routes_mut();
    let _ = match address {
        IpAddr::V4(address) => routes.add_default_ipv4_route(address),
        IpAddr::V6(address) => routes.add_default_ipv6_route(address),
    };
}

/// Answers a packet that belongs to no flow and no socket: by a reset, an ICMP error or an echo reply.
/// Returns the length of the answer in `room`, 0 if there is none.
pub(super) fn answer(
    interface: &mut Interface,
    mtu: usize,
    packet: &[u8],
    room: &mut [u8],
    now: Time,
) -> usize {
    let mut used = 0;
    let mut link = Link::new(mtu, Some(packet), room, &mut used);
    let mut nobody = SocketSet::new(Vec::new());
    interface.poll_ingress_single(instant(now), &mut link, &mut nobody);
    used
}
