//! `wg-rs forward` and `wg-rs socks`, run by a user without root, without capabilities and without
//! /dev/net/tun, to a server behind a WireGuard daemon.

mod clients;
mod relay;

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use netns_tests::way::{
    SERVER, SERVER_V6, Way, dns, echo, get, http, lossy, pattern, round, serve,
};
use netns_tests::{Daemon, Host, NameServer, PATIENCE, Proc, binaries, process, require, until};
use nix::sys::signal::Signal;

/// The time limit for steps that take long on a busy machine.
const LONG: Duration = Duration::from_secs(240);

fn installed(program: &str) -> bool {
    require(program, binaries::on_path(program)).is_some()
}

fn ours() -> io::Result<Way> {
    Way::new(Daemon::ours()?)
}

/// Our daemon, and wireguard-go if it is installed.
fn daemons() -> io::Result<Vec<Daemon>> {
    let mut daemons = vec![Daemon::ours()?];
    daemons.extend(require("wireguard-go", Daemon::installed("wireguard-go")));
    Ok(daemons)
}

fn end(mut proc: Proc) -> io::Result<()> {
    proc.signal(Signal::SIGTERM)?;
    let status = proc.wait(PATIENCE)?;
    assert!(status.success(), "{status}: {}", proc.output());
    Ok(())
}

fn on(host: &Host, work: impl FnOnce() -> io::Result<()> + Send) -> io::Result<()> {
    host.run(work)
}

#[test]
fn curl_reaches_a_server_through_both_commands() -> io::Result<()> {
    if !installed("curl") {
        return Ok(());
    }
    for daemon in daemons()? {
        let way = Way::new(daemon)?;
        http(&way.server, 80, "hello\n");
        let (_names, asked) = dns(&way.server)?;
        let file = way.full_file(None)?;

        let v6 = format!("0:[{SERVER_V6}]:80");
        let args = [
            "forward",
            &file,
            "0:10.9.0.1:80",
            "-L",
            &v6,
            "0:web.example:80",
        ];
        let (proc, listening) = way.start(&args, 3)?;
        for at in listening {
            assert!(at.ip().is_loopback());
            assert_eq!(way.curl(&[&format!("http://{at}/")])?, "hello\n");
        }
        way.until_said(&proc, "The tunnel is up: peer ")?;
        end(proc)?;

        let (proc, listening) = way.start(&["socks", &file, "127.0.0.1:0"], 1)?;
        let at = listening[0];
        let (socks, names, http) = (
            format!("socks5://{at}"),
            format!("socks5h://{at}"),
            format!("http://{at}"),
        );
        let v6 = format!("http://[{SERVER_V6}]/");
        for args in [
            ["--proxy", &socks, "http://10.9.0.1/"],
            ["--proxy", &socks, &v6],
            ["--proxy", &names, "http://web.example/"],
            ["--proxy", &http, "http://web.example/"],
            ["--proxy", &http, &v6],
        ] {
            let args = [&["--proxytunnel"], &args[..]].concat();
            assert_eq!(way.curl(&args)?, "hello\n", "{args:?}: {}", proc.output());
        }
        // A name that does not exist, a closed port, and an address that no peer has.
        for url in [
            "http://none.example/",
            "http://10.9.0.1:9/",
            "http://192.0.2.2/",
        ] {
            assert!(way.curl(&["--proxy", &names, url]).is_err(), "{url}");
        }
        assert!(
            asked
                .lock()
                .unwrap()
                .iter()
                .any(|name| name == "none.example")
        );
        let output = proc.output();
        assert!(
            output.contains("10.9.0.1:9: connection refused"),
            "{output}"
        );
        assert!(
            output.contains("no peer has 192.0.2.2 among its AllowedIPs"),
            "{output}"
        );
        end(proc)?;
    }
    Ok(())
}

#[test]
fn names_are_never_asked_for_outside() -> io::Result<()> {
    if !installed("curl") {
        return Ok(());
    }
    let way = ours()?;
    let file = way.file(None, &[])?;
    let address = ["--address", "10.9.0.2"];
    let args = [&["socks", &file, "127.0.0.1:0"], &address[..]].concat();
    let (proc, listening) = way.start(&args, 1)?;
    // `localhost` is known to every system, but not to a tunnel without DNS.
    let proxy = format!("socks5h://{}", listening[0]);
    assert!(way.curl(&["--proxy", &proxy, "http://localhost/"]).is_err());
    way.until_said(
        &proc,
        "cannot resolve localhost: no DNS server is configured",
    )?;
    end(proc)
}

