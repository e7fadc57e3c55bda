//! The blind relay: ordinary peers, each behind a NAT of its own, reach each other through the port of
//! their hub, which cannot read their packets.

mod attacks;
mod club;
mod page;

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use club::{Club, Member, of_hub, up};
use netns_tests::{
    Beat, Config, Daemon, Datagrams, End, Family, Host, Internet, Key, Keys, Lab, NatKind,
    PATIENCE, Paced, PeerConfig, Sniffer, Uapi, Via, binaries, ping_all, require, until,
};

fn has_nft() -> bool {
    require("nft", binaries::on_path("nft")).is_some()
}

/// Every implementation as initiator and as responder, over IPv4 and IPv6 in turn.
#[test]
fn plain_peers_behind_nats_reach_each_other() -> io::Result<()> {
    if !has_nft() {
        return Ok(());
    }
    let all = Daemon::all()?;
    for (i, a) in all.iter().enumerate() {
        let b = &all[(i + 1) % all.len()];
        let outer = Family::ALL[i % 2];
        let test = || -> io::Result<()> {
            let club = Club::of_two(a, b, outer)?;
            club.talk(10_000_000).map_err(|error| club.explain(error))?;
            let hub: SocketAddr = (Internet::hub(outer), End::PORT).into();
            for (here, there) in [(0, 1), (1, 0)] {
                let (here, there) = (&club.members[here], &club.members[there]);
                let peer = here.wg.peer(there.keys.public)?;
                assert_eq!(
                    peer.endpoint,
                    Some(hub),
                    "its endpoint for the other is the hub"
                );
                assert_eq!(peer.preshared_key, Some(club.psk));
                // The hub has no part in their session.
                let of_hub = club.hub.peer(here.keys.public)?;
                assert!(of_hub.rx_bytes < 1_000_000, "{of_hub:?}");
            }
            Ok(())
        };
        test().map_err(|error| {
            io::Error::new(error.kind(), format!("{a} and {b}, {outer:?}: {error}"))
        })?;
    }
    Ok(())
}

/// All implementations at once: each sends to the next one and back until both have a new session.
#[test]
#[ignore = "takes two minutes: sessions are renewed after that time"]
fn nothing_is_lost_over_a_rekey_of_any_pair() -> io::Result<()> {
    if !has_nft() {
        return Ok(());
    }
    let all = Daemon::all()?;
    let all: Vec<&Daemon> = all.iter().collect();
    let kinds = [NatKind::PortRestricted, NatKind::Symmetric];
    let kinds: Vec<NatKind> = kinds.into_iter().cycle().take(all.len()).collect();
    let club = Club::new(&all, &kinds, Family::V4)?;
    let pairs = || {
        let next = club.members.iter().cycle().skip(1);
        club.members.iter().zip(next)
    };
    let session = |(here, there): (&Member, &Member)| {
        let peer = here.wg.peer(there.keys.public)?;
        Ok::<_, io::Error>(peer.last_handshake)
    };
    let mut flows = Vec::new();
    for (here, there) in pairs() {
        here.host.reach(Family::V4.inside(there.n), PATIENCE)?;
        let datagrams = Datagrams {
            len: 500,
            pace: Duration::from_millis(20),
        };
        for (from, to) in [(here, there), (there, here)] {
            let to = (&to.host, Family::V4.inside(to.n));
            flows.push(Paced::of(datagrams, &from.host, to)?);
        }
    }
    let before = pairs().map(session).collect::<io::Result<Vec<_>>>()?;
    for (pair, before) in pairs().zip(before) {
        until(Duration::from_secs(200), "a new session", || {
            Ok((session(pair)? != before).then_some(()))
        })?;
    }
    for flow in flows {
        flow.go_on(100)?;
        let count = flow.finish()?;
        assert_eq!((count.lost(), count.damaged), (0, 0), "{count:?}");
    }
    Ok(())
}

/// Four members, one behind each kind of NAT, all pairs.
#[test]
fn the_relay_works_through_any_kind_of_nat() -> io::Result<()> {
    if !has_nft() {
        return Ok(());
    }
    let ours = Daemon::ours()?;
    let club = Club::new(&[&ours; 4], &NatKind::ALL, Family::V4)?;
    let all_ways = || -> io::Result<()> {
        for here in &club.members {
            for there in club.members.iter().filter(|there| there.n != here.n) {
                here.host.reach(Family::V4.inside(there.n), PATIENCE)?;
                ping_all(&here.host, Family::V6.inside(there.n), 3)?;
            }
        }
        Ok(())
    };
    all_ways().map_err(|error| club.explain(error))
}

