//! `down`, `reload` and `save` use the record of `up`, even if the file was changed since.

use std::io;

use crate::test_host::{KEY, PEER, TestHost, full};

const OTHER_KEY: &str = "QAzFSKnTvSjbNxfqDm0mzDzTzU5iElvIMEQlDPhL3WQ=";
const OTHER_PEER: &str = "Hf4iFwCZpxMqHkRCCSxXC4nYVCOAxIlKe5IIQKuMUSw=";
const PSK: &str = "cGVyaGFwcyBub3Qgc28gc2VjcmV0IGFmdGVyIGFsbCE=";

#[test]
fn an_interface_of_another_namespace_is_refused() -> io::Result<()> {
    let Some(host) = TestHost::new()? else {
        return Ok(());
    };
    host.file("", &full(""))?;
    host.ok("up")?;
    let up = host.site.state()?;
    // The file has another key, and then the key of the interface that is up.
    for key in [OTHER_KEY, KEY] {
        let text = format!("[Interface]\nPrivateKey = {key}\nAddress = 10.9.9.9/24\nFwMark = 9\n");
        host.site.configure("wg0", &text)?;
        for verb in ["down", "reload", "save"] {
            let run = host.site.sh(&format!(
                "ip netns exec other wg-quick-rs {verb} wg0 2>&1 && echo well || :"
            ))?;
            assert!(!run.contains("well"), "{verb}: {run}");
            assert!(run.contains("from another network namespace"), "{run}");
            assert!(!run.contains("[#]"), "{verb}: {run}");
            assert_eq!(host.site.host.read("/etc/wireguard/wg0.conf")?, text);
            let changed = up.against(&host.site.state()?);
            assert!(changed.none(), "{verb}: {changed}");
        }
    }
    host.file("", "")?;
    host.ok("down")?;
    host.nothing_left()
}

#[test]
fn down_undoes_what_up_did_after_the_file_was_changed() -> io::Result<()> {
    let Some(host) = TestHost::new()? else {
        return Ok(());
    };
    let edits: [&dyn Fn() -> io::Result<()>; 5] = [
        &|| host.file("Adress = 10.0.0.1\nMTU = big\nSaveConfig = true", &full("")),
        &|| host.file("Table = off", &full("")),
        &|| host.file("", ""),
        &|| host.file("FwMark = 7\nDNS = 10.0.0.9", &full("")),
        &|| {
            host.site
                .sh("wg syncconf wg0 <(wg-quick-rs strip wg0)")
                .map(|_| ())
        },
    ];
    for (number, edit) in edits.into_iter().enumerate() {
        host.file("DNS = 10.0.0.1", &full(""))?;
        host.ok("up")?;
        edit()?;
        let run = host.run("down")?;
        // A file that cannot be saved makes `down` fail, but the tunnel is down.
        let code = i32::from(number == 0);
        assert_eq!(run.code, Some(code), "{number}: {}", run.output);
        host.nothing_left()?;
    }
    Ok(())
}

#[test]
fn rules_keep_their_order_beside_others_and_are_removed() -> io::Result<()> {
    let Some(mut host) = TestHost::new()? else {
        return Ok(());
    };
    host.site
        .sh("ip rule add pref 1 from 198.51.100.1 lookup 7")?;
    host.before = host.site.state()?;
    host.file("", &full(""))?;
    host.ok("up")?;
    // The rule that ignores default routes comes first, or packets to neighbours would enter the tunnel.
    let rules = host.site.sh("ip rule show")?;
    let at = |text: &str| rules.find(text);
    assert!(
        at("suppress_prefixlength 0") < at("not from all fwmark"),
        "{rules}"
    );
    let way = host.site.sh("ip route get 192.0.2.77")?;
    assert!(way.contains("dev eth0"), "{way}");
    host.ok("down")?;
    host.nothing_left()
}

#[test]
fn a_port_set_at_run_time_is_saved() -> io::Result<()> {
    let Some(host) = TestHost::new()? else {
        return Ok(());
    };
    host.file("SaveConfig = true", "")?;
    host.ok("up")?;
    host.ok("save")?;
    let chosen = host.site.host.read("/etc/wireguard/wg0.conf")?;
    assert!(!chosen.contains("ListenPort"), "{chosen}");
    host.site.sh("wg set wg0 listen-port 4711")?;
    host.ok("down")?;
    let saved = host.site.host.read("/etc/wireguard/wg0.conf")?;
    assert!(saved.contains("ListenPort = 4711"), "{saved}");
    Ok(())
}

#[test]
fn reload_keeps_only_what_hooks_have_set() -> io::Result<()> {
    let Some(host) = TestHost::new()? else {
        return Ok(());
    };
    let hooks = format!(
        "MTU = 1300\n\
         PostUp = echo {PSK} > /etc/psk; wg set %i peer {OTHER_PEER} preshared-key /etc/psk allowed-ips 10.8.0.0/24\n\
         PostUp = ip addr add 10.0.0.33/32 dev %i # beside 10.0.0.3\n\
         PostUp = : --clamp-mss-to-pmtu"
    );
    let peer = |more: &str| format!("[Peer]\nPublicKey = {PEER}\nAllowedIPs = 10.7.0.0/24\n{more}");
    host.file(
        &format!("Address = 10.0.0.3/32\n{hooks}"),
        &peer(&format!("PresharedKey = {PSK}")),
    )?;
    host.ok("up")?;
    host.file(&hooks.replace("MTU = 1300\n", ""), &peer(""))?;
    let said = host.ok("reload")?;
    let addresses = host.site.sh("ip -o addr show dev wg0; ip link show wg0")?;
    assert!(addresses.contains("10.0.0.33/32"), "{addresses}");
    assert!(!addresses.contains("10.0.0.3/32"), "{addresses}");
    assert!(addresses.contains("mtu 1420"), "{addresses}");
    let keys = host.shown("preshared-keys")?;
    assert!(keys.contains(&format!("{PEER}\t(none)")), "{keys}");
    assert!(keys.contains(&format!("{OTHER_PEER}\t{PSK}")), "{keys}");
    let ips = host.shown("allowed-ips")?;
    assert!(ips.contains(&format!("{OTHER_PEER}\t10.8.0.0/24")), "{ips}");
    for left in ["address 10.0.0.33/32", &format!("peer {OTHER_PEER}")] {
        assert!(said.contains(&format!("{left} is left as it is")), "{said}");
    }
    Ok(())
}

#[test]
fn reload_keeps_the_endpoint_of_a_peer_that_roamed() -> io::Result<()> {
    let Some(host) = TestHost::new()? else {
        return Ok(());
    };
    host.file("", &full(""))?;
    host.ok("up")?;
    host.site
        .sh(&format!("wg set wg0 peer {PEER} endpoint 192.0.2.9:9"))?;
    host.ok("reload")?;
    let endpoints = host.shown("endpoints")?;
    assert!(endpoints.contains("192.0.2.9:9"), "{endpoints}");
    // The endpoint in the file changes.
    host.file("", &full("").replace("192.0.2.1:5", "192.0.2.1:6"))?;
    host.ok("reload")?;
    let endpoints = host.shown("endpoints")?;
    assert!(endpoints.contains("192.0.2.1:6"), "{endpoints}");
    Ok(())
}