#[test]
fn a_hundred_megabytes_go_both_ways() -> io::Result<()> {
    let way = ours()?;
    echo(&way.server, 7);
    let file = way.full_file(None)?;
    let (proc, listening) = way.start(&["forward", &file, "0:10.9.0.1:7"], 1)?;
    on(&way.client, || round(listening[0], 100_000_000, 1))?;
    end(proc)
}

fn resident(pid: i32) -> io::Result<u64> {
    let text = process::status(pid, "VmRSS")?;
    let digits = text.trim_end_matches("kB").trim();
    digits.parse().map_err(io::Error::other)
}

#[test]
fn a_thousand_connections_at_once_free_everything_at_their_end() -> io::Result<()> {
    const FLOWS: usize = 1000;
    let way = ours()?;
    echo(&way.server, 7);
    let file = way.full_file(None)?;
    let (proc, listening) = way.start(&["forward", &file, "0:10.9.0.1:7"], 1)?;
    let at = listening[0];
    // With the first datagram to a peer it opens another descriptor, for questions about routes.
    way.until_said(&proc, "The tunnel is up")?;
    let before = process::descriptors(proc.pid())?;
    on(&way.client, || round(at, 10, 0))?;
    let streams = way.client.run(|| -> io::Result<Vec<TcpStream>> {
        let mut streams = Vec::new();
        for n in 0..FLOWS {
            let mut stream = TcpStream::connect(at)?;
            stream.set_read_timeout(Some(LONG))?;
            stream.write_all(&pattern(5000, n as u64))?;
            streams.push(stream);
        }
        let mut got = vec![0; 5000];
        for (n, mut stream) in streams.iter().enumerate() {
            stream.read_exact(&mut got)?;
            // With this many at once, the server answers with SYN cookies.
            assert!(got == pattern(5000, n as u64), "connection {n}");
        }
        Ok(streams)
    })?;
    assert!(process::descriptors(proc.pid())? >= FLOWS);
    let most = resident(proc.pid())?;
    assert!(
        most <= (128 + 32) << 10,
        "{most} KiB for {FLOWS} connections"
    );
    drop(streams);
    until(LONG, "the descriptors to be closed", || {
        Ok((process::descriptors(proc.pid())? <= before).then_some(()))
    })?;
    // smoltcp keeps ended connections for ten seconds, its TIME-WAIT.
    until(LONG, "the memory to be free", || {
        Ok((resident(proc.pid())? < most.min(48 << 10)).then_some(()))
    })?;
    end(proc)
}

