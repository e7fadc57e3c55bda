//! The commands of `wg-quick-rs` for files: `check`, `qr`, `save`, and `reresolve` for the names in
//! them.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use netns_tests::quick::{Quick, Site};
use netns_tests::{Config, Daemon, Host, Key, Keys, Lab, PATIENCE, PeerConfig, Via, Wg};

const CONF: &str = "/etc/wireguard/wg0.conf";

#[test]
fn check_reports_all_mistakes_at_once() -> io::Result<()> {
    let lab = Lab::new()?;
    let (Some(site), quick) = (Site::new(&lab, "site")?, Quick::ours()?) else {
        return Ok(());
    };
    let key = Keys::generate();
    site.configure(
        "wg0",
        &format!(
            "[Interface]\nPrivateKey = {}\nAdress = 10.0.0.1/24\nMTU = big\n\n[Peer]\n\
             PublicKey = {}\nAllowedIPs = 10.0.0.2/32, 10.0.0.2/33\nEndpoint = nowhere\n",
            key.private, key.public
        ),
    )?;
    let run = site.run(&quick, &["check", "wg0"])?;
    assert_eq!(run.code, Some(1), "{}", run.output);
    // The number of each wrong line, and a part of the text about it.
    for (number, part) in [
        (3, "`Address'"),
        (4, "MTU"),
        (7, "Warning: PublicKey"),
        (8, "AllowedIPs"),
        (9, "Endpoint"),
    ] {
        let start = format!("{CONF}:{number}: ");
        let told = run.output.lines().find(|line| line.starts_with(&start));
        let told = told.unwrap_or_else(|| panic!("no line {start} in {}", run.output));
        assert!(told.contains(part), "{part} in {told}");
    }
    assert!(!run.output.contains(&key.private.to_string()));
    // Several files are checked, and one of them can be read by everybody.
    site.sh(&format!(
        "cp {CONF} /etc/other.conf; chmod 644 /etc/other.conf"
    ))?;
    let run = site.run(&quick, &["check", "wg0", "/etc/other.conf"])?;
    assert!(
        run.output
            .contains("/etc/other.conf: Warning: everybody can read this file"),
        "{}",
        run.output
    );
    assert!(
        run.output.contains(&format!("{CONF}:4: MTU")),
        "{}",
        run.output
    );
    Ok(())
}

/// The config files in the manual page.
fn of_the_page() -> Vec<(String, String)> {
    let page = include_str!("../../man/wg-quick-rs.8");
    let files = page.split("\n# /etc/wireguard/").skip(1);
    files
        .filter_map(|text| text.split("\n.Ed").next()?.split_once(".conf\n"))
        .map(|(name, text)| (name.into(), text.into()))
        .collect()
}

#[test]
fn the_examples_of_the_manual_have_no_mistakes() -> io::Result<()> {
    let lab = Lab::new()?;
    let (Some(site), quick) = (Site::new(&lab, "site")?, Quick::ours()?) else {
        return Ok(());
    };
    let files = of_the_page();
    assert!(files.len() >= 3, "{}", files.len());
    for (name, text) in files {
        site.configure(&name, &text)?;
        let run = site.run(&quick, &["check", &name])?;
        assert_eq!((run.code, run.output.as_str()), (Some(0), ""), "{text}");
        let code = site.run(&quick, &["qr", &name])?.success()?;
        assert!(code.lines().count() > 20 && code.contains('▀'), "{code}");
    }
    Ok(())
}

/// A gateway, and a client whose file has the gateway's name `peer.test`, which is in /etc/hosts.
struct Named {
    _lab: Lab,
    site: Site,
    quick: Quick,
    _gateway: Host,
    wg: Wg,
    us: Keys,
    peer: Keys,
}

impl Named {
    fn new() -> io::Result<Option<Named>> {
        let lab = Lab::new()?;
        let (Some(site), quick) = (Site::new(&lab, "client")?, Quick::ours()?) else {
            return Ok(None);
        };
        let gateway = lab.host("gateway")?;
        lab.cable((&site.host, "eth0"), (&gateway, "eth0"), 1500)?;
        for (host, n) in [(&site.host, 1), (&gateway, 2)] {
            host.address("eth0", [192, 0, 2, n], 24)?;
            host.address("eth0", [0x2001, 0xdb8, 0, 0, 0, 0, 0, n.into()], 64)?;
        }
        let (us, peer) = (Keys::generate(), Keys::generate());
        let wg = Daemon::ours()?.start(&gateway, "wg0", Via::Uapi)?;
        let client = PeerConfig::new(us.public).allow([10, 77, 0, 1], 32);
        wg.set(&Config::new(&peer, 51820).peer(client))?;
        wg.up(1420, &[([10, 77, 0, 2].into(), 24)])?;
        let named = Named {
            _lab: lab,
            site,
            quick,
            _gateway: gateway,
            wg,
            us,
            peer,
        };
        let text = format!(
            "# mine\n[Interface]\nPrivateKey = {}\nAddress = 10.77.0.1/24  # ours\n\n# the gateway\n\
             [Peer]\nPublicKey = {}\nEndpoint = peer.test:51820\nAllowedIPs = 10.77.0.2/32\n\
             PersistentKeepalive = 1\n",
            named.us.private, named.peer.public
        );
        named.site.configure("wg0", &text)?;
        Ok(Some(named))
    }

    fn is_at(&self, addresses: &[&str]) -> io::Result<()> {
        let lines: Vec<_> = addresses
            .iter()
            .map(|address| format!("{address} peer.test\n"))
            .collect();
        self.site.host.write("/etc/hosts", &lines.concat())?;
        self.site.host.write("/etc/nsswitch.conf", "hosts: files\n")
    }

