//! A server behind a WireGuard daemon, and a client host whose user has no privileges: no root, no
//! capabilities, no /dev/net/tun.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket,
};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::{
    Config, Daemon, Host, Keys, Lab, NameServer, PATIENCE, PeerConfig, Proc, Via, Wg, binaries,
    until,
};

/// The user ID of nobody, who has no privileges.
const NOBODY: &str = "65534";
/// The UDP port of the server's daemon.
pub const PORT: u16 = 51820;
/// The server's addresses in the tunnel.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
/// See [`SERVER`].
pub const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 2);
/// The server's address on the cable between the two.
pub const OUTSIDE: [u8; 4] = [192, 0, 2, 2];

/// The two hosts. `wg-rs` on the client is the daemon's only peer.
pub struct Way {
    /// The interface of the server's daemon.
    pub wg: Wg,
    daemon: Daemon,
    /// The keys of the client and of the server.
    pub keys: [Keys; 2],
    /// A folder that the user without privileges can read; it is removed at the end.
    pub folder: PathBuf,
    /// The host of `wg-rs`.
    pub client: Host,
    /// The host of the daemon.
    pub server: Host,
    /// The owner of the hosts.
    pub lab: Lab,
}

impl Drop for Way {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Way {
    /// Joins the hosts by a cable, and starts the daemon at the server.
    pub fn new(daemon: Daemon) -> io::Result<Way> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let lab = Lab::new()?;
        let (client, server) = (lab.host("client")?, lab.host("server")?);
        lab.cable((&client, "eth0"), (&server, "eth0"), 1500)?;
        client.address("eth0", [192, 0, 2, 1], 24)?;
        server.address("eth0", OUTSIDE, 24)?;
        let keys = [Keys::generate(), Keys::generate()];
        let wg = start(&daemon, &server, &keys)?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = format!("wg-rs-stack-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        fs::create_dir(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
        // The user may not be able to read the build folder.
        fs::copy(binaries::wg_rs()?, folder.join("wg-rs"))?;
        Ok(Way {
            wg,
            daemon,
            keys,
            folder,
            client,
            server,
            lab,
        })
    }

    /// Kills the daemon as if its host had lost power, and starts it again without its sessions.
    pub fn restart_server(&mut self) -> io::Result<()> {
        self.wg.kill()?;
        self.wg = start(&self.daemon, &self.server, &self.keys)?;
        Ok(())
    }

    /// Writes the client's file. The endpoint is the server's unless another one is given.
    pub fn file(&self, endpoint: Option<SocketAddr>, extra: &[&str]) -> io::Result<String> {
        let endpoint = endpoint.unwrap_or(SocketAddr::from((OUTSIDE, PORT)));
        let peer = PeerConfig::new(self.keys[1].public)
            .at(endpoint)
            .allow([10, 9, 0, 0], 24)
            .allow(Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 0), 64);
        let config = Config {
            private_key: Some(self.keys[0].private),
            ..Config::default()
        };
        self.write("wg0.conf", &config.peer(peer).file(extra))
    }

    /// Writes any file that the user without privileges can read. Returns its path.
    pub fn write(&self, name: &str, text: &str) -> io::Result<String> {
        let path = self.folder.join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
        Ok(path.to_string_lossy().into_owned())
    }

    /// Writes the client's file with its addresses, and the server as its DNS server.
    pub fn full_file(&self, endpoint: Option<SocketAddr>) -> io::Result<String> {
        let address = format!("Address = {CLIENT}/24, {CLIENT_V6}/64");
        let dns = format!("DNS = {SERVER}");
        self.file(endpoint, &[&address, &dns, "PostUp = touch /tmp/never"])
    }

    /// Starts `wg-rs` at the client as the user without privileges.
    pub fn spawn(&self, args: &[&str]) -> io::Result<Proc> {
        let program = self.folder.join("wg-rs");
        // It runs in a mount namespace of its own, where /dev/net is empty.
        let script = "mount -t tmpfs none /dev/net 2> /dev/null || test ! -e /dev/net/tun || exit 9; \
                      exec setpriv --reuid=$0 --regid=$0 --clear-groups --bounding-set=-all \
                      --inh-caps=-all --ambient-caps=-all --no-new-privs -- \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "/bin/sh", "-c", script, NOBODY]);
        command.arg(program).args(args);
        self.client.spawn(&mut command)
    }

