//! Measures `wg-rs forward` beside onetun, which does the same with boringtun and smoltcp: the throughput of one
//! TCP stream, and the memory of many connections.
//!
//! ```text
//! client                                  server
//! program ─ 127.0.0.1 ─ forward │ onetun ── wireguard-rs ─ 10.9.0.1
//! ```

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use clap::Parser;
use netns_tests::way::{OUTSIDE, PORT, SERVER, Way, serve};
use netns_tests::{
    Config, Daemon, Host, Keys, PATIENCE, PeerConfig, Proc, binaries, process, until,
};
use nix::sys::socket::{setsockopt, sockopt::RcvBuf};

/// The required ratio of our throughput to onetun's.
const OF_ONETUN: f64 = 2.0;
/// The most memory that the connections may take: the budget of their windows and 32 MiB.
const MEMORY: u64 = (128 + 32) << 20;
/// The version of onetun that the required ratio is for.
const ONETUN: &str = "0.3.10";
const ONETUN_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 3);
const WARM_UP: Duration = Duration::from_millis(500);
const BLOCK: usize = 128 << 10;
/// A connection without progress for this time has failed.
const STALLED: Duration = Duration::from_secs(30);

/// Ports of the server: data sent to the first is counted, the second sends data, and the third sends data and
/// reads nothing.
const SINK: u16 = 1;
const SOURCE: u16 = 2;
const STUBBORN: u16 = 3;

/// Compares one TCP stream through `wg-rs forward` and through onetun, and measures the memory of many
/// connections. Needs root.
#[derive(Debug, Parser)]
#[command(name = "stack-bench")]
struct Options {
    /// Number of rounds. Each measures both in turn; the medians are compared.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Length of each measurement in seconds.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Number of connections whose memory is measured.
    #[arg(long, default_value_t = 1000)]
    flows: usize,
    /// Fail if forward is less than 2 times as fast as onetun in either direction, if the memory exceeds
    /// 160 MiB, or if onetun is absent.
    #[arg(long)]
    check: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

impl Direction {
    const ALL: [Direction; 2] = [Direction::Up, Direction::Down];

    fn name(self) -> &'static str {
        match self {
            Direction::Up => "upload",
            Direction::Down => "download",
        }
    }
}

