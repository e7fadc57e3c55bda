//! The keys of a running daemon: who can read them, and when they are gone. These are promises of SECURITY.md.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use boringtun::x25519::{PublicKey, StaticSecret};
use netns_tests::quick::{LOG, Quick, Site};
use netns_tests::{Config, Daemon, Key, Keys, Lab, PATIENCE, PeerConfig, Plan, Proc, Tunnel, Uapi};
use netns_tests::{binaries, ready, require, skipped, until};
use nix::sys::signal::Signal;

fn tunnel() -> io::Result<Tunnel> {
    let daemon = Daemon::ours()?;
    Tunnel::established(&Plan {
        preshared: true,
        ..Plan::new(&daemon, &daemon)
    })
}

/// The middle of a key as bytes, as hex and as base64. The ends of a private key may be clamped.
struct Traces {
    name: &'static str,
    forms: Vec<Vec<u8>>,
}

impl Traces {
    fn of(name: &'static str, key: Key) -> Traces {
        let (hex, base64) = (key.hex(), key.to_string());
        let forms = [
            &key.0[8..24],
            &hex.as_bytes()[16..48],
            &base64.as_bytes()[8..32],
        ];
        Traces {
            name,
            forms: forms.map(<[u8]>::to_vec).into(),
        }
    }

    fn are_in(&self, bytes: &[u8]) -> bool {
        let found = |form: &Vec<u8>| {
            let mut windows = bytes.windows(form.len());
            windows.any(|window| window[0] == form[0] && window == form)
        };
        self.forms.iter().any(found)
    }
}

/// Checks that a text contains none of these keys in any form.
fn assert_without(keys: [Key; 2], text: &str) {
    let is_in = |key| Traces::of("key", key).are_in(text.as_bytes());
    assert!(!keys.into_iter().any(is_in), "{text}");
}

/// The names of the keys that are anywhere in the memory of a process.
fn in_memory(pid: i32, all: &[Traces]) -> io::Result<Vec<&'static str>> {
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let mut found = Vec::new();
    let mut searched = 0;
    for line in fs::read_to_string(format!("/proc/{pid}/maps"))?.lines() {
        let (range, rest) = line.split_once(' ').unwrap_or_default();
        if !rest.starts_with('r') {
            continue;
        }
        let (start, end) = range.split_once('-').unwrap_or_default();
        let number = |text| u64::from_str_radix(text, 16).map_err(io::Error::other);
        let (start, end) = (number(start)?, number(end)?);
        let mut bytes = vec![0; (end - start) as usize];
        // Pages of the kernel cannot be read, and others may be gone by now.
        if memory.read_exact_at(&mut bytes, start).is_err() {
            continue;
        }
        searched += bytes.len();
        let here = all.iter().filter(|traces| traces.are_in(&bytes));
        found.extend(here.map(|traces| traces.name));
    }
    assert!(searched > 1 << 20, "only {searched} bytes could be read");
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// A private key, a preshared key, and what is computed from the private key and a peer's public key.
#[test]
fn keys_that_are_removed_are_nowhere_in_memory() -> io::Result<()> {
    let tunnel = tunnel()?;
    let (a, b) = (&tunnel.a, &tunnel.b);
    let pid = a.wg.pid()?;
    let shared =
        StaticSecret::from(a.keys.private.0).diffie_hellman(&PublicKey::from(b.keys.public.0));
    let preshared = tunnel.preshared.expect("the plan has one");
    let traces = [
        Traces::of("preshared", preshared),
        Traces::of("private", a.keys.private),
        Traces::of("shared", Key(shared.to_bytes())),
    ];
    // Both directions of the protocol, and a line with a key that is refused.
    a.wg.get()?;
    let refused = format!("set=1\nprivate_key={}x\n\n", a.keys.private.hex());
    assert!(
        !Uapi::connect(&a.host, "wg0")?
            .ask(&refused)?
            .contains("errno=0\n")
    );
    // As long as they are used they can be found.
    assert_eq!(in_memory(pid, &traces)?, ["preshared", "private", "shared"]);

    a.wg.set(&Config::of(PeerConfig::removed(b.keys.public)))?;
    a.wg.set(&Config {
        private_key: Some(Keys::generate().private),
        ..Config::default()
    })?;
    // A thread may hold what it has used last until its next event.
    let mut left = Vec::new();
    let gone = until(PATIENCE, "the keys to be gone", || {
        left = in_memory(pid, &traces)?;
        Ok(left.is_empty().then_some(()))
    });
    assert!(gone.is_ok(), "still in memory: {left:?}");
    Ok(())
}

