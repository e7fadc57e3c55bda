//! `wg-rs link add`. When it fails, it leaves nothing behind.

use std::io;

use netns_tests::{HostState, PATIENCE, SOCKETS, netlink, process, skipped, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::pair::{Pair, failed};

/// `add` blocks signals while it works. The daemon that it starts must not inherit that.
#[test]
fn a_signal_ends_the_daemon_of_a_link() -> io::Result<()> {
    let pair = Pair::new()?;
    let before = HostState::of(&pair.a)?;
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        pair.link(&["add", "wg0", "--netns", "web"])?;
        let pid = pair.daemon()? as i32;
        assert_eq!(process::status(pid, "SigBlk")?, "0000000000000000");
        kill(Pid::from_raw(pid), signal)?;
        until(PATIENCE, &format!("the daemon to end by {signal}"), || {
            let link = pair.inside("web")?.run(|| netlink::link("wg0"))?;
            let left = before.against(&HostState::of(&pair.a)?);
            Ok((link.is_none() && left.none()).then_some(()))
        })?;
    }
    Ok(())
}

#[test]
fn a_failed_add_leaves_nothing() -> io::Result<()> {
    let pair = Pair::new()?;
    let config = format!("{SOCKETS}/wg0.conf");
    let before = HostState::of(&pair.a)?;
    let unchanged =
        |what: &str| pair.until_back_to(&before, &format!("nothing to be left after {what}"));
    let wrong = format!("{SOCKETS}/wrong.conf");
    pair.a
        .write(&wrong, "[Interface]\nPrivateKey = x\nListenPort = 1\n")?;
    let error = failed(pair.link(&["add", "wg0", "--config", &wrong]));
    assert!(error.contains(&format!("{wrong}:2: ")), "{error}");
    pair.refused(
        &["add", "wg0", "--config", "/no/such"],
        "/no/such: No such file or directory",
    );
    let none = "cannot enter namespace nosuch: there is no namespace of this name in /run/netns";
    pair.refused(&["add", "wg0", "--netns", "nosuch"], none);
    unchanged("bad input")?;

    // In the following cases the link is created, and deleted again.
    pair.take_the_name_in_db()?;
    let taken = "cannot move wg0 to db: the name is in use there";
    pair.refused(&["add", "wg0", "--netns", "db", "--config", &config], taken);
    unchanged("a name taken there")?;
    let twice = "10.77.0.1/24,10.77.0.1/24";
    let add = ["add", "wg0", "--netns", "web", "--address", twice];
    let error = failed(pair.link(&add));
    assert!(error.contains("cannot add address 10.77.0.1/24"), "{error}");
    unchanged("an address twice")?;
    assert!(pair.inside("web")?.run(|| netlink::link("wg0"))?.is_none());

    // `add` deletes its link without a search, as it may not be allowed to find the owner of a TUN device.
    let error = failed(pair.link_without_ptrace(&add));
    assert!(error.contains("cannot add address 10.77.0.1/24"), "{error}");
    assert!(!error.contains("deleting it also failed"), "{error}");
    unchanged("an address twice, without CAP_SYS_PTRACE")?;
    assert!(pair.inside("web")?.run(|| netlink::link("wg0"))?.is_none());

    let error = failed(pair.link_unprivileged(&["add", "wg0"]));
    assert!(
        error.contains("cannot create wg0: cannot create the TUN device"),
        "{error}"
    );
    unchanged("no permission")
}

/// The error names the command that can use such a file.
#[test]
fn a_file_for_wg_quick_is_refused() -> io::Result<()> {
    let pair = Pair::new()?;
    let file = format!("{SOCKETS}/quick.conf");
    pair.a
        .write(&file, "[Interface]\nAddress = 10.0.0.1/24\nMTU = 1400\n")?;
    let line = format!(
        "{file} is a file for wg-quick: bring it up with `wg-quick-rs up {file} --netns web', or use the \
         output of `wg-quick-rs strip {file}'"
    );
    pair.refused(&["add", "wg0", "--netns", "web", "--config", &file], &line);
    assert_eq!(pair.link(&["list"])?, "");
    Ok(())
}

/// The sockets of all namespaces are in one directory, so a name can be used in only one namespace.
#[test]
fn a_name_in_use_is_refused_in_every_namespace() -> io::Result<()> {
    let pair = Pair::new()?;
    pair.add("web")?;
    let line = "cannot create wg0: the name is used by the daemon at /var/run/wireguard/wg0.sock";
    for backend in ["userspace", "kernel"] {
        pair.refused(&["add", "wg0", "--backend", backend], line);
    }
    let elsewhere = ["netns", "exec", "db", &pair.program, "link", "add", "wg0"];
    let error = failed(pair.a.sh("ip", &elsewhere));
    assert!(error.ends_with(line), "{error}");
    let line = "cannot create eth0: the name is used by another link";
    pair.refused(&["add", "eth0"], line);
    pair.refused(&["del", "eth0"], "eth0: no such WireGuard interface");
    pair.lives(&pair.inside("web")?)
}

/// With the module the link is created: that is tested in the virtual machine (`kernel.rs`).
#[test]
fn a_kernel_link_without_the_module_is_refused() -> io::Result<()> {
    let pair = Pair::new()?;
    let module = pair.b.host.run(|| netlink::add_wireguard("probe"));
    if module.is_ok() {
        skipped("a kernel without the WireGuard module");
        return Ok(());
    }
    let line = "cannot create wg0: this kernel has no WireGuard module";
    let add = ["add", "wg0", "--backend", "kernel", "--netns", "web"];
    pair.refused(&add, line);
    Ok(())
}
