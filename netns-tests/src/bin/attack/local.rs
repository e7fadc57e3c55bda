//! An attacker with access to the configuration socket. It does not change the configuration.

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use netns_tests::Uapi;

use crate::arena::Arena;
use crate::packets::Random;

/// Connections that stay open in the middle of a request.
const STALLED: usize = 50;

fn connect(arena: &Arena) -> io::Result<Uapi> {
    Uapi::connect(&arena.server, "wg0")
}

/// Begins requests and does not end them, and asks without reading the answers.
pub fn stall(arena: &Arena) -> io::Result<()> {
    let mut open = Vec::new();
    while !arena.stop.load(Relaxed) {
        if open.len() < STALLED {
            // A daemon may refuse so many.
            if let Ok(mut uapi) = connect(arena) {
                let _ = match open.len() % 3 {
                    0 => uapi.send("set=1\nprivate_k"),
                    1 => uapi.send("get=1\n"),
                    _ => uapi.send("get=1\n\n"),
                };
                open.push(uapi);
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Asks as fast as it can.
pub fn flood(arena: &Arena) -> io::Result<()> {
    while !arena.stop.load(Relaxed) {
        let asked = connect(arena).and_then(|mut uapi| uapi.ask("get=1\n\n"));
        match asked {
            Ok(_) => drop(arena.sent.fetch_add(1, Relaxed)),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
    Ok(())
}

/// Sends nonsense.
pub fn lie(arena: &Arena) -> io::Result<()> {
    let mut random = Random::new();
    let long = format!("set=1\nfwmark={}\n\n", "1".repeat(100_000));
    let many = format!("set=1\n{}\n", "unknown=1\n".repeat(10_000));
    while !arena.stop.load(Relaxed) {
        if let Ok(mut uapi) = connect(arena) {
            let mut noise = vec![0; 1000];
            random.fill(&mut noise);
            let noise = String::from_utf8_lossy(&noise);
            let text = [
                &*noise,
                "set=1\npublic_key=zz\n\n",
                "set=1\nallowed_ip=10.0.0.0/8\n\n",
                "set=2\n\n",
                "\n\n\n",
                &long,
                &many,
            ][random.below(7)];
            // An error, or a closed connection.
            let _ = uapi.send(text).and_then(|()| uapi.half_close());
            let _ = uapi.answer();
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}
