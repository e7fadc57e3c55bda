//! New sessions under traffic.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::ensure;
use crate::{Family, Ping, Plan, Tunnel, transfer};

/// A real rekey under traffic: pings and a paced TCP stream of `rate` bytes a second, for longer
/// than REKEY_AFTER_TIME. No packet is lost, and none takes as long as `pause`.
pub fn rekey(plan: &Plan, rate: u64, pause: Duration) -> io::Result<()> {
    const LONG: Duration = Duration::from_secs(128);
    let tunnel = Tunnel::established(plan)?;
    let (a, b) = (&tunnel.a, &tunnel.b);
    let first = handshakes(&tunnel)?;
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
    let last = handshakes(&tunnel)?;
    let is_new = |end: usize| {
        let between = last[end]
            .zip(first[end])
            .and_then(|(last, first)| last.duration_since(first).ok());
        between.is_some_and(|between| between >= Duration::from_secs(100))
    };
    ensure(is_new(0) || is_new(1), || {
        format!("no new handshake: first {first:?}, last {last:?}")
    })
}

/// The time of the last handshake at a and at b. boringtun shows its age as a time in 1970, which is none.
fn handshakes(tunnel: &Tunnel) -> io::Result<[Option<SystemTime>; 2]> {
    let long_ago = UNIX_EPOCH + Duration::from_secs(365 * 86_400);
    let mut times = [None; 2];
    for (time, (here, there)) in times.iter_mut().zip(tunnel.ways()) {
        let shown = here.wg.peer(there.keys.public)?.last_handshake;
        *time = shown.filter(|time| *time > long_ago);
    }
    Ok(times)
}
