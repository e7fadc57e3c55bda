//! The effects of a configuration, as the kernel module's own test script demands them. The numbers are
//! those of `scenarios.rs`.

use std::io;
use std::net::{IpAddr, UdpSocket};

use netns_tests::{Config, Daemon, Key, Keys, Lab, PATIENCE, PeerConfig, Via};

/// 25: an interface's own key cannot be the key of a peer.
#[test]
fn a_peer_with_the_interfaces_own_key_is_ignored() -> io::Result<()> {
    let lab = Lab::new()?;
    let host = lab.host("alone")?;
    let wg = Daemon::ours()?.start(&host, "wg0", Via::Uapi)?;
    let (own, other) = (Keys::generate(), Keys::generate());
    wg.set(&Config::of(PeerConfig::new(own.public)).peer(PeerConfig::new(other.public)))?;
    assert_eq!(
        wg.get()?.peers.len(),
        2,
        "without a private key any peer will do"
    );
    wg.set(&Config {
        private_key: Some(own.private),
        ..Config::default()
    })?;
    assert_eq!(wg.get()?.peers.len(), 1, "setting the key removes the peer");
    wg.set(&Config::of(
        PeerConfig::new(own.public).allow([10, 0, 0, 0], 8),
    ))?;
    assert_eq!(wg.get()?.peers.len(), 1, "adding it is ignored");
    wg.set(&Config {
        private_key: Some(Keys::generate().private),
        ..Config::default()
    })?;
    wg.set(&Config::of(PeerConfig::new(own.public)))?;
    assert_eq!(
        wg.get()?.peers.len(),
        2,
        "after a change it is a key like any other"
    );
    Ok(())
}

/// 24, 26: a key is clamped, and a key of zeros removes it.
#[test]
fn keys_are_clamped_and_removed() -> io::Result<()> {
    let lab = Lab::new()?;
    let host = lab.host("alone")?;
    let wg = Daemon::ours()?.start(&host, "wg0", Via::Uapi)?;
    let set = |key: [u8; 32]| {
        wg.set(&Config {
            private_key: Some(Key(key)),
            ..Config::default()
        })
    };
    set([0xff; 32])?;
    let mut clamped = [0xff; 32];
    (clamped[0], clamped[31]) = (0xf8, 0x7f);
    assert_eq!(wg.get()?.private_key, Some(Key(clamped)));
    set([0; 32])?;
    assert_eq!(wg.get()?.private_key, None);
    let (peer, psk) = (Keys::generate().public, Key::random());
    wg.set(&Config::of(PeerConfig::new(peer).preshared(psk)))?;
    assert_eq!(wg.peer(peer)?.preshared_key, Some(psk));
    wg.set(&Config::of(PeerConfig::new(peer).preshared(Key([0; 32]))))?;
    assert_eq!(wg.peer(peer)?.preshared_key, None);
    Ok(())
}

/// 22: one peer has very many networks, which are read in the same order.
#[test]
fn very_many_allowed_ips() -> io::Result<()> {
    let lab = Lab::new()?;
    let host = lab.host("alone")?;
    let wg = Daemon::ours()?.start(&host, "wg0", Via::Uapi)?;
    let peer = Keys::generate().public;
    let mut networks = Vec::new();
    for high in 0..=255 {
        for low in 0..255 {
            networks.push((IpAddr::from([10, high, low, 0]), 24));
            let (high, low) = (u16::from(high), u16::from(low));
            networks.push((IpAddr::from([0xfd00, high, low, 0, 0, 0, 0, 0]), 48));
        }
    }
    wg.set(&Config::of(PeerConfig {
        allowed_ips: networks.clone(),
        ..PeerConfig::new(peer)
    }))?;
    assert!(
        wg.peer(peer)?.allowed_ips == networks,
        "order or content differs"
    );
    Ok(())
}

/// 28: low-order public keys are accepted as peers, and get no packet.
#[test]
fn peers_with_low_order_keys_get_no_packet() -> io::Result<()> {
    let low_order = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];
    let lab = Lab::new()?;
    let host = lab.host("alone")?;
    let listener = host.run(|| UdpSocket::bind("127.0.0.1:0"))?;
    listener.set_read_timeout(Some(PATIENCE))?;
    let wg = Daemon::ours()?.start(&host, "wg0", Via::Uapi)?;
    let mut config = Config::new(&Keys::generate(), 0);
    for key in low_order {
        let key = Key::from_hex(key).expect("64 digits");
        config
            .peers
            .push(PeerConfig::new(key).at(listener.local_addr()?).keepalive(1));
    }
    wg.set(&config)?;
    wg.up(1420, &[([10, 77, 0, 1].into(), 24)])?;
    assert_eq!(wg.get()?.peers.len(), low_order.len());
    // A peer's retry comes after 5 s: at the second initiation of a valid peer, the others had their
    // turn.
    let honest = Keys::generate().public;
    wg.set(&Config::of(
        PeerConfig::new(honest)
            .at(listener.local_addr()?)
            .keepalive(1),
    ))?;
    for _ in 0..2 {
        assert_eq!(listener.recv(&mut [0; 2048])?, 148, "an initiation");
    }
    for peer in wg
        .get()?
        .peers
        .iter()
        .filter(|peer| peer.public_key != Some(honest))
    {
        assert_eq!(peer.tx_bytes, 0, "{peer:?}");
    }
    Ok(())
}

/// 27: a default route moves to another peer and back, with networks inside of it.
#[test]
fn nested_networks_move_between_peers() -> io::Result<()> {
    let lab = Lab::new()?;
    let host = lab.host("alone")?;
    let wg = Daemon::ours()?.start(&host, "wg0", Via::Uapi)?;
    let (one, two) = (Keys::generate().public, Keys::generate().public);
    let all = |peer| {
        PeerConfig {
            replace_allowed_ips: true,
            ..PeerConfig::new(peer)
        }
        .allow([0, 0, 0, 0], 0)
        .allow([10, 0, 0, 0], 8)
        .allow([10, 0, 0, 0], 25)
        .allow([0; 8], 0)
        .allow([0xfd00, 0, 0, 0, 0, 0, 0, 0], 8)
    };
    for (owner, other) in [(one, two), (two, one), (one, two)] {
        wg.set(&Config::of(PeerConfig::new(other)).peer(all(owner)))?;
        assert_eq!(wg.peer(owner)?.allowed_ips, all(owner).allowed_ips);
        assert_eq!(wg.peer(other)?.allowed_ips, []);
    }
    wg.set(&Config::of(PeerConfig::removed(one)))?;
    assert_eq!(wg.get()?.peers.len(), 1);
    Ok(())
}