#[test]
fn a_user_without_root_cannot_reach_the_daemon() -> io::Result<()> {
    let Some(_) = require("setpriv", binaries::on_path("setpriv")) else {
        return Ok(());
    };
    let tunnel = tunnel()?;
    let (host, pid) = (&tunnel.a.host, tunnel.a.wg.pid()?);
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let connect = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])";
    let socket = tunnel.a.wg.socket();
    host.sh("python3", &["-c", connect, &socket])?;
    let refused = |command: &[&str]| {
        let error = host
            .sh("setpriv", &[&nobody[..], command].concat())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("Permission denied") || error.contains("not permitted"),
            "{error}"
        );
    };
    refused(&["python3", "-c", connect, &socket]);
    for file in ["mem", "maps", "environ", "stack", "syscall"] {
        refused(&["cat", &format!("/proc/{pid}/{file}")]);
    }
    refused(&["ls", &format!("/proc/{pid}/fd/")]);
    Ok(())
}

/// Root without CAP_SYS_PTRACE is a process of the same user. It may read the memory of an ordinary program of
/// its own.
#[test]
fn a_process_of_the_same_user_cannot_read_the_daemons_memory() -> io::Result<()> {
    let Some(_) = require("setpriv", binaries::on_path("setpriv")) else {
        return Ok(());
    };
    let tunnel = tunnel()?;
    let (host, pid) = (&tunnel.a.host, tunnel.a.wg.pid()?);
    // No more capabilities than the daemon keeps, or the kernel would refuse for that reason.
    let caps = ["--bounding-set", "-all", "--inh-caps", "-all", "--"];
    let mut ordinary = Command::new("setpriv");
    ordinary.args(caps).args(["sleep", "60"]);
    let ordinary = host.spawn(&mut ordinary)?;
    let read = |pid: i32| {
        let file = format!("/proc/{pid}/maps");
        host.sh("setpriv", &[&caps[..], &["cat", &file]].concat())
    };
    until(PATIENCE, "a program that can be read", || {
        Ok(read(ordinary.pid())
            .is_ok_and(|maps| maps.contains("sleep"))
            .then_some(()))
    })?;
    let error = read(pid).unwrap_err().to_string();
    assert!(error.contains("Permission denied"), "{error}");
    Ok(())
}

/// A program that sleeps is killed in the same way, to see whether this machine writes core dumps here.
#[test]
fn a_daemon_that_crashes_leaves_no_core_dump() -> io::Result<()> {
    let Some(_) = require("prlimit", binaries::on_path("prlimit")) else {
        return Ok(());
    };
    let lab = Lab::new()?;
    let host = lab.host("host")?;
    let folder = tempfile::tempdir()?;
    let ours = Daemon::ours()?;
    let is_dumped = |program: &[&str], is_ready: &dyn Fn(&Proc) -> bool| -> io::Result<bool> {
        let mut command = Command::new("prlimit");
        command
            .arg("--core=unlimited:unlimited")
            .args(program)
            .current_dir(folder.path());
        let mut proc = host.spawn(&mut command)?;
        until(
            PATIENCE,
            "the program",
            || Ok(is_ready(&proc).then_some(())),
        )?;
        proc.signal(Signal::SIGABRT)?;
        let status = proc.wait(PATIENCE)?;
        assert_eq!(status.signal(), Some(Signal::SIGABRT as i32));
        Ok(status.core_dumped())
    };
    let ours = [ours.path().expect("a program"), "-f", "wg0"];
    assert!(!is_dumped(&ours, &|_| ready(&host, "wg0"))?);
    assert_eq!(fs::read_dir(folder.path())?.count(), 0);
    // A pattern with a path or a program would leave the other's dump somewhere on this machine.
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern")?;
    if pattern.starts_with(['/', '|']) {
        skipped("a core dump of another program");
        return Ok(());
    }
    let sleeps = |proc: &Proc| {
        fs::read(format!("/proc/{}/cmdline", proc.pid()))
            .is_ok_and(|line| line.starts_with(b"sleep"))
    };
    assert!(is_dumped(&["sleep", "60"], &sleeps)?);
    Ok(())
}

