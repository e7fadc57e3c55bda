//! Attacks on the relay, by strangers, by hosts that forge the addresses of peers, and by a peer that
//! boringtun implements. Each is counted, and two other peers lose nothing meanwhile. Attacks that need
//! thousands of peers, or a restart at the right moment, are in `tunnel/tests/relay_attacks.rs`.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use netns_tests::{
    Daemon, End, Family, Host, Internet, Key, Keys, NatKind, PATIENCE, Paced, Tap, Uapi, until,
};
use nix::sys::socket::{setsockopt, sockopt};

use crate::club::{Club, Member};
use crate::has_nft;

/// How often each message is sent in an attack.
const ROUNDS: usize = 300;

/// A and B are members of the club. C is a third peer, in the same group, which boringtun implements in
/// this process.
struct Siege {
    club: Club,
    c: Keys,
    /// C's socket, behind a NAT like the others.
    socket: UdpSocket,
    hub: SocketAddr,
}

/// The number of the session index that C uses with B.
const INDEX: u32 = 77;

impl Siege {
    fn new() -> io::Result<Siege> {
        let (ours, foreign) = (Daemon::ours()?, Daemon::foreign()?);
        let kinds = [NatKind::PortRestricted; 3];
        let club = Club::new(&[&foreign, &ours], &kinds, Family::V4)?;
        let c = Keys::generate();
        let key = c.public.hex();
        let peer = format!("set=1\npublic_key={key}\nallowed_ip=10.77.0.4/32\n");
        let ask = |host: &Host, more: &str| -> io::Result<()> {
            let answer = Uapi::connect(host, "wg0")?.ask(&format!("{peer}{more}\n"))?;
            assert_eq!(answer, "errno=0\n\n");
            Ok(())
        };
        ask(&club.net.hub, "relay=lab\n")?;
        ask(&club.members[1].host, "")?;
        // The host in the middle may bind any address.
        club.net
            .core
            .write("/proc/sys/net/ipv4/ip_nonlocal_bind", "1")?;
        let socket = socket(
            &club.net.branches[2].host,
            (Ipv4Addr::UNSPECIFIED, End::PORT).into(),
        )?;
        let hub = (Internet::hub(Family::V4), End::PORT).into();
        club.members[0].host.reach(Family::V4.inside(3), PATIENCE)?;
        Ok(Siege {
            club,
            c,
            socket,
            hub,
        })
    }

    fn key_of_b(&self) -> Key {
        self.club.members[1].keys.public
    }

    /// The address from which the hub hears this peer.
    fn address(&self, key: Key) -> io::Result<SocketAddr> {
        let endpoint = self.club.hub.peer(key)?.endpoint;
        endpoint.ok_or_else(|| io::Error::other("the hub has not heard it"))
    }

    fn address_of_a(&self) -> io::Result<SocketAddr> {
        self.address(self.club.members[0].keys.public)
    }

    /// A socket that sends from this address, whoever has it.
    fn forge(&self, from: SocketAddr) -> io::Result<UdpSocket> {
        let socket = socket(&self.club.net.core, from)?;
        setsockopt(&socket, sockopt::IpTransparent, &true)?;
        Ok(socket)
    }

    /// A socket of a host that is no peer.
    fn stranger(&self) -> io::Result<UdpSocket> {
        self.forge(([192, 0, 2, 254], 7777).into())
    }

    /// C's end of a session with the owner of `key`.
    fn tunn(&self, key: Key, index: u32) -> Tunn {
        let private = StaticSecret::from(self.c.private.0);
        Tunn::new(private, PublicKey::from(key.0), None, None, index, None)
    }

