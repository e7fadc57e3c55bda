//! `wg-quick-rs` beside another `wg-quick-rs`, and beside interfaces of the same name.

use std::io;
use std::net::UdpSocket;

use netns_tests::quick::{Quick, Site};
use netns_tests::{Lab, PATIENCE, Proc, binaries, require, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const CONFIG: &str = "[Interface]
PrivateKey = 6AgToMTGwKJV1BBqhMlUFyAb3JQrbLBtRIMwkVMCi1g=
Address = 10.0.0.2/24
";

/// Starts `up` with this file, whose hook waits for a line in `/etc/go`. Returns when the hook runs.
fn up_until_the_hook(site: &Site, quick: &Quick, file: &str) -> io::Result<Proc> {
    site.configure("wg0", file)?;
    site.sh("mkfifo /etc/go")?;
    site.place(quick)?;
    let up = site.start(quick, &["up", "wg0"])?;
    until(PATIENCE, "the hook to run", || {
        Ok(site.host.read("/etc/waits").ok())
    })?;
    Ok(up)
}

/// Waits until a command says that it waits for another one.
fn until_it_waits(command: &Proc) -> io::Result<()> {
    let said = "`wg0' is being changed by another wg-quick-rs";
    until(PATIENCE, "the note that the command waits", || {
        Ok(command.output().contains(said).then_some(()))
    })
}

#[test]
fn concurrent_commands_run_one_after_the_other() -> io::Result<()> {
    let lab = Lab::new()?;
    let (Some(site), quick) = (Site::new(&lab, "site")?, Quick::ours()?) else {
        return Ok(());
    };
    // While a hook of the first `up` waits, other commands must wait too.
    let hook = "wg-quick-rs save %i; touch /etc/waits; read < /etc/go";
    let first = up_until_the_hook(&site, &quick, &format!("{CONFIG}PostUp = {hook}\n"))?;
    for verb in ["up", "down", "reload", "save"] {
        let other = site.start(&quick, &[verb, "wg0"])?;
        until_it_waits(&other)?;
        other.signal(Signal::SIGTERM)?;
        let run = site.finish(other)?;
        assert_eq!(run.code, Some(128 + 15), "{verb}: {}", run.output);
    }
    // A command that only has a hook's environment must wait too.
    let mut command = site.command(&quick, &["down", "wg0"])?;
    command.env("INTERFACE", "wg0").env("CONFIG_FILE", "/x");
    let second = site.host.spawn(&mut command)?;
    until_it_waits(&second)?;
    site.sh("wg show wg0; echo > /etc/go")?;
    site.finish(first)?.success()?;
    site.finish(second)?.success()?;
    site.sh("! ip link show wg0")?;

    // Two at the same time: one of them brings the interface up.
    site.configure("wg0", CONFIG)?;
    for _ in 0..5 {
        let both = [(); 2].map(|()| site.start(&quick, &["up", "wg0"]));
        let mut good = 0;
        for run in both {
            let run = site.finish(run?)?;
            good += usize::from(run.code == Some(0));
        }
        assert_eq!(good, 1);
        site.sh("wg show wg0; ip address show dev wg0 | grep -F 10.0.0.2; wg-quick-rs down wg0")?;
    }
    let left = site.sh("ls -A /var/run/wireguard")?;
    assert!(!left.contains("lock"), "{left}");
    assert!(!left.contains("state"), "{left}");
    Ok(())
}

/// What another command wrote into the file while `reload` waited for it is applied, and not undone.
#[test]
fn a_file_that_changes_while_a_command_waits_is_read_again() -> io::Result<()> {
    let lab = Lab::new()?;
    let (Some(site), quick) = (Site::new(&lab, "site")?, Quick::ours()?) else {
        return Ok(());
    };
    let peer = "\n[Peer]\nPublicKey = eJ1VQnYKSOvMXnYwTsdSNuQAB3e9fW8WDhrDsBnBCTw=\n";
    let file = format!("{CONFIG}PostUp = touch /etc/waits; read < /etc/go\n{peer}");
    let up = up_until_the_hook(&site, &quick, &file)?;
    let reload = site.start(&quick, &["reload", "wg0"])?;
    until_it_waits(&reload)?;
    assert_eq!(site.sh("wg show wg0 peers")?.lines().count(), 1);
    site.configure("wg0", &format!("{CONFIG}PostUp = true\n"))?;
    site.sh("echo > /etc/go")?;
    site.finish(up)?.success()?;
    site.finish(reload)?.success()?;
    assert_eq!(site.sh("wg show wg0 peers")?, "");
    site.run(&quick, &["down", "wg0"])?.success()?;
    Ok(())
}

/// The sockets of all namespaces are in one folder.
#[test]
fn the_daemon_of_another_namespace_outlives_a_failed_up() -> io::Result<()> {
    let lab = Lab::new()?;
    let (Some(site), quick) = (with_web(&lab)?, Quick::ours()?) else {
        return Ok(());
    };
    site.configure("wg0", CONFIG)?;
    site.place(&quick)?;
    // The daemon of the namespace appears after `up` has checked that there is none.
    site.stand_in(
        "rival",
        "#!/bin/sh\nip netns exec web wireguard-rs \"$1\"; exit 1",
    )?;
    site.sh(
        "! WG_QUICK_USERSPACE_IMPLEMENTATION=rival wg-quick-rs up wg0
         wg show wg0
         ip -n web link show wg0
         ip -n web link delete wg0",
    )?;
    Ok(())
}

/// wireguard-go applies the lines of a request one by one.
#[test]
fn what_a_daemon_applied_before_an_error_is_undone() -> io::Result<()> {
    let lab = Lab::new()?;
    let (Some(site), Some(_), quick) = (
        Site::new(&lab, "site")?,
        require("wireguard-go", binaries::on_path("wireguard-go")),
        Quick::ours()?,
    ) else {
        return Ok(());
    };
    let file = |port: u16, mark: &str| format!("{CONFIG}ListenPort = {port}\n{mark}");
    site.configure("wg0", &file(4500, ""))?;
    site.place(&quick)?;
    site.sh("WG_QUICK_USERSPACE_IMPLEMENTATION=wireguard-go wg-quick-rs up wg0")?;
    let before = site.sh("wg showconf wg0")?;
    let taken = site.host.run(|| UdpSocket::bind(("0.0.0.0", 4600)))?;
    site.configure("wg0", &file(4600, "FwMark = 7\n").replace("6AgT", "8AgT"))?;
    let run = site.run(&quick, &["reload", "wg0"])?;
    assert_eq!(run.code, Some(1), "{}", run.output);
    assert!(run.output.contains("4600"), "{}", run.output);
    assert_eq!(site.sh("wg showconf wg0")?, before);
    drop(taken);
    site.run(&quick, &["reload", "wg0"])?.success()?;
    site.run(&quick, &["down", "wg0"])?.success()?;
    Ok(())
}

/// A host with a namespace `web`.
fn with_web(lab: &Lab) -> io::Result<Option<Site>> {
    let Some(site) = Site::new(lab, "site")? else {
        return Ok(None);
    };
    site.sh("ip netns add web")?;
    Ok(Some(site))
}

#[test]
fn a_link_of_the_same_name_in_this_namespace_is_not_deleted() -> io::Result<()> {
    let lab = Lab::new()?;
    let (Some(site), quick) = (with_web(&lab)?, Quick::ours()?) else {
        return Ok(());
    };
    let peer = "\n[Peer]\nPublicKey = eJ1VQnYKSOvMXnYwTsdSNuQAB3e9fW8WDhrDsBnBCTw=\n";
    let file = format!("{CONFIG}DNS = 10.0.0.1\n{peer}AllowedIPs = 0.0.0.0/0\n");
    site.configure("wg0", &file)?;
    site.place(&quick)?;
    site.sh("umask 077; wg-quick-rs up wg0 --netns web
         [ \"$(stat -c %a /etc/netns/web/resolv.conf)\" = 644 ]
         [ \"$(stat -c %a /etc/netns/web)\" = 755 ]
         ip link add wg0 type veth peer cable
         wg-quick-rs down wg0
         ip link show wg0
         ! ip -n web link show wg0
         ip link delete wg0
         [ ! -e /etc/netns/web ]")?;

    // A namespace that already has a default route.
    site.sh(
        "ip -n web link add eth0 type veth peer cable; ip -n web link set eth0 up
         ip -n web route add default dev eth0",
    )?;
    let run = site.run(&quick, &["up", "wg0", "--netns", "web"])?;
    assert_eq!(run.code, Some(1), "{}", run.output);
    let said = "the namespace web already has a default route, by eth0";
    assert!(run.output.contains(said), "{}", run.output);
    assert!(!run.output.contains("[#]"), "{}", run.output);
    Ok(())
}

#[test]
fn a_dns_record_is_removed_if_only_that_is_left_of_a_killed_daemon() -> io::Result<()> {
    let lab = Lab::new()?;
    let (Some(site), quick) = (Site::new(&lab, "site")?, Quick::ours()?) else {
        return Ok(());
    };
    site.configure("wg0", &format!("{CONFIG}DNS = 10.0.0.1\n"))?;
    let before = site.state()?;
    site.run(&quick, &["up", "wg0"])?.success()?;
    site.host.kill_processes()?;
    // An interface of the kernel has no daemon to kill, so it is deleted.
    site.sh("ip link delete wg0 2> /dev/null || :; wg show")?;
    assert!(!before.against(&site.state()?).none(), "the record stays");
    site.run(&quick, &["down", "wg0"])?.success()?;
    let left = before.against(&site.state()?);
    assert!(left.none(), "{left}");
    let run = site.run(&quick, &["down", "wg0"])?;
    assert_eq!(run.code, Some(1), "{}", run.output);
    Ok(())
}

#[test]
fn a_signal_after_the_link_is_gone_skips_no_hook() -> io::Result<()> {
    let lab = Lab::new()?;
    let (Some(site), quick) = (Site::new(&lab, "site")?, Quick::ours()?) else {
        return Ok(());
    };
    site.configure(
        "wg0",
        &format!(
            "{CONFIG}PostDown = kill -TERM $PPID; sleep 1000\nPostDown = echo second >> /etc/log\n"
        ),
    )?;
    site.run(&quick, &["up", "wg0"])?.success()?;
    let run = site.run(&quick, &["down", "wg0"])?;
    assert_eq!(run.code, Some(128 + 15), "{}", run.output);
    assert_eq!(site.host.read("/etc/log")?, "second\n", "{}", run.output);
    Ok(())
}

#[test]
fn a_program_that_hangs_in_an_undo_can_be_ended() -> io::Result<()> {
    let lab = Lab::new()?;
    let (Some(site), quick) = (Site::new(&lab, "site")?, Quick::ours()?) else {
        return Ok(());
    };
    site.stand_in(
        "resolvconf",
        "#!/bin/sh\n[ $1 = -d ] || exit 0\ntouch /etc/hangs\nsleep 1000\n",
    )?;
    let file = format!("{CONFIG}DNS = 10.0.0.1\nPostUp = false\n");
    site.configure("wg0", &file)?;
    let proc = site.start(&quick, &["up", "wg0"])?;
    let pid = Pid::from_raw(proc.pid());
    until(PATIENCE, "the undo to hang", || {
        Ok(site.host.read("/etc/hangs").ok())
    })?;
    // The first signal may arrive together with the failure that began the undo.
    until(PATIENCE, "the command to end", || {
        kill(pid, Signal::SIGTERM)?;
        std::thread::sleep(std::time::Duration::from_millis(300));
        let links = site.sh("ip link show")?;
        Ok((!links.contains("wg0")).then_some(()))
    })?;
    let run = site.finish(proc)?;
    assert_eq!(run.code, Some(1), "{}", run.output);
    Ok(())
}
