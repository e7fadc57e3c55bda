//! The log of a daemon in the background: to syslog, at a level that can be changed.

use std::fs::{self, File};
use std::io;
use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use netns_tests::{
    Config, Daemon, Host, Keys, Lab, PATIENCE, PeerConfig, Uapi, binaries, netlink, ready, until,
};
use nix::mount::{MsFlags, mount};

/// Of the facility `daemon`, with the severity `error`.
const ERROR: &str = "<27>";

/// Gives the host a /dev of its own, and listens there for messages to syslog.
fn syslog(host: &Host) -> io::Result<UnixDatagram> {
    let dev = std::env::temp_dir().join(format!("dev-{}-{}", std::process::id(), host.name()));
    fs::create_dir(&dev)?;
    let socket = host.run(|| {
        let (nothing, bind) = (None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC);
        mount(
            Some("tmpfs"),
            &dev,
            Some("tmpfs"),
            MsFlags::empty(),
            nothing,
        )?;
        for name in ["null", "zero", "random", "urandom"] {
            File::create(dev.join(name))?;
            let device = format!("/dev/{name}");
            mount(
                Some(device.as_str()),
                &dev.join(name),
                nothing,
                bind,
                nothing,
            )?;
        }
        fs::create_dir(dev.join("net"))?;
        mount(Some("/dev/net"), &dev.join("net"), nothing, bind, nothing)?;
        mount(Some(&dev), "/dev", nothing, bind, nothing)?;
        UnixDatagram::bind("/dev/log")
    });
    fs::remove_dir(&dev)?;
    let socket = socket?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// The messages that have come.
fn heard(socket: &UnixDatagram) -> io::Result<Vec<String>> {
    let (mut all, mut message) = (Vec::new(), [0; 4096]);
    loop {
        match socket.recv(&mut message) {
            Ok(len) => all.push(String::from_utf8_lossy(&message[..len]).into_owned()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(all),
            Err(error) => return Err(error),
        }
    }
}

/// Waits for a message with these words, and returns all messages until then.
fn until_heard(socket: &UnixDatagram, words: &str) -> io::Result<Vec<String>> {
    let mut all = Vec::new();
    let what = format!("`{words}' in the log");
    let found = until(PATIENCE, &what, || {
        all.extend(heard(socket)?);
        Ok(all
            .iter()
            .any(|message| message.contains(words))
            .then_some(()))
    });
    found.map_err(|error| io::Error::new(error.kind(), format!("{error}: {all:?}")))?;
    Ok(all)
}

/// Starts `wg0` in the background, as `wg-quick-rs up` and scripts do.
fn start(host: &Host) -> io::Result<()> {
    let mut command = Daemon::ours()?.command(&["wg0"]);
    command.env_remove("LOG_LEVEL");
    host.spawn(&mut command)?.success(PATIENCE)?;
    assert!(ready(host, "wg0"));
    Ok(())
}

fn wg_rs(host: &Host, args: &[&str]) -> io::Result<String> {
    host.sh(&binaries::wg_rs()?, args)
}

#[test]
fn the_level_of_a_running_daemon_is_changed() -> io::Result<()> {
    let lab = Lab::new()?;
    let host = lab.host("level")?;
    let log = syslog(&host)?;
    start(&host)?;
    let up = |up| host.run(|| netlink::set_up("wg0", up));
    up(true)?;
    wg_rs(&host, &["log", "wg0", "verbose"])?;
    up(false)?;
    let all = until_heard(&log, "link up=false")?;
    assert!(
        !all.iter().any(|message| message.contains("link up=true")),
        "{all:?}"
    );
    let message = all
        .iter()
        .find(|message| message.contains("link"))
        .expect("one");
    // The message has the facility, severity and time of syslog.
    assert!(
        message.starts_with("<30>") && message.contains(" wireguard-rs["),
        "{message}"
    );
    assert!(message.contains("]: wg0: link up=false"), "{message}");

    // No key is logged, not even that of a configuration that is refused.
    let (ours, theirs) = (Keys::generate(), Keys::generate());
    let secret = netns_tests::Key::random();
    let peer = PeerConfig::new(theirs.public)
        .at(([127, 0, 0, 1], 9))
        .keepalive(1);
    Uapi::connect(&host, "wg0")?.set(&Config::new(&ours, 0).peer(peer.preshared(secret)))?;
    let bad = format!("set=1\nprivate_key={}0\n\n", ours.private.hex());
    let answer = Uapi::connect(&host, "wg0")?.ask(&bad)?;
    assert!(answer.starts_with("errno=-"), "{answer}");
    up(true)?;
    let all = until_heard(&log, "handshake initiation sent")?;
    for key in [ours.private, secret] {
        for text in [key.hex(), key.to_string()] {
            assert!(
                !all.iter().any(|message| message.contains(&text)),
                "{all:?}"
            );
        }
    }

    wg_rs(&host, &["log", "wg0", "silent"])?;
    heard(&log)?;
    up(false)?;
    until(PATIENCE, "its socket to close", || {
        Ok(host.udp_ports()?.is_empty().then_some(()))
    })?;
    assert_eq!(heard(&log)?, [""; 0]);
    let error = wg_rs(&host, &["log", "wg0", "loud"])
        .unwrap_err()
        .to_string();
    assert!(error.contains("`loud' is not a log level"), "{error}");
    Ok(())
}

/// A failure that stops traffic is logged once, at the default level.
#[test]
fn a_failure_that_stops_traffic_is_logged_once() -> io::Result<()> {
    let lab = Lab::new()?;
    let host = lab.host("stops")?;
    let log = syslog(&host)?;
    start(&host)?;
    let peer = PeerConfig::new(Keys::generate().public)
        .at(([203, 0, 113, 9], 7))
        .keepalive(1);
    Uapi::connect(&host, "wg0")?.set(&Config::new(&Keys::generate(), 51820))?;
    // The daemon reserves the port until the link has been up and down. It has noticed that the link is
    // up when it has switched redirects off.
    let redirects = "/proc/sys/net/ipv4/conf/wg0/send_redirects";
    host.write(redirects, "1")?;
    host.run(|| netlink::set_up("wg0", true))?;
    until(Duration::from_secs(60), "the link to be noticed", || {
        Ok((host.read(redirects)?.trim() == "0").then_some(()))
    })?;
    host.run(|| netlink::set_up("wg0", false))?;
    until(Duration::from_secs(60), "the port to be free", || {
        Ok(host.udp_ports()?.is_empty().then_some(()))
    })?;
    Uapi::connect(&host, "wg0")?.set(&Config::of(peer))?;
    let taken = host.run(|| UdpSocket::bind(("0.0.0.0", 51820)))?;
    host.run(|| netlink::set_up("wg0", true))?;
    let all = until_heard(&log, "the link is set down again")?;
    assert!(all[0].starts_with(ERROR), "{all:?}");
    assert!(
        all[0].contains("cannot listen on port 51820: Address already in use"),
        "{all:?}"
    );
    drop(taken);

    // There is no route to this endpoint.
    host.run(|| netlink::set_up("wg0", true))?;
    let mut all = until_heard(&log, "packets cannot be sent")?;
    until(Duration::from_secs(60), "more handshakes", || {
        let status: serde_json::Value =
            serde_json::from_str(&wg_rs(&host, &["status", "--json"])?)?;
        let peers = status["wg0"]["peers"]
            .as_object()
            .cloned()
            .unwrap_or_default();
        let sent = peers
            .values()
            .find_map(|peer| peer["unansweredHandshakes"].as_u64());
        Ok((sent >= Some(4)).then_some(()))
    })?;
    all.extend(heard(&log)?);
    let told: Vec<_> = all
        .iter()
        .filter(|message| message.contains("cannot be sent"))
        .collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with(ERROR), "{told:?}");
    assert!(
        told[0].contains("to=203.0.113.9:7 error=Network is unreachable"),
        "{told:?}"
    );
    Ok(())
}

/// The daemon works as usual although nobody reads its log.
#[test]
fn a_syslog_that_does_not_read_delays_nothing() -> io::Result<()> {
    let lab = Lab::new()?;
    let host = lab.host("unread")?;
    let _log = syslog(&host)?;
    start(&host)?;
    wg_rs(&host, &["log", "wg0", "verbose"])?;
    let mut uapi = Uapi::connect(&host, "wg0")?;
    // Each request logs a line: many more than the socket and the daemon's queue can hold.
    for _ in 0..3000 {
        assert_eq!(uapi.ask("set=1\nnonsense\n\n")?, "errno=-71\n\n");
    }
    let answer = uapi.ask("get=1\n\n")?;
    assert!(answer.ends_with("errno=0\n\n"), "{answer}");
    Ok(())
}
