//! `up` and `down` among other programs: the service manager, commands at the same time, a full /run.

use std::io;
use std::os::unix::net::UnixDatagram;

use netns_tests::quick::LOG;
use netns_tests::{PATIENCE, SOCKETS, until};

use crate::test_host::{TestHost, full};

/// `up` names the daemon as the main process. Hooks, the daemon itself and scripts of other units send
/// nothing in the name of the unit.
#[test]
fn the_service_manager_gets_the_daemons_process_id() -> io::Result<()> {
    let Some(host) = TestHost::new()? else {
        return Ok(());
    };
    let path = format!("{SOCKETS}/notify");
    let notify = host.site.host.run(|| UnixDatagram::bind(&path))?;
    let told = || -> io::Result<Option<String>> {
        let mut buffer = [0; 100];
        match notify.recv(&mut buffer) {
            Ok(len) => Ok(Some(String::from_utf8_lossy(&buffer[..len]).into_owned())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    };
    notify.set_nonblocking(true)?;
    host.file(&format!("PostUp = env > {LOG}"), &full(""))?;
    let up = |started: Option<&str>| {
        let mut command = host.site.command(&host.quick, &["up", "wg0"])?;
        command.env("NOTIFY_SOCKET", &path);
        match started {
            Some(pid) => command.env("SYSTEMD_EXEC_PID", pid),
            None => command.env_remove("SYSTEMD_EXEC_PID"),
        };
        host.site.finish(host.site.host.spawn(&mut command)?)
    };
    up(None)?.success()?;
    let said = match host.site.host.processes()?[..] {
        [] => "READY=1".into(),
        [daemon] => format!("READY=1\nMAINPID={daemon}"),
        ref others => panic!("{others:?}"),
    };
    assert_eq!(told()?, Some(said));
    let variables = host.site.host.read(LOG)?;
    assert!(!variables.contains("NOTIFY_SOCKET"), "{variables}");
    host.ok("down")?;
    // Nothing is sent after a failed `up`, nor by an `up` that another process runs.
    host.file("PostUp = false", &full(""))?;
    assert_eq!(up(None)?.code, Some(1));
    host.file("", &full(""))?;
    up(Some("1"))?.success()?;
    host.ok("down")?;
    assert_eq!(told()?, None);
    host.site.sh(&format!("rm {path}"))?;
    host.nothing_left()
}

#[test]
fn a_failed_up_keeps_src_valid_mark_for_others() -> io::Result<()> {
    let Some(host) = TestHost::new()? else {
        return Ok(());
    };
    let valid = "/proc/sys/net/ipv4/conf/all/src_valid_mark";
    host.site.sh(&format!("echo 0 > {valid}"))?;
    host.file("PostUp = false", &full(""))?;
    assert_eq!(host.run("up")?.code, Some(1));
    assert_eq!(host.site.host.read(valid)?.trim(), "1");
    host.nothing_left()
}

#[test]
fn up_and_down_work_while_run_is_full() -> io::Result<()> {
    let Some(host) = TestHost::new()? else {
        return Ok(());
    };
    host.file("", &full(""))?;
    let folder = "/var/run/wireguard";
    host.site.sh(&format!(
        "mount -t tmpfs -o size=64k,nr_inodes=20 small {folder}"
    ))?;
    // Files such as the daemon's socket can be created, but nothing can be written to them: neither the
    // record of `up` nor the holder of the lock.
    let fill = format!("cat /dev/zero > {folder}/fill 2> /dev/null || [ -s {folder}/fill ]");
    host.site.sh(&fill)?;
    let said = host.ok("up")?;
    assert!(said.contains("cannot be written"), "{said}");
    host.ok("down")?;
    host.site.sh(&format!("rm {folder}/fill"))?;
    host.nothing_left()?;
    // No file can be created.
    host.ok("up")?;
    let files =
        format!("for i in {{1..20}}; do : 2> /dev/null > {folder}/fill.$i || exit 0; done; exit 1");
    host.site.sh(&files)?;
    host.ok("down")?;
    host.site.sh(&format!("rm {folder}/fill*"))?;
    host.nothing_left()
}

#[test]
fn down_ends_an_up_that_waits_for_names() -> io::Result<()> {
    let Some(host) = TestHost::new()? else {
        return Ok(());
    };
    host.file(
        "",
        &full("").replace("192.0.2.1:5", "no.such.name.invalid:5"),
    )?;
    let mut command = host.site.command(&host.quick, &["up", "wg0"])?;
    command.env("WG_ENDPOINT_RESOLUTION_RETRIES", "infinity");
    let up = host.site.host.spawn(&mut command)?;
    until(PATIENCE, "the name to be asked for", || {
        Ok(up.output().contains("Trying again").then_some(()))
    })?;
    host.ok("down")?;
    let up = host.site.finish(up)?;
    assert_eq!(up.code, Some(128 + 15), "{}", up.output);
    host.nothing_left()
}

#[test]
fn a_background_job_of_a_hook_waits_for_up_to_end() -> io::Result<()> {
    let Some(host) = TestHost::new()? else {
        return Ok(());
    };
    // The job goes on while the next hook waits.
    host.file(
        "PreUp = wg-quick-rs down %i > /etc/job 2>&1 &\n\
         PostUp = until grep -q 'is being changed' /etc/job; do sleep 0.05; done",
        &full(""),
    )?;
    let run = host.run("up")?;
    assert_eq!(run.code, Some(0), "{}", run.output);
    until(PATIENCE, "the job to take it down", || {
        let links = host.site.sh("ip link show")?;
        Ok((!links.contains("wg0")).then_some(()))
    })
    .map_err(|error| {
        let job = host.site.host.read("/etc/job").unwrap_or_default();
        io::Error::other(format!("{error}: {job}"))
    })?;
    host.nothing_left()
}
