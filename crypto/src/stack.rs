//! Wipes the secrets that a computation leaves on the stack.
//!
//! A moved value leaves its bytes at the old place, the compiler spills registers, and libraries
//! work on copies of their own. Dropping a value wipes none of these, so the whole stack is wiped
//! after a computation with secrets.

use zeroize::Zeroize;

/// In bytes: more stack than a handshake uses.
const DEPTH: usize = 16 * 1024;

/// Runs `work`, then wipes the 16 KiB of stack below the caller, which `work` used.
pub fn wipe_stack_after<T>(work: impl FnOnce() -> T) -> T {
    let result = run(work);
    wipe();
    result
}

/// Its frame, and the frames of all functions that it calls, begin where the frame of [`wipe`]
/// begins.
#[inline(never)]
fn run<T>(work: impl FnOnce() -> T) -> T {
    work()
}

#[inline(never)]
fn wipe() {
    let mut stack = [0_u64; DEPTH / 8];
    stack.zeroize();
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::hint::black_box;
    use std::os::unix::fs::FileExt;
    use std::thread;

    use super::*;
    use crate::symmetric::Symmetric;
    use crate::x25519::KeyPair;
    use crate::*;

    /// How many bytes of the stack are searched: far more than are wiped.
    const SEARCHED: usize = 256 * 1024;

    /// All inputs of a handshake. It lives on the heap.
    struct Script {
        statics: [PrivateKey; 2],
        ephemerals: [PrivateKey; 2],
        psk: PresharedKey,
        out: Out,
    }

    #[derive(Default)]
    struct Out {
        initiation: Vec<u8>,
        identities: Vec<Identity>,
        shared: Vec<SharedSecret>,
        pending: Vec<Initiation>,
        keys: Vec<SessionKeys>,
    }

    fn script() -> Box<Script> {
        let key = |n: u8| PrivateKey::from_bytes(std::array::from_fn(|i| n + 7 * i as u8));
        Box::new(Script {
            statics: [key(1), key(2)],
            ephemerals: [key(3), key(4)],
            psk: PresharedKey::from_bytes(std::array::from_fn(|i| 200 - 3 * i as u8)),
            out: Out::default(),
        })
    }

    /// Both sides of a handshake, and one packet.
    fn handshake(script: &mut Script, backend: AeadBackend) {
        let out = &mut script.out;
        let [i, r] = [0, 1].map(|side| Identity::new(&script.statics[side]));
        let ss = i.static_static(&r.public_key()).unwrap();
        let [ephemeral_i, ephemeral_r] = script.ephemerals.clone();
        let mut message = [0; noise::INITIATION_LEN];
        let time = Tai64n::from_unix(1, 0);
        let to = r.public_key();
        let pending = create_initiation(&i, &to, &ss, ephemeral_i, 1, time, &mut message).unwrap();
        let received = receive_initiation(&r, &message).unwrap();
        let (_, responder) = received.finish(&ss).unwrap();
        let mut response = [0; noise::RESPONSE_LEN];
        let responders = responder
            .respond(&script.psk, ephemeral_r, 2, backend, &mut response)
            .unwrap();
        let initiators = pending.finish(&i, &script.psk, backend, &response).unwrap();
        let mut datagram = [1; HEADER + 1024 + TAG];
        initiators.sealing.seal(2, 0, &mut datagram);
        assert!(responders.opening.open(&mut datagram));
        out.initiation.extend(message);
        out.identities.extend([i, r]);
        out.shared.push(ss);
        out.pending.push(pending);
        out.keys.extend([initiators, responders]);
    }

    /// All secrets of the handshake.
    fn secrets(script: &Script) -> Vec<[u8; 32]> {
        let mut secrets: Vec<_> = script
            .statics
            .iter()
            .chain(&script.ephemerals)
            .collect::<Vec<_>>()
            .into_iter()
            .map(|key| *key.as_bytes())
            .collect();
        secrets.push(*script.psk.as_bytes());
        let pairs = |keys: &[PrivateKey; 2]| [0, 1].map(|side| KeyPair::new(&keys[side]));
        let ([s_i, s_r], [e_i, e_r]) = (pairs(&script.statics), pairs(&script.ephemerals));
        let [es, ss, ee, se] = [(&e_i, &s_r), (&s_i, &s_r), (&e_i, &e_r), (&s_i, &e_r)]
            .map(|(ours, theirs)| ours.dh(&theirs.public).unwrap());
        // The hash H is not part of the keys.
        let mut state = Symmetric::new(&s_r.public);
        state.mix_ephemeral(&e_i.public);
        secrets.push(*state.mix_dh_key(&es));
        secrets.push(*state.mix_dh_key(&ss));
        state.mix_ephemeral(&e_r.public);
        state.mix_dh(&ee);
        state.mix_dh(&se);
        secrets.push(*state.mix_psk(&script.psk));
        secrets.extend(state.split().iter().map(|key| **key));
        secrets.extend([es, ss, ee, se].map(|secret| secret.0));
        secrets
    }

    /// Calls `work` with a frame that is further down than the caller's own frame.
    #[inline(never)]
    fn deeper(work: impl FnOnce()) {
        let room = black_box([0_u8; 4096]);
        work();
        black_box(room);
    }

    /// How many halves of the secrets are on the stack after a handshake, plain or under the pads
    /// of HMAC.
    fn left_behind(backend: AeadBackend, run: fn(&mut Script, AeadBackend)) -> usize {
        let secrets = thread::spawn(|| secrets(&script())).join().unwrap();
        let searcher = move || {
            let mut script = script();
            let mut stack = vec![0; SEARCHED];
            let memory = File::open("/proc/self/mem").unwrap();
            deeper(|| run(&mut script, backend));
            let here = 0_u8;
            let end = &raw const here as u64;
            memory
                .read_exact_at(&mut stack, end - SEARCHED as u64)
                .unwrap();
            assert!(!script.out.keys.is_empty());
            let halves = secrets.iter().flat_map(|secret| secret.chunks(16));
            let forms = halves.flat_map(|half| {
                [0, 0x36, 0x5c].map(|pad| half.iter().map(|byte| byte ^ pad).collect::<Vec<u8>>())
            });
            forms
                .filter(|form| stack.windows(16).any(|window| window == form))
                .count()
        };
        // The whole stack exists from the start, with this size.
        let thread = thread::Builder::new().stack_size(4 * SEARCHED);
        thread.spawn(searcher).unwrap().join().unwrap()
    }

    #[test]
    fn a_handshake_leaves_no_secret_on_the_stack() {
        for backend in [AeadBackend::Library, AeadBackend::fastest()] {
            // The search finds secrets if they are not wiped.
            assert_ne!(left_behind(backend, handshake), 0, "{backend}");
            let wiped = |script: &mut Script, backend| {
                wipe_stack_after(|| handshake(script, backend));
            };
            assert_eq!(left_behind(backend, wiped), 0, "{backend}");
        }
    }
}
