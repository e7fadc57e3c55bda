//! `wg-rs link` with real container engines: a tunnel as a container's only interface.

use std::io;
use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use netns_tests::containers::{ContainerEngine, Kind};
use netns_tests::{
    Config, Daemon, HostState, Hosts, Keys, PATIENCE, PeerConfig, Proc, SOCKETS, Uapi, Via, Wg,
    binaries, netlink, ping_all, until,
};

const PORT: u16 = 51820;
/// Addresses in the tunnel, of the container and of the far end.
const NEAR: [&str; 2] = ["10.77.0.1", "fd77::1"];
const FAR: [&str; 2] = ["10.77.0.2", "fd77::2"];

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A container engine on one host, and the far end of a tunnel on another. The fields are dropped in
/// this order.
struct ContainerTunnel {
    engine: ContainerEngine,
    far: Wg,
    keys: [Keys; 2],
    program: String,
    hosts: Hosts,
}

impl ContainerTunnel {
    fn new(kind: Kind) -> io::Result<Option<ContainerTunnel>> {
        let hosts = Hosts::new(1500)?;
        let Some(engine) = ContainerEngine::start(kind, &hosts.hosts[0])? else {
            return Ok(None);
        };
        let keys = [Keys::generate(), Keys::generate()];
        let allow = |peer: PeerConfig, addresses: [&str; 2]| {
            peer.allow(ip(addresses[0]), 32)
                .allow(ip(addresses[1]), 128)
        };
        let far = Daemon::ours()?.start(&hosts.hosts[1], "wg0", Via::Uapi)?;
        far.set(&Config::new(&keys[1], PORT).peer(allow(PeerConfig::new(keys[0].public), NEAR)))?;
        far.up(1420, &[(ip(FAR[0]), 24), (ip(FAR[1]), 64)])?;
        let peer = allow(PeerConfig::new(keys[1].public), FAR).at(([192, 0, 2, 2], PORT));
        let file = Config::new(&keys[0], PORT).peer(peer).file(&[]);
        hosts.hosts[0].write(&format!("{SOCKETS}/wg0.conf"), &file)?;
        Ok(Some(ContainerTunnel {
            engine,
            far,
            keys,
            program: binaries::wg_rs()?,
            hosts,
        }))
    }

    fn spawn(&self, args: &[&str], engine: &str) -> io::Result<Proc> {
        let mut command = Command::new(&self.program);
        command
            .arg("link")
            .args(args)
            .env(self.engine.variable(), engine);
        self.hosts.hosts[0].spawn(&mut command)
    }

    /// Runs `wg-rs link` on the host of the engine.
    fn link(&self, args: &[&str]) -> io::Result<String> {
        self.spawn(args, &self.engine.socket())?
            .success(Duration::from_secs(60))
    }

    /// `wg-rs link add wg0` with the tunnel's file and addresses.
    fn add(&self, container: &str) -> io::Result<String> {
        let config = format!("{SOCKETS}/wg0.conf");
        let addresses = format!("{}/24,{}/64", NEAR[0], NEAR[1]);
        let netns = self.engine.namespace(container);
        let placed = ["add", "wg0", "--netns", &netns, "--config", &config];
        self.link(&[&placed[..], &["--address", &addresses, "--up"]].concat())
    }

    /// When the handshake of the session was, as each end knows it.
    fn session(&self) -> io::Result<[Option<std::time::SystemTime>; 2]> {
        let near = Uapi::connect(&self.hosts.hosts[0], "wg0")?.get()?;
        let far = self.far.peer(self.keys[0].public)?;
        Ok([
            near.peer(self.keys[1].public)?.last_handshake,
            far.last_handshake,
        ])
    }

    /// The links that a program in the container sees.
    fn links(&self, container: &str) -> io::Result<Vec<String>> {
        let told = self
            .engine
            .command(&["exec", container, "/bin/ip", "-o", "link"])?;
        let name = |line: &str| Some(line.split(": ").nth(1)?.to_owned());
        Ok(told.lines().filter_map(name).collect())
    }

    /// The process ID of the daemon.
    fn daemon(&self) -> io::Result<i64> {
        let list: serde_json::Value = serde_json::from_str(&self.link(&["list", "--json"])?)?;
        list[0]["pid"]
            .as_i64()
            .ok_or_else(|| io::Error::other(format!("no daemon: {list}")))
    }

    fn lives_in(&self) -> io::Result<String> {
        let list: serde_json::Value = serde_json::from_str(&self.link(&["list", "--json"])?)?;
        Ok(list[0]["livesIn"].as_str().unwrap_or_default().to_owned())
    }
}