    /// C makes a session by sending to the hub.
    fn connect(&self, key: Key, index: u32) -> io::Result<Tunn> {
        let mut tunn = self.tunn(key, index);
        let (mut out, mut buffer) = ([0; 2048], [0; 2048]);
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let TunnResult::WriteToNetwork(message) =
                tunn.format_handshake_initiation(&mut out, true)
            {
                self.socket.send_to(message, self.hub)?;
            }
            // A cookie may come first. The next initiation then has it.
            while let Ok((len, _)) = self.socket.recv_from(&mut buffer) {
                if let TunnResult::WriteToNetwork(answer) =
                    tunn.decapsulate(None, &buffer[..len], &mut out)
                {
                    self.socket.send_to(answer, self.hub)?;
                    return Ok(tunn);
                }
            }
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "no session of C"))
    }

    /// The counters of refused packets of this host's interface.
    fn drops(&self, host: &Host) -> io::Result<BTreeMap<String, u64>> {
        let status = Uapi::connect(host, "wg0")?.ask("status=1\n\n")?;
        let drops = status.lines().filter_map(|line| {
            let (name, count) = line.strip_prefix("drop_")?.split_once('=')?;
            Some((name.to_owned(), count.parse().ok()?))
        });
        Ok(drops.collect())
    }

    /// The index in A's packets to B, which the hub sees.
    fn live_index(&self) -> io::Result<u32> {
        let [a, b] = &self.club.members[..] else {
            unreachable!("two members")
        };
        let of_a = self.address_of_a()?;
        let tap = Tap::start(&self.club.net.hub)?;
        let flow = Paced::start(&a.host, (&b.host, Family::V4.inside(b.n)))?;
        let index = tap.wait(PATIENCE, |seen| {
            let is_it = seen.is_message(4) && seen.from == of_a && seen.payload.len() > 1000;
            let index = is_it.then(|| seen.payload[4..8].try_into().ok())??;
            Some(u32::from_le_bytes(index))
        })?;
        flow.finish()?;
        index.ok_or_else(|| io::Error::other("no packet of A was seen"))
    }

    /// The bytes that the hub has passed on from C to B.
    fn relayed_from_c(&self) -> io::Result<u64> {
        let status = Uapi::connect(&self.club.net.hub, "wg0")?.ask("status=1\n\n")?;
        let (c, b) = (self.c.public.hex(), self.key_of_b().hex());
        let mut lines = status.lines();
        let pair = lines.find_map(|line| match line.strip_prefix("pair=")? {
            pair if pair == format!("{c} {b}") => Some("pair_tx="),
            pair if pair == format!("{b} {c}") => Some("pair_rx="),
            _ => None,
        });
        let bytes = pair.and_then(|key| lines.find_map(|line| line.strip_prefix(key)));
        let bytes = bytes.and_then(|bytes| bytes.parse().ok());
        bytes.ok_or_else(|| io::Error::other("the hub shows no such pair"))
    }

    /// Sends these messages again and again while A and B send packets to each other, of which none may be
    /// lost. Each of the hub's counters in `names` must rise.
    fn attack(&self, from: &UdpSocket, messages: &[Vec<u8>], names: &[&str]) -> io::Result<()> {
        let rounds = vec![messages; ROUNDS];
        self.attack_in(&rounds, from, names)
    }

    /// Like `attack`, but sends each message once.
    fn attack_once(
        &self,
        from: &UdpSocket,
        messages: &[Vec<u8>],
        names: &[&str],
    ) -> io::Result<()> {
        let rounds: Vec<_> = messages.chunks(1).collect();
        self.attack_in(&rounds, from, names)
    }

    /// Sends some of the messages in each round. A round takes ten milliseconds at least.
    fn attack_in(&self, rounds: &[&[Vec<u8>]], from: &UdpSocket, names: &[&str]) -> io::Result<()> {
        let hub = &self.club.net.hub;
        let before = self.drops(hub)?;
        let [a, b] = &self.club.members[..] else {
            unreachable!("two members")
        };
        let flow = |from: &Member, to: &Member| {
            Paced::start(&from.host, (&to.host, Family::V4.inside(to.n)))
        };
        let flows = [flow(a, b)?, flow(b, a)?];
        for messages in rounds {
            for message in *messages {
                // An ICMP error of an earlier message may be reported here.
                let _ = from.send_to(message, self.hub);
            }
            for flow in &flows {
                flow.go_on(1)?;
            }
        }
        for flow in flows {
            let count = flow.finish()?;
            assert_eq!(count.lost(), 0, "{count:?}");
        }
        for name in names {
            until(PATIENCE, &format!("{name} to rise"), || {
                let after = self.drops(hub)?;
                Ok((after.get(*name) > before.get(*name)).then_some(()))
            })?;
        }
        Ok(())
    }
}

