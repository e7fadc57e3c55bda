//! Runs each fuzz target over the inputs that are kept in `fuzz/seeds`, so that both stay usable. The targets
//! are the files of `fuzz/`; here they are functions, without libFuzzer.

// Some targets share a file.
#![allow(clippy::duplicate_mod)]

extern crate self as libfuzzer_sys;

use std::fs;
use std::path::Path;

pub use ::arbitrary;

/// As the macro of libfuzzer-sys, but the target becomes a function `run`, and what it does at its start is
/// left out.
macro_rules! as_function {
    (init: $start:block, |$bytes:ident: &[u8]| $body:expr) => {
        $crate::fuzz_target!(|$bytes: &[u8]| $body);
    };
    (|$bytes:ident: &[u8]| $body:expr) => {
        pub fn run($bytes: &[u8]) {
            $body
        }
    };
    (|$input:ident: $type:ty| $body:expr) => {
        pub fn run(bytes: &[u8]) {
            use $crate::arbitrary::{Arbitrary, Unstructured};
            if let Ok($input) = <$type>::arbitrary_take_rest(Unstructured::new(bytes)) {
                $body
            }
        }
    };
}
pub(crate) use as_function as fuzz_target;

/// Runs a target over its inputs, and names the one that fails.
fn run_all(target: &str, run: fn(&[u8])) {
    /// Says which input is being tried, if that panics.
    struct Trying<'a>(&'a Path);
    impl Drop for Trying<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("the input is {}", self.0.display());
            }
        }
    }

    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/seeds")
        .join(target);
    let mut inputs: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "{} is empty", folder.display());
    for path in inputs {
        let bytes = fs::read(&path).unwrap();
        let _trying = Trying(&path);
        run(&bytes);
    }
}

macro_rules! targets {
    ($($target:ident $file:literal,)*) => {
        $(
            #[path = $file]
            #[allow(dead_code, unused_attributes)]
            mod $target;
        )*

        mod inputs_of {
            $(
                #[test]
                fn $target() {
                    crate::run_all(stringify!($target), crate::$target::run);
                }
            )*
        }

        const TARGETS: &[&str] = &[$(stringify!($target)),*];
    };
}

targets! {
    aead "../../fuzz/fuzz_targets/aead.rs",
    client "../../fuzz/fuzz_targets/client.rs",
    coalescer "../../fuzz/fuzz_targets/coalescer.rs",
    config "../../fuzz/fuzz_targets/config.rs",
    cookie "../../fuzz/fuzz_targets/cookie.rs",
    data "../../fuzz/fuzz_targets/data.rs",
    frames "../../fuzz/fuzz_targets/frames.rs",
    handshake "../../fuzz/fuzz_targets/handshake.rs",
    relay "../../fuzz/fuzz_targets/relay.rs",
    segmenter "../../fuzz/fuzz_targets/segmenter.rs",
    uapi "../../fuzz/fuzz_targets/uapi.rs",
    virtio "../../fuzz/fuzz_targets/virtio.rs",
}

#[test]
fn no_target_is_missing() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/Cargo.toml");
    let manifest = fs::read_to_string(manifest).unwrap();
    let mut listed: Vec<_> = manifest
        .lines()
        .filter_map(|line| {
            line.strip_prefix("path = \"fuzz_targets/")?
                .strip_suffix(".rs\"")
        })
        .collect();
    listed.sort_unstable();
    assert_eq!(listed, TARGETS);
}
