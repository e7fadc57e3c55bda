//! Machines that use a hub with `Hub = on`: they reach each other without an endpoint, find a hub that was
//! started again, and change to a second one.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use netns_tests::{
    Beat, Config, Daemon, End, Family, Host, Internet, Keys, Lab, NatKind, PATIENCE, PeerConfig,
    Uapi, Via, Wg, binaries, ping_all, require, transfer, until,
};

/// Inside the tunnel, the hubs are .1 and .2, and the clients are .11 and following.
fn inner(family: Family, n: u8) -> IpAddr {
    match family {
        Family::V4 => [10, 78, 0, n].into(),
        Family::V6 => [0xfd78, 0, 0, 0, 0, 0, 0, n.into()].into(),
    }
}

fn peer(keys: &Keys, n: u8) -> PeerConfig {
    PeerConfig::new(keys.public)
        .allow(inner(Family::V4, n), 32)
        .allow(inner(Family::V6, n), 128)
}

fn up(wg: &Wg, n: u8) -> io::Result<()> {
    wg.up(
        1420,
        &[(inner(Family::V4, n), 24), (inner(Family::V6, n), 64)],
    )
}

struct Node {
    wg: Wg,
    host: Host,
    config: Config,
    keys: Keys,
    n: u8,
}

impl Node {
    fn start(daemon: &Daemon, host: &Host, config: Config, keys: Keys, n: u8) -> io::Result<Node> {
        let wg = daemon.start(host, "wg0", Via::Uapi)?;
        wg.set(&config)?;
        up(&wg, n)?;
        Ok(Node {
            wg,
            host: host.clone(),
            config,
            keys,
            n,
        })
    }

    fn status(&self) -> io::Result<String> {
        Uapi::connect(&self.host, "wg0")?.ask("status=1\n\n")
    }

    /// What `wg-rs status` prints.
    fn told(&self) -> io::Result<String> {
        self.host.sh(&binaries::wg_rs()?, &["status"])
    }

    /// Sends packets to an address until `wg-rs status` prints this.
    fn until_told(&self, text: &str, to: IpAddr) -> io::Result<()> {
        let socket = self.host.run(|| UdpSocket::bind(("0.0.0.0", 0)))?;
        until(PATIENCE, text, || {
            // Without a route or an endpoint it may fail.
            let _ = socket.send_to(b"x", (to, 9));
            Ok(self.told()?.contains(text).then_some(()))
        })
        .map_err(|error| io::Error::new(error.kind(), format!("{error}: {:?}", self.told())))
    }

    /// Waits until its daemon has written where all these clients are.
    fn until_seen(&self, clients: &[Node]) -> io::Result<()> {
        until(PATIENCE, "the hub to write where its clients are", || {
            let seen = self.host.read("/var/run/wireguard/wg0.seen");
            let seen = seen.unwrap_or_default();
            let has = |client: &Node| seen.contains(&client.keys.public.to_string());
            Ok(clients.iter().all(has).then_some(()))
        })
    }

    /// Starts its daemon again, after it was killed.
    fn restart(&mut self, daemon: &Daemon) -> io::Result<()> {
        self.wg = daemon.start(&self.host, "wg0", Via::Uapi)?;
        self.wg.set(&self.config)?;
        up(&self.wg, self.n)
    }

    /// Adds a peer.
    fn add(&self, peer: PeerConfig) -> io::Result<()> {
        self.wg.set(&Config::of(peer))
    }
}

/// Hubs, and two clients behind NATs.
struct Party {
    hubs: Vec<Node>,
    clients: Vec<Node>,
    net: Internet,
}

/// What a client knows of the other one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Client {
    /// It is ours, and knows no endpoint.
    Ours,
    /// It has the hub's address as the other's endpoint, and sends keepalives.
    Stock,
}

