//! The coalescer: it equals the model, the segmenter and `restore` undo it, and it keeps the order.

use proptest::prelude::*;
use wg_rs::datapath::coalesce::{Coalescer, Offer};
use wg_rs::datapath::virtio::VirtioNetHdr;

use super::check::{ALL, Burst, check_undone, hdr, plan};
use super::model;
use super::packet::*;

/// A property of the next packet that may prevent merging.
#[derive(Clone, Copy, Debug)]
enum Event {
    Plain,
    Short(u16),
    Long,
    Empty,
    Flags(u8),
    Gap,
    Id(u16),
    Fragment,
    Byte(usize, u8),
    Cut,
    NoChecksum,
}

fn events() -> impl Strategy<Value = Vec<(u8, Event)>> {
    let event = prop_oneof![
        60 => Just(Event::Plain),
        3 => (0u16..300).prop_map(Event::Short),
        1 => Just(Event::Long),
        1 => Just(Event::Empty),
        4 => Just(Event::Flags(ACK | PSH)),
        1 => any::<u8>().prop_map(Event::Flags),
        1 => Just(Event::Gap),
        2 => any::<u16>().prop_map(Event::Id),
        1 => Just(Event::Fragment),
        4 => (0usize..90, any::<u8>()).prop_map(|(at, with)| Event::Byte(at, with)),
        1 => Just(Event::Cut),
        1 => Just(Event::NoChecksum),
    ];
    let flow = prop_oneof![6 => 0u8..2, 3 => 0u8..6, 1 => 0u8..40];
    proptest::collection::vec((flow, event), 0..150)
}

/// The packets of interleaved flows. Their checksums are right unless a packet is damaged.
fn packets(events: &[(u8, Event)], size: usize, fixed_ids: bool) -> Vec<Vec<u8>> {
    let mut flows: Vec<Packet> = (0..40u8)
        .map(|flow| {
            let mut packet =
                Packet::new(flow & 1 != 0, if flow & 2 == 0 { TCP } else { UDP }, size);
            packet.ports.0 = 1000 + u16::from(flow / 4);
            packet.df = flow & 4 == 0;
            packet
        })
        .collect();
    let mut packets = Vec::new();
    for &(flow, event) in events {
        let flow = &mut flows[usize::from(flow)];
        let mut packet = flow.clone();
        match event {
            Event::Short(len) => packet.payload.truncate(len.into()),
            Event::Long => packet.payload.push(1),
            Event::Empty => packet.payload.clear(),
            Event::Flags(flags) => packet.flags = flags,
            Event::Gap => packet.seq = packet.seq.wrapping_add(1),
            Event::Id(id) => packet.id = id,
            _ => {}
        }
        let payload = flow.payload.clone();
        flow.payload = packet.payload.clone();
        let (id, next) = (flow.id, flow.next());
        *flow = Packet { payload, ..next };
        if fixed_ids {
            flow.id = id;
        }
        let mut bytes = packet.bytes();
        match event {
            Event::Fragment => bytes[6] |= 0x20,
            Event::Byte(at, with) => {
                let at = at.min(bytes.len() - 1);
                bytes[at] ^= with;
            }
            Event::Cut => bytes.truncate(bytes.len() * 2 / 3),
            Event::NoChecksum => {
                let field = packet.transport() + checksum_offset(packet.protocol);
                put(&mut bytes, field, 0);
            }
            _ => {}
        }
        packets.push(bytes);
    }
    packets
}

proptest! {
    #[test]
    fn equals_the_model(
        events in events(),
        size in prop_oneof![1usize..4, 200usize..1400],
        fixed_ids: bool,
        tcp in prop::bool::weighted(0.9),
        udp in prop::bool::weighted(0.9),
    ) {
        let packets = packets(&events, size, fixed_ids);
        let offer = Offer { tcp, udp };
        let writes = plan(&mut Burst::new(&packets), offer, &mut Coalescer::new());
        prop_assert_eq!(writes, model::coalesce(&packets, offer));
    }

    #[test]
    fn undone_by_the_segmenter_and_by_restore(events in events(), size in 1usize..1400, fixed: bool) {
        check_undone(&packets(&events, size, fixed));
    }

    #[test]
    fn garbage(
        packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..120), 0..20),
        family in prop_oneof![Just(0x45u8), Just(0x60), any::<u8>()],
        protocol in prop_oneof![Just(TCP), Just(UDP)],
    ) {
        let mut packets = packets;
        for packet in &mut packets {
            for (at, value) in [(0, family), (6, protocol), (9, protocol)] {
                if let Some(byte) = packet.get_mut(at) {
                    *byte = value;
                }
            }
        }
        check_undone(&packets);
    }

    /// Segmenting a super-packet and coalescing the segments gives the same super-packet.
    #[test]
    fn undoes_the_segmenter(v6: bool, tcp: bool, psh: bool, payload in 1usize..20_000, size in 600u16..1400) {
        let mut packet = Packet::new(v6, if tcp { TCP } else { UDP }, payload);
        packet.flags |= if psh { PSH } else { 0 };
        let expected = VirtioNetHdr { hdr_len: packet.headers() as u16, ..hdr(&packet, size) };
        let segments = model::segment(expected, &packet.super_bytes());
        let writes = plan(&mut Burst::new(&segments), ALL, &mut Coalescer::new());
        prop_assert_eq!(writes.len(), 1);
        if segments.len() > 1 {
            prop_assert_eq!(writes[0].hdr, expected);
            prop_assert_eq!(&writes[0].bytes, &packet.super_bytes());
        }
    }
}

/// A coalescer can be used for several bursts.
#[test]
fn a_coalescer_can_be_reused() {
    let mut coalescer = Coalescer::new();
    let long = packets(&[(0, Event::Plain); 40], 1000, false);
    let short = packets(
        &[(1, Event::Plain), (2, Event::Plain), (1, Event::Plain)],
        1000,
        false,
    );
    plan(&mut Burst::new(&long), ALL, &mut coalescer);
    let writes = plan(&mut Burst::new(&short), ALL, &mut coalescer);
    assert_eq!(writes, model::coalesce(&short, ALL));
    assert!(plan(&mut Burst::new(&[]), ALL, &mut coalescer).is_empty());
}
