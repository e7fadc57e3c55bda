//! What a transfer without a tunnel keeps of its rate under a flood.

use std::fmt;
use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use netns_tests::{Keys, Load};

use crate::Attack;
use crate::arena::{Arena, Pace, SERVER};
use crate::cpu::{Meter, Usage};
use crate::fight::{Hosts, begin, end, rate};

/// The result.
#[derive(Debug)]
pub struct Ceiling {
    sent: f64,
    before: f64,
    during: f64,
    cpu: Usage,
}

impl fmt::Display for Ceiling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ceiling {
            sent,
            before,
            during,
            cpu,
        } = self;
        let kept = during / before * 100.0;
        let (before, during) = (before / 1e6, during / 1e6);
        write!(f, "{sent:9.0}{before:9.0}{during:9.0}{kept:5.0} %  {cpu}")
    }
}

/// Floods a socket that nobody reads beside a transfer without a tunnel.
pub fn measure(attack: Attack, pace: Pace) -> io::Result<Ceiling> {
    let hosts = Hosts::new()?;
    let (server, [client, attacker, _]) = (&hosts.server, &hosts.others);
    let _unread = server.run(|| UdpSocket::bind(SERVER))?;
    let load = Load::tcp(client, (server, [192, 0, 2, 2].into()), 1)?;
    load.flowing()?;
    let arena = Arc::new(Arena {
        attacker: attacker.clone(),
        server: server.clone(),
        server_keys: Keys::generate(),
        insider_keys: Keys::generate(),
        captured: Vec::new(),
        pace,
        sent: AtomicU64::new(0),
        cpu: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    });
    let before = rate(&load, pace.window);
    let attackers = begin(attack, &arena)?;
    let (first, start) = (arena.sent.load(Relaxed), Instant::now());
    let nobody = Meter {
        client: 0,
        server: 0,
    };
    let (during, cpu) = nobody.during(&arena, || Ok(rate(&load, pace.window)))?;
    let sent = (arena.sent.load(Relaxed) - first) as f64 / start.elapsed().as_secs_f64();
    end(&arena, attackers)?;
    load.stop()?;
    Ok(Ceiling {
        sent,
        before,
        during,
        cpu,
    })
}
