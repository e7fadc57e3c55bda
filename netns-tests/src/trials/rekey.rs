//! New sessions under traffic.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::ensure;
use crate::{Family, Ping, Plan, Tunnel, transfer};

/// A real rekey under traffic: pings and a paced TCP stream of `rate` bytes a second, for longer
/// than REKEY_AFTER_TIME. No packet is lost, and none takes as long as `pause`.
pub fn rekey(plan: &Plan, rate: u64, pause: Duration) -> io::Result<()> {
    const LONG: Duration = Duration::from_secs(128);
    let tunnel = Tunnel::established(plan)?;
    let (a, b) = (&tunnel.a, &tunnel.b);
    let first = a.wg.peer(b.keys.public)?.last_handshake;
    let done = AtomicBool::new(false);
    let (pinged, sent) = std::thread::scope(|scope| {
        let pings = scope.spawn(|| {
            let pace = Duration::from_millis(50);
            let ping = Ping {
                interval: pace,
                timeout: pause,
                ..Ping::to(b.inner(Family::V4))
            };
            a.host.ping_while(&ping, |_| !done.load(Ordering::Relaxed))
        });
        let bytes = rate * LONG.as_secs();
        let to = (&b.host, b.inner(Family::V6));
        // The pace stays steady after a pause: a burst to catch up would overrun a slow peer.
        let pace = Duration::from_secs_f64(16384.0 / rate as f64);
        let sent = transfer(&a.host, to, bytes, |_| std::thread::sleep(pace));
        done.store(true, Ordering::Relaxed);
        (pings.join().expect("pings do not panic"), sent)
    });
    let (pinged, sent) = (pinged?, sent?);
    let slowest = pinged.rtts.iter().max().copied().unwrap_or_default();
    let longest = sent.longest_pause;
    // On a busy machine, the small socket buffers of other implementations may overflow.
    let overflows = a.host.udp_overflows()? + b.host.udp_overflows()?;
    let smooth = pinged.lost() as u64 <= overflows && slowest.max(longest) < pause;
    let story = format!(
        "{} and {}: {} pings, lost at {:?}, {overflows} datagrams overflowed a socket, the slowest \
         ping {slowest:?}, TCP's longest pause {longest:?}",
        plan.daemons[0], plan.daemons[1], pinged.sent, pinged.lost_at,
    );
    ensure(smooth && pinged.sent > 200, || story)?;
    let last = a.wg.peer(b.keys.public)?.last_handshake;
    let between = last
        .zip(first)
        .and_then(|(last, first)| last.duration_since(first).ok());
    ensure(
        between.is_some_and(|between| between >= Duration::from_secs(100)),
        || format!("no new handshake: first {first:?}, last {last:?}"),
    )
}