fn socket(host: &Host, at: SocketAddr) -> io::Result<UdpSocket> {
    let socket = host.run(|| UdpSocket::bind(at))?;
    socket.set_read_timeout(Some(Duration::from_millis(1000)))?;
    Ok(socket)
}

/// A message of this type and length, to this session.
fn answer(kind: u8, len: usize, receiver: u32) -> Vec<u8> {
    let mut message = vec![9; len];
    message[..4].copy_from_slice(&[kind, 0, 0, 0]);
    let at = if kind == 2 { 8 } else { 4 };
    message[at..at + 4].copy_from_slice(&receiver.to_le_bytes());
    message
}

/// A packet with this content.
fn sealed(session: &mut Tunn, content: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = [0; 2048];
    match session.encapsulate(content, &mut out) {
        TunnResult::WriteToNetwork(message) => Ok(message.to_vec()),
        _ => Err(io::Error::other("no session")),
    }
}

fn initiation(tunn: &mut Tunn) -> io::Result<Vec<u8>> {
    let mut out = [0; 2048];
    match tunn.format_handshake_initiation(&mut out, true) {
        TunnResult::WriteToNetwork(message) => Ok(message.to_vec()),
        _ => Err(io::Error::other("no initiation")),
    }
}

/// All types of messages, for B and for nobody.
#[test]
fn a_stranger_reaches_nobody() -> io::Result<()> {
    if !has_nft() {
        return Ok(());
    }
    let siege = Siege::new()?;
    let mut to_b = siege.tunn(siege.key_of_b(), 1);
    let messages = [
        initiation(&mut to_b)?,
        answer(2, 92, 5),
        answer(3, 64, 5),
        answer(4, 96, 5),
    ];
    let refused = ["relay_sender_unknown", "relay_session_unknown"];
    siege.attack(&siege.stranger()?, &messages, &refused)?;
    // A peer without groups is a stranger too, also with a valid key.
    let session = siege.connect(siege.club.hub_key(), 2)?;
    assert!(session.time_since_last_handshake().is_some());
    let key = siege.c.public.hex();
    let off = format!("set=1\npublic_key={key}\nrelay=\n\n");
    let answer = Uapi::connect(&siege.club.net.hub, "wg0")?.ask(&off)?;
    assert_eq!(answer, "errno=0\n\n");
    siege.attack(&siege.socket, &messages[..1], &["relay_sender_unknown"])
}

/// Searches that find nobody become rare. Peers that know each other do not need them.
#[test]
fn forged_searches_are_limited() -> io::Result<()> {
    if !has_nft() {
        return Ok(());
    }
    let siege = Siege::new()?;
    let mut to_nobody = siege.tunn(Keys::generate().public, 1);
    let message = initiation(&mut to_nobody)?;
    let refused = ["relay_addressee_unknown", "relay_limit_reached"];
    siege.attack(&siege.forge(siege.address_of_a()?)?, &[message], &refused)
}

/// Initiations from the address of C, and from C itself. The real one gets a cookie, with which it passes.
#[test]
fn a_flood_of_initiations_to_a_peer_is_limited() -> io::Result<()> {
    if !has_nft() {
        return Ok(());
    }
    let siege = Siege::new()?;
    siege.connect(siege.club.hub_key(), 2)?;
    let of_c = siege.address(siege.c.public)?;
    let mut forger = siege.tunn(siege.key_of_b(), 1000);
    let messages = (0..5).map(|_| initiation(&mut forger));
    let messages = messages.collect::<io::Result<Vec<_>>>()?;
    let refused = ["relay_cookie_needed"];
    siege.attack(&siege.forge(of_c)?, &messages, &refused)?;
    siege.attack(&siege.socket, &messages, &refused)?;
    siege.connect(siege.key_of_b(), INDEX)?;
    Ok(())
}

