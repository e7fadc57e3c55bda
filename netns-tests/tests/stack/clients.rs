//! Clients of others that need more than one connection: git and ssh.

use std::fs;
use std::io;
use std::net::TcpStream;
use std::process::Command;

use netns_tests::way::{SERVER, pattern};
use netns_tests::{PATIENCE, until};

use crate::{Cleanup, end, installed, ours};

#[test]
fn git_clones_through_forward() -> io::Result<()> {
    if !installed("git") {
        return Ok(());
    }
    let way = ours()?;
    let folder = std::env::temp_dir().join(format!("wg-rs-git-{}", std::process::id()));
    let clone = folder.join("clone");
    let repository = folder.join("repository");
    fs::create_dir_all(&repository)?;
    let cleanup = Cleanup(&folder);
    let (base, repository) = (folder.to_string_lossy(), repository.to_string_lossy());
    let git = |args: &[&str]| {
        let identity = ["-c", "user.name=x", "-c", "user.email=x@example"];
        way.server.sh("git", &[&identity, args].concat())
    };
    git(&["init", "-q", &repository])?;
    fs::write(folder.join("repository/file"), pattern(1_000_000, 1))?;
    git(&["-C", &repository, "add", "file"])?;
    git(&["-C", &repository, "commit", "-qm", "one"])?;
    let base_path = format!("--base-path={base}");
    let mut daemon = Command::new("git");
    daemon.args([
        "daemon",
        "--export-all",
        "--reuseaddr",
        "--listen=10.9.0.1",
        &base_path,
    ]);
    let _daemon = way.server.spawn(&mut daemon)?;
    until(PATIENCE, "git's daemon", || {
        Ok(way.server.run(|| TcpStream::connect((SERVER, 9418))).ok())
    })?;
    let file = way.full_file(None)?;
    let (proc, listening) = way.start(&["forward", &file, "0:10.9.0.1:9418"], 1)?;
    let url = format!("git://{}/repository", listening[0]);
    way.client
        .sh("git", &["clone", "-q", &url, &clone.to_string_lossy()])?;
    assert!(fs::read(clone.join("file"))? == pattern(1_000_000, 1));
    drop(cleanup);
    end(proc)
}

/// ssh gets its connection from a program: `nc`, which asks the proxy for it.
#[test]
fn ssh_connects_through_socks() -> io::Result<()> {
    for program in ["ssh", "ssh-keygen", "sshd", "nc.openbsd"] {
        if !installed(program) {
            return Ok(());
        }
    }
    let way = ours()?;
    let path = |name: &str| way.folder.join(name).to_string_lossy().into_owned();
    let (host_key, own_key) = (path("host"), path("own"));
    for key in [&host_key, &own_key] {
        let args = ["-q", "-t", "ed25519", "-N", "", "-f", key];
        way.server.sh("ssh-keygen", &args)?;
    }
    let config = format!(
        "ListenAddress {SERVER}\nHostKey {host_key}\nAuthorizedKeysFile {own_key}.pub\n\
         PermitRootLogin yes\nStrictModes no\nUsePAM no\nPidFile none\n"
    );
    let config = way.write("sshd_config", &config)?;
    // It runs in a mount namespace of its own, and needs an empty folder.
    let script =
        "mount -t tmpfs none /run && mkdir /run/sshd && exec \"$(command -v sshd)\" -D -e -f $0";
    let mut server = Command::new("unshare");
    server.args(["--mount", "sh", "-c", script, &config]);
    let server = way.server.spawn(&mut server)?;
    until(PATIENCE, "sshd", || {
        Ok(way.server.run(|| TcpStream::connect((SERVER, 22))).ok())
    })?;
    let file = way.full_file(None)?;
    let (proc, listening) = way.start(&["socks", &file, "127.0.0.1:0"], 1)?;
    let text: String = pattern(300_000, 1)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    for protocol in ["5", "connect"] {
        let by = format!(
            "ProxyCommand=nc.openbsd -X {protocol} -x {} %h %p",
            listening[0]
        );
        let user = format!("root@{SERVER}");
        let args = [
            "-F",
            "none",
            "-i",
            &own_key,
            "-oBatchMode=yes",
            "-oLogLevel=ERROR",
            "-oStrictHostKeyChecking=no",
            "-oUserKnownHostsFile=/dev/null",
            "-o",
            &by,
            &user,
            "cat",
        ];
        let got = way.client.sh_with("ssh", &args, &text);
        let got = got.map_err(|error| io::Error::other(format!("{error}; {}", server.output())))?;
        assert!(got == text, "other bytes than those sent: {}", got.len());
    }
    end(proc)
}