    /// As [`Way::spawn`]; waits until `wg-rs` has printed `count` addresses that it listens on, and checks
    /// that it has no privileges.
    pub fn start(&self, args: &[&str], count: usize) -> io::Result<(Proc, Vec<SocketAddr>)> {
        let mut proc = self.spawn(args)?;
        let listening = until(PATIENCE, "`Listening on'", || {
            if let Some(status) = proc.ended()? {
                return Err(io::Error::other(format!("{status}: {}", proc.output())));
            }
            let output = proc.output();
            let lines = output.lines();
            let lines = lines.filter_map(|line| line.strip_prefix("Listening on "));
            let all: Vec<SocketAddr> = lines
                .map(|line| {
                    let word = line.split(',').next().unwrap_or_default();
                    let word = word.trim_start_matches("udp/");
                    // For a port inside the tunnel it prints only the number.
                    let inside = SocketAddr::from(([0, 0, 0, 0], 0));
                    word.parse().unwrap_or(inside)
                })
                .collect();
            Ok((all.len() == count).then_some(all))
        })?;
        assert_unprivileged(&proc)?;
        Ok((proc, listening))
    }

    /// Waits until `wg-rs` prints this text.
    pub fn until_said(&self, proc: &Proc, text: &str) -> io::Result<()> {
        until(2 * PATIENCE, text, || {
            Ok(proc.output().contains(text).then_some(()))
        })
        .map_err(|error| io::Error::other(format!("{error}: {}", proc.output())))
    }

    /// Runs curl at the client. Returns its output with a newline at the end.
    pub fn curl(&self, args: &[&str]) -> io::Result<String> {
        let common = [
            "--silent",
            "--show-error",
            "--fail",
            "--noproxy",
            "",
            "--max-time",
            "25",
        ];
        self.client.sh("curl", &[&common, args].concat())
    }
}

/// Checks that the process runs as the user without privileges.
pub fn assert_unprivileged(proc: &Proc) -> io::Result<()> {
    let status = fs::read_to_string(format!("/proc/{}/status", proc.pid()))?;
    assert!(status.contains(&format!("Uid:\t{NOBODY}\t")), "{status}");
    assert!(status.contains("CapBnd:\t0000000000000000"), "{status}");
    Ok(())
}

fn start(daemon: &Daemon, server: &Host, keys: &[Keys; 2]) -> io::Result<Wg> {
    let wg = daemon.start(server, "wg0", Via::Uapi)?;
    let peer = PeerConfig::new(keys[0].public)
        .allow(CLIENT, 32)
        .allow(CLIENT_V6, 128);
    wg.set(&Config::new(&keys[1], PORT).peer(peer))?;
    wg.up(1420, &[(SERVER.into(), 24), (SERVER_V6.into(), 64)])?;
    Ok(wg)
}

/// Serves each connection to a port, at all addresses, on a thread of its own. The listener's thread is
/// never joined; it ends with the test process.
pub fn serve(
    host: &Host,
    port: u16,
    work: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static,
) {
    let listener = host.run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap());
    let work = Arc::new(work);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let work = work.clone();
            thread::spawn(move || work(stream));
        }
    });
}

/// Answers HTTP requests with this text.
pub fn http(host: &Host, port: u16, text: &'static str) {
    serve(host, port, move |mut stream| {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte)? == 1 {
            head.push(byte[0]);
        }
        write!(
            stream,
            "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{text}",
            text.len()
        )
    });
}

