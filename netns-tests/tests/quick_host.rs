//! `wg-quick-rs` on hosts that lack something: IPv6, the TUN device, an implementation of WireGuard,
//! or a program for DNS.

use std::io;

use netns_tests::quick::{BIN, LOG, Quick, Site};
use netns_tests::{Key, Keys, Lab, PATIENCE, until};

/// Switches IPv6 off by sysctls.
const NO_IPV6: &str = "
    echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6
    echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6";

/// The resolver's configuration.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// A host with a default route, and the program; `None` if a tool is missing.
fn place(lab: &Lab) -> io::Result<Option<(Site, Quick)>> {
    let Some(site) = Site::new(lab, "site")? else {
        return Ok(None);
    };
    site.sh("ip link add eth0 type veth peer cable
         ip link set cable up; ip link set eth0 up
         ip addr add 192.0.2.2/24 dev eth0; ip route add default via 192.0.2.1")?;
    Ok(Some((site, Quick::ours()?)))
}

/// A file as from a VPN provider: all traffic of both families.
fn config(interface: &str) -> String {
    format!(
        "[Interface]\nPrivateKey = {}\n{interface}\n[Peer]\nPublicKey = {}\n\
         AllowedIPs = 0.0.0.0/0, ::/0\nEndpoint = 203.0.113.1:51820\n",
        Keys::generate().private,
        Key::random()
    )
}

#[test]
fn without_ipv6_the_ipv4_parts_come_up() -> io::Result<()> {
    let lab = Lab::new()?;
    let Some((site, quick)) = place(&lab)? else {
        return Ok(());
    };
    site.sh(NO_IPV6)?;
    let before = site.state()?;
    let text = config("Address = 10.0.0.2/32, fd00::2/128\nDNS = 10.0.0.1\nSaveConfig = true");
    site.configure("wg0", &text)?;
    let up = site.run(&quick, &["up", "wg0"])?;
    assert_eq!(up.code, Some(0), "{}", up.output);
    let warnings: Vec<_> = up.output.matches("IPv6 is disabled").collect();
    assert_eq!(warnings.len(), 1, "{}", up.output);
    assert!(
        up.output.contains("Address fd00::2/128 and routes to ::/0"),
        "{}",
        up.output
    );
    let shown = site.sh("ip address show dev wg0; ip rule; ip -4 route show table 51820")?;
    for part in ["10.0.0.2/32", "not from all fwmark", "default dev wg0"] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    // A reload has nothing to do, and addresses that could not be set stay in the file.
    let reload = site.run(&quick, &["reload", "wg0"])?;
    assert_eq!(reload.code, Some(0), "{}", reload.output);
    assert!(!reload.output.contains("[#]"), "{}", reload.output);
    let down = site.run(&quick, &["down", "wg0"])?;
    assert_eq!(down.code, Some(0), "{}", down.output);
    let after = site.host.read("/etc/wireguard/wg0.conf")?;
    assert!(after.contains("10.0.0.2/32, fd00::2/128"), "{after}");
    let mut left = before.against(&site.state()?).0;
    left.retain(|line| !line.contains("src_valid_mark"));
    assert!(left.is_empty(), "{left:?}");
    Ok(())
}

#[test]
fn without_ipv6_a_file_with_only_ipv6_is_refused_with_the_kernels_reason() -> io::Result<()> {
    let lab = Lab::new()?;
    let Some((site, quick)) = place(&lab)? else {
        return Ok(());
    };
    site.sh(NO_IPV6)?;
    site.configure("wg0", &config("Address = fd00::2/128"))?;
    let up = site.run(&quick, &["up", "wg0"])?;
    assert_eq!(up.code, Some(1), "{}", up.output);
    for part in ["wg0.conf:3: Address: ", "IPv6 is disabled on this device"] {
        assert!(up.output.contains(part), "{part} in {}", up.output);
    }
    assert!(!up.output.contains("os error"), "{}", up.output);
    Ok(())
}

#[test]
fn without_the_tun_device_the_error_says_how_to_get_it() -> io::Result<()> {
    let lab = Lab::new()?;
    let Some((site, quick)) = place(&lab)? else {
        return Ok(());
    };
    if std::path::Path::new("/sys/module/wireguard").exists() {
        return Ok(());
    }
    site.configure("wg0", &config("Address = 10.0.0.2/32"))?;
    site.sh("mount -t tmpfs none /dev/net")?;
    let up = site.run(&quick, &["up", "wg0"])?;
    assert_eq!(up.code, Some(1), "{}", up.output);
    for part in [
        "/dev/net/tun: No such file or directory",
        "modprobe tun",
        "--device /dev/net/tun",
    ] {
        assert!(up.output.contains(part), "{part} in {}", up.output);
    }
    assert!(!up.output.contains("os error"), "{}", up.output);
    Ok(())
}

#[test]
fn without_an_implementation_the_error_has_the_text_that_scripts_expect() -> io::Result<()> {
    let lab = Lab::new()?;
    let Some((mut site, quick)) = place(&lab)? else {
        return Ok(());
    };
    if std::path::Path::new("/sys/module/wireguard").exists() {
        return Ok(());
    }
    site.configure("wg0", &config("Address = 10.0.0.2/32"))?;
    site.hide("wireguard-rs")?;
    site.sh(&format!("rm {BIN}/wireguard-rs"))?;
    let up = site.run(&quick, &["up", "wg0"])?;
    assert_eq!(up.code, Some(1), "{}", up.output);
    assert!(
        up.output.contains("\nCannot find device \"wg0\"\n"),
        "{}",
        up.output
    );
    assert!(
        up.output.contains("no wireguard-rs on PATH"),
        "{}",
        up.output
    );
    Ok(())
}

/// An error of the kernel is followed by a line about what is in the way.
#[test]
fn what_is_in_the_way_is_named() -> io::Result<()> {
    let lab = Lab::new()?;
    let Some((site, quick)) = place(&lab)? else {
        return Ok(());
    };
    let file = |interface: &str, networks: &str| {
        format!(
            "[Interface]\nPrivateKey = {}\n{interface}\n[Peer]\nPublicKey = {}\n\
             AllowedIPs = 10.1.0.0/16\nAllowedIPs = {networks}\n",
            Keys::generate().private,
            Key::random()
        )
    };
    site.configure(
        "wg0",
        &file(
            "ListenPort = 1\nListenPort = 2000\nTable = off",
            "10.2.0.0/16",
        ),
    )?;
    let up = site.run(&quick, &["up", "wg0"])?.success()?;
    let warning =
        "/etc/wireguard/wg0.conf:4: Warning: ListenPort: line 3 sets it too and is ignored";
    assert_eq!(up.matches("Warning: ").count(), 1, "{up}");
    assert!(up.contains(warning), "{up}");
    site.sh("ip route add 10.8.0.0/24 dev eth0; ip -6 route add fd08::/64 dev eth0 table 77")?;
    let refused = |interface: &str, networks: &str, parts: &[&str]| -> io::Result<()> {
        site.configure("wg1", &file(interface, networks))?;
        let up = site.run(&quick, &["up", "wg1"])?;
        assert_eq!(up.code, Some(1), "{}", up.output);
        for part in parts {
            assert!(up.output.contains(part), "{part} in {}", up.output);
        }
        Ok(())
    };
    refused(
        "ListenPort = 2000",
        "10.2.0.0/16",
        &["Address already in use\nUDP port 2000 is already used by the interface `wg0': choose"],
    )?;
    refused(
        "Table = auto",
        "10.8.0.0/24",
        &[
            "wg-quick-rs: /etc/wireguard/wg1.conf:7: AllowedIPs: cannot add route 10.8.0.0/24 ",
            ": File exists\n\
             there is already a route to 10.8.0.0/24 through `eth0': remove",
        ],
    )?;
    refused(
        "Table = 77",
        "fd08::/64",
        &[
            "wg1.conf:7: AllowedIPs: ",
            "\nthere is already a route to fd08::/64 through `eth0' in table 77: remove",
        ],
    )?;
    refused(
        "Address = 10.9.0.1/24\nPreUp = ip address add 10.9.0.1/24 dev %i",
        "10.2.0.0/16",
        &[
            "wg1.conf:3: Address: ",
            "\n`wg1' already has the address 10.9.0.1: another Address or a PreUp command",
        ],
    )?;
    site.run(&quick, &["down", "wg0"])?.success()?;
    Ok(())
}

#[test]
fn hooks_may_contain_any_bytes() -> io::Result<()> {
    let lab = Lab::new()?;
    let Some((site, quick)) = place(&lab)? else {
        return Ok(());
    };
    site.configure("wg0", &config("Address = 10.0.0.2/32"))?;
    site.sh(
        r"sed -i 's/^Address/PostUp = touch \/etc\/caf\xe9-%i\nAddress/' /etc/wireguard/wg0.conf",
    )?;
    site.run(&quick, &["up", "wg0"])?.success()?;
    site.sh(r"test -e $'/etc/caf\xe9-wg0'")?;
    site.run(&quick, &["down", "wg0"])?.success()?;
    Ok(())
}

/// A link can have such a name, so the program must accept it.
#[test]
fn a_name_may_look_like_an_option() -> io::Result<()> {
    let lab = Lab::new()?;
    let Some((site, quick)) = place(&lab)? else {
        return Ok(());
    };
    for name in ["-w", "-f"] {
        site.configure(name, &config(&format!("PostUp = echo %i >> {LOG}")))?;
        for verb in ["up", "reload", "save", "down"] {
            let run = site.run(&quick, &[verb, name])?;
            assert_eq!(run.code, Some(0), "{verb} {name}: {}", run.output);
        }
        assert_eq!(site.host.read(LOG)?.lines().last(), Some(name));
    }
    Ok(())
}

/// For example openresolv's.
#[test]
fn down_goes_on_if_resolvconf_fails() -> io::Result<()> {
    let lab = Lab::new()?;
    let Some((site, quick)) = place(&lab)? else {
        return Ok(());
    };
    site.configure("wg0", &config("Address = 10.0.0.2/32\nDNS = 10.0.0.1"))?;
    site.run(&quick, &["up", "wg0"])?.success()?;
    site.stand_in("resolvconf", "#!/bin/sh\nexit 1\n")?;
    let down = site.run(&quick, &["down", "wg0"])?;
    assert_eq!(down.code, Some(0), "{}", down.output);
    assert!(
        down.output.contains("resolvconf: exit status: 1; going on")
            && down.output.contains("\n[!]   resolvconf -d wg0 -f\n"),
        "{}",
        down.output
    );
    let left = site.sh("ip link; ip rule; ip -6 rule; nft list ruleset")?;
    for part in ["wg0", "51820"] {
        assert!(!left.contains(part), "{part} in {left}");
    }
    Ok(())
}

/// Without resolvconf and resolvectl, as in a container, the file itself is replaced.
#[test]
fn without_a_program_for_dns_the_file_itself_is_replaced() -> io::Result<()> {
    const BEFORE: &str = "nameserver 192.0.2.53\noptions edns0\n";
    let lab = Lab::new()?;
    let Some((mut site, quick)) = place(&lab)? else {
        return Ok(());
    };
    site.hide_dns_programs()?;
    let text = config("Address = 10.0.0.2/32\nDNS = 10.0.0.1, corp.example");
    let ours = "# Made by wg-quick-rs for wg0.\nnameserver 10.0.0.1\nsearch corp.example\n";
    for place in [
        "",
        "rm /etc/resolv.conf; ln -s real.conf /etc/resolv.conf",
        "rm /etc/resolv.conf; touch /etc/resolv.conf; mount --bind /etc/real.conf /etc/resolv.conf",
    ] {
        site.sh(place)?;
        site.host.write(RESOLV_CONF, BEFORE)?;
        let inode = site.sh(&format!(
            "stat -c '%i %N' {RESOLV_CONF}; stat -Lc '%a %u' {RESOLV_CONF}"
        ))?;
        site.configure("wg0", &text)?;
        let up = site.run(&quick, &["up", "wg0"])?.success()?;
        assert!(up.contains("itself is replaced"), "{up}");
        assert_eq!(site.host.read(RESOLV_CONF)?, ours);
        site.configure("wg0", &text.replace("10.0.0.1,", "10.0.0.9,"))?;
        site.run(&quick, &["reload", "wg0"])?.success()?;
        assert_eq!(
            site.host.read(RESOLV_CONF)?,
            ours.replace("10.0.0.1", "10.0.0.9")
        );
        let down = site.run(&quick, &["down", "wg0"])?.success()?;
        assert!(down.contains("put back"), "{down}");
        assert_eq!(site.host.read(RESOLV_CONF)?, BEFORE);
        let after = site.sh(&format!(
            "stat -c '%i %N' {RESOLV_CONF}; stat -Lc '%a %u' {RESOLV_CONF}"
        ))?;
        // The file may be a new one, but a symbolic link or a mount stays the same.
        if !place.is_empty() {
            assert_eq!(after, inode);
        }
        let left = site.sh("ls -A /etc | grep '^.resolv.conf' || true")?;
        assert_eq!(left, "");
    }
    // A text that others have written since is kept.
    site.configure("wg0", &text)?;
    site.run(&quick, &["up", "wg0"])?.success()?;
    site.host.write(RESOLV_CONF, "nameserver 192.0.2.54\n")?;
    let down = site.run(&quick, &["down", "wg0"])?.success()?;
    assert!(down.contains("changed by others"), "{down}");
    assert_eq!(site.host.read(RESOLV_CONF)?, "nameserver 192.0.2.54\n");
    // If resolvconf fails, the file itself is replaced too.
    site.stand_in("resolvconf", "#!/bin/sh\nexit 1\n")?;
    let up = site.run(&quick, &["up", "wg0"])?.success()?;
    assert!(up.contains("resolvconf: exit status: 1"), "{up}");
    assert_eq!(site.host.read(RESOLV_CONF)?, ours);
    site.run(&quick, &["down", "wg0"])?.success()?;
    assert_eq!(site.host.read(RESOLV_CONF)?, "nameserver 192.0.2.54\n");
    // After the daemon was killed, the former content is still known.
    site.sh(&format!("rm {BIN}/resolvconf"))?;
    site.run(&quick, &["up", "wg0"])?.success()?;
    site.host.kill_processes()?;
    until(PATIENCE, "the link to go", || {
        Ok((!site.sh("ip link show")?.contains("wg0")).then_some(()))
    })?;
    site.run(&quick, &["up", "wg0"])?.success()?;
    assert_eq!(site.host.read(RESOLV_CONF)?, ours);
    site.run(&quick, &["down", "wg0"])?.success()?;
    assert_eq!(site.host.read(RESOLV_CONF)?, "nameserver 192.0.2.54\n");
    Ok(())
}

/// In whatever order the tunnels are taken down, the servers of the host are back at the end.
#[test]
fn two_tunnels_restore_resolv_conf_in_any_order() -> io::Result<()> {
    const BEFORE: &str = "nameserver 192.0.2.53\n";
    let lab = Lab::new()?;
    let Some((mut site, quick)) = place(&lab)? else {
        return Ok(());
    };
    site.hide_dns_programs()?;
    for (name, allowed_ips) in [("wg0", "10.0.0.0/24"), ("wg1", "10.1.0.0/24")] {
        let dns = format!("Address = 10.0.0.2/32\nDNS = {name}.example");
        let text = config(&dns).replace("0.0.0.0/0, ::/0", allowed_ips);
        site.configure(name, &text)?;
    }
    let ours = |name| {
        format!("# Made by wg-quick-rs for {name}.\nnameserver 192.0.2.53\nsearch {name}.example\n")
    };
    site.host.write(RESOLV_CONF, BEFORE)?;
    for first in ["wg0", "wg1"] {
        site.run(&quick, &["up", "wg0"])?.success()?;
        site.run(&quick, &["up", "wg1"])?.success()?;
        site.run(&quick, &["reload", "wg0"])?.success()?;
        assert_eq!(site.host.read(RESOLV_CONF)?, ours("wg1"));
        let (last, between) = match first {
            "wg0" => ("wg1", ours("wg1")),
            _ => ("wg0", ours("wg0")),
        };
        site.run(&quick, &["down", first])?.success()?;
        assert_eq!(site.host.read(RESOLV_CONF)?, between);
        site.run(&quick, &["down", last])?.success()?;
        assert_eq!(site.host.read(RESOLV_CONF)?, BEFORE);
    }
    Ok(())
}