impl Party {
    fn new(
        clients: [(&Daemon, Client); 2],
        kinds: [NatKind; 2],
        outer: Family,
        hubs: usize,
    ) -> io::Result<Party> {
        let net = Internet::new(&kinds)?;
        let ours = Daemon::ours()?;
        // The host in the middle of the Internet is the second hub.
        let of_core: IpAddr = match outer {
            Family::V4 => [192, 0, 2, 254].into(),
            Family::V6 => [0x2001, 0xdb8, 0, 0, 0, 0, 0, 254].into(),
        };
        let places = [(&net.hub, Internet::hub(outer)), (&net.core, of_core)];
        let places = &places[..hubs];
        let hub_keys: Vec<Keys> = places.iter().map(|_| Keys::generate()).collect();
        let keys = [Keys::generate(), Keys::generate()];
        let mut nodes = Vec::new();
        for (i, (host, _)) in places.iter().enumerate() {
            let config = (0..2).fold(Config::new(&hub_keys[i], End::PORT), |config, c| {
                config.peer(peer(&keys[c], 11 + c as u8).relayed("lab"))
            });
            nodes.push(Node::start(&ours, host, config, hub_keys[i], 1 + i as u8)?);
        }
        let mut members = Vec::new();
        for (c, (daemon, kind)) in clients.iter().enumerate() {
            let mut config = Config::new(&keys[c], End::PORT);
            for (i, (_, ip)) in places.iter().enumerate() {
                let at: SocketAddr = (*ip, End::PORT).into();
                let hub = peer(&hub_keys[i], 1 + i as u8).at(at);
                config = config.peer(match kind {
                    Client::Ours => hub.hub(),
                    Client::Stock => hub.keepalive(5),
                });
            }
            let other = peer(&keys[1 - c], 12 - c as u8);
            config = config.peer(match kind {
                Client::Ours => other,
                Client::Stock => other.at(SocketAddr::from((places[0].1, End::PORT))),
            });
            let host = net.branches[c].host.clone();
            members.push(Node::start(daemon, &host, config, keys[c], 11 + c as u8)?);
        }
        let party = Party {
            hubs: nodes,
            clients: members,
            net,
        };
        for client in &party.clients {
            for hub in &party.hubs {
                client.host.reach(inner(Family::V4, hub.n), PATIENCE)?;
            }
        }
        Ok(party)
    }

    /// Each client pings the other.
    fn reach(&self) -> io::Result<()> {
        for (here, there) in [(0, 1), (1, 0)] {
            let (here, there) = (&self.clients[here], &self.clients[there]);
            here.host.reach(inner(Family::V4, there.n), PATIENCE)?;
        }
        Ok(())
    }

    fn talk(&self, bytes: u64) -> io::Result<()> {
        self.reach()?;
        for (here, there) in [(0, 1), (1, 0)] {
            let (here, there) = (&self.clients[here], &self.clients[there]);
            for family in Family::ALL {
                ping_all(&here.host, inner(family, there.n), 10)?;
                let to = (&there.host, inner(family, there.n));
                transfer(&here.host, to, bytes, |_| ())?;
            }
        }
        Ok(())
    }

    /// The hub by which the first client reaches the second one.
    fn used(&self) -> io::Result<Option<usize>> {
        let status = self.clients[0].status()?;
        let is_used = |hub: &Node| {
            let key = hub.keys.public.hex();
            status.contains(&format!("\npath_hub={key}\n"))
        };
        Ok(self.hubs.iter().position(is_used))
    }

    /// Both ends send to each other from now on.
    fn beats(&self) -> io::Result<[Beat; 2]> {
        let beat = |from: &Node, to: &Node| {
            let at = (&to.host, inner(Family::V4, to.n));
            Beat::start(&from.host, at, PATIENCE)
        };
        let [a, b] = &self.clients[..] else {
            unreachable!("two clients")
        };
        Ok([beat(a, b)?, beat(b, a)?])
    }

    /// Waits until each client knows that the other one speaks.
    fn until_they_speak(&self) -> io::Result<()> {
        until(PATIENCE, "both to speak", || {
            let mut all = true;
            for client in &self.clients {
                all &= client.status()?.contains("\nspeaks=true");
            }
            Ok(all.then_some(()))
        })
    }
}

fn has_nft() -> bool {
    require("nft", binaries::on_path("nft")).is_some()
}

