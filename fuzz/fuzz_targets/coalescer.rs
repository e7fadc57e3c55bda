//! Bursts of interleaved flows, with packets that differ in any way from packets that can be merged.
//! The writes are those of the model, and both the segmenter and `restore` undo them.

#![no_main]

#[path = "../../wg-rs/tests/offload/check.rs"]
#[allow(dead_code)]
mod check;
#[path = "../../wg-rs/tests/offload/model.rs"]
#[allow(dead_code)]
mod model;
#[path = "../../wg-rs/tests/offload/packet.rs"]
#[allow(dead_code)]
mod packet;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use packet::{ACK, PSH, Packet, TCP, UDP, finish};
use wg_rs::datapath::coalesce::{Coalescer, Offer};

#[derive(Arbitrary, Debug)]
struct Input {
    tcp: bool,
    udp: bool,
    df: bool,
    fixed_ids: bool,
    size: u16,
    packets: Vec<(u8, Event)>,
}

#[derive(Arbitrary, Debug)]
enum Event {
    Plain,
    Push,
    Size(u16),
    /// Whether the change is made before lengths and checksums are corrected, or after.
    Byte {
        at: u8,
        with: u8,
        finished: bool,
    },
    Cut(u8),
    Raw(Vec<u8>),
}

fuzz_target!(|input: Input| {
    let size = usize::from(input.size % 1500).max(1);
    let mut flows: Vec<Packet> = (0..64)
        .map(|flow| {
            let mut packet =
                Packet::new(flow & 1 != 0, if flow & 2 == 0 { TCP } else { UDP }, size);
            packet.ports.0 = flow / 4;
            packet.df = input.df;
            packet
        })
        .collect();
    let mut packets = Vec::new();
    for (flow, event) in input.packets.into_iter().take(256) {
        let flow = &mut flows[usize::from(flow % 64)];
        let mut packet = flow.clone();
        match event {
            Event::Push => packet.flags = ACK | PSH,
            Event::Size(size) => packet.payload.resize(usize::from(size % 2000), 0x5a),
            _ => {}
        }
        let next = Packet {
            payload: packet.payload.clone(),
            ..flow.clone()
        }
        .next();
        let (payload, id) = (flow.payload.clone(), flow.id);
        *flow = Packet { payload, ..next };
        if input.fixed_ids {
            flow.id = id;
        }
        let mut bytes = packet.bytes();
        match event {
            Event::Byte { at, with, finished } => {
                let at = usize::from(at) % bytes.len();
                bytes[at] ^= with;
                // Only headers of unchanged length can be corrected.
                if !finished && bytes[0] >> 4 == if packet.v6 { 6 } else { 4 } && bytes[0] & 15 == 5
                {
                    finish(&mut bytes, packet.transport(), packet.protocol);
                }
            }
            Event::Cut(len) => bytes.truncate(len.into()),
            Event::Raw(raw) => bytes = raw,
            _ => {}
        }
        packets.push(bytes);
    }
    let offer = Offer {
        tcp: input.tcp,
        udp: input.udp,
    };
    let writes = check::plan(
        &mut check::Burst::new(&packets),
        offer,
        &mut Coalescer::new(),
    );
    assert_eq!(writes, model::coalesce(&packets, offer));
    check::check_undone(&packets);
});
