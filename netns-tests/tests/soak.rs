//! The program `soak`, in a short form.

use std::process::{Command, Stdio};

#[test]
fn nothing_is_lost_and_nothing_grows_in_a_minute() {
    let done = Command::new(env!("CARGO_BIN_EXE_soak"))
        .args(["--minutes", "1"])
        .stdin(Stdio::null())
        .output()
        .expect("the program was built for this test");
    let output = [done.stdout, done.stderr].concat();
    let output = String::from_utf8_lossy(&output);
    println!("{output}");
    assert!(done.status.success(), "{output}");
    assert!(output.contains("nothing was lost"), "{output}");
}
