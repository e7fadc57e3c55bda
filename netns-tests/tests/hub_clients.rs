//! Machines that use a hub with `Hub = on`: they reach each other without an endpoint, find a hub that was
//! started again, and change to a second one.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use netns_tests::{
    Config, Daemon, End, Family, Host, Internet, Keys, Lab, NatKind, PATIENCE, PeerConfig, Uapi,
    Via, Wg, binaries, ping_all, require, transfer, until,
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
                Family::V4 => ": a NAT, of which one hub does not show the kind;",
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
        "it is not there, or has no group in common with this machine",
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
    until(PATIENCE, "the hub to write where its clients are", || {
        let seen = party.hubs[0].host.read("/var/run/wireguard/wg0.seen");
        let seen = seen.unwrap_or_default();
        let mut clients = party.clients.iter();
        let all = clients.all(|client| seen.contains(&client.keys.public.to_string()));
        Ok(all.then_some(()))
    })?;
    let hub = &mut party.hubs[0];
    hub.wg.kill()?;
    let start = Instant::now();
    hub.wg = ours.start(&hub.host, "wg0", Via::Uapi)?;
    hub.wg.set(&hub.config)?;
    up(&hub.wg, 1)?;
    party.reach()?;
    let took = start.elapsed();
    assert!(took < Duration::from_secs(6), "{took:?}");
    assert_eq!(session(&party)?, before, "in the session that they had");
    Ok(())
}

#[test]
fn the_second_hub_takes_over() -> io::Result<()> {
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
    let status = party.clients[0].status()?;
    let hex = |node: &Node| -> String {
        let bytes = node.keys.public.0;
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let is_used = |hub: &Node| status.contains(&format!("path_hub={}", hex(hub)));
    let used = party.hubs.iter().position(is_used);
    let used = used.ok_or_else(|| io::Error::other(format!("no hub is used: {status}")))?;
    party.hubs[used].wg.kill()?;
    let start = Instant::now();
    party.clients[0].until_told("; nothing came back for", inner(Family::V4, 12))?;
    party.reach()?;
    // The simulation tests the limit of 3.5 seconds; here the machine may be busy.
    let took = start.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    let other = format!("path_hub={}", hex(&party.hubs[1 - used]));
    until(PATIENCE, "the other hub to be the path", || {
        Ok(party.clients[0].status()?.contains(&other).then_some(()))
    })
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
