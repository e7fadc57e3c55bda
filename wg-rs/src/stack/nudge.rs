//! Repeats lost data of a TCP connection before smoltcp's own timeout.
//!
//! smoltcp 0.14 doubles its retransmission timeout with each loss and measures it anew only by data that was
//! never sent before. When several packets are lost in a row, data that could be repeated within a second
//! therefore waits for up to a minute. So if no acknowledgement has come for a while, the socket receives three
//! duplicates of the last one, by which it repeats its oldest unacknowledged segment (RFC 5681, section 3.2).
//! That does not repeat a FIN without data, which is therefore written here.

use std::net::SocketAddr;
use std::time::Duration;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpProtocol, IpRepr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber};

use super::packet::Tuple;
use crate::datapath::ip::{Header, TCP};
use crate::tunnel::time::Time;

/// The time without progress after which data is repeated. It doubles each time.
const FIRST: Duration = Duration::from_secs(2);
/// The greatest number of doublings.
const DOUBLINGS: u32 = 3;

/// The last acknowledgements of a connection in both directions.
#[derive(Debug, Default)]
pub(super) struct Nudge {
    /// The last acknowledgement and window that came, as in the packet.
    received: Option<(TcpSeqNumber, u16)>,
    /// The last acknowledgement and window that were sent, as in the packet.
    sent: Option<(TcpSeqNumber, u16)>,
    /// The time when data was last acknowledged or repeated.
    progress: Option<Time>,
    /// How often data was repeated since the last new acknowledgement.
    tries: u32,
}

/// The TCP part of a packet.
fn tcp(packet: &[u8]) -> Option<TcpPacket<&[u8]>> {
    let header = Header::parse(packet).filter(|header| header.protocol == TCP)?;
    TcpPacket::new_checked(&packet[header.transport..]).ok()
}

impl Nudge {
    /// Records the acknowledgement of a received packet.
    pub fn received(&mut self, packet: &[u8], now: Time) {
        let Some(tcp) = tcp(packet).filter(|tcp| tcp.ack() && !tcp.syn()) else {
            return;
        };
        let ack = tcp.ack_number();
        let is_newer = self.received.is_none_or(|(last, _)| ack > last);
        if is_newer {
            (self.progress, self.tries) = (Some(now), 0);
        }
        if is_newer || self.received.is_some_and(|(last, _)| ack == last) {
            self.received = Some((ack, tcp.window_len()));
        }
    }

    /// Records the acknowledgement of a packet that is sent.
    pub fn sent(&mut self, packet: &[u8]) {
        if let Some(tcp) = tcp(packet).filter(TcpPacket::ack) {
            self.sent = Some((tcp.ack_number(), tcp.window_len()));
        }
    }

    /// The time at which unacknowledged data must be repeated. None if the other end has no room for data.
    pub fn due(&self) -> Option<Time> {
        let wait = FIRST * 2_u32.pow(self.tries.min(DOUBLINGS));
        self.received.filter(|(_, window)| *window > 0)?;
        Some(self.progress? + wait)
    }

    /// Starts to wait again, without having repeated anything.
    pub fn postpone(&mut self, now: Time) {
        self.progress = Some(now);
    }

    /// The acknowledgements that the socket must receive to repeat data: the last one, and three duplicates of
    /// it. The first packet has another window, so that the socket forgets duplicates that it counted before.
    pub fn duplicates(&mut self, tuple: &Tuple, now: Time) -> Vec<Vec<u8>> {
        self.repeated(now);
        let (Some((ack, window)), Some((seq, _))) = (self.received, self.sent) else {
            return Vec::new();
        };
        let to_us = |window| {
            let control = TcpControl::None;
            without_data(tuple.remote, tuple.local, control, seq, ack, window)
        };
        [window.saturating_sub(1), window, window, window, window]
            .map(to_us)
            .into()
    }

    /// The FIN that must be sent again, if all data before it was acknowledged.
    pub fn fin(&mut self, tuple: &Tuple, now: Time) -> Option<Vec<u8>> {
        self.repeated(now);
        let ((seq, _), (ack, window)) = (self.received?, self.sent?);
        let control = TcpControl::Fin;
        Some(without_data(
            tuple.local,
            tuple.remote,
            control,
            seq,
            ack,
            window,
        ))
    }

    fn repeated(&mut self, now: Time) {
        self.tries += 1;
        self.progress = Some(now);
    }
}

fn without_data(
    from: SocketAddr,
    to: SocketAddr,
    control: TcpControl,
    seq: TcpSeqNumber,
    ack: TcpSeqNumber,
    window: u16,
) -> Vec<u8> {
    let tcp = TcpRepr {
        src_port: from.port(),
        dst_port: to.port(),
        control,
        seq_number: seq,
        ack_number: Some(ack),
        window_len: window,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let (source, destination) = (from.ip().into(), to.ip().into());
    let ip = IpRepr::new(source, destination, IpProtocol::Tcp, tcp.buffer_len(), 64);
    let mut packet = vec![0; ip.buffer_len()];
    let checksums = ChecksumCapabilities::default();
    ip.emit(&mut packet, &checksums);
    let mut segment = TcpPacket::new_unchecked(&mut packet[ip.header_len()..]);
    tcp.emit(&mut segment, &source, &destination, &checksums);
    packet
}
