//! The attacks of the program `attack`, in a short form, without a demand for speed: the daemon goes
//! on, its memory is bounded, nothing forbidden gets through, and an honest handshake completes.

use std::io;
use std::process::Command;
use std::time::Duration;

use netns_tests::Proc;

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

const LIMIT: Duration = Duration::from_secs(1200);

#[test]
fn our_daemon_withstands_each_attack() -> io::Result<()> {
    let mut attack = Command::new(env!("CARGO_BIN_EXE_attack"));
    let output = Proc::spawn(attack.args(ARGUMENTS))?.success(LIMIT)?;
    println!("{output}");
    assert_eq!(output.matches("it goes on").count(), 8, "{output}");
    Ok(())
}