/// Requests with damaged keys are logged too.
#[test]
fn no_key_is_in_the_log() -> io::Result<()> {
    let ours = Daemon::ours()?;
    let path = ours.path().expect("a program");
    let verbose = Daemon::program("verbose", format!("env LOG_LEVEL=verbose {path}"));
    let plan = Plan {
        preshared: true,
        ..Plan::new(&verbose, &ours)
    };
    let tunnel = Tunnel::established(&plan)?;
    let (a, b) = (&tunnel.a, &tunnel.b);
    let keys = [a.keys.private, tunnel.preshared.expect("the plan has one")];
    for damaged in [
        format!("private_key={}0", keys[0].hex()),
        format!("private_key={}", keys[0]),
        format!("{}=1", keys[0].hex()),
        format!(
            "public_key={}\npreshared_key=x{}",
            b.keys.public.hex(),
            keys[1].hex()
        ),
    ] {
        let answer = Uapi::connect(&a.host, "wg0")?.ask(&format!("set=1\n{damaged}\n\n"))?;
        assert!(
            answer.starts_with("errno=") && answer != "errno=0\n\n",
            "{answer}"
        );
    }
    let log = a.wg.proc.as_ref().expect("a process").output();
    assert!(log.contains("new session"), "{log}");
    assert_without(keys, &log);
    Ok(())
}

/// The programs are `wg-quick-rs`, the daemon and all that they start.
#[test]
fn no_key_is_an_argument_of_a_program() -> io::Result<()> {
    let lab = Lab::new()?;
    let Some(site) = Site::new(&lab, "site")? else {
        return Ok(());
    };
    if require("strace", binaries::on_path("strace")).is_none() {
        return Ok(());
    }
    let quick = Quick::ours()?;
    let (keys, preshared) = (Keys::generate(), Key::random());
    let text = format!(
        "[Interface]\nPrivateKey = {}\nAddress = 10.0.0.2/32\nDNS = 10.0.0.1\nPostUp = true\n\
         [Peer]\nPublicKey = {}\nPresharedKey = {preshared}\nAllowedIPs = 0.0.0.0/0\n\
         Endpoint = 203.0.113.1:51820\n",
        keys.private,
        Keys::generate().public
    );
    site.configure("wg0", &text)?;
    let mut up = Command::new("strace");
    up.args([
        "-f",
        "-s",
        "100000",
        "-o",
        LOG,
        "-e",
        "trace=execve,execveat",
    ]);
    up.args([&site.place(&quick)?, "up", "wg0"]);
    site.environment(&mut up);
    let mut up = site.host.spawn(&mut up)?;
    until(PATIENCE, "the interface to be up", || {
        let routes = site.sh("ip rule")?;
        Ok(routes.contains("fwmark").then_some(()))
    })?;
    // strace ends with the daemon.
    site.run(&quick, &["down", "wg0"])?.success()?;
    up.success(PATIENCE)?;
    let calls = site.host.read(LOG)?;
    for program in ["wg-quick-rs", "wireguard-rs", "resolvconf"] {
        assert!(calls.contains(program), "{calls}");
    }
    assert_without([keys.private, preshared], &calls);
    Ok(())
}
