//! The commands that change an interface, for an interface that does not exist.

use std::fs;
use std::process::Command;

/// Resolving names may take a minute, so `syncconf` must compare with the state after it.
#[test]
fn endpoints_are_resolved_before_the_interface_is_read() {
    let file = format!("wg-rs-configure-{}.conf", std::process::id());
    let file = std::env::temp_dir().join(file);
    let key = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=";
    let text = format!("[Peer]\nPublicKey = {key}\nEndpoint = vpn.invalid:1\n");
    fs::write(&file, text).unwrap();
    for verb in ["setconf", "addconf", "syncconf"] {
        let output = Command::new(env!("CARGO_BIN_EXE_wg-rs"))
            .args([verb, "no-such-link"])
            .arg(&file)
            .env("WG_ENDPOINT_RESOLUTION_RETRIES", "x")
            .output();
        let said = String::from_utf8(output.unwrap().stderr).unwrap();
        let expected = "Unable to parse WG_ENDPOINT_RESOLUTION_RETRIES: `x'\n";
        assert_eq!(said, expected, "{verb}");
    }
    fs::remove_file(&file).unwrap();
}