#[test]
fn a_sniffer_at_the_hub_finds_no_plaintext() -> io::Result<()> {
    const SECRET: &[u8] = b"the quick brown fox jumps over the lazy dog";
    if !has_nft() {
        return Ok(());
    }
    let ours = Daemon::ours()?;
    let club = Club::of_two(&ours, &ours, Family::V4)?;
    let [a, b] = &club.members[..] else {
        unreachable!("two members")
    };
    a.host.reach(Family::V4.inside(b.n), PATIENCE)?;
    let (at_hub, at_b) = (
        Sniffer::look_for(&club.net.hub, SECRET)?,
        Sniffer::look_for(&b.host, SECRET)?,
    );
    let to: SocketAddr = (Family::V4.inside(b.n), 9).into();
    a.host.run(|| -> io::Result<()> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        (0..100).try_for_each(|_| socket.send_to(SECRET, to).map(drop))
    })?;
    until(PATIENCE, "the secret at its end", || {
        Ok(at_b.found().then_some(()))
    })?;
    // A captured packet may contain many datagrams that the kernel has not segmented yet.
    let (from, to) = (club.net.branches[0].wan, club.net.branches[1].wan);
    let mut seen = Vec::new();
    until(PATIENCE, "packets to enter and leave the hub", || {
        seen.extend(at_hub.take());
        let both = seen.iter().any(|packet| packet.from == from)
            && seen.iter().any(|packet| packet.to == to);
        Ok(both.then_some(()))
    })?;
    assert!(!at_hub.found());
    Ok(())
}

/// Floods `to` with initiations of an unknown peer while `work` runs.
fn under_flood<T>(
    from: &Host,
    to: SocketAddr,
    key: Key,
    work: impl FnOnce() -> T,
) -> io::Result<T> {
    let private = StaticSecret::from(Keys::generate().private.0);
    let mut nobody = Tunn::new(private, PublicKey::from(key.0), None, None, 0, None);
    let mut buffer = [0; 2048];
    let TunnResult::WriteToNetwork(initiation) =
        nobody.format_handshake_initiation(&mut buffer, true)
    else {
        return Err(io::Error::other("no initiation"));
    };
    let socket = from.run(|| UdpSocket::bind("0.0.0.0:0"))?;
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = socket.send_to(initiation, to);
            }
        });
        let result = work();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        Ok(result)
    })
}

/// The far end is flooded with initiations from its own network.
#[test]
fn a_far_end_under_a_flood_is_reached() -> io::Result<()> {
    if !has_nft() {
        return Ok(());
    }
    let ours = Daemon::ours()?;
    for b in [ours.clone(), Daemon::foreign()?] {
        let club = Club::of_two(&ours, &b, Family::V4)?;
        let [a, b] = &club.members[..] else {
            unreachable!("two members")
        };
        let lan = (IpAddr::from([192, 168, 1, 2]), End::PORT).into();
        let reached = under_flood(&club.net.branches[1].router, lan, b.keys.public, || {
            a.host.reach(Family::V4.inside(b.n), PATIENCE)
        })?;
        reached?;
    }
    Ok(())
}

/// The members find a restarted hub because it sends handshakes to their last endpoints, which it has
/// remembered.
#[test]
fn a_hub_that_was_killed_and_started_again_is_used_within_20_seconds() -> io::Result<()> {
    if !has_nft() {
        return Ok(());
    }
    let ours = Daemon::ours()?;
    let mut club = Club::of_two(&ours, &ours, Family::V4)?;
    club.talk(100_000)?;
    let keys: Vec<Keys> = club.members.iter().map(|member| member.keys).collect();
    let config = of_hub(&club.keys, &keys);
    until(PATIENCE, "the hub to write where its members are", || {
        let seen = club.net.hub.read("/var/run/wireguard/wg0.seen");
        let seen = seen.unwrap_or_default();
        let all = keys
            .iter()
            .all(|keys| seen.contains(&keys.public.to_string()));
        Ok(all.then_some(()))
    })?;
    let beat = |from: &Member, to: &Member| {
        let at = (&to.host, Family::V4.inside(to.n));
        Beat::start(&from.host, at, PATIENCE)
    };
    let [a, b] = &club.members[..] else {
        unreachable!("two members")
    };
    let beats = [beat(a, b)?, beat(b, a)?];
    club.hub.kill()?;
    beats.iter().for_each(Beat::begin);
    club.hub = ours.start(&club.net.hub, "wg0", Via::Uapi)?;
    club.hub.set(&config)?;
    up(&club.hub, 1)?;
    for beat in &beats {
        beat.until_it_arrives(PATIENCE)?;
        let gap = beat.longest_gap();
        assert!(gap <= Duration::from_secs(20), "{gap:?}");
    }
    Ok(())
}