#[test]
fn machines_behind_nats_reach_each_other_without_endpoints() -> io::Result<()> {
    if !has_nft() {
        return Ok(());
    }
    let ours = Daemon::ours()?;
    for (kinds, outer) in [
        ([NatKind::PortRestricted, NatKind::Symmetric], Family::V4),
        ([NatKind::FullCone, NatKind::AddressRestricted], Family::V6),
    ] {
        let party = Party::new([(&ours, Client::Ours); 2], kinds, outer, 1)?;
        party.talk(10_000_000)?;
        party.until_they_speak()?;
        let wg_rs = binaries::wg_rs()?;
        for client in &party.clients {
            let hub = party.hubs[0].keys.public;
            let text = client.host.sh(&wg_rs, &["status"])?;
            let relayed = text.lines().find(|line| line.contains("relayed by"));
            assert!(
                relayed.is_some_and(|line| line.contains(&hub.to_string())),
                "{text}"
            );
            assert!(text.contains("a hub that relays for us, heard"), "{text}");
            assert!(text.contains("sees us at"), "{text}");
            let nat = match outer {
                Family::V4 => ": a NAT, whose kind only a second hub would show;",
                // Only IPv4 is translated.
                Family::V6 => ": no NAT;",
            };
            assert!(text.contains("; hubs see ") && text.contains(nat), "{text}");
            let json = client.host.sh(&wg_rs, &["status", "--json"])?;
            assert!(json.contains("\"speaks\": true"), "{json}");
        }
        // No end or hub has refused anything of the others.
        for node in party.clients.iter().chain(&party.hubs) {
            let status = node.status()?;
            for counter in ["drop_malformed_inner_packet=0", "drop_invalid_frame=0"] {
                assert!(status.contains(counter), "{status}");
            }
        }
    }
    Ok(())
}

/// The far end has none of this, and gets no frame.
#[test]
fn other_implementations_are_reached_and_get_no_frames() -> io::Result<()> {
    if !has_nft() {
        return Ok(());
    }
    let ours = Daemon::ours()?;
    let kinds = [NatKind::Symmetric, NatKind::PortRestricted];
    for far in [Daemon::foreign()?, ours.clone()] {
        let clients = [(&ours, Client::Ours), (&far, Client::Stock)];
        let test = || -> io::Result<()> {
            let party = Party::new(clients, kinds, Family::V4, 1)?;
            party.talk(1_000_000)?;
            let status = party.clients[0].status()?;
            assert!(status.contains("\npath=relay\n"), "{status}");
            assert!(status.contains("\nspeaks=false\n"), "{status}");
            if far == ours {
                let status = party.clients[1].status()?;
                assert!(status.contains("drop_malformed_inner_packet=0"), "{status}");
            }
            Ok(())
        };
        test().map_err(|error| far.blame(error))?;
    }
    Ok(())
}

/// What a person reads if something does not work.
#[test]
fn each_state_of_hubs_and_peers_has_its_text() -> io::Result<()> {
    if !has_nft() {
        return Ok(());
    }
    let (ours, foreign) = (Daemon::ours()?, Daemon::foreign()?);
    let clients = [(&ours, Client::Ours), (&foreign, Client::Stock)];
    let kinds = [NatKind::PortRestricted; 2];
    let party = Party::new(clients, kinds, Family::V4, 1)?;
    party.reach()?;
    let far = party.clients[1].keys;
    let core = party.net.core.clone();
    let client = &party.clients[0];
    client.until_told("; plain WireGuard there", inner(Family::V4, 12))?;
    let nobody = inner(Family::V4, 99);
    client.add(PeerConfig::new(Keys::generate().public).allow(nobody, 32))?;
    client.until_told(
        "not connected: nothing was sent yet; the first packet",
        inner(Family::V4, 1),
    )?;
    client.until_told("not connected: no answer by ", nobody)?;
    client.until_told(
        "the peer is not there, has no group in common with this machine, or a public key is wrong at one end",
        nobody,
    )?;
    // Another WireGuard is no hub.
    let mute = Keys::generate();
    let other = foreign.start(&core, "wg0", Via::Uapi)?;
    other.set(&Config::new(&mute, End::PORT).peer(PeerConfig::new(client.keys.public)))?;
    up(&other, 9)?;
    // The address from which that host answers the client's router.
    let at = SocketAddr::from(([203, 0, 113, 5], End::PORT));
    client.add(PeerConfig::new(mute.public).at(at).hub())?;
    client.until_told("; it is no hub: it does not answer", nobody)?;
    // A hub of which nothing is heard.
    let router = &party.net.branches[1].router;
    let lonely = Node::start(&ours, router, Config::new(&far, 7), far, 20)?;
    let at = SocketAddr::from(([192, 0, 2, 99], End::PORT));
    lonely.add(PeerConfig::new(mute.public).at(at).hub())?;
    lonely.add(PeerConfig::new(Keys::generate().public).allow(nobody, 32))?;
    let text = format!("not connected: no connection with its hub {}", mute.public);
    lonely.until_told(&text, nobody)
}

