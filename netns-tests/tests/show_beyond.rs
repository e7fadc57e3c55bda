//! Options that `wg` does not have: `--netns` and `show --watch`.

use std::io;
use std::process::Command;

use netns_tests::{Daemon, Lab, PATIENCE, Via, binaries, netlink, until};
use nix::sys::signal::Signal;

#[test]
fn netns_shows_the_interfaces_of_that_namespace() -> io::Result<()> {
    let wg_rs = binaries::wg_rs()?;
    let lab = Lab::new()?;
    let (here, there) = (lab.host("here")?, lab.host("there")?);
    let _wg = Daemon::ours()?.start(&here, "wg7", Via::Uapi)?;
    let _other = Daemon::ours()?.start(&here, "wg8", Via::Uapi)?;
    here.run(|| netlink::move_link("wg8", there.net()))?;
    let sleeper = there.spawn(Command::new("sleep").arg("1000"))?;
    let netns = format!("pid:{}", sleeper.pid());
    let ask = |args: &[&str]| here.sh(&wg_rs, &[&["--netns", &netns], args].concat());
    assert_eq!(ask(&["show", "interfaces"])?, "wg8\n");
    ask(&["set", "wg8", "fwmark", "7"])?;
    assert_eq!(ask(&["show", "all", "fwmark"])?, "wg8\t0x7\n");
    assert!(ask(&["show", "wg7"]).is_err(), "it is in another namespace");
    Ok(())
}

#[test]
fn a_watch_ends_cleanly() -> io::Result<()> {
    let wg_rs = binaries::wg_rs()?;
    let lab = Lab::new()?;
    let host = lab.host("alone")?;
    let _wg = Daemon::ours()?.start(&host, "wg7", Via::Uapi)?;
    let mut watch = host.spawn(Command::new(&wg_rs).args(["show", "--watch"]))?;
    until(PATIENCE, "a second look", || {
        let looks = watch.output().matches("interface: wg7\n").count();
        Ok((looks >= 2).then_some(()))
    })?;
    watch.signal(Signal::SIGINT)?;
    assert!(watch.wait(PATIENCE)?.success());
    // It also ends when nobody reads its output.
    let line = format!("{wg_rs} show --watch | head -n 1");
    assert_eq!(host.sh("sh", &["-c", &line])?, "interface: wg7\n");
    Ok(())
}
