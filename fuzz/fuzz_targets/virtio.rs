//! Any bytes read from the TUN device: the header is the same after it is read and written. If the
//! segmenter accepts the packet, its output contains every payload byte once and in order.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wg_rs::datapath::segment::{MAX_SEGMENTS, Segmenter};
use wg_rs::datapath::virtio::{self, VirtioNetHdr};

fuzz_target!(|bytes: &[u8]| {
    let Some((hdr, packet)) = VirtioNetHdr::parse(bytes) else {
        assert!(bytes.len() < virtio::LEN);
        return;
    };
    // The bytes in between are not used.
    let emitted = hdr.emit();
    assert_eq!((&emitted[..10], &emitted[20..]), (&bytes[..10], &bytes[20..virtio::LEN]));
    let Ok(segmenter) = Segmenter::new(hdr, packet) else {
        return;
    };

    let count = segmenter.count();
    assert!((1..=MAX_SEGMENTS).contains(&count));
    let segments: Vec<Vec<u8>> = (0..count)
        .map(|i| {
            let mut out = vec![0xa5; segmenter.segment_len(i)];
            segmenter.write(i, &mut out);
            out
        })
        .collect();
    if hdr.gso_type == virtio::GSO_NONE {
        assert_eq!((count, segments[0].len()), (1, packet.len()));
        return;
    }
    let payload = match count {
        1 => return assert_eq!(segments[0].len(), packet.len()),
        _ => usize::from(hdr.gso_size),
    };
    let headers = segments[0].len() - payload;
    let together: Vec<u8> = segments
        .iter()
        .flat_map(|s| &s[headers..])
        .copied()
        .collect();
    assert_eq!(together, packet[headers..]);
});
