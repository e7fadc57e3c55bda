//! A name server for a test: it answers questions for IPv4 addresses by UDP (RFC 1035, section 4).

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::Host;

/// Length of a message's header, bytes.
const HEADER: usize = 12;
/// Type A and class IN, the bytes after a name.
const A_IN: [u8; 4] = [0, 1, 0, 1];

/// A running name server. It stops when it is dropped.
#[derive(Debug)]
pub struct NameServer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl NameServer {
    /// Serves at port 53 of `address` in `host`. `lookup` gives the address of a name such as
    /// `vpn.example`, or `None` if the name does not exist.
    pub fn start(
        host: &Host,
        address: impl Into<Ipv4Addr>,
        lookup: impl Fn(&str) -> Option<Ipv4Addr> + Send + 'static,
    ) -> io::Result<NameServer> {
        let address = address.into();
        let socket = host.run(|| UdpSocket::bind((address, 53)))?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = host.thread(move || {
            let mut question = [0; 512];
            while !stopped.load(Relaxed) {
                match socket.recv_from(&mut question) {
                    Ok((len, from)) => {
                        if let Some(answer) = answer(&question[..len], &lookup) {
                            socket.send_to(&answer, from)?;
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        });
        Ok(NameServer {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Builds the answer: the header, the repeated question, and a record if the name has an IPv4 address.
/// `None` if the question cannot be parsed.
fn answer(question: &[u8], lookup: impl Fn(&str) -> Option<Ipv4Addr>) -> Option<Vec<u8>> {
    let mut labels = Vec::new();
    let mut at = HEADER;
    loop {
        let len = usize::from(*question.get(at)?);
        at += 1;
        if len == 0 {
            break;
        }
        labels.push(std::str::from_utf8(question.get(at..at + len)?).ok()?);
        at += len;
    }
    let end = at + A_IN.len();
    let is_a = *question.get(at..end)? == A_IN;
    let known = lookup(&labels.join("."));
    let answers = u8::from(is_a && known.is_some());
    let mut answer = question[..2].to_vec();
    answer.extend([0x81, if known.is_some() { 0x80 } else { 0x83 }]);
    answer.extend([0, 1, 0, answers, 0, 0, 0, 0]);
    answer.extend(&question[HEADER..end]);
    if let Some(address) = known.filter(|_| is_a) {
        // The name by a pointer to the question, then type, class, time to live and length.
        answer.extend([0xc0, HEADER as u8]);
        answer.extend(A_IN);
        answer.extend([0, 0, 0, 60, 0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_names_have_an_answer_and_unknown_ones_do_not_exist() {
        let lookup = |name: &str| (name == "vpn.example").then_some(Ipv4Addr::new(192, 0, 2, 1));
        let question = |name: &[u8], kind: u8| {
            let mut question = vec![7, 8, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            question.extend(name);
            question.extend([0, kind, 0, 1]);
            question
        };
        let known = b"\x03vpn\x07example\0";
        let found = answer(&question(known, 1), lookup).unwrap();
        assert_eq!(found[..4], [7, 8, 0x81, 0x80]);
        assert!(found.ends_with(&[0, 4, 192, 0, 2, 1]));
        let ipv6 = answer(&question(known, 28), lookup).unwrap();
        assert_eq!((ipv6[3], ipv6[7]), (0x80, 0));
        let unknown = answer(&question(b"\x03www\0", 1), lookup).unwrap();
        assert_eq!((unknown[3], unknown[7]), (0x83, 0));
        assert_eq!(answer(&question(b"\x3fshort", 1), lookup), None);
    }
}
