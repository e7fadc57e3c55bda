//! The attacks of the program `attack`, in a short form, without a demand for speed: the daemon goes
//! on, its memory is bounded, nothing forbidden gets through, and an honest handshake completes.

use std::process::{Command, Stdio};

/// Another time than that of the long form, as other tests run beside this one.
const ARGUMENTS: [&str; 7] = [
    "--check",
    "--rate",
    "3000",
    "--seconds",
    "0.3",
    "--handshake",
    "30",
];

#[test]
fn our_daemon_withstands_each_attack() {
    let done = Command::new(env!("CARGO_BIN_EXE_attack"))
        .args(ARGUMENTS)
        .stdin(Stdio::null())
        .output()
        .expect("the program was built for this test");
    let output = [done.stdout, done.stderr].concat();
    let output = String::from_utf8_lossy(&output);
    println!("{output}");
    assert!(done.status.success(), "{output}");
    assert_eq!(output.matches("it goes on").count(), 8, "{output}");
}