/// For a container without a network, one command makes the tunnel its only interface. The container
/// reaches the other end and nothing else. The session is kept when the interface moves to the host and
/// back. When the container ends, everything is removed.
fn a_containers_only_interface(kind: Kind) -> io::Result<()> {
    let Some(setup) = ContainerTunnel::new(kind)? else {
        return Ok(());
    };
    let host = &setup.hosts.hosts[0];
    let before = HostState::of(host)?;
    setup.engine.run("web", "none")?;
    assert_eq!(setup.links("web")?, ["lo"]);

    setup.add("web")?;
    assert_eq!(setup.links("web")?, ["lo", "wg0"]);
    assert_eq!(setup.lives_in()?, setup.engine.namespace("web"));
    setup.engine.inside("web")?.reach(ip(FAR[0]), PATIENCE)?;
    let ping = |to: &str| {
        let ping = [
            "exec",
            "web",
            "/bin/ping",
            "-c",
            "3",
            "-i",
            "0.2",
            "-W",
            "2",
            to,
        ];
        setup.engine.command(&ping)
    };
    for to in FAR {
        ping(to)?;
    }
    // It cannot reach its own host, the other host on the cable, or any other address.
    for to in ["192.0.2.1", "192.0.2.2", "198.51.100.1", "2001:db8::2"] {
        let error = ping(to).expect_err("must be out of reach").to_string();
        assert!(error.contains("unreachable"), "{to}: {error}");
    }

    let session = setup.session()?;
    assert!(session.iter().all(Option::is_some));
    let home = format!("pid:{}", setup.daemon()?);
    setup.link(&[
        "move",
        "wg0",
        &home,
        "--netns",
        &setup.engine.namespace("web"),
    ])?;
    assert_eq!(setup.links("web")?, ["lo"]);
    FAR.iter().try_for_each(|to| ping_all(host, ip(to), 3))?;
    assert_eq!(
        setup.session()?,
        session,
        "a new handshake after coming home"
    );
    setup.link(&["move", "wg0", &setup.engine.namespace("web")])?;
    ping(FAR[0])?;
    assert_eq!(
        setup.session()?,
        session,
        "a new handshake after going again"
    );

    setup.engine.remove("web")?;
    until(PATIENCE, "everything to go with the container", || {
        Ok(before.against(&HostState::of(host)?).none().then_some(()))
    })
    .map_err(|error| {
        let left = HostState::of(host).map(|now| before.against(&now).to_string());
        io::Error::other(format!("{error}: {left:?}"))
    })?;
    assert_eq!(setup.link(&["list"])?, "");
    Ok(())
}

