//! A daemon that answers anything: the client ends, and reads the same as the parser of a complete
//! answer.

#![no_main]

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use libfuzzer_sys::fuzz_target;
use wg_rs::uapi::client::{Client, ClientError};
use wg_rs::uapi::text::parse_get;

/// Only the client refuses lines longer than this.
const MAX_LINE: usize = 512;

fuzz_target!(|answers: &[u8]| {
    let (ours, mut daemons) = UnixStream::pair().expect("sockets");
    // The text fits in the socket's buffer, as nobody reads yet.
    let mut rest = &answers[..answers.len().min(64 << 10)];
    daemons.write_all(rest).expect("room");
    daemons.shutdown(Shutdown::Write).expect("a stream");
    let mut client = Client::new(ours);
    loop {
        let end = rest.windows(2).position(|pair| pair == b"\n\n");
        let end = if rest.starts_with(b"\n") {
            Some(1)
        } else {
            end.map(|at| at + 2)
        };
        let (answer, others) = rest.split_at(end.unwrap_or(rest.len()));
        rest = others;
        let read = client.get();
        let too_long = answer
            .split(|b| *b == b'\n')
            .any(|line| line.len() > MAX_LINE);
        match (read, parse_get(answer)) {
            (Ok(interface), expected) => assert_eq!(Ok(interface), expected),
            // The error for an answer that is cut off has no further information.
            (Err(ClientError::Reply(error)), expected) => {
                assert!(too_long || Err(error) == expected);
                return;
            }
            (Err(ClientError::Io(error)), _) => panic!("{error}"),
        }
    }
});
