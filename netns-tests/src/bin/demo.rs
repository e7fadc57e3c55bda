//! The demonstration: two hosts, and a tunnel by `wireguard-rs` between them.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use clap::Parser;
use netns_tests::{
    Config, Daemon, End, Hosts, InterfaceState, Keys, PATIENCE, PeerConfig, Ping, Via, transfer,
};

/// Shows two hosts that talk through a WireGuard tunnel by wireguard-rs. Both are on this machine, and
/// are removed at the end. Needs root; changes nothing outside of its own network namespaces.
#[derive(Debug, Parser)]
#[command(name = "demo")]
struct Options {
    /// Megabytes to transfer.
    #[arg(long, default_value_t = 1000)]
    megabytes: u64,
}

fn main() -> ExitCode {
    match demo(Options::parse().megabytes * 1_000_000) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\ndemo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn demo(bytes: u64) -> io::Result<()> {
    say("Two hosts, alice and bob: two network namespaces, joined by a cable (a veth pair).");
    let Hosts {
        hosts: [alice, bob],
        lab,
    } = Hosts::new(1500)?;
    let bob_out = [192, 0, 2, 2];
    let (alice_in, bob_in) = ([10, 77, 0, 1], [10, 77, 0, 2]);
    detail("alice is 192.0.2.1, bob is 192.0.2.2: this is their \"internet\".");

    say("On each of them: wireguard-rs wg0");
    let daemon = Daemon::ours()?;
    let alice_wg = daemon.start(&alice, "wg0", Via::Uapi)?;
    let bob_wg = daemon.start(&bob, "wg0", Via::Uapi)?;
    detail("Each host has an interface wg0 now, and a socket by which `wg` can configure it.");

    say("Each gets a pair of keys and the other's public key; alice also gets bob's endpoint.");
    let (alice_keys, bob_keys) = (Keys::generate(), Keys::generate());
    let bob_peer = PeerConfig::new(bob_keys.public)
        .at((bob_out, End::PORT))
        .allow(bob_in, 32);
    alice_wg.set(&Config::new(&alice_keys, End::PORT).peer(bob_peer))?;
    let alice_peer = PeerConfig::new(alice_keys.public).allow(alice_in, 32);
    bob_wg.set(&Config::new(&bob_keys, End::PORT).peer(alice_peer))?;
    alice_wg.up(1420, &[(alice_in.into(), 24)])?;
    bob_wg.up(1420, &[(bob_in.into(), 24)])?;
    detail("Inside the tunnel alice is 10.77.0.1, bob is 10.77.0.2.");

    say("alice pings bob through the tunnel; the first ping starts the handshake.");
    let start = Instant::now();
    alice.reach(bob_in, PATIENCE)?;
    detail(&format!(
        "handshake and first answer  {:>6.2} ms",
        millis(start.elapsed())
    ));
    let pinged = alice.ping(&Ping {
        count: 100,
        ..Ping::to(bob_in)
    })?;
    let mut rtts = pinged.rtts.clone();
    rtts.sort_unstable();
    let (received, sent) = (pinged.received(), pinged.sent);
    let (Some(shortest), Some(median)) = (rtts.first(), rtts.get(received / 2)) else {
        return Err(io::Error::other("no ping was answered"));
    };
    detail(&format!(
        "{received} of {sent} pings answered; shortest {:.2} ms, median {:.2} ms",
        millis(*shortest),
        millis(*median)
    ));

    say(&format!(
        "alice sends bob {} MB over TCP; bob checks every byte.",
        bytes / 1_000_000
    ));
    let mut progress = Progress::new(bytes);
    let done = transfer(&alice, (&bob, bob_in.into()), bytes, |sent| {
        progress.show(sent)
    })?;
    progress.end();
    detail(&format!("{:.2} Gbit/s, checksums agree", done.rate() / 1e9));

    say("The state of alice's wg0, as `wg show` prints it:");
    println!("{}", show("wg0", &alice_keys, &alice_wg.get()?));

    say("The end: daemons, interfaces, hosts and cable are removed.");
    drop((alice_wg, bob_wg));
    drop(lab);
    detail("Nothing is left.");
    Ok(())
}

fn say(text: &str) {
    let (bold, plain) = if io::stdout().is_terminal() {
        ("\x1b[1m", "\x1b[0m")
    } else {
        ("", "")
    };
    println!("\n{bold}{text}{plain}");
}

fn detail(text: &str) {
    println!("  {text}");
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// A line that is overwritten, on a terminal.
struct Progress {
    total: u64,
    start: Instant,
    shown: Option<Instant>,
    terminal: bool,
}

impl Progress {
    fn new(total: u64) -> Progress {
        let terminal = io::stdout().is_terminal();
        Progress {
            total,
            start: Instant::now(),
            shown: None,
            terminal,
        }
    }

    fn show(&mut self, sent: u64) {
        let pause = Duration::from_millis(100);
        if !self.terminal || self.shown.is_some_and(|shown| shown.elapsed() < pause) {
            return;
        }
        self.shown = Some(Instant::now());
        let filled = (sent * 40 / self.total.max(1)) as usize;
        let rate = sent as f64 * 8.0 / self.start.elapsed().as_secs_f64().max(1e-3) / 1e9;
        print!(
            "\r  [{:<40}] {:>5} MB  {rate:.2} Gbit/s ",
            "#".repeat(filled),
            sent / 1_000_000
        );
        let _ = io::stdout().flush();
    }

    fn end(&self) {
        if self.terminal {
            print!("\r{:78}\r", "");
        }
    }
}

/// The state in the format of `wg show`.
fn show(name: &str, keys: &Keys, interface: &InterfaceState) -> String {
    let mut lines = vec![
        format!("interface: {name}"),
        format!("  public key: {}", keys.public),
        "  private key: (hidden)".into(),
        format!("  listening port: {}", interface.listen_port),
    ];
    for peer in &interface.peers {
        lines.push(String::new());
        lines.extend(peer.public_key.map(|key| format!("peer: {key}")));
        lines.extend(
            peer.endpoint
                .map(|endpoint| format!("  endpoint: {endpoint}")),
        );
        let networks: Vec<String> = peer
            .allowed_ips
            .iter()
            .map(|(address, prefix)| format!("{address}/{prefix}"))
            .collect();
        lines.push(format!("  allowed ips: {}", networks.join(", ")));
        lines.extend(peer.last_handshake.map(|at| {
            let ago = SystemTime::now()
                .duration_since(at)
                .unwrap_or_default()
                .as_secs();
            match ago {
                0 => "  latest handshake: Now".into(),
                1 => "  latest handshake: 1 second ago".into(),
                n => format!("  latest handshake: {n} seconds ago"),
            }
        }));
        let (rx, tx) = (size(peer.rx_bytes), size(peer.tx_bytes));
        lines.push(format!("  transfer: {rx} received, {tx} sent"));
    }
    lines
        .iter()
        .map(|line| format!("  {line}").trim_end().to_owned() + "\n")
        .collect()
}

fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB"] {
        if value < 1024.0 {
            return if unit == "B" {
                format!("{bytes} B")
            } else {
                format!("{value:.2} {unit}")
            };
        }
        value /= 1024.0;
    }
    format!("{value:.2} GiB")
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_as_wg_prints_them() {
        assert_eq!(size(4), "4 B");
        assert_eq!(size(1536), "1.50 KiB");
        assert_eq!(size(1_048_575), "1024.00 KiB");
        assert_eq!(size(3 << 30), "3.00 GiB");
    }
}
