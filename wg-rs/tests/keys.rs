//! The commands that create keys, run as programs.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use wg_crypto::{PresharedKey, PrivateKey};

const KEY: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
const PUBLIC: &str = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=";

fn wg_rs() -> Command {
    Command::new(env!("CARGO_BIN_EXE_wg-rs"))
}

fn pubkey(input: &[u8]) -> Output {
    let mut command = wg_rs();
    let pipe = command.arg("pubkey").stdin(Stdio::piped());
    let mut child = pipe
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The program may have read enough before the end of the input.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn keys_are_new_each_time_and_private_ones_are_clamped() {
    let one = |verb: &str| {
        let (code, out, err) = said(&wg_rs().arg(verb).output().unwrap());
        assert_eq!((code, &*err), (Some(0), ""));
        out.strip_suffix('\n').unwrap().to_owned()
    };
    let (a, b) = (one("genkey"), one("genkey"));
    assert_ne!(a, b);
    // A key that reads back unchanged is clamped, because reading clamps.
    assert_eq!(*PrivateKey::from_base64(&a).unwrap().to_base64(), a);
    let clamped = |_| {
        let key = PresharedKey::from_base64(&one("genpsk")).unwrap();
        *PrivateKey::from_bytes(*key.as_bytes()).as_bytes() == *key.as_bytes()
    };
    // By chance this happens once in 32 times.
    assert!((0..12).map(clamped).any(|clamped| !clamped));
}

#[test]
fn a_world_readable_file_causes_a_warning() {
    /// A temporary file that is removed at the end.
    struct Temp(PathBuf);
    impl Drop for Temp {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }
    let temp = Temp(std::env::temp_dir().join(format!("wg-rs-keys-{}", std::process::id())));
    let warning = "Warning: writing to world accessible file.\n\
                   Consider setting the umask to 077 and trying again.\n";
    for (mode, warning) in [(0o604, warning), (0o601, warning), (0o660, "")] {
        let file = File::create(&temp.0).unwrap();
        file.set_permissions(fs::Permissions::from_mode(mode))
            .unwrap();
        let output = wg_rs().arg("genkey").stdout(file).output().unwrap();
        assert_eq!(said(&output), (Some(0), String::new(), warning.into()));
        assert_eq!(fs::read(&temp.0).unwrap().len(), 45);
    }
}

#[test]
fn public_keys() {
    let zero = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let of_zero = "L+V9o0fNYkMVKNqsX7spBzD/9oSvxM/C7ZCZX1jLO3Q=";
    for (input, public) in [
        (KEY.to_owned(), PUBLIC),
        (format!("{KEY}\n"), PUBLIC),
        (format!("{KEY}\r\n\0 \t\x0b\0"), PUBLIC),
        (format!("{KEY}{}", "\n".repeat(9999)), PUBLIC),
        (zero.to_owned(), of_zero),
    ] {
        let (code, out, err) = said(&pubkey(input.as_bytes()));
        assert_eq!((code, out, &*err), (Some(0), format!("{public}\n"), ""));
    }
}

#[test]
fn invalid_keys_are_refused() {
    let program = env!("CARGO_BIN_EXE_wg-rs");
    let bad = "Key is not the correct length or format";
    let trailing = "Trailing characters found after key";
    for (input, reason) in [
        (String::new(), bad),
        (KEY[1..].to_owned(), bad),
        (format!(" {}", &KEY[1..]), bad),
        (format!("{}\n", &KEY[1..]), bad),
        (KEY.replace('=', "x"), bad),
        (KEY.replace("k=", "l="), bad),
        (format!(" {KEY}"), trailing),
        (format!("{KEY}="), trailing),
        (format!("{KEY}\n{KEY}\n"), trailing),
    ] {
        let (code, out, err) = said(&pubkey(input.as_bytes()));
        assert_eq!((code, &*out), (Some(1), ""), "{input}");
        assert_eq!(err, format!("{program}: {reason}\n"), "{input}");
    }
}

#[test]
fn too_many_arguments_are_refused() {
    let program = env!("CARGO_BIN_EXE_wg-rs");
    for verb in ["genkey", "genpsk", "pubkey"] {
        let output = wg_rs().args([verb, "x"]).output().unwrap();
        let usage = format!("Usage: {program} {verb}\n");
        assert_eq!(said(&output), (Some(1), String::new(), usage));
    }
}
