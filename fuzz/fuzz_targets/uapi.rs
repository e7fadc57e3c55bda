//! The configuration protocol in both directions: text that is accepted is printed, and read again as
//! the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wg_rs::uapi::text::{ReplyPrinter, parse_get, parse_set, print_change};

fuzz_target!(|input: &[u8]| {
    let Some((direction, text)) = input.split_first() else {
        return;
    };
    if direction % 2 == 0 {
        let Ok(changes) = parse_set(text) else {
            return;
        };
        let mut printed = Vec::new();
        for change in &changes {
            print_change(change, &mut printed);
        }
        printed.push(b'\n');
        assert_eq!(
            parse_set(&printed).expect("what we print is right"),
            changes
        );
    } else {
        let Ok(interface) = parse_get(text) else {
            return;
        };
        let mut printed = Vec::new();
        let mut printer = ReplyPrinter::new(&interface);
        while printer.print(&mut printed, 1 << 20) {}
        printed.extend(b"errno=0\n\n");
        assert_eq!(
            parse_get(&printed).expect("what we print is right"),
            interface
        );
    }
});
