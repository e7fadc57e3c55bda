//! The program `soak`, in a short form.

use std::io;
use std::process::Command;
use std::time::Duration;

use netns_tests::Proc;

/// It builds a daemon first.
const LIMIT: Duration = Duration::from_secs(1200);

#[test]
fn nothing_is_lost_and_nothing_grows_in_a_minute() -> io::Result<()> {
    let mut soak = Command::new(env!("CARGO_BIN_EXE_soak"));
    let output = Proc::spawn(soak.args(["--minutes", "1"]))?.success(LIMIT)?;
    assert!(output.contains("nothing was lost"), "{output}");
    Ok(())
}
