//! `wg-rs metrics`: Prometheus's own parser reads the output, and clients that stall do not keep other
//! clients from being served.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;

use netns_tests::{Daemon, Host, PATIENCE, Plan, Proc, Tunnel, binaries, require, until};
use nix::sys::signal::Signal;
use serde::Deserialize;

/// Prints what Prometheus's own client for Python reads: name, labels and value of each sample, and the
/// type of its family.
const PARSER: &str = r#"
import json, sys
from prometheus_client.parser import text_string_to_metric_families
families = list(text_string_to_metric_families(sys.stdin.read()))
print(json.dumps([
    [sample.name, sample.labels, sample.value, family.type]
    for family in families for sample in family.samples
]))
"#;

/// A sample, and the type of its family.
#[derive(Debug, Deserialize)]
struct Sample(String, BTreeMap<String, String>, f64, String);

/// The system's Python, if it has the parser.
fn python() -> Option<&'static str> {
    let python = "/usr/bin/python3";
    let import = Command::new(python)
        .args(["-c", "import prometheus_client"])
        .output();
    let found = import.is_ok_and(|import| import.status.success());
    require("python3 with prometheus_client", found.then_some(python))
}

/// Parses the text, every line of which must be valid.
fn parse(python: &str, host: &Host, text: &str) -> io::Result<Vec<Sample>> {
    let samples = host.sh_with(python, &["-c", PARSER], text)?;
    let samples: Vec<Sample> = serde_json::from_str(&samples)?;
    let lines = text.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(samples.len(), lines, "{text}");
    for sample in &samples {
        let kind = if sample.0.ends_with("_total") {
            "counter"
        } else {
            "gauge"
        };
        assert_eq!(sample.3, kind, "{sample:?}");
    }
    Ok(samples)
}

/// The value of the only sample of this metric with these labels.
fn value(samples: &[Sample], metric: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let is_it = |Sample(name, has, ..): &&Sample| {
        let has = |label: &str| has.get(label).map(String::as_str);
        name == metric
            && labels
                .iter()
                .all(|(label, value)| has(label) == Some(*value))
    };
    let mut found = samples.iter().filter(is_it);
    let sample = found.next()?;
    assert!(found.next().is_none(), "two of {sample:?}");
    Some(sample.2)
}

fn check(samples: &[Sample], tunnel: &Tunnel) -> io::Result<()> {
    let key = tunnel.b.keys.public.to_string();
    let peer = [
        ("interface", "wg0"),
        ("public_key", key.as_str()),
        ("name", "bob"),
    ];
    let of = |metric| value(samples, metric, &peer).unwrap_or_else(|| panic!("no {metric}"));
    assert_eq!(of("wireguard_peer_handshakes_total"), 1.0);
    assert_eq!(of("wireguard_peer_session"), 1.0);
    assert_eq!(of("wireguard_peer_unanswered_handshakes"), 0.0);
    assert_eq!(of("wireguard_peer_allowed_ips"), 2.0);
    let state = tunnel.a.wg.peer(tunnel.b.keys.public)?;
    assert_eq!(
        of("wireguard_peer_received_bytes_total"),
        state.rx_bytes as f64
    );
    assert_eq!(of("wireguard_peer_sent_bytes_total"), state.tx_bytes as f64);
    assert!(of("wireguard_peer_last_handshake_seconds") > 1.7e9);
    let interface = [("interface", "wg0")];
    let of = |metric| value(samples, metric, &interface).unwrap_or_else(|| panic!("no {metric}"));
    assert_eq!(of("wireguard_interface_peers"), 1.0);
    assert_eq!(of("wireguard_interface_up"), 1.0);
    assert!(of("wireguard_interface_start_time_seconds") > 1.7e9);
    let junk = [("interface", "wg0"), ("reason", "malformed_message")];
    let drops = value(samples, "wireguard_interface_dropped_packets_total", &junk);
    assert_eq!(drops, Some(1.0));
    // The dashboard shows nothing else.
    let dashboard = include_str!("../../contrib/grafana.json");
    let words = dashboard.split(|c: char| !c.is_ascii_lowercase() && c != '_');
    let shown: BTreeSet<_> = words
        .filter(|word| word.starts_with("wireguard_"))
        .collect();
    assert!(shown.len() > 5, "{shown:?}");
    for metric in shown {
        assert!(samples.iter().any(|sample| sample.0 == metric), "{metric}");
    }
    Ok(())
}

