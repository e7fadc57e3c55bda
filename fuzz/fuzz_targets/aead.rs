//! Bursts of data messages with our AEAD on AVX-512 and with AWS-LC's: both write the same bytes,
//! accept the same messages, and leave the same buffers, whatever is changed in between.

#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use wg_crypto::{AeadBackend, HEADER, OpeningKey, SealingKey, TAG};

#[derive(Arbitrary, Debug)]
struct Input {
    key: [u8; 32],
    first: u64,
    stride: u16,
    count: u8,
    /// How much shorter the last message is, bytes.
    short: u16,
    text: Vec<u8>,
    changes: Vec<(u32, u8)>,
    cut: u16,
}

fuzz_target!(
    // Checked here, as ending the process while an input is tried counts as an error.
    init: {
        if AeadBackend::avx512().is_none() {
            eprintln!("NOT RUN: this CPU has no AVX-512");
            std::process::exit(0);
        }
    },
    |data: &[u8]| {
        let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(data)) else {
            return;
        };
        let Some(ours) = AeadBackend::avx512() else {
            return;
        };
        let backends = [AeadBackend::Library, ours];
        let stride = HEADER + TAG + usize::from(input.stride) % 9000;
        let count = 1 + usize::from(input.count) % 50;
        let last = stride - usize::from(input.short) % (stride - HEADER - TAG + 1);
        let text = input.text.iter().copied().cycle().chain([0].into_iter().cycle());
        let plain: Vec<u8> = text.take(stride * (count - 1) + last).collect();

        let [library, ours] = backends.map(|backend| {
            let mut burst = plain.clone();
            let key = SealingKey::new(backend, &input.key);
            key.seal_burst(1, input.first >> 1, &mut burst, stride);
            burst
        });
        assert_eq!(library, ours);

        let mut changed = ours;
        for (at, with) in &input.changes {
            let at = *at as usize % changed.len();
            changed[at] ^= with;
        }
        changed.truncate(changed.len() - usize::from(input.cut) % stride.min(changed.len()));
        let [library, ours] = backends.map(|backend| {
            let (mut burst, mut accepted) = (changed.clone(), Vec::new());
            OpeningKey::new(backend, &input.key).open_burst(&mut burst, stride, &mut accepted);
            // A refused message may be left in any state, but not as plaintext.
            for (i, datagram) in burst.chunks_mut(stride).enumerate() {
                if !accepted[i] && datagram.len() >= HEADER + TAG {
                    let len = datagram.len();
                    datagram[HEADER..len - TAG].fill(0);
                }
            }
            (burst, accepted)
        });
        assert_eq!(library, ours);
    }
);