/// The first hub reaches a peer by a second one. It passes on nothing between that peer and another
/// implementation of WireGuard, and says why.
#[test]
fn a_hub_says_what_it_does_not_relay_because_another_hub_does() -> io::Result<()> {
    if !has_nft() {
        return Ok(());
    }
    let (ours, foreign) = (Daemon::ours()?, Daemon::foreign()?);
    let net = Internet::new(&[NatKind::PortRestricted; 2])?;
    let [first, second, far, near] = [(); 4].map(|()| Keys::generate());
    let [to_first, to_second] = [Internet::hub(Family::V4), [192, 0, 2, 254].into()]
        .map(|ip| SocketAddr::from((ip, End::PORT)));
    let of_second = Config::new(&second, End::PORT)
        .peer(peer(&first, 1).relayed("lab"))
        .peer(peer(&far, 11).relayed("lab"));
    let _second = Node::start(&ours, &net.core, of_second, second, 2)?;
    let of_first = Config::new(&first, End::PORT)
        .peer(peer(&second, 2).at(to_second).hub())
        .peer(peer(&far, 11).relayed("lab"))
        .peer(peer(&near, 12).relayed("lab"));
    let hub = Node::start(&ours, &net.hub, of_first, first, 1)?;
    let of_far = Config::new(&far, End::PORT)
        .peer(peer(&second, 2).at(to_second).hub())
        .peer(peer(&first, 1))
        .peer(peer(&near, 12));
    let far = Node::start(&ours, &net.branches[0].host, of_far, far, 11)?;
    let of_near = Config::new(&near, End::PORT)
        .peer(peer(&first, 1).at(to_first).keepalive(5))
        .peer(peer(&far.keys, 11).at(to_first));
    let near = Node::start(&foreign, &net.branches[1].host, of_near, near, 12)?;
    hub.host.reach(inner(Family::V4, 11), PATIENCE)?;
    near.host.reach(inner(Family::V4, 1), PATIENCE)?;
    hub.until_told(
        "; nothing is relayed for it, as it is itself reached through a hub",
        inner(Family::V4, 11),
    )?;
    // The handshakes for it are counted.
    let socket = near.host.run(|| UdpSocket::bind(("0.0.0.0", 0)))?;
    socket.send_to(b"x", (inner(Family::V4, 11), 9))?;
    hub.until_told("relay chain (", inner(Family::V4, 11))
}

#[test]
fn a_hub_that_was_killed_and_started_again_is_used_within_6_seconds() -> io::Result<()> {
    if !has_nft() {
        return Ok(());
    }
    let ours = Daemon::ours()?;
    let kinds = [NatKind::PortRestricted, NatKind::Symmetric];
    let mut party = Party::new([(&ours, Client::Ours); 2], kinds, Family::V4, 1)?;
    party.talk(100_000)?;
    party.until_they_speak()?;
    let session = |party: &Party| {
        let peer = party.clients[0].wg.peer(party.clients[1].keys.public);
        peer.map(|peer| peer.last_handshake)
    };
    let before = session(&party)?;
    party.hubs[0].until_seen(&party.clients)?;
    let beats = party.beats()?;
    party.hubs[0].wg.kill()?;
    beats.iter().for_each(Beat::begin);
    party.hubs[0].restart(&ours)?;
    within(&beats, Duration::from_secs(6))?;
    assert_eq!(session(&party)?, before, "in the session that they had");
    Ok(())
}

/// Packets arrive again in both directions, and within this time.
fn within(beats: &[Beat], limit: Duration) -> io::Result<()> {
    for beat in beats {
        beat.until_it_arrives(PATIENCE)?;
    }
    let gaps: Vec<_> = beats.iter().map(Beat::longest_gap).collect();
    assert!(gaps.iter().all(|gap| *gap <= limit), "{gaps:?}");
    Ok(())
}

