//! A handshake while the responder is under load.

use std::io;
use std::thread;
use std::time::Duration;

use crate::{Family, Flood, Plan, Tap, Tunnel};

const INITIATION: u8 = 1;
const RESPONSE: u8 = 2;
const COOKIE_REPLY: u8 = 3;
/// The position of mac2 in an initiation; it is zero without a cookie.
const MAC2: usize = 132;
/// A responder that counts the messages of each second is not under load at its beginning.
const ATTEMPTS: usize = 5;
/// An initiation is repeated every five seconds.
const LIMIT: Duration = Duration::from_secs(60);

/// What was seen of a handshake, each only after the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Seen {
    Nothing,
    Initiation,
    Cookie,
    InitiationWithCookie,
    Response,
}

/// b is flooded with initiations of a stranger at a's address. It answers a's first initiation by a cookie,
/// and its second one, which has the cookie, by a response. All that is read on the wire.
pub fn a_cookie(plan: &Plan) -> io::Result<()> {
    for _ in 0..ATTEMPTS {
        let tunnel = Tunnel::new(&Plan {
            both_endpoints: false,
            ..plan.clone()
        })?;
        match under_load(&tunnel)? {
            Some(Seen::Response) => return tunnel.ping_both_ways(Family::V4),
            Some(seen) => {
                let [a, b] = &plan.daemons;
                let what = match seen {
                    Seen::Nothing => format!("{a} sent no initiation"),
                    Seen::Initiation => format!("{b} answered neither by a cookie nor otherwise"),
                    Seen::Cookie => format!("{a} did not use the cookie of {b}"),
                    _ => format!("{b} did not answer the initiation with its cookie"),
                };
                return Err(io::Error::other(what));
            }
            None => {}
        }
    }
    Err(io::Error::other(format!(
        "{} was under load, but answered {ATTEMPTS} initiations without a cookie",
        plan.daemons[1]
    )))
}

/// Returns how far the handshake came; `None` if it was completed without a cookie.
fn under_load(tunnel: &Tunnel) -> io::Result<Option<Seen>> {
    let (a, b) = (&tunnel.a, &tunnel.b);
    let (here, there) = (a.endpoint(Family::V4), b.endpoint(Family::V4));
    let _flood = Flood::start(&a.host, there, b.keys.public)?;
    let tap = Tap::start(&a.host)?;
    let mut seen = Seen::Nothing;
    thread::scope(|scope| {
        let reached = scope.spawn(|| a.host.reach(b.inner(Family::V4), LIMIT));
        let response = tap.wait(LIMIT, |datagram| {
            let has_cookie = || datagram.payload[MAC2..].iter().any(|byte| *byte != 0);
            let now = match (datagram.from, datagram.to) {
                ends if ends == (here, there) && datagram.is_message(INITIATION) => {
                    match seen >= Seen::Cookie && has_cookie() {
                        true => Seen::InitiationWithCookie,
                        false => Seen::Initiation,
                    }
                }
                ends if ends == (there, here) && datagram.is_message(COOKIE_REPLY) => Seen::Cookie,
                ends if ends == (there, here) && datagram.is_message(RESPONSE) => {
                    return Some(seen >= Seen::InitiationWithCookie);
                }
                _ => return None,
            };
            seen = seen.max(now);
            None
        })?;
        let reached = reached.join().expect("a ping does not panic");
        match response {
            Some(false) => Ok(None),
            Some(true) => reached.map(|()| Some(Seen::Response)),
            None => Ok(Some(seen)),
        }
    })
}