/// A running forwarder, and the addresses at the client that lead to `SINK` and `SOURCE`.
struct Forwarder {
    name: &'static str,
    _proc: Proc,
    to: [SocketAddr; 2],
    /// Throughput in Mbit/s, by direction.
    rates: [Vec<f64>; 2],
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("stack-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether the requirements were met, or no check was requested.
fn run(options: &Options) -> io::Result<bool> {
    let window = Duration::try_from_secs_f64(options.seconds).map_err(io::Error::other)?;
    let way = Way::new(Daemon::ours()?)?;
    let received: Arc<AtomicU64> = Arc::default();
    serve_all(&way.server, &received)?;

    let version = Command::new(binaries::wg_rs()?).arg("--version").output()?;
    print!("{}, {}", process::cpu_name()?, kernel()?);
    print!("; {}", String::from_utf8_lossy(&version.stdout).trim());
    let mut forwarders = vec![forward(&way)?];
    match onetun() {
        Some(program) => {
            let version = Command::new(&program).arg("--version").output()?;
            println!("; {}", String::from_utf8_lossy(&version.stdout).trim());
            forwarders.push(start_onetun(&way, &program)?);
        }
        None => {
            println!();
            eprintln!(
                "stack-bench: ONETUN IS ABSENT, SO NOTHING IS COMPARED. To install it: cargo install \
                 --locked onetun --version {ONETUN}"
            );
        }
    }
    for round in 1..=options.rounds {
        for forwarder in &mut forwarders {
            print!("round {round}, {}:", forwarder.name);
            for direction in Direction::ALL {
                let to = forwarder.to[direction as usize];
                let rate = way
                    .client
                    .run(|| measure(to, direction, &received, window))?;
                print!(" {} {rate:.0}", direction.name());
                forwarder.rates[direction as usize].push(rate);
            }
            println!(" Mbit/s");
        }
    }
    let fast = compare(&forwarders);
    drop(forwarders);
    let memory = memory(&way, options.flows)?;
    println!(
        "{} connections with full windows take {} MiB at most; {} MiB are allowed",
        options.flows,
        memory >> 20,
        MEMORY >> 20
    );
    let met = fast && memory <= MEMORY;
    if options.check && !met {
        eprintln!(
            "stack-bench: forward must be {OF_ONETUN} times as fast as onetun in both directions, within \
             {} MiB",
            MEMORY >> 20
        );
    }
    Ok(met || !options.check)
}

/// Prints the medians. Whether the required ratio was reached; not if there is nothing to compare with.
fn compare(forwarders: &[Forwarder]) -> bool {
    let mut fast = forwarders.len() == 2;
    for direction in Direction::ALL {
        let medians = forwarders
            .iter()
            .map(|forwarder| median(forwarder.rates[direction as usize].clone()));
        let medians: Vec<f64> = medians.collect();
        print!("{}: forward {:.0}", direction.name(), medians[0]);
        match medians.get(1) {
            Some(onetun) => {
                let ratio = medians[0] / onetun;
                fast &= ratio >= OF_ONETUN;
                println!(", onetun {onetun:.0} Mbit/s: {ratio:.2} times as fast");
            }
            None => println!(" Mbit/s"),
        }
    }
    fast
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or_default()
}

fn kernel() -> io::Result<String> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(format!("Linux {}", release.trim()))
}

/// onetun, if it is on PATH or where Cargo installs programs.
fn onetun() -> Option<PathBuf> {
    let installed = || {
        let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo"));
        let program = cargo.or_else(home)?.join("bin/onetun");
        program.is_file().then_some(program)
    };
    binaries::on_path("onetun").or_else(installed)
}

fn serve_all(server: &Host, received: &Arc<AtomicU64>) -> io::Result<()> {
    let received = received.clone();
    serve(server, SINK, move |mut stream| {
        let mut block = vec![0; BLOCK];
        loop {
            match stream.read(&mut block)? {
                0 => return Ok(()),
                len => received.fetch_add(len as u64, Relaxed),
            };
        }
    });
    serve(server, SOURCE, |mut stream| {
        let block = vec![0x5a; BLOCK];
        loop {
            stream.write_all(&block)?;
        }
    });
    // Small buffers in the kernel, so that the connections' windows fill up.
    let listener = server.run(|| TcpListener::bind((SERVER, STUBBORN)))?;
    setsockopt(&listener, RcvBuf, &4096)?;
    std::thread::spawn(move || {
        let mut streams = Vec::new();
        for mut stream in listener.incoming().map_while(Result::ok) {
            let Ok(kept) = stream.try_clone() else {
                return;
            };
            streams.push(kept);
            std::thread::spawn(move || {
                let block = vec![0x5a; 16 << 10];
                while stream.write_all(&block).is_ok() {}
            });
        }
    });
    Ok(())
}

fn forward(way: &Way) -> io::Result<Forwarder> {
    let file = way.full_file(None)?;
    let [sink, source] = [SINK, SOURCE].map(|port| format!("0:{SERVER}:{port}"));
    let (proc, listening) = way.start(&["forward", &file, &sink, &source], 2)?;
    Ok(Forwarder {
        name: "forward",
        _proc: proc,
        to: [listening[0], listening[1]],
        rates: Default::default(),
    })
}

fn start_onetun(way: &Way, program: &PathBuf) -> io::Result<Forwarder> {
    let keys = Keys::generate();
    let peer = PeerConfig::new(keys.public).allow(ONETUN_ADDRESS, 32);
    way.wg.set(&Config::of(peer))?;
    let file = way.folder.join("onetun.key");
    std::fs::write(&file, keys.private.to_string())?;
    let to = [SINK, SOURCE].map(|port| SocketAddr::from(([127, 0, 0, 1], 7000 + port)));
    let mut command = Command::new(program);
    for (at, port) in to.iter().zip([SINK, SOURCE]) {
        command.arg(format!("{at}:{SERVER}:{port}"));
    }
    command.arg("--endpoint-addr");
    command.arg(SocketAddr::from((OUTSIDE, PORT)).to_string());
    command.args(["--endpoint-public-key", &way.keys[1].public.to_string()]);
    command.arg("--private-key-file").arg(file);
    command.args(["--source-peer-ip", &ONETUN_ADDRESS.to_string()]);
    command.args(["--log", "error"]);
    let mut proc = way.client.spawn(&mut command)?;
    let ready = until(PATIENCE, "onetun to listen", || {
        if let Some(status) = proc.ended()? {
            return Err(io::Error::other(format!("{status}: {}", proc.output())));
        }
        let connected = way.client.run(|| TcpStream::connect(to[0]));
        Ok(connected.is_ok().then_some(()))
    });
    ready.map_err(|error| io::Error::other(format!("onetun: {error}")))?;
    Ok(Forwarder {
        name: "onetun",
        _proc: proc,
        to,
        rates: Default::default(),
    })
}

fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(STALLED))?;
    stream.set_write_timeout(Some(STALLED))?;
    Ok(stream)
}

/// Returns the throughput of one stream in Mbit/s, by what has arrived at its end. It runs on the client.
fn measure(
    to: SocketAddr,
    direction: Direction,
    received: &AtomicU64,
    window: Duration,
) -> io::Result<f64> {
    let mut stream = connect(to)?;
    let mut block = vec![0x5a; BLOCK];
    let mut start = None;
    let mut begun = None;
    loop {
        let moved = match direction {
            Direction::Up => stream.write(&block)?,
            Direction::Down => {
                let len = stream.read(&mut block)?;
                received.fetch_add(len as u64, Relaxed);
                len
            }
        };
        if moved == 0 {
            return Err(io::Error::other(format!("{to}: the stream has ended")));
        }
        let now = Instant::now();
        let start = *start.get_or_insert(now);
        if now < start + WARM_UP {
            continue;
        }
        let (since, before) = *begun.get_or_insert_with(|| (now, received.load(Relaxed)));
        if now >= since + window {
            let bytes = received.load(Relaxed) - before;
            return Ok(bytes as f64 * 8.0 / (now - since).as_secs_f64() / 1e6);
        }
    }
}

/// Returns the peak memory of a forward with this many connections, of which neither end reads anything.
fn memory(way: &Way, flows: usize) -> io::Result<u64> {
    let file = way.full_file(None)?;
    let specification = format!("0:{SERVER}:{STUBBORN}");
    let (proc, listening) = way.start(&["forward", &file, &specification], 1)?;
    way.client.run(|| -> io::Result<()> {
        let mut streams = Vec::new();
        for _ in 0..flows {
            let stream = connect(listening[0])?;
            stream.set_nonblocking(true)?;
            streams.push(stream);
        }
        let block = vec![0x5a; 16 << 10];
        // Until nothing more has been taken for a second.
        let mut last = Instant::now();
        while last.elapsed() < Duration::from_secs(1) {
            for mut stream in &streams {
                match stream.write(&block) {
                    Ok(_) => last = Instant::now(),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    })?;
    process::peak_memory(proc.pid())
}