#[test]
fn a_connection_ends_or_breaks_when_its_other_end_does() -> io::Result<()> {
    let way = ours()?;
    // The server reads a word, and then does what it says.
    serve(&way.server, 7, |mut stream| {
        let mut word = [0; 4];
        stream.read_exact(&mut word)?;
        match &word {
            b"half" => {
                stream.write_all(b"half")?;
                stream.shutdown(Shutdown::Write)?;
                let mut rest = Vec::new();
                stream.read_to_end(&mut rest)?;
                assert_eq!(rest, b"the other half");
                Ok(())
            }
            // If data was not read, the close becomes a reset.
            _ => stream.peek(&mut [0; 1]).map(drop),
        }
    });
    let file = way.full_file(None)?;
    let args = ["forward", &file, "0:10.9.0.1:7", "0:10.9.0.1:9"];
    let (proc, listening) = way.start(&args, 2)?;
    on(&way.client, || {
        let connect = |at| -> io::Result<TcpStream> {
            let stream = TcpStream::connect(at)?;
            stream.set_read_timeout(Some(LONG))?;
            Ok(stream)
        };
        let mut stream = connect(listening[0])?;
        stream.write_all(b"half")?;
        let mut got = Vec::new();
        stream.read_to_end(&mut got)?;
        assert_eq!(got, b"half");
        stream.write_all(b"the other half")?;
        drop(stream);

        let mut stream = connect(listening[0])?;
        stream.write_all(b"gone, and this is not read")?;
        let error = stream.read(&mut [0; 9]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);

        // Nothing listens on this port.
        let mut stream = connect(listening[1])?;
        let error = stream.read(&mut [0; 9]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        Ok(())
    })?;
    end(proc)
}

#[test]
fn a_stream_survives_a_restart_of_the_peer() -> io::Result<()> {
    let mut way = ours()?;
    echo(&way.server, 7);
    let file = way.full_file(None)?;
    let (proc, listening) = way.start(&["forward", &file, "0:10.9.0.1:7"], 1)?;
    let mut stream = way.client.run(|| TcpStream::connect(listening[0]))?;
    stream.set_read_timeout(Some(LONG))?;
    let mut word = |text: &[u8]| -> io::Result<()> {
        stream.write_all(text)?;
        let mut got = vec![0; text.len()];
        stream.read_exact(&mut got)?;
        assert_eq!(got, text);
        Ok(())
    };
    word(b"before")?;
    way.restart_server()?;
    word(b"after")?;
    end(proc)
}

#[test]
fn failures_are_reported() -> io::Result<()> {
    let way = ours()?;
    let file = way.full_file(Some(([192, 0, 2, 2], 9).into()))?;
    let (proc, _) = way.start(&["forward", &file, "0:10.9.0.1:7"], 1)?;
    way.until_said(&proc, "at 192.0.2.2:9 does not answer: ")?;
    end(proc)?;
    let plain = way.file(None, &[])?;
    for (args, text) in [
        (
            &["forward", &plain, "1:a:2"][..],
            "there is no Address in [Interface]",
        ),
        (
            &["forward", "/nowhere.conf", "1:a:2"],
            "/nowhere.conf: No such file",
        ),
        (
            &["forward", &plain, "0.0.0.0:1:a:2"],
            "give --allow-remote if that is wanted",
        ),
        (
            &["socks", &plain, "0.0.0.0:1080"],
            "give --allow-remote if that is wanted",
        ),
        (&["forward", &plain], "Nothing to forward"),
        (&["forward", &plain, "1:a"], "is not of the form"),
    ] {
        let mut proc = way.spawn(args)?;
        let status = proc.wait(PATIENCE)?;
        let output = proc.output();
        assert!(
            status.code() == Some(1) && output.contains(text),
            "{args:?}: {output}"
        );
    }
    Ok(())
}

#[test]
fn ports_are_forwarded_out_of_the_tunnel() -> io::Result<()> {
    let way = ours()?;
    http(&way.client, 8000, "from the client\n");
    let file = way.full_file(None)?;
    let (proc, _) = way.start(&["forward", &file, "-R", "80:127.0.0.1:8000"], 1)?;
    // The server learns the client's endpoint from its handshake.
    way.until_said(&proc, "The tunnel is up")?;
    way.server.run(|| -> io::Result<()> {
        let mut stream = TcpStream::connect(("10.9.0.2", 80))?;
        stream.set_read_timeout(Some(LONG))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        assert!(page.ends_with("from the client\n"), "{page}");
        // A connection to another port is refused.
        let error = TcpStream::connect(("10.9.0.2", 81)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        Ok(())
    })?;
    end(proc)
}

/// A DNS question for `web.example`, as bytes.
const QUESTION: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03web\x07example\0\0\x01\0\x01";

#[test]
fn dns_over_udp() -> io::Result<()> {
    let way = ours()?;
    let _names = dns(&way.server)?;
    let file = way.full_file(None)?;
    let (proc, listening) = way.start(&["forward", &file, "udp/0:10.9.0.1:53"], 1)?;
    on(&way.client, || {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(LONG))?;
        socket.send_to(QUESTION, listening[0])?;
        let mut answer = [0; 512];
        let len = socket.recv(&mut answer)?;
        assert!(answer[..len].ends_with(&SERVER.octets()));
        Ok(())
    })?;
    if installed("dig") {
        let port = listening[0].port().to_string();
        let args = ["@127.0.0.1", "-p", &port, "+short", "web.example"];
        assert_eq!(way.client.sh("dig", &args)?, "10.9.0.1\n");
    }
    end(proc)?;

    // UDP ASSOCIATE (RFC 1928, section 7), by address and by name.
    let (proc, listening) = way.start(&["socks", &file, "127.0.0.1:0"], 1)?;
    on(&way.client, || {
        let mut control = TcpStream::connect(listening[0])?;
        control.set_read_timeout(Some(LONG))?;
        control.write_all(b"\x05\x01\0\x05\x03\0\x01\0\0\0\0\0\0")?;
        let mut reply = [0; 12];
        control.read_exact(&mut reply)?;
        assert_eq!(reply[..6], [5, 0, 5, 0, 0, 1]);
        let at = SocketAddr::from(([127, 0, 0, 1], u16::from_be_bytes([reply[10], reply[11]])));
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(LONG))?;
        for head in [
            &b"\0\0\0\x01\x0a\x09\0\x01\0\x35"[..],
            b"\0\0\0\x03\x02ns\0\x35",
        ] {
            socket.send_to(&[head, QUESTION].concat(), at)?;
            let mut answer = [0; 512];
            let len = socket.recv(&mut answer)?;
            assert_eq!(answer[..10], *b"\0\0\0\x01\x0a\x09\0\x01\0\x35");
            assert!(answer[..len].ends_with(&SERVER.octets()));
        }
        Ok(())
    })?;
    end(proc)
}

