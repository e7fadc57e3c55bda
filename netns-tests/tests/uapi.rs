//! The UAPI socket of the running daemon, as clients other than `wg` may use it.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use netns_tests::{Config, Daemon, Host, Keys, Lab, PeerConfig, SOCKETS, Uapi, Via, Wg};

fn running() -> io::Result<(Lab, Host, Wg)> {
    let lab = Lab::new()?;
    let host = lab.host("alone")?;
    let wg = Daemon::ours()?.start(&host, "wg0", Via::Uapi)?;
    Ok((lab, host, wg))
}

fn errno(answer: &str) -> Option<i32> {
    answer
        .lines()
        .find_map(|line| line.strip_prefix("errno=")?.parse().ok())
}

#[test]
fn several_operations_on_one_connection() -> io::Result<()> {
    let (_lab, host, _wg) = running()?;
    let mut uapi = Uapi::connect(&host, "wg0")?;
    for mark in 1..20 {
        uapi.set(&Config {
            fwmark: Some(mark),
            ..Config::default()
        })?;
        assert_eq!(uapi.get()?.fwmark, mark);
    }
    Ok(())
}

#[test]
fn pipelined_operations_are_each_answered() -> io::Result<()> {
    let (_lab, host, _wg) = running()?;
    let mut uapi = Uapi::connect(&host, "wg0")?;
    uapi.send(
        "set=1\nfwmark=7\n\nget=1\n\nset=1\nbogus=1\nfwmark=9\n\nset=1\nfwmark=8\n\nget=1\n\n",
    )?;
    assert_eq!(errno(&uapi.answer()?), Some(0));
    assert!(uapi.answer()?.contains("fwmark=7\n"));
    assert_eq!(errno(&uapi.answer()?), Some(-libc::EINVAL));
    assert_eq!(errno(&uapi.answer()?), Some(0));
    assert!(uapi.answer()?.contains("fwmark=8\n"));
    Ok(())
}

#[test]
fn a_half_closed_set_is_applied() -> io::Result<()> {
    let (_lab, host, wg) = running()?;
    let mut uapi = Uapi::connect(&host, "wg0")?;
    uapi.send("set=1\nfwmark=5\n")?;
    uapi.half_close()?;
    assert_eq!(errno(&uapi.answer()?), Some(0));
    assert_eq!(wg.get()?.fwmark, 5);
    Ok(())
}

#[test]
fn bad_lines_have_their_errno() -> io::Result<()> {
    let (_lab, host, _wg) = running()?;
    let key = Keys::generate().public.hex();
    let peer = |line: &str| format!("public_key={key}\n{line}\n");
    let cases = [
        ("listen_port=65536\n".into(), libc::EINVAL),
        ("fwmark=0x10\n".into(), libc::EINVAL),
        ("private_key=00\n".into(), libc::EINVAL),
        ("no equals sign\n".into(), libc::EPROTO),
        ("nonsense=1\n".into(), libc::EINVAL),
        (peer("endpoint=localhost:1"), libc::EINVAL),
        (peer("allowed_ip=10.0.0.0"), libc::EINVAL),
        (peer("allowed_ip=10.0.0.0/33"), libc::EINVAL),
        (peer("persistent_keepalive_interval=off"), libc::EINVAL),
        (peer("protocol_version=2"), libc::EINVAL),
        (peer("listen_port=1"), libc::EINVAL),
    ];
    for (lines, expected) in cases {
        let answer = Uapi::connect(&host, "wg0")?.ask(&format!("set=1\n{lines}\n"))?;
        assert_eq!(errno(&answer), Some(-expected), "{lines:?}");
    }
    Ok(())
}

#[test]
fn a_port_in_use_has_its_errno() -> io::Result<()> {
    let (_lab, host, wg) = running()?;
    let taken = host.run(|| std::net::UdpSocket::bind("0.0.0.0:0"))?;
    wg.set(&Config::new(&Keys::generate(), 0))?;
    wg.up(1420, &[])?;
    let port = taken.local_addr()?.port();
    let error = wg
        .set(&Config {
            listen_port: Some(port),
            ..Config::default()
        })
        .unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EADDRINUSE));
    Ok(())
}

#[test]
fn a_slow_client_does_not_delay_others() -> io::Result<()> {
    let (_lab, host, wg) = running()?;
    let mut idle = Uapi::connect(&host, "wg0")?;
    let mut slow = Uapi::connect(&host, "wg0")?;
    slow.send("set=1\nfwmark=3\n")?;
    idle.send("get")?;
    let before = std::time::Instant::now();
    wg.get()?;
    wg.set(&Config {
        fwmark: Some(4),
        ..Config::default()
    })?;
    assert!(
        before.elapsed() < Duration::from_secs(10),
        "{:?}",
        before.elapsed()
    );
    slow.send("\n")?;
    assert_eq!(errno(&slow.answer()?), Some(0));
    idle.send("=1\n\n")?;
    assert_eq!(errno(&idle.answer()?), Some(0));
    Ok(())
}

#[test]
fn clients_that_close_early_do_no_harm() -> io::Result<()> {
    let (_lab, host, wg) = running()?;
    for text in [
        "",
        "g",
        "get=1\n\n",
        "set=1\n",
        "\n",
        "\0\n\n",
        "nonsense=1\n\n",
    ] {
        for _ in 0..20 {
            // The connection is closed at once, so the answer cannot be sent.
            Uapi::connect(&host, "wg0")?.send(text)?;
        }
    }
    wg.get().map(|_| ())
}

#[test]
fn peers_are_listed_in_the_order_in_which_they_were_added() -> io::Result<()> {
    let (_lab, _host, wg) = running()?;
    let keys: Vec<_> = (0..50).map(|_| Keys::generate().public).collect();
    for key in &keys {
        wg.set(&Config::of(PeerConfig::new(*key).allow([10, 0, 0, 0], 8)))?;
    }
    for _ in 0..2 {
        let listed: Vec<_> = wg
            .get()?
            .peers
            .iter()
            .filter_map(|peer| peer.public_key)
            .collect();
        assert_eq!(listed, keys);
    }
    Ok(())
}

#[test]
fn single_allowed_ips_are_removed() -> io::Result<()> {
    let (_lab, host, wg) = running()?;
    let key = Keys::generate().public;
    wg.set(&Config::of(
        PeerConfig::new(key)
            .allow([10, 0, 0, 0], 8)
            .allow([11, 0, 0, 0], 8),
    ))?;
    let request = format!(
        "set=1\npublic_key={}\nallowed_ip=-10.0.0.0/8\nallowed_ip=-12.0.0.0/8\n\n",
        key.hex()
    );
    assert_eq!(errno(&Uapi::connect(&host, "wg0")?.ask(&request)?), Some(0));
    assert_eq!(wg.peer(key)?.allowed_ips, [([11, 0, 0, 0].into(), 8)]);
    Ok(())
}

#[test]
fn only_the_owner_can_use_the_socket() -> io::Result<()> {
    let (_lab, host, wg) = running()?;
    let mode = |path: &str| {
        host.run(|| std::fs::metadata(path))
            .map(|meta| meta.permissions().mode() & 0o777)
    };
    assert_eq!(mode(&wg.socket())?, 0o700);
    assert_eq!(mode(SOCKETS)?, 0o755);
    Ok(())
}
