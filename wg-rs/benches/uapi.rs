//! A `set` and a `get` of 100 000 peers as text.

use criterion::{Criterion, criterion_group, criterion_main};
use wg_crypto::PublicKey;
use wg_rs::model::{AllowedIp, Change, Interface, Peer};
use wg_rs::uapi::text::{ReplyPrinter, parse_get, parse_set, print_change};

const PEERS: u32 = 100_000;

fn key(i: u32) -> PublicKey {
    let mut key = [0x5a; 32];
    key[..4].copy_from_slice(&i.to_le_bytes());
    PublicKey::from_bytes(key)
}

fn allowed_ip(i: u32) -> AllowedIp {
    AllowedIp::new(std::net::Ipv4Addr::from_bits(0x0a00_0000 + i).into(), 32).unwrap()
}

fn text(c: &mut Criterion) {
    let mut set = Vec::new();
    let mut interface = Interface::default();
    for i in 0..PEERS {
        for change in [
            Change::Peer(key(i)),
            Change::PresharedKey(Box::default()),
            Change::Endpoint(([192, 0, 2, 1], 51820).into()),
            Change::PersistentKeepalive(25),
            Change::ReplaceAllowedIps,
            Change::AllowedIp {
                ip: allowed_ip(i),
                remove: false,
            },
        ] {
            print_change(&change, &mut set);
        }
        interface.peers.push(Peer {
            allowed_ips: vec![allowed_ip(i)],
            ..Peer::new(key(i))
        });
    }
    let mut get = Vec::new();
    ReplyPrinter::new(&interface).print(&mut get, usize::MAX);

    let mut group = c.benchmark_group("uapi_100k_peers");
    group.sample_size(10);
    group.bench_function("parse_set", |b| b.iter(|| parse_set(&set).unwrap()));
    group.bench_function("parse_get", |b| b.iter(|| parse_get(&get).unwrap()));
    group.bench_function("print_get", |b| {
        b.iter(|| {
            get.clear();
            ReplyPrinter::new(&interface).print(&mut get, usize::MAX)
        });
    });
    group.finish();
}

criterion_group!(benches, text);
criterion_main!(benches);