/// Sends a request on a connection to such a server, and returns what follows the head of the answer.
pub fn get(mut stream: TcpStream) -> io::Result<String> {
    stream.set_read_timeout(Some(2 * PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    match page.split_once("\r\n\r\n") {
        Some((_, body)) => Ok(body.to_owned()),
        None => Err(io::Error::other(format!("not an answer: {page:?}"))),
    }
}

/// Connects to a host by its name or address through a SOCKS5 proxy (RFC 1928).
pub fn socks(proxy: SocketAddr, host: &str, port: u16) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(proxy)?;
    stream.set_read_timeout(Some(2 * PATIENCE))?;
    let mut request = b"\x05\x01\0\x05\x01\0\x03".to_vec();
    request.push(host.len() as u8);
    request.extend(host.as_bytes());
    request.extend(port.to_be_bytes());
    stream.write_all(&request)?;
    let mut answer = [0; 6];
    stream.read_exact(&mut answer)?;
    if answer[..5] != [5, 0, 5, 0, 0] {
        return Err(io::Error::other(format!("the proxy refuses: {answer:?}")));
    }
    let address = if answer[5] == 4 { 16 } else { 4 };
    stream.read_exact(&mut vec![0; address + 2])?;
    Ok(stream)
}

/// Sends all received data back.
pub fn echo(host: &Host, port: u16) {
    serve(host, port, |mut stream| {
        let mut bytes = vec![0; 64 << 10];
        loop {
            match stream.read(&mut bytes)? {
                0 => return Ok(()),
                len => stream.write_all(&bytes[..len])?,
            }
        }
    });
}

/// Bytes that depend on their position and on `seed`.
pub fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| next()).collect();
    bytes.truncate(len);
    bytes
}

/// Sends `len` bytes from the client to an echo server, and expects them back.
pub fn round(to: SocketAddr, len: usize, seed: u64) -> io::Result<()> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(8 * PATIENCE))?;
    let sent = pattern(len, seed);
    let mut writer = stream.try_clone()?;
    let expected = sent.clone();
    let writes = thread::spawn(move || {
        writer.write_all(&sent)?;
        writer.shutdown(Shutdown::Write)
    });
    let mut got = Vec::with_capacity(len);
    stream.read_to_end(&mut got)?;
    writes.join().expect("no panic")?;
    assert_eq!(got.len(), expected.len());
    assert!(got == expected, "other bytes than those sent");
    Ok(())
}

/// Answers each DNS question for an address with the server's address, except for names that begin with
/// `no`. Returns the running name server, and the names that were asked for.
pub fn dns(host: &Host) -> io::Result<(NameServer, Arc<Mutex<Vec<String>>>)> {
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let names = asked.clone();
    let server = NameServer::start(host, SERVER, move |name| {
        names.lock().unwrap().push(name.to_owned());
        (!name.starts_with("no")).then_some(SERVER)
    })?;
    Ok((server, asked))
}

/// Relays datagrams between the client's loopback interface and the server, and loses and reorders some in
/// both directions.
pub fn lossy(client: &Host, stop: &Arc<AtomicBool>) -> SocketAddr {
    let (near, far) = client.run(|| {
        let near = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let far = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        far.connect((IpAddr::from(OUTSIDE), PORT)).unwrap();
        (near, far)
    });
    let address = near.local_addr().unwrap();
    let client: Arc<Mutex<Option<SocketAddr>>> = Arc::default();
    for inward in [true, false] {
        let (near, far) = (near.try_clone().unwrap(), far.try_clone().unwrap());
        let (client, stop) = (client.clone(), stop.clone());
        let from = if inward { &near } else { &far };
        from.set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        thread::spawn(move || {
            let mut bytes = [0; 2048];
            let mut held: Option<Vec<u8>> = None;
            let mut count = 0u32;
            while !stop.load(Ordering::Relaxed) {
                let send = |datagram: &[u8]| {
                    let _ = match *client.lock().unwrap() {
                        _ if inward => far.send(datagram),
                        Some(client) => near.send_to(datagram, client),
                        None => Ok(0),
                    };
                };
                let received = if inward {
                    near.recv_from(&mut bytes).map(|(len, sender)| {
                        *client.lock().unwrap() = Some(sender);
                        len
                    })
                } else {
                    far.recv(&mut bytes)
                };
                let Ok(len) = received else {
                    held.take().inspect(|held| send(held));
                    continue;
                };
                count += 1;
                match count {
                    // Every 50th datagram is lost, and every 17th is delayed until after the next one.
                    _ if count.is_multiple_of(50) => {}
                    _ if count.is_multiple_of(17) => held = Some(bytes[..len].to_vec()),
                    _ => {
                        send(&bytes[..len]);
                        held.take().inspect(|held| send(held));
                    }
                }
            }
        });
    }
    address
}