/// First only one hub knows the session, so another one is made by the second hub. Then both know it.
#[test]
fn the_second_hub_takes_over_within_3500_ms() -> io::Result<()> {
    if !has_nft() {
        return Ok(());
    }
    let ours = Daemon::ours()?;
    let kinds = [NatKind::PortRestricted, NatKind::Symmetric];
    let mut party = Party::new([(&ours, Client::Ours); 2], kinds, Family::V4, 2)?;
    party.talk(100_000)?;
    party.until_they_speak()?;
    for (client, nat) in party.clients.iter().zip([
        "the NAT gives all destinations the same port",
        "the NAT gives each destination its own port",
    ]) {
        let text = client.told()?;
        assert!(text.contains(nat), "{text}");
    }
    let beats = party.beats()?;
    let limit = Duration::from_millis(3500);
    let first = until(PATIENCE, "a hub to be used", || party.used())?;
    let second = 1 - first;
    party.hubs[first].until_seen(&party.clients)?;
    beats.iter().for_each(Beat::begin);
    party.hubs[first].wg.kill()?;
    within(&beats, limit)?;
    assert_eq!(party.used()?, Some(second));

    party.hubs[first].restart(&ours)?;
    until(PATIENCE, "the hub to be told the session", || {
        Ok(party.hubs[first]
            .status()?
            .contains("\npair=")
            .then_some(()))
    })?;
    beats.iter().for_each(Beat::begin);
    party.hubs[second].wg.kill()?;
    within(&beats, limit)?;
    until(PATIENCE, "the first hub to be used again", || {
        Ok((party.used()? == Some(first)).then_some(()))
    })?;

    // Now there is none.
    party.hubs[first].wg.kill()?;
    let of_other = inner(Family::V4, 12);
    let client = &party.clients[0];
    client.until_told("; nothing came back for ", of_other)?;
    client.until_told(", so packets also go by ", of_other)?;
    client.until_told(": the hub or the peer does not answer", of_other)
}

/// Our programs switch it on and off by the file; stock `wg` does not change it, and `get` does not show
/// it.
#[test]
fn the_switch_follows_the_file_and_stock_tools_do_not_change_it() -> io::Result<()> {
    let lab = Lab::new()?;
    let host = lab.host("client")?;
    let _wg = Daemon::ours()?.start(&host, "wg0", Via::Uapi)?;
    let (wg_rs, keys, hub) = (binaries::wg_rs()?, Keys::generate(), Keys::generate());
    let config =
        Config::new(&keys, 51820).peer(peer(&hub, 1).at(SocketAddr::from(([192, 0, 2, 1], 51820))));
    let plain = config.file(&[]);
    let with = |value: &str| plain.replace("[Peer]\n", &format!("[Peer]\n#@ Hub = {value}\n"));
    let apply = |program: &str, verb: &str, file: &str| {
        host.sh_with(program, &[verb, "wg0", "/dev/stdin"], file)
    };
    let ask = |what: &str| Uapi::connect(&host, "wg0")?.ask(what);
    let is_on = || ask("status=1\n\n").map(|status| status.contains("\nhub=true\n"));

    apply(&wg_rs, "setconf", &plain)?;
    let before = ask("get=1\n\n")?;
    assert!(!is_on()?);
    apply(&wg_rs, "setconf", &with("on"))?;
    assert!(is_on()?);
    assert_eq!(ask("get=1\n\n")?, before);
    if require("wg", binaries::on_path("wg")).is_some() {
        for verb in ["setconf", "syncconf", "addconf"] {
            apply("wg", verb, &plain)?;
            assert!(is_on()?, "{verb}");
        }
    }
    apply(&wg_rs, "syncconf", &plain)?;
    assert!(!is_on()?);
    let key = hub.public.to_string();
    for (word, on) in [("on", true), ("off", false)] {
        host.sh(&wg_rs, &["set", "wg0", "peer", &key, "hub", word])?;
        assert_eq!(is_on()?, on);
    }
    let error = host.sh(&wg_rs, &["set", "wg0", "peer", &key, "hub", "yes"]);
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("hub: `yes' is neither `on' nor `off'"),
        "{error}"
    );
    Ok(())
}