#[test]
fn forged_answers_and_data_are_refused() -> io::Result<()> {
    if !has_nft() {
        return Ok(());
    }
    let siege = Siege::new()?;
    let b = &siege.club.members[1].host;
    siege.connect(siege.club.hub_key(), 2)?;
    let of_c = siege.address(siege.c.public)?;
    let session = siege.connect(siege.key_of_b(), INDEX)?;
    drop(session);
    // From the right address, but of no session.
    let messages = [answer(2, 92, 5), answer(3, 64, 5), answer(4, 96, 5)];
    siege.attack(&siege.forge(of_c)?, &messages, &["relay_session_unknown"])?;
    // To C's own index, but not from B.
    let to_c = answer(4, 96, INDEX << 8 | 1);
    let stranger = siege.stranger()?;
    siege.attack(&stranger, &[to_c], &["relay_session_unknown"])?;
    assert_eq!(siege.drops(b)?.get("authentication_failed"), Some(&0));
    Ok(())
}

/// The attacker knows an index that A uses with B: it has seen their packets.
#[test]
fn forged_packets_with_the_index_of_others_are_refused_by_the_hub_or_by_the_peer() -> io::Result<()>
{
    if !has_nft() {
        return Ok(());
    }
    let siege = Siege::new()?;
    let b = &siege.club.members[1].host;
    siege.connect(siege.club.hub_key(), 2)?;
    let index = siege.live_index()?;
    let forged = [
        answer(2, 92, index),
        answer(3, 64, index),
        answer(4, 96, index),
    ];
    let refused = ["relay_session_unknown"];
    // From C, a peer of the same group, and from a stranger. Nothing reaches B.
    let of_b = siege.drops(b)?;
    siege.attack(&siege.socket, &forged, &refused)?;
    let unknown = ["relay_sender_unknown", "relay_session_unknown"];
    siege.attack(&siege.stranger()?, &forged, &unknown)?;
    assert_eq!(siege.drops(b)?, of_b);
    // From A's address. Data and cookies go to B as they are, which refuses them.
    let of_a = siege.forge(siege.address_of_a()?)?;
    siege.attack(&of_a, &forged, &refused)?;
    let now = siege.drops(b)?;
    for name in ["authentication_failed", "invalid_cookie_reply"] {
        let more = now[name] - of_b[name];
        assert!((1..=ROUNDS as u64).contains(&more), "{name}: {more}");
    }
    Ok(())
}

/// What C may do: send to B in its own session. It is passed on one to one, and shown.
#[test]
fn what_a_peer_sends_in_its_own_session_is_seen_at_the_hub() -> io::Result<()> {
    if !has_nft() {
        return Ok(());
    }
    let siege = Siege::new()?;
    let b = &siege.club.members[1].host;
    siege.connect(siege.club.hub_key(), 2)?;
    let mut session = siege.connect(siege.key_of_b(), INDEX)?;
    let messages: io::Result<Vec<_>> = (0..5).map(|_| sealed(&mut session, &[9; 1000])).collect();
    let messages = messages?;
    let [before, of_b] = [siege.relayed_from_c()?, siege.drops(b)?["replayed"]];
    siege.attack(&siege.socket, &messages, &[])?;
    let all = (ROUNDS * messages.iter().map(Vec::len).sum::<usize>()) as u64;
    let relayed = siege.relayed_from_c()? - before;
    assert!(
        (all / 2..=all).contains(&relayed),
        "{relayed} of {all} bytes"
    );
    // All but the first of each are repetitions.
    let repeated = siege.drops(b)?["replayed"] - of_b;
    assert!(
        (1..=(ROUNDS * messages.len()) as u64).contains(&repeated),
        "{repeated}"
    );
    Ok(())
}

