//! Frames of any content, from a peer in a session, to a device that is a hub for it, uses it as a hub,
//! may reach it through another hub, or does none of this. A frame is never delivered as a packet, and
//! what the device sends in answer goes only to addresses that it was given.

#![no_main]

#[allow(dead_code)]
mod pair;

use std::time::Duration;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use pair::{Pair, WALL, addr, packet, public};
use wg_rs::model::{Change, Extension, Groups};
use wg_rs::tunnel::config::NoLinks;
use wg_rs::tunnel::frame::{Answer, Frame, is_frame};
use wg_rs::tunnel::peer::Endpoint;
use wg_rs::tunnel::receive::InBurst;

#[derive(Arbitrary, Debug)]
enum Event {
    Hello { seq: u32 },
    You { epoch: u32, next: u16, relays: bool },
    /// The key of this number.
    Bind { key: u8, mine: u32, theirs: u32, speaks: bool },
    Ping { id: u64 },
    Pong { id: u64 },
    Raw { kind: u8, len: u16, bytes: Vec<u8> },
    Data,
    From { n: u8 },
    Role { n: u8, on: bool },
    Wait { millis: u16 },
}

#[derive(Arbitrary, Debug)]
struct Input {
    role: u8,
    events: Vec<Event>,
}

const STRANGER: u8 = 3;
const HUB: u8 = 4;

/// The settings of B about A in this role.
fn role(n: u8, on: bool) -> Vec<Change> {
    let groups = if on { Groups::on() } else { Groups::NONE };
    let of_a = |extension| vec![Change::Peer(public(1)), Change::Extension(extension)];
    match n % 3 {
        0 => of_a(Extension::Relay(groups)),
        1 => of_a(Extension::Hub(on)),
        _ => vec![
            Change::Peer(public(HUB)),
            Change::Endpoint(addr(1)),
            Change::Extension(Extension::Hub(on)),
        ],
    }
}

fuzz_target!(|input: Input| {
    let mut pair = Pair::with_session();
    let plane = pair.b.plane().clone();
    let set = |pair: &mut Pair, changes: &[Change]| {
        let result = pair.b.set(changes, &mut NoLinks, pair.now);
        result.expect("these changes cannot fail");
    };
    // Another member of the same group.
    let other = Extension::Relay(Groups::on());
    set(&mut pair, &[Change::Peer(public(STRANGER)), Change::Extension(other)]);
    set(&mut pair, &role(input.role, true));
    let mut from = 1;
    let mut burst = InBurst::new();
    for event in input.events.into_iter().take(100) {
        let inner = match event {
            Event::Hello { seq } => Frame::Hello { seq }.to_bytes(),
            Event::You { epoch, next, relays } => {
                let seen = Some(addr(1));
                Frame::You(Answer { seq: 1, epoch, relays, next, seen }).to_bytes()
            }
            Event::Bind { key, mine, theirs, speaks } => {
                let key = public(1 + key % 4);
                Frame::Bind { key, mine, theirs, speaks }.to_bytes()
            }
            Event::Ping { id } => Frame::Ping { id }.to_bytes(),
            Event::Pong { id } => Frame::Pong { id, seen: None }.to_bytes(),
            Event::Raw { kind, len, bytes } => {
                let mut frame = vec![0xf1, kind, len as u8, (len >> 8) as u8];
                frame.extend(bytes.into_iter().take(1200));
                if let Ok(Some(parsed)) = Frame::parse(&frame) {
                    assert_eq!(Frame::parse(&parsed.to_bytes()), Ok(Some(parsed)));
                }
                frame
            }
            Event::Data => packet(1, 2, b"data"),
            Event::From { n } => {
                from = 1 + n % 8;
                continue;
            }
            Event::Role { n, on } => {
                set(&mut pair, &role(n, on));
                continue;
            }
            Event::Wait { millis } => {
                pair.now = pair.now + Duration::from_millis(millis.into());
                pair.b.handle_timeout(pair.now, WALL);
                let mut out = Vec::new();
                while pair.b.poll_transmit(pair.now, WALL, &mut out).is_some() {}
                continue;
            }
        };
        let Some(sealed) = pair.send_instead(&packet(1, 2, b""), &inner) else {
            return;
        };
        burst.buffer()[..sealed.len()].copy_from_slice(&sealed);
        burst.received(sealed.len(), 0, Endpoint::from(addr(from)), 0);
        burst.classify(&plane, pair.now, |_, _| {});
        burst.open();
        burst.accept(&plane, pair.now);
        if is_frame(&inner) {
            assert!(burst.packets().is_empty(), "a frame was delivered");
        }
        let mut out = Vec::new();
        while let Some(transmit) = pair.b.poll_transmit(pair.now, WALL, &mut out) {
            let to = transmit.to.addr;
            assert!((1..=8).any(|n| addr(n) == to), "to {to}");
            assert!(out.len() <= 2048);
        }
    }
});