/// `wg-rs metrics --listen 0` in a host.
struct Exporter {
    proc: Proc,
    host: Host,
    address: SocketAddr,
}

impl Exporter {
    fn start(host: &Host) -> io::Result<Self> {
        let wg_rs = binaries::wg_rs()?;
        let proc = host.spawn(Command::new(wg_rs).args(["metrics", "--listen", "0"]))?;
        let address = until(PATIENCE, "its address", || {
            let output = proc.output();
            let address = output
                .strip_prefix("http://")
                .and_then(|rest| rest.split_once("/metrics\n"));
            Ok(address.and_then(|(address, _)| address.parse().ok()))
        })?;
        Ok(Exporter {
            proc,
            host: host.clone(),
            address,
        })
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let stream = self.host.run(|| TcpStream::connect(self.address))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    fn ask(&self, request: &str) -> io::Result<String> {
        let mut stream = self.connect()?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

fn tunnel() -> io::Result<Tunnel> {
    let daemon = Daemon::ours()?;
    let tunnel = Tunnel::established(&Plan::new(&daemon, &daemon))?;
    let wg_rs = binaries::wg_rs()?;
    let key = tunnel.b.keys.public.to_string();
    let name = ["set", "wg0", "peer", &key, "name", "bob"];
    tunnel.a.host.sh(&wg_rs, &name)?;
    // Junk that the daemon must drop.
    let port = tunnel.a.wg.get()?.listen_port;
    tunnel.b.host.run(|| {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.send_to(b"junk", (Ipv4Addr::new(192, 0, 2, 1), port))
    })?;
    Ok(tunnel)
}

#[test]
fn the_state_of_a_tunnel() -> io::Result<()> {
    let Some(python) = python() else {
        return Ok(());
    };
    let tunnel = tunnel()?;
    let host = &tunnel.a.host;
    let wg_rs = binaries::wg_rs()?;
    until(PATIENCE, "the junk to be dropped", || {
        let text = host.sh(&wg_rs, &["metrics"])?;
        Ok(text
            .contains("reason=\"malformed_message\"} 1\n")
            .then_some(()))
    })?;
    check(
        &parse(python, host, &host.sh(&wg_rs, &["metrics"])?)?,
        &tunnel,
    )?;

    let mut exporter = Exporter::start(host)?;
    let answer = exporter.ask("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")?;
    let (head, text) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(
        head.contains("Content-Type: text/plain; version=0.0.4"),
        "{head}"
    );
    check(&parse(python, host, text)?, &tunnel)?;
    assert!(
        exporter
            .ask("GET /x HTTP/1.1\r\n\r\n")?
            .starts_with("HTTP/1.1 404 ")
    );
    assert!(
        exporter
            .ask("POST /metrics HTTP/1.1\r\n\r\n")?
            .starts_with("HTTP/1.1 405 ")
    );
    assert!(exporter.ask("hello\r\n\r\n")?.starts_with("HTTP/1.1 400 "));
    exporter.proc.signal(Signal::SIGTERM)?;
    assert!(exporter.proc.wait(PATIENCE)?.success());
    Ok(())
}

/// More clients than are served at a time send nothing or half a request.
#[test]
fn stalled_scrapers_do_not_block_others_for_good() -> io::Result<()> {
    let tunnel = tunnel()?;
    let exporter = Exporter::start(&tunnel.a.host)?;
    let mut stalled = Vec::new();
    for n in 0..40 {
        let mut stream = exporter.connect()?;
        stream.write_all([&b""[..], b"GET /met"][n % 2])?;
        stalled.push(stream);
    }
    // This client is served once the time of the stalled ones is over.
    let answer = exporter.ask("GET /metrics HTTP/1.1\r\n\r\n")?;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    // The first of the stalled clients was disconnected, without an answer.
    assert_eq!(stalled[0].read_to_end(&mut Vec::new())?, 0);
    // The tunnel is not affected.
    tunnel.ping_both_ways(netns_tests::Family::V4)?;
    Ok(())
}

/// Other machines can reach it only if that is asked for.
#[test]
fn it_listens_on_loopback_by_default() -> io::Result<()> {
    let hosts = netns_tests::Hosts::new(1500)?;
    let exporter = Exporter::start(&hosts.hosts[0])?;
    assert!(exporter.address.ip().is_loopback());
    let outside = SocketAddr::new([192, 0, 2, 1].into(), exporter.address.port());
    let refused = hosts.hosts[1]
        .run(|| TcpStream::connect(outside))
        .unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    Ok(())
}