/// Each error is one line, and nothing is left.
fn no_tunnel_can_be_placed_in_unsuitable_containers(kind: Kind) -> io::Result<()> {
    let Some(setup) = ContainerTunnel::new(kind)? else {
        return Ok(());
    };
    let host = &setup.hosts.hosts[0];
    let name = match kind {
        Kind::Docker => "Docker",
        Kind::Podman => "Podman",
    };
    setup.engine.run("shared", "host")?;
    setup.engine.run("ended", "none")?;
    setup.engine.command(&["kill", "ended"])?;
    until(PATIENCE, "the container to end", || {
        let pid = setup
            .engine
            .command(&["inspect", "--format", "{{.State.Pid}}", "ended"])?;
        Ok((pid.trim() == "0").then_some(()))
    })?;
    for (container, line) in [
        ("nosuch", format!("{name} has no such container")),
        ("ended", "the container is not running".into()),
        (
            "shared",
            "the container has the host's network, not one of its own".into(),
        ),
    ] {
        let error = setup.add(container).expect_err("must fail").to_string();
        let namespace = setup.engine.namespace(container);
        let line = format!("cannot enter namespace {namespace}: {line}");
        assert!(error.ends_with(&line), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    let nowhere = "unix:///nonexistent/socket";
    let args = ["add", "wg0", "--netns", &setup.engine.namespace("shared")];
    let error = setup
        .spawn(&args, nowhere)?
        .success(PATIENCE)
        .expect_err("must fail")
        .to_string();
    assert!(
        error.ends_with(&format!("no {name} answers at {nowhere}")),
        "{error}"
    );
    assert!(host.run(|| netlink::link("wg0"))?.is_none());
    assert!(Uapi::connect(host, "wg0").is_err());
    Ok(())
}

/// The daemon itself runs in a container with CAP_NET_ADMIN and /dev/net/tun besides the defaults. It
/// is configured by hand, and then by `wg-quick-rs`.
fn the_daemon_in_an_ordinary_container(kind: Kind) -> io::Result<()> {
    let hosts = Hosts::new(1500)?;
    let Some(engine) = ContainerEngine::start(kind, &hosts.hosts[0])? else {
        return Ok(());
    };
    let quick = binaries::build("wg-quick-rs")?;
    binaries::wg_rs()?;
    let programs = format!(
        "{}:/programs:ro",
        quick.parent().expect("a folder").display()
    );
    let mut options = vec!["--cap-add=NET_ADMIN", "--device=/dev/net/tun"];
    // The libraries of the programs.
    let libraries = ["/usr/lib", "/lib", "/lib64"]
        .into_iter()
        .filter(|folder| std::fs::exists(folder).unwrap_or(false))
        .map(|folder| format!("{folder}:{folder}:ro"));
    let mounts: Vec<String> = libraries.chain([programs]).collect();
    options.extend(mounts.iter().flat_map(|mount| ["-v", mount]));
    engine.run_with("wg", "none", &options)?;
    let exec = |args: &[&str]| engine.command(&[&["exec", "wg"], args].concat());
    exec(&["/bin/busybox", "mkdir", "-p", "/var/run", "/etc/wireguard"])?;

    // The far end of the tunnel, and a cable to it.
    let inside = engine.inside("wg")?;
    let far_host = &hosts.hosts[1];
    hosts
        .lab
        .cable((far_host, "eth1"), (&inside, "eth9"), 1500)?;
    inside.address("eth9", [198, 51, 100, 1], 24)?;
    far_host.address("eth1", [198, 51, 100, 2], 24)?;
    let keys = [Keys::generate(), Keys::generate()];
    let far = Daemon::ours()?.start(far_host, "wg0", Via::Uapi)?;
    far.set(
        &Config::new(&keys[1], PORT).peer(PeerConfig::new(keys[0].public).allow(ip(NEAR[0]), 32)),
    )?;
    far.up(1420, &[(ip(FAR[0]), 24)])?;
    let peer = PeerConfig::new(keys[1].public)
        .allow(ip(FAR[0]), 32)
        .at(([198, 51, 100, 2], PORT));
    let address = format!("{}/24", NEAR[0]);
    let config = Config::new(&keys[0], PORT).peer(peer);
    for (name, text) in [
        ("by-hand", config.file(&[])),
        ("wg0", config.file(&[&format!("Address = {address}")])),
    ] {
        let write = format!("echo \"$0\" > /etc/wireguard/{name}.conf");
        exec(&["/bin/sh", "-c", &write, &text])?;
    }
    // The daemon's process stays a zombie, as no process in the container waits for it.
    let gone = || {
        until(PATIENCE, "the daemon to end", || {
            let socket = "/var/run/wireguard/wg0.sock";
            let listening = exec(&["/bin/busybox", "test", "-e", socket]).is_ok();
            Ok((!listening && inside.udp_ports()?.is_empty()).then_some(()))
        })
    };

    exec(&["/programs/wireguard-rs", "wg0"])?;
    exec(&[
        "/programs/wg-rs",
        "setconf",
        "wg0",
        "/etc/wireguard/by-hand.conf",
    ])?;
    exec(&["/bin/ip", "address", "add", &address, "dev", "wg0"])?;
    for state in ["up", "down", "up"] {
        exec(&["/bin/ip", "link", "set", "wg0", state])?;
        let open = state == "up";
        until(PATIENCE, &format!("its sockets, link {state}"), || {
            Ok((inside.udp_ports()?.contains(&PORT) == open).then_some(()))
        })?;
    }
    inside.reach(ip(FAR[0]), PATIENCE)?;
    ping_all(far_host, ip(NEAR[0]), 5)?;
    exec(&["/bin/ip", "link", "del", "wg0"])?;
    gone()?;

    exec(&["/programs/wg-quick-rs", "up", "wg0"])?;
    inside.reach(ip(FAR[0]), PATIENCE)?;
    ping_all(far_host, ip(NEAR[0]), 5)?;
    exec(&["/programs/wg-quick-rs", "down", "wg0"])?;
    gone()
}

#[test]
fn docker_runs_the_daemon_itself() -> io::Result<()> {
    the_daemon_in_an_ordinary_container(Kind::Docker)
}

#[test]
fn podman_runs_the_daemon_itself() -> io::Result<()> {
    the_daemon_in_an_ordinary_container(Kind::Podman)
}

#[test]
fn docker_gives_a_container_only_the_tunnel() -> io::Result<()> {
    a_containers_only_interface(Kind::Docker)
}

#[test]
fn docker_refuses_a_tunnel_for_unsuitable_containers() -> io::Result<()> {
    no_tunnel_can_be_placed_in_unsuitable_containers(Kind::Docker)
}

#[test]
fn podman_gives_a_container_only_the_tunnel() -> io::Result<()> {
    a_containers_only_interface(Kind::Podman)
}

#[test]
fn podman_refuses_a_tunnel_for_unsuitable_containers() -> io::Result<()> {
    no_tunnel_can_be_placed_in_unsuitable_containers(Kind::Podman)
}
