//! The verbs that change an interface, where there is none.

use std::fs;
use std::process::Command;

/// A look-up may take a minute: the state that `syncconf` compares with is of afterwards.
#[test]
fn endpoints_are_looked_up_before_the_interface() {
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
