//! `qr`: a config file as a QR code in the terminal.
//!
//! The applications for phones read files of `wg-quick`, but refuse keys that they do not know. So keys
//! that are only for this machine (`Table`, `FwMark`, `SaveConfig`, hooks) are left out. Comments are
//! left out too, to keep the code small.

use std::fmt::Display;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use qrcode::{Color, EcLevel, QrCode};
use wg_rs::config::lines::{Section, What, lines};
use zeroize::Zeroizing;

use crate::file::{self, Location};
use crate::steps::console;

/// The keys that the applications know.
const INTERFACE: [&str; 5] = ["PrivateKey", "ListenPort", "Address", "DNS", "MTU"];
const PEER: [&str; 5] = [
    "PublicKey",
    "PresharedKey",
    "AllowedIPs",
    "Endpoint",
    "PersistentKeepalive",
];

/// The width of the light margin that scanners need, in modules.
const QUIET: usize = 4;

/// The text does not fit in a QR code; its length in bytes.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} bytes are too many for a QR code, which holds at most 2953: remove peers")]
pub struct TooLong(usize);

/// Runs the command: prints the code of a file without errors.
pub fn run(argument: &str) -> ExitCode {
    match print(argument) {
        Ok(()) => ExitCode::SUCCESS,
        Err(errors) => {
            errors.iter().for_each(console::error);
            ExitCode::FAILURE
        }
    }
}

fn print(argument: &str) -> Result<(), Vec<String>> {
    let one = |error: &dyn ToString| vec![error.to_string()];
    let location = Location::of(argument).map_err(|error| one(&error))?;
    let path = location.path.display();
    let failed = |error: &dyn Display| vec![format!("{path}: {error}")];
    let text = Zeroizing::new(fs::read(&location.path).map_err(|error| failed(&error))?);
    let (_, errors) = file::parse(&location.path.to_string_lossy(), &location.interface, &text);
    if !errors.is_empty() {
        return Err(errors.iter().map(ToString::to_string).collect());
    }
    let mut out = io::stdout().lock();
    let code = code(&for_phone(&text), out.is_terminal()).map_err(|error| failed(&error))?;
    let written = out.write_all(code.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| one(&error))
}

/// The lines of a file that a phone can use.
fn for_phone(text: &[u8]) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(text.len() + 64));
    let mut section = Section::Other;
    for line in lines(text) {
        let keys = match section {
            Section::Interface => &INTERFACE[..],
            Section::Peer => &PEER[..],
            Section::Disabled | Section::Other => &[],
        };
        match &line.what {
            What::Head(head) => {
                section = *head;
                match section {
                    Section::Interface => out.push_str("[Interface]\n"),
                    Section::Peer => out.push_str("[Peer]\n"),
                    Section::Disabled | Section::Other => {}
                }
            }
            What::Key(_, value) if !value.is_empty() => {
                if let Some(key) = keys.iter().find(|key| line.is(key)) {
                    let value = String::from_utf8_lossy(&line.raw[value.clone()]);
                    out.extend([*key, " = ", &value, "\n"]);
                }
            }
            _ => {}
        }
    }
    out
}

/// `text` as a QR code of half blocks, two modules to a character. Light modules are filled, for a
/// terminal with light text on a dark background; `colours` sets these colours for all others.
///
/// # Errors
/// [`TooLong`].
pub fn code(text: &str, colours: bool) -> Result<Zeroizing<String>, TooLong> {
    let code =
        QrCode::with_error_correction_level(text, EcLevel::L).map_err(|_| TooLong(text.len()))?;
    let width = code.width();
    let side = width + 2 * QUIET;
    let light = |x: usize, y: usize| {
        let at = |n: usize| n.checked_sub(QUIET).filter(|n| *n < width);
        match (at(x), at(y)) {
            (Some(x), Some(y)) => code[(x, y)] == Color::Light,
            // The last row may have none below it.
            _ => y < side,
        }
    };
    let mut out = Zeroizing::new(String::with_capacity(side * (side + 1) * 2));
    for y in (0..side).step_by(2) {
        if colours {
            out.push_str("\x1b[40;97m");
        }
        out.extend((0..side).map(|x| match (light(x, y), light(x, y + 1)) {
            (true, true) => '█',
            (true, false) => '▀',
            (false, true) => '▄',
            (false, false) => ' ',
        }));
        out.push_str(if colours { "\x1b[0m\n" } else { "\n" });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a code as a phone's camera does.
    fn scanned(code: &str) -> String {
        const SCALE: usize = 4;
        let rows: Vec<Vec<char>> = code.lines().map(|line| line.chars().collect()).collect();
        let (width, height) = (rows[0].len() * SCALE, rows.len() * 2 * SCALE);
        let mut image = rqrr::PreparedImage::prepare_from_greyscale(width, height, |x, y| {
            let (column, row) = (x / SCALE, y / SCALE);
            let light = match rows[row / 2][column] {
                '█' => true,
                '▀' => row % 2 == 0,
                '▄' => row % 2 == 1,
                _ => false,
            };
            if light { 255 } else { 0 }
        });
        let grids = image.detect_grids();
        assert_eq!(grids.len(), 1);
        grids[0].decode().unwrap().1
    }

    const FILE: &str = "# me\n[Interface]\nprivatekey=abc=\nAddress = 10.0.0.1/24, fd00::1/64\n\
        DNS = 10.0.0.53, corp.example\nPostUp = iptables -A x # y\nTable = off\nFwMark = 0x33\n\
        SaveConfig = true\nMTU = 1380\n[Peer] # them\nPublicKey = def=\nEndpoint = vpn.example:51820\n\
        AllowedIPs = \nAllowedIPs = 0.0.0.0/0, ::/0\nPersistentKeepalive = 25\n";

    const FOR_PHONE: &str = "[Interface]\nPrivateKey = abc=\nAddress = 10.0.0.1/24, fd00::1/64\n\
        DNS = 10.0.0.53, corp.example\nMTU = 1380\n[Peer]\nPublicKey = def=\n\
        Endpoint = vpn.example:51820\nAllowedIPs = 0.0.0.0/0, ::/0\nPersistentKeepalive = 25\n";

    #[test]
    fn a_phone_reads_the_lines_that_it_can_use() {
        assert_eq!(*for_phone(FILE.as_bytes()), FOR_PHONE);
        let code = code(FOR_PHONE, false).unwrap();
        assert_eq!(scanned(&code), FOR_PHONE);
    }

    #[test]
    fn codes_of_all_sizes() {
        for len in [1, 17, 300, 2953] {
            let text = "k".repeat(len);
            assert_eq!(scanned(&code(&text, false).unwrap()), text, "{len}");
        }
        assert_eq!(code(&"k".repeat(4297), false), Err(TooLong(4297)));
    }

    #[test]
    fn colours_do_not_change_the_code() {
        let (plain, coloured) = (code("wg", false).unwrap(), code("wg", true).unwrap());
        let stripped = coloured.replace("\x1b[40;97m", "").replace("\x1b[0m", "");
        assert_eq!(stripped, *plain);
    }
}