/// Without this, a packet could go round among hubs for ever.
#[test]
fn a_packet_that_has_no_hop_left_is_not_relayed() -> io::Result<()> {
    if !has_nft() {
        return Ok(());
    }
    let siege = Siege::new()?;
    siege.connect(siege.club.hub_key(), 2)?;
    let mut session = siege.connect(siege.key_of_b(), INDEX)?;
    // The routers between C and the hub refuse the first ones, and may report that with the next call.
    for hops in 1..=5 {
        setsockopt(&siege.socket, sockopt::Ipv4Ttl, &hops)?;
        let message = sealed(&mut session, &[0x45; 40])?;
        let _ = siege.socket.send_to(&message, siege.hub);
        let _ = siege.socket.take_error();
    }
    until(PATIENCE, "a packet that has no hop left", || {
        let drops = siege.drops(&siege.club.net.hub)?;
        Ok((drops["relay_hop_limit"] == 1).then_some(()))
    })
}

/// C tells the hub a session with each of more than a thousand peers.
#[test]
fn a_peer_opens_at_most_1024_pairs() -> io::Result<()> {
    if !has_nft() {
        return Ok(());
    }
    let siege = Siege::new()?;
    let mut session = siege.connect(siege.club.hub_key(), 2)?;
    let crowd: Vec<Keys> = (0..1100).map(|_| Keys::generate()).collect();
    let config = crowd.iter().fold(String::from("set=1\n"), |config, keys| {
        config + &format!("public_key={}\nrelay=lab\n", keys.public.hex())
    });
    let answer = Uapi::connect(&siege.club.net.hub, "wg0")?.ask(&format!("{config}\n"))?;
    assert_eq!(answer, "errno=0\n\n");
    // No more at once than the limit of frames allows.
    for (n, others) in crowd.chunks(100).enumerate() {
        let binds = others.iter().zip(n as u32 * 100..).map(|(other, index)| {
            // See `wg-rs/src/tunnel/frame.rs`.
            let mut bind = vec![0xf1, 3, 48, 0];
            bind.extend(other.public.0);
            bind.extend((2 * index + 1_000_000).to_le_bytes());
            bind.extend((2 * index + 1_000_001).to_le_bytes());
            bind.extend([0; 4]);
            sealed(&mut session, &bind)
        });
        let binds: io::Result<Vec<_>> = binds.collect();
        let refused: &[&str] = match n {
            10 => &["relay_limit_reached"],
            _ => &[],
        };
        siege.attack_once(&siege.socket, &binds?, refused)?;
    }
    Ok(())
}

/// A peer chooses the index that another peer uses with B.
#[test]
fn the_index_of_another_pair_is_refused() -> io::Result<()> {
    if !has_nft() {
        return Ok(());
    }
    let siege = Siege::new()?;
    siege.connect(siege.club.hub_key(), 2)?;
    siege.connect(siege.key_of_b(), INDEX)?;
    let same = initiation(&mut siege.tunn(siege.key_of_b(), INDEX))?;
    let from_a = siege.forge(siege.address_of_a()?)?;
    siege.attack(&from_a, &[same], &["relay_index_in_use"])
}

/// C, with its valid session, sends from the address of A. Nothing is sent back to an address.
#[test]
fn claiming_the_address_of_another_peer_hides_nobody() -> io::Result<()> {
    if !has_nft() {
        return Ok(());
    }
    let siege = Siege::new()?;
    let mut session = siege.connect(siege.club.hub_key(), 2)?;
    let of_a = siege.address_of_a()?;
    let forged = siege.forge(of_a)?;
    // A keepalive, which is authentic.
    forged.send_to(&sealed(&mut session, &[])?, siege.hub)?;
    until(PATIENCE, "the hub to take C for A's neighbour", || {
        Ok((siege.address(siege.c.public)? == of_a).then_some(()))
    })?;
    let to_c = initiation(&mut siege.tunn(siege.c.public, 3))?;
    siege.attack(&forged, &[to_c], &["relay_loop"])?;
    assert_eq!(siege.address_of_a()?, of_a);
    Ok(())
}
