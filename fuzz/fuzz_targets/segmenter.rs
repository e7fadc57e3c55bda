//! Super-packets of every shape: valid ones are segmented exactly as by the model, and damaged ones are
//! refused, or segmented into packets of which only the last is shorter.

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
use packet::{Packet, TCP, UDP};
use wg_rs::datapath::virtio::{self, VirtioNetHdr};

#[derive(Arbitrary, Debug)]
struct Input {
    v6: bool,
    tcp: bool,
    fields: (u32, u16, u8, u8, u16),
    options: u8,
    between: u8,
    payload: u16,
    size: u16,
    damage: Vec<(u8, u8)>,
}

fuzz_target!(|input: Input| {
    let protocol = if input.tcp { TCP } else { UDP };
    let mut packet = Packet::new(input.v6, protocol, (input.payload % 40_000).into());
    (
        packet.seq,
        packet.id,
        packet.flags,
        packet.tos,
        packet.window,
    ) = input.fields;
    packet.options = if input.tcp {
        vec![1; usize::from(input.options % 11) * 4]
    } else {
        vec![]
    };
    packet.between = match (input.v6, usize::from(input.between)) {
        (false, between) => vec![1; between % 11 * 4],
        (true, between) if between % 3 == 0 => vec![],
        (true, between) => {
            // Destination options of any length that are only padding.
            let units = between % 5;
            let mut extension = vec![60, protocol, units as u8];
            extension.extend(vec![0; units * 8 + 6]);
            extension
        }
    };
    let size = input.size.max(5);
    let mut bytes = check::hdr(&packet, size).emit().to_vec();
    bytes.extend(packet.super_bytes());
    if input.damage.is_empty() {
        let (hdr, packet) = VirtioNetHdr::parse(&bytes).unwrap();
        assert_eq!(
            check::segments(hdr, packet).unwrap(),
            model::segment(hdr, packet)
        );
        return;
    }
    for (at, value) in input.damage {
        let at = usize::from(at) % bytes.len();
        bytes[at] ^= value;
    }
    let (hdr, packet) = VirtioNetHdr::parse(&bytes).unwrap();
    if let Ok(segments) = check::segments(hdr, packet) {
        let (last, others) = segments.split_last().unwrap();
        let len = others.first().unwrap_or(last).len();
        assert!(others.iter().all(|segment| segment.len() == len) && last.len() <= len);
        assert!(hdr.gso_type != virtio::GSO_NONE || others.is_empty());
    }
});
