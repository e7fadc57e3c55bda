//! The configuration is changed during a transfer, and no packet is lost.
//!
//! The transfer is a stream of numbered datagrams in each direction, much slower than the daemon's
//! limit. A datagram that does not arrive is known by its number.

use std::io;

use netns_tests::{
    Config, Daemon, Family, Key, Keys, PATIENCE, Paced, PeerConfig, Plan, SOCKETS, Tunnel, binaries,
};

/// The number of peers in the file besides the one with the transfer.
const OTHERS: usize = 999;
/// The number of datagrams before, between and after changes.
const BETWEEN: u64 = 150;

/// A tunnel whose end `a` has 999 more peers from a file, each with its own networks.
struct LargeTunnel {
    tunnel: Tunnel,
    file: Config,
    program: String,
}

impl LargeTunnel {
    fn new() -> io::Result<LargeTunnel> {
        let daemon = Daemon::ours()?;
        let tunnel = Tunnel::established(&Plan::new(&daemon, &daemon))?;
        let mut file = Config::new(&tunnel.a.keys, netns_tests::End::PORT);
        for n in 0..OTHERS {
            let [high, low] = u16::try_from(n).expect("few").to_be_bytes();
            let peer = PeerConfig::new(Keys::generate().public).allow([10, 100, high, low], 32);
            file = file.peer(peer.at(([198, 51, 100, 1], 1000)));
        }
        let b = PeerConfig::new(tunnel.b.keys.public)
            .allow(tunnel.b.inner(Family::V4), 32)
            .allow(tunnel.b.inner(Family::V6), 128)
            .at(tunnel.b.endpoint(Family::V4));
        // In the middle, so that there are peers before and after it.
        file.peers.insert(OTHERS / 2, b);
        let large = LargeTunnel {
            tunnel,
            file,
            program: binaries::wg_rs()?,
        };
        large.apply("setconf", &large.file)?;
        Ok(large)
    }

    fn run(&self, args: &[&str]) -> io::Result<()> {
        self.tunnel.a.host.sh(&self.program, args).map(drop)
    }

    fn apply(&self, verb: &str, file: &Config) -> io::Result<()> {
        let path = format!("{SOCKETS}/{verb}.conf");
        self.tunnel.a.host.write(&path, &file.file(&[]))?;
        self.run(&[verb, "wg0", &path])
    }

    /// Makes the changes one after the other, with a stream in each direction. None may lose a
    /// datagram.
    fn lossless(&self, changes: &[(&str, &dyn Fn() -> io::Result<()>)]) -> io::Result<()> {
        let (a, b) = (&self.tunnel.a, &self.tunnel.b);
        a.host.reach(b.inner(Family::V4), PATIENCE)?;
        a.host.reach(b.inner(Family::V6), PATIENCE)?;
        let streams = [
            Paced::start(&a.host, (&b.host, b.inner(Family::V4)))?,
            Paced::start(&b.host, (&a.host, a.inner(Family::V6)))?,
        ];
        let go_on = || streams.iter().try_for_each(|stream| stream.go_on(BETWEEN));
        go_on()?;
        let session = b.wg.peer(a.keys.public)?.last_handshake;
        for (what, change) in changes {
            change().map_err(|error| io::Error::other(format!("{what}: {error}")))?;
            go_on()?;
        }
        assert_eq!(
            b.wg.peer(a.keys.public)?.last_handshake,
            session,
            "a new handshake"
        );
        for stream in streams {
            let count = stream.finish()?;
            assert_eq!(count.lost(), 0, "{count:?}");
        }
        Ok(())
    }
}

#[test]
fn syncconf_of_a_thousand_peers_with_one_change() -> io::Result<()> {
    let large = LargeTunnel::new()?;
    let mut changed = large.file.clone();
    changed.peers[7].keepalive = Some(25);
    let mut without = changed.clone();
    let gone = without.peers.remove(3);
    let mut with_another = without.clone();
    with_another
        .peers
        .push(PeerConfig::new(Key::random().public()).allow([10, 200, 0, 1], 32));
    large.lossless(&[
        ("one keepalive", &|| large.apply("syncconf", &changed)),
        ("one peer less", &|| large.apply("syncconf", &without)),
        ("one peer more", &|| large.apply("syncconf", &with_another)),
        ("as it was", &|| large.apply("syncconf", &large.file)),
    ])?;
    let now = large.tunnel.a.wg.get()?;
    assert_eq!(now.peers.len(), OTHERS + 1);
    assert!(now.peer(gone.public_key).is_ok());
    Ok(())
}

#[test]
fn set_on_the_peer_with_the_transfer() -> io::Result<()> {
    let large = LargeTunnel::new()?;
    let b = large.tunnel.b.keys.public.to_string();
    let (v4, v6) = (
        large.tunnel.b.inner(Family::V4),
        large.tunnel.b.inner(Family::V6),
    );
    let endpoint = large.tunnel.b.endpoint(Family::V4).to_string();
    let key = format!("{SOCKETS}/psk");
    large
        .tunnel
        .a
        .host
        .write(&key, &Key::random().to_string())?;
    let same = format!("{v4}/32,{v6}/128");
    let wider = format!("{v6}/128,{v4}/24,10.250.0.0/16");
    let set = |words: &[&str]| large.run(&[&["set", "wg0", "peer", &b], words].concat());
    large.lossless(&[
        ("the same allowed IPs, often", &|| {
            (0..20).try_for_each(|_| set(&["allowed-ips", &same]))
        }),
        ("wider ones", &|| set(&["allowed-ips", &wider])),
        ("the first again", &|| set(&["allowed-ips", &same])),
        ("one more", &|| set(&["allowed-ips", "+10.251.0.0/16"])),
        ("one less", &|| set(&["allowed-ips", "-10.251.0.0/16"])),
        ("a keepalive", &|| set(&["persistent-keepalive", "25"])),
        ("the same endpoint", &|| set(&["endpoint", &endpoint])),
        ("a preshared key", &|| set(&["preshared-key", &key])),
        ("none", &|| set(&["preshared-key", "/dev/null"])),
        ("no keepalive", &|| set(&["persistent-keepalive", "off"])),
    ])
}

/// Shows that the other tests would notice a loss: this change does lose packets.
#[test]
fn a_moment_without_allowed_ips_loses_packets() -> io::Result<()> {
    let large = LargeTunnel::new()?;
    let (a, b) = (&large.tunnel.a, &large.tunnel.b);
    let key = b.keys.public.to_string();
    let stream = Paced::start(&a.host, (&b.host, b.inner(Family::V4)))?;
    stream.go_on(BETWEEN)?;
    large.run(&["set", "wg0", "peer", &key, "allowed-ips", ""])?;
    let all = format!("{}/32", b.inner(Family::V4));
    large.run(&["set", "wg0", "peer", &key, "allowed-ips", &all])?;
    stream.go_on(BETWEEN)?;
    let count = stream.finish()?;
    assert!(count.lost() > 0, "{count:?}");
    Ok(())
}