#[test]
fn streams_survive_a_path_that_loses_and_reorders() -> io::Result<()> {
    let way = ours()?;
    echo(&way.server, 7);
    let stop = Arc::new(AtomicBool::new(false));
    let file = way.full_file(Some(lossy(&way.client, &stop)))?;
    let (proc, listening) = way.start(&["forward", &file, "0:10.9.0.1:7"], 1)?;
    let at = listening[0];
    let rounds = (0..4).map(|n| way.client.thread(move || round(at, 300_000, n)));
    for round in rounds.collect::<Vec<_>>() {
        round.join().expect("no panic")?;
    }
    stop.store(true, Ordering::Relaxed);
    end(proc)
}

struct Cleanup<'a>(&'a Path);

impl Drop for Cleanup<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.0);
    }
}

/// The name of the endpoint leads to nobody at first, as the server has moved.
#[test]
fn the_name_of_a_silent_endpoint_is_looked_up_again() -> io::Result<()> {
    let way = ours()?;
    http(&way.server, 80, "hello\n");
    let moved = Arc::new(AtomicBool::new(false));
    let has_moved = moved.clone();
    let _names = NameServer::start(&way.client, Ipv4Addr::LOCALHOST, move |name| {
        let last = if has_moved.load(Ordering::Relaxed) {
            2
        } else {
            77
        };
        (name == "vpn.example").then_some(Ipv4Addr::new(192, 0, 2, last))
    })?;
    let servers = way.write("resolv.conf", "nameserver 127.0.0.1\n")?;
    let services = way.write("nsswitch.conf", "hosts: dns\n")?;
    // This host has a mount namespace of its own.
    (way.client).sh("mount", &["--bind", &servers, "/etc/resolv.conf"])?;
    (way.client).sh("mount", &["--bind", &services, "/etc/nsswitch.conf"])?;
    let file = way.full_file(None)?;
    let text = fs::read_to_string(&file)?.replace("192.0.2.2:", "vpn.example:");
    fs::write(&file, text)?;
    let (proc, listening) = way.start(&["forward", &file, "0:10.9.0.1:80"], 1)?;
    moved.store(true, Ordering::Relaxed);
    way.until_said(&proc, "at 192.0.2.77:51820 does not answer: ")?;
    way.until_said(&proc, "at 192.0.2.2:51820 answers")?;
    let page = way
        .client
        .run(|| TcpStream::connect(listening[0]).and_then(get))?;
    assert_eq!(page, "hello\n");
    // After a signal it prints its status.
    proc.signal(Signal::SIGUSR1)?;
    way.until_said(&proc, "connected, last handshake ")?;
    end(proc)
}

/// The daemon does not contain smoltcp: only `wg-rs` has smoltcp's file names, which its panics contain.
#[test]
fn the_daemon_does_not_contain_the_stack() -> io::Result<()> {
    if !installed("strip") {
        return Ok(());
    }
    let folder = std::env::temp_dir().join(format!("wg-rs-strip-{}", std::process::id()));
    fs::create_dir(&folder)?;
    let _cleanup = Cleanup(&folder);
    let has = |program| -> io::Result<bool> {
        let stripped = folder.join(program);
        let mut strip = Command::new("strip");
        strip.arg("-o").arg(&stripped);
        let status = strip.arg(binaries::build(program)?).status()?;
        assert!(status.success());
        let bytes = fs::read(stripped)?;
        Ok(bytes.windows(8).any(|window| window == b"smoltcp-"))
    };
    assert!(has("wg-rs")? && !has("wireguard-rs")?);
    Ok(())
}