/// The groups of the only peer, as the daemon reports them.
fn groups(host: &Host) -> io::Result<Option<String>> {
    let status = Uapi::connect(host, "wg0")?.ask("status=1\n\n")?;
    let line = status.lines().find_map(|line| line.strip_prefix("relay="));
    Ok(line.map(str::to_owned))
}

/// Our programs set and remove groups by the file; stock `wg` does not change them, and `get` does not show
/// them.
#[test]
fn groups_follow_the_file_and_stock_tools_do_not_change_them() -> io::Result<()> {
    let lab = Lab::new()?;
    let host = lab.host("hub")?;
    let _wg = Daemon::ours()?.start(&host, "wg0", Via::Uapi)?;
    let (wg_rs, keys, peer) = (binaries::wg_rs()?, Keys::generate(), Keys::generate());
    let config =
        Config::new(&keys, 51820).peer(PeerConfig::new(peer.public).allow([10, 77, 0, 2], 32));
    let plain = config.file(&[]);
    let with = |value: &str| plain.replace("[Peer]\n", &format!("[Peer]\n#@ Relay = {value}\n"));
    let apply = |program: &str, verb: &str, file: &str| {
        host.sh_with(program, &[verb, "wg0", "/dev/stdin"], file)
    };
    let get = || Uapi::connect(&host, "wg0")?.ask("get=1\n\n");

    apply(&wg_rs, "setconf", &plain)?;
    let before = get()?;
    assert_eq!(groups(&host)?, None);
    apply(&wg_rs, "setconf", &with("office, lab"))?;
    assert_eq!(groups(&host)?.as_deref(), Some("lab,office"));
    assert_eq!(get()?, before);
    if require("wg", binaries::on_path("wg")).is_some() {
        for verb in ["setconf", "syncconf", "addconf"] {
            apply("wg", verb, &plain)?;
            assert_eq!(groups(&host)?.as_deref(), Some("lab,office"), "{verb}");
            apply("wg", verb, &with("others"))?;
            assert_eq!(groups(&host)?.as_deref(), Some("lab,office"), "{verb}");
        }
    }
    apply(&wg_rs, "addconf", &plain)?;
    assert_eq!(groups(&host)?.as_deref(), Some("lab,office"));
    for verb in ["setconf", "syncconf"] {
        apply(&wg_rs, verb, &with("on"))?;
        assert_eq!(groups(&host)?.as_deref(), Some("default"), "{verb}");
        apply(&wg_rs, verb, &with("off"))?;
        assert_eq!(groups(&host)?, None, "{verb}");
        apply(&wg_rs, verb, &with("on"))?;
        apply(&wg_rs, verb, &plain)?;
        assert_eq!(groups(&host)?, None, "{verb}: the line is gone");
    }
    let key = peer.public.to_string();
    host.sh(&wg_rs, &["set", "wg0", "peer", &key, "relay", "lab"])?;
    assert_eq!(groups(&host)?.as_deref(), Some("lab"));
    let shown = host.sh(&wg_rs, &["showconf", "wg0"])?;
    apply(&wg_rs, "setconf", &shown)?;
    assert_eq!(
        groups(&host)?.as_deref(),
        Some("lab"),
        "after showconf and setconf"
    );
    host.sh(&wg_rs, &["set", "wg0", "peer", &key, "relay", "off"])?;
    assert_eq!(groups(&host)?, None);
    let error = host
        .sh(&wg_rs, &["set", "wg0", "peer", &key, "relay", "Lab"])
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("relay: `Lab' is not a valid name"),
        "{error}"
    );
    Ok(())
}