    fn run(&self, args: &[&str]) -> io::Result<String> {
        self.site.run(&self.quick, args)?.success()
    }

    fn endpoint(&self) -> io::Result<SocketAddr> {
        let shown = self.site.sh("wg show wg0 endpoints")?;
        let endpoint = shown.split_whitespace().nth(1).unwrap_or_default();
        endpoint.parse().map_err(io::Error::other)
    }
}

#[test]
fn reresolve_tries_addresses_until_the_peer_answers() -> io::Result<()> {
    let Some(named) = Named::new()? else {
        return Ok(());
    };
    let (dead_v6, dead_v4) = ("2001:db8::dead", "192.0.2.99");
    named.is_at(&[dead_v6])?;
    named.run(&["up", "wg0"])?;
    assert_eq!(
        named.endpoint()?,
        SocketAddr::new(dead_v6.parse().unwrap(), 51820)
    );

    // The name still has this address, and no other one to try.
    let start = Instant::now();
    assert!(!named.run(&["reresolve"])?.contains("endpoint"));
    assert!(start.elapsed() < PATIENCE);
    assert_eq!(named.endpoint()?.ip().to_string(), dead_v6);

    // A changed address is set at once.
    named.is_at(&[dead_v4])?;
    named.run(&["reresolve", "wg0"])?;
    assert_eq!(named.endpoint()?.ip().to_string(), dead_v4);

    // Of several addresses the others are tried, IPv6 and IPv4 in turn.
    named.is_at(&[dead_v4, dead_v6, "192.0.2.2"])?;
    for next in [dead_v6, "192.0.2.2"] {
        named.run(&["reresolve", "wg0"])?;
        assert_eq!(named.endpoint()?.ip().to_string(), next);
    }
    named.site.host.reach([10, 77, 0, 2], PATIENCE)?;

    // A peer with a fresh handshake is not changed.
    named.is_at(&[dead_v6])?;
    named.run(&["reresolve"])?;
    assert_eq!(named.endpoint()?.ip().to_string(), "192.0.2.2");
    assert!(named.wg.peer(named.us.public)?.last_handshake.is_some());

    // A name without an address is an error that contains the name, and nothing is changed.
    named.run(&["down", "wg0"])?;
    named.is_at(&[dead_v4])?;
    named.run(&["up", "wg0"])?;
    named.is_at(&[])?;
    let run = named.site.run(&named.quick, &["reresolve", "wg0"])?;
    assert_eq!(run.code, Some(1));
    assert!(run.output.contains("peer.test:51820"), "{}", run.output);
    assert_eq!(named.endpoint()?.ip().to_string(), dead_v4);
    Ok(())
}

#[test]
fn save_keeps_comments_and_on_a_full_disk_the_old_file() -> io::Result<()> {
    let Some(named) = Named::new()? else {
        return Ok(());
    };
    named.is_at(&["192.0.2.2"])?;
    let host = &named.site.host;
    let before = host.read(CONF)?;
    named.run(&["up", "wg0"])?;
    named.run(&["save", "wg0"])?;
    assert_eq!(host.read(CONF)?, before, "nothing differs");

    // The same file on a full disk.
    let new = Key::random();
    named.site.sh(&format!(
        "cp {CONF} /etc/keep; mount -t tmpfs -o size=16k tmpfs /etc/wireguard; cp /etc/keep {CONF}; \
         chmod 600 {CONF}; cat /dev/zero > /etc/wireguard/fill || true; \
         wg set wg0 peer {new} allowed-ips 10.77.0.3/32 endpoint 192.0.2.3:3"
    ))?;
    let run = named.site.run(&named.quick, &["save", "wg0"])?;
    assert_eq!(run.code, Some(1), "{}", run.output);
    assert!(
        run.output.contains(CONF) && run.output.contains("No space left"),
        "{}",
        run.output
    );
    assert_eq!(host.read(CONF)?, before);
    let files = named.site.sh("ls -A /etc/wireguard")?;
    assert_eq!(
        files.split_whitespace().collect::<Vec<_>>(),
        ["fill", "wg0.conf"]
    );

    named.site.sh("rm /etc/wireguard/fill")?;
    let saved = named.site.run(&named.quick, &["save", "wg0"])?.success()?;
    assert_eq!(
        saved,
        format!(
            "[!] Saving the settings of `wg0' in {CONF}; only the lines that differ are changed.\n"
        )
    );
    let peer =
        format!("\n[Peer]\nPublicKey = {new}\nAllowedIPs = 10.77.0.3/32\nEndpoint = 192.0.2.3:3\n");
    assert_eq!(host.read(CONF)?, before.clone() + &peer);
    let mode =
        host.run(|| fs::metadata(CONF).map(|file| std::os::unix::fs::MetadataExt::mode(&file)))?;
    assert_eq!(mode & 0o777, 0o600);

    // `down` saves the file too, if the file says so.
    host.write(
        CONF,
        &before.replace(
            "# mine\n[Interface]\n",
            "# mine\n[Interface]\nSaveConfig = true\n",
        ),
    )?;
    named.site.sh(&format!(
        "wg set wg0 peer {} persistent-keepalive 25",
        named.peer.public
    ))?;
    named.run(&["down", "wg0"])?;
    let after = host.read(CONF)?;
    for kept in [
        "# mine",
        "# ours",
        "# the gateway",
        "Endpoint = peer.test:51820",
    ] {
        assert!(after.contains(kept), "{kept} in {after}");
    }
    assert!(after.contains("PersistentKeepalive = 25\n") && after.contains(&new.to_string()));
    Ok(())
}
