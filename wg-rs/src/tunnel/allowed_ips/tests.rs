//! The table against the simplest one.

use super::shortcuts::NONE;
use super::trie::Bits;
use super::*;
use proptest::prelude::*;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::HashMap;

/// A table in which each owner is a number, which is its index too.
type Table = AllowedIps<u32>;

impl Table {
    /// Returns the former owner.
    fn insert(&mut self, addr: IpAddr, cidr: u8, owner: u32) -> Option<u32> {
        let position = self.position(addr, cidr);
        self.set_owner(owner, owner);
        let number = self.give(&position, owner);
        assert_eq!(self.position(addr, cidr).number(), number);
        assert_eq!(self.network(number), (position.addr, position.cidr));
        position.owner()
    }

    /// Removes a network if this is its owner. Returns whether it is.
    fn remove(&mut self, addr: IpAddr, cidr: u8, owner: u32) -> bool {
        let position = self.position(addr, cidr);
        let is_owner = position.owner() == Some(owner);
        if is_owner {
            self.take(&position);
        }
        is_owner
    }
}

/// A table that uses shortcuts from the first network on, and often creates them again.
fn with_shortcuts() -> Table {
    let mut table = AllowedIps::new();
    (table.v4.large, table.v6.large) = (0, 0);
    table
}

fn prefix(text: &str) -> (IpAddr, u8) {
    let (addr, cidr) = text.split_once('/').unwrap();
    (addr.parse().unwrap(), cidr.parse().unwrap())
}

/// A table, and the networks that each owner was given.
#[derive(Default)]
struct Fixture {
    table: Table,
    given: Vec<(IpAddr, u8, char)>,
}

impl Fixture {
    fn insert(&mut self, owner: char, text: &str) -> Option<char> {
        let (addr, cidr) = prefix(text);
        self.given.push((addr, cidr, owner));
        let former = self.table.insert(addr, cidr, owner.into());
        former.and_then(char::from_u32)
    }

    fn remove(&mut self, owner: char, text: &str) -> bool {
        let (addr, cidr) = prefix(text);
        self.table.remove(addr, cidr, owner.into())
    }

    fn remove_peer(&mut self, owner: char) {
        for (addr, cidr, _) in self.given.extract_if(.., |(_, _, o)| *o == owner) {
            self.table.remove(addr, cidr, owner.into());
        }
    }

    #[track_caller]
    fn expect(&self, owner: impl Into<Option<char>>, addr: &str) {
        assert_eq!(
            self.table.lookup(addr.parse().unwrap()).copied(),
            owner.into().map(u32::from),
            "{addr}"
        );
    }
}

#[test]
fn longest_prefix_wins() {
    let mut t = Fixture::default();
    for (owner, text) in [
        ('a', "192.168.4.0/24"),
        ('b', "192.168.4.4/32"),
        ('c', "192.168.0.0/16"),
        ('d', "192.95.5.64/27"),
        ('c', "192.95.5.65/27"), // the same prefix once masked: replaces d
        ('e', "0.0.0.0/0"),
        ('g', "64.15.112.0/20"),
        ('h', "64.15.123.211/25"), // host bits set
        ('a', "10.0.0.0/25"),
        ('b', "10.0.0.128/25"),
        ('a', "10.1.0.0/30"),
        ('b', "10.1.0.4/30"),
        ('c', "10.1.0.8/29"),
        ('d', "10.1.0.16/29"),
        ('d', "2607:5300:6000:6b00::c05f:543/128"),
        ('c', "2607:5300:6000:6b00::/64"),
        ('e', "::/0"),
        ('f', "::/0"), // replaces e
        ('g', "2404:6800::/32"),
        ('h', "2404:6800:4004:800:dead:beef:dead:beef/64"),
        ('a', "2404:6800:4004:800:dead:beef:dead:beef/128"),
        ('c', "2444:6800:40e4:800:deae:beef:def:beef/128"),
        ('b', "2444:6800:f0e4:800:eeae:beef::/98"),
    ] {
        t.insert(owner, text);
    }
    for (owner, addr) in [
        ('a', "192.168.4.20"),
        ('a', "192.168.4.0"),
        ('b', "192.168.4.4"),
        ('c', "192.168.200.182"),
        ('c', "192.95.5.68"),
        ('e', "192.95.5.96"),
        ('e', "255.255.255.255"),
        ('g', "64.15.116.26"),
        ('g', "64.15.127.3"),
        ('g', "64.15.123.1"),
        ('h', "64.15.123.128"),
        ('h', "64.15.123.129"),
        ('a', "10.0.0.52"),
        ('b', "10.0.0.220"),
        ('a', "10.1.0.2"),
        ('b', "10.1.0.6"),
        ('c', "10.1.0.10"),
        ('d', "10.1.0.20"),
        ('d', "2607:5300:6000:6b00::c05f:543"),
        ('c', "2607:5300:6000:6b00::c02e:1ee"),
        ('f', "2607:5300:6000:6b01::"),
        ('g', "2404:6800:4004:806::1006"),
        ('g', "2404:6800:4004:806:0:1234:0:5678"),
        ('f', "2404:67ff:4004:806:0:1234:0:5678"),
        ('f', "2404:6801:4004:806:0:1234:0:5678"),
        ('h', "2404:6800:4004:800:0:1234:0:5678"),
        ('h', "2404:6800:4004:800::"),
        ('h', "2404:6800:4004:800:1010:1010:1010:1010"),
        ('a', "2404:6800:4004:800:dead:beef:dead:beef"),
    ] {
        t.expect(owner, addr);
    }
    assert_eq!(t.table.len(), 21);
}

#[test]
fn the_edges_of_the_address_space() {
    let mut t = Fixture::default();
    let edges = ["1.0.0.0", "64.0.0.0", "128.0.0.0", "192.0.0.0", "255.0.0.0"];
    for addr in edges {
        t.insert('a', &format!("{addr}/32"));
    }
    for addr in edges {
        t.expect('a', addr);
    }
    t.remove_peer('a');
    for addr in edges {
        t.expect(None, addr);
    }
    assert_eq!((t.table.v4.root, t.table.v4.in_use()), (NONE, 0));

    t.insert('a', "192.168.0.0/16");
    t.insert('a', "192.168.0.0/24");
    t.remove_peer('a');
    t.expect(None, "192.168.0.1");
    assert!(t.table.is_empty());
}

#[test]
fn one_network_of_each_length() {
    let mut t = AllowedIps::new();
    for bit in 0..128 {
        let addr = IpAddr::V6(Ipv6Addr::from_bits(!(1 << bit)));
        assert_eq!(t.insert(addr, 128, bit), None);
    }
    for bit in 0..128 {
        assert_eq!(t.lookup_v6(Ipv6Addr::from_bits(!(1 << bit))), Some(&bit));
    }
    assert_eq!(t.lookup_v6(Ipv6Addr::from_bits(u128::MAX)), None);
    for bit in 0..128 {
        assert!(t.remove(IpAddr::V6(Ipv6Addr::from_bits(!(1 << bit))), 128, bit));
    }
    assert_eq!(t.v6.root, NONE);
}

#[test]
fn removal_needs_the_owner_and_the_exact_network() {
    let mut t = Fixture::default();
    t.insert('a', "10.0.0.0/8");
    assert_eq!(t.insert('b', "10.9.9.9/8"), Some('a'));
    assert!(
        !t.remove('a', "10.0.0.0/8"),
        "b has taken the network from a"
    );
    assert!(!t.remove('b', "10.0.0.0/7") && !t.remove('b', "10.0.0.0/9"));
    t.expect('b', "10.200.0.1");
    assert!(t.remove('b', "10.1.2.3/8"), "host bits are ignored");
    assert!(!t.remove('b', "10.0.0.0/8"));
    t.expect(None, "10.200.0.1");
    assert_eq!(t.insert('a', "::/0"), None);
    t.expect(None, "0.0.0.0");
}

#[test]
fn a_clone_is_a_snapshot() {
    let mut t = Fixture::default();
    t.insert('a', "10.0.0.0/8");
    let before = t.table.clone();
    t.insert('b', "10.0.0.0/9");
    t.remove_peer('a');
    assert_eq!(
        before.lookup_v4(Ipv4Addr::new(10, 1, 1, 1)),
        Some(&u32::from('a'))
    );
    assert_eq!(
        before.lookup_v4(Ipv4Addr::new(10, 200, 1, 1)),
        Some(&u32::from('a'))
    );
}

#[test]
fn freed_nodes_are_used_again() {
    let mut t = Fixture::default();
    for _ in 0..100 {
        for i in 0..50 {
            t.insert('a', &format!("10.0.{i}.0/24"));
            t.insert('b', &format!("10.0.{i}.7/32"));
        }
        t.remove_peer('a');
        t.remove_peer('b');
    }
    assert!(t.table.v4.ever_used() < 200);
}

#[test]
fn shortcuts_do_not_change_results() {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let mut table = AllowedIps::new();
    table.insert(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0, 20_000);
    let (mut nets, mut hosts) = (HashMap::new(), HashMap::new());
    for owner in 0..20_000u32 {
        let (host, net) = (rng.random::<u32>(), rng.random::<u32>() & !0xff);
        table.insert(Ipv4Addr::from_bits(host).into(), 32, owner);
        table.insert(Ipv4Addr::from_bits(net).into(), 24, owner);
        hosts.insert(host, owner);
        nets.insert(net, owner);
    }
    assert!(table.v4.depth().is_some() && table.v6.depth().is_none());
    table.v4.check();
    let mut table = table.clone();
    for addr in hosts
        .keys()
        .chain(nets.keys())
        .flat_map(|a| [*a, a ^ 1, a ^ 0x180])
    {
        let expected = hosts.get(&addr).or_else(|| nets.get(&(addr & !0xff)));
        let found = table.lookup_v4(Ipv4Addr::from_bits(addr));
        assert_eq!(found, expected.or(Some(&20_000)));
    }
    for (cidr, given) in [(32, hosts), (24, nets)] {
        for (addr, owner) in given {
            assert!(table.remove(Ipv4Addr::from_bits(addr).into(), cidr, owner));
        }
        table.v4.check();
    }
    assert_eq!((table.len(), table.v4.in_use()), (1, 1));
}

/// Prefixes that are shorter than the shortcuts, as long as they are, and longer, come and go
/// between others.
#[test]
fn changes_around_the_depth_of_the_shortcuts() {
    for is_v4 in [true, false] {
        // 256 hosts, one for each first octet.
        let address = |octets: [u8; 2]| -> IpAddr {
            match is_v4 {
                true => Ipv4Addr::new(octets[0], octets[1], 0, 1).into(),
                false => Ipv6Addr::from_bits(u128::from_be_bytes(std::array::from_fn(|at| {
                    octets.get(at).copied().unwrap_or(u8::from(at == 15))
                })))
                .into(),
            }
        };
        let (mut table, mut linear) = (with_shortcuts(), Linear::default());
        for octet in 0..=255 {
            let addr = address([octet, 7]);
            table.insert(addr, width(addr), u32::from(octet));
            linear.insert(addr, width(addr), u32::from(octet));
        }
        let (trie4, trie6) = (&table.v4, &table.v6);
        let depth = [trie4.depth(), trie6.depth()].into_iter().flatten().max();
        assert!(
            depth.is_some_and(|depth| (6..=8).contains(&depth)),
            "{depth:?}"
        );
        let mut networks: Vec<_> = [[0, 0], [0, 0x40], [0x81, 7], [0xff, 0xff]]
            .into_iter()
            .flat_map(|octets| (0..=18).map(move |cidr| (octets, cidr)))
            .collect();
        let compare = |table: &Table, linear: &Linear| {
            table.v4.check();
            table.v6.check();
            assert_eq!(table.len(), linear.len());
            for first in [0, 1, 0x40, 0x80, 0x81, 0xc0, 0xfe, 0xff] {
                for second in [0, 7, 0x20, 0x40, 0x80, 0xff] {
                    let addr = address([first, second]);
                    assert_eq!(table.lookup(addr).copied(), linear.lookup(addr), "{addr}");
                }
            }
        };
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        for turn in 0..8 {
            networks.shuffle(&mut rng);
            for (octets, cidr) in &networks {
                let (addr, owner) = (address(*octets), 1000 + turn);
                let former = linear.insert(addr, *cidr, owner);
                assert_eq!(table.insert(addr, *cidr, owner), former);
                compare(&table, &linear);
            }
            networks.shuffle(&mut rng);
            for (octets, cidr) in &networks {
                let addr = address(*octets);
                let owner = linear.remove(addr, *cidr);
                let position = table.position(addr, *cidr);
                assert_eq!(position.owner(), owner);
                table.take(&position);
                compare(&table, &linear);
            }
        }
        assert_eq!(table.len(), 256);
    }
}

/// The simplest table: for each length of prefixes a list that is searched from end to end.
struct Lists<A>(Vec<Vec<(A, u32)>>);

impl<A: Bits> Default for Lists<A> {
    fn default() -> Self {
        Lists(vec![Vec::new(); usize::from(A::WIDTH) + 1])
    }
}

impl<A: Bits> Lists<A> {
    fn owner(&mut self, addr: A, cidr: u8) -> Option<&mut u32> {
        let mut list = self.0[usize::from(cidr)].iter_mut();
        let found = list.find(|(bits, _)| *bits == addr.masked(cidr));
        found.map(|(_, owner)| owner)
    }

    fn insert(&mut self, addr: A, cidr: u8, owner: u32) -> Option<u32> {
        if let Some(former) = self.owner(addr, cidr) {
            return Some(std::mem::replace(former, owner));
        }
        self.0[usize::from(cidr)].push((addr.masked(cidr), owner));
        None
    }

    fn remove(&mut self, addr: A, cidr: u8) -> Option<u32> {
        let owner = self.owner(addr, cidr).copied();
        self.0[usize::from(cidr)].retain(|(bits, _)| *bits != addr.masked(cidr));
        owner
    }

    fn lookup(&self, addr: A) -> Option<u32> {
        (0..=A::WIDTH).rev().find_map(|cidr| {
            let prefix = addr.masked(cidr);
            let mut list = self.0[usize::from(cidr)].iter();
            list.find(|(bits, _)| *bits == prefix)
                .map(|(_, owner)| *owner)
        })
    }
}

/// Such lists of both families.
#[derive(Default)]
struct Linear {
    v4: Lists<u32>,
    v6: Lists<u128>,
}

impl Linear {
    fn insert(&mut self, addr: IpAddr, cidr: u8, owner: u32) -> Option<u32> {
        match addr {
            IpAddr::V4(addr) => self.v4.insert(addr.to_bits(), cidr, owner),
            IpAddr::V6(addr) => self.v6.insert(addr.to_bits(), cidr, owner),
        }
    }

    fn remove(&mut self, addr: IpAddr, cidr: u8) -> Option<u32> {
        match addr {
            IpAddr::V4(addr) => self.v4.remove(addr.to_bits(), cidr),
            IpAddr::V6(addr) => self.v6.remove(addr.to_bits(), cidr),
        }
    }

    fn lookup(&self, addr: IpAddr) -> Option<u32> {
        match addr {
            IpAddr::V4(addr) => self.v4.lookup(addr.to_bits()),
            IpAddr::V6(addr) => self.v6.lookup(addr.to_bits()),
        }
    }

    fn remove_owner(&mut self, owner: u32) {
        self.v4
            .0
            .iter_mut()
            .for_each(|list| list.retain(|e| e.1 != owner));
        self.v6
            .0
            .iter_mut()
            .for_each(|list| list.retain(|e| e.1 != owner));
    }

    fn len(&self) -> usize {
        let v4 = self.v4.0.iter().map(Vec::len).sum::<usize>();
        v4 + self.v6.0.iter().map(Vec::len).sum::<usize>()
    }
}

/// Keeps the first bits of an address and chooses the others at random.
fn mutate(rng: &mut ChaCha8Rng, addr: IpAddr, keep: u8) -> IpAddr {
    match addr {
        IpAddr::V4(addr) => {
            let kept = addr.to_bits().masked(keep);
            Ipv4Addr::from_bits(kept | (rng.random::<u32>() & !u32::MAX.masked(keep))).into()
        }
        IpAddr::V6(addr) => {
            let kept = addr.to_bits().masked(keep);
            Ipv6Addr::from_bits(kept | (rng.random::<u128>() & !u128::MAX.masked(keep))).into()
        }
    }
}

fn width(addr: IpAddr) -> u8 {
    if addr.is_ipv4() { 32 } else { 128 }
}

/// How much is compared with the list.
struct Size {
    peers: u32,
    /// Random networks, half of them IPv4.
    networks: u32,
    /// Networks made of each of them, itself included.
    neighbours: u32,
    /// Look-ups before the first peer is removed.
    first: u32,
    /// Look-ups after each peer that is removed.
    then: u32,
}

#[test]
fn random_networks_agree_with_a_linear_list() {
    let size = Size {
        peers: 200,
        networks: 120,
        neighbours: 20,
        first: 300,
        then: 300,
    };
    random_prefixes(AllowedIps::new(), &size);
    random_prefixes(with_shortcuts(), &size);
}

/// The size of the kernel's self-test: 1.2 million look-ups of each family.
#[test]
#[ignore = "takes several minutes; run it with --release"]
fn random_networks_agree_with_a_linear_list_at_the_kernels_size() {
    let size = Size {
        peers: 2000,
        networks: 800,
        neighbours: 101,
        first: 2_400_000,
        then: 1200,
    };
    random_prefixes(AllowedIps::new(), &size);
}

fn random_prefixes(mut table: Table, size: &Size) {
    let mut rng = ChaCha8Rng::seed_from_u64(0x616c6c6f776564);
    let mut linear = Linear::default();
    let mut given = Vec::new();
    for i in 0..size.networks {
        let addr: IpAddr = if i % 2 == 0 {
            Ipv4Addr::from_bits(rng.random()).into()
        } else {
            Ipv6Addr::from_bits(rng.random()).into()
        };
        for neighbour in 0..size.neighbours {
            let cidr = rng.random_range(1..=width(addr));
            let keep = if neighbour == 0 {
                width(addr)
            } else {
                rng.random_range(0..cidr)
            };
            let (addr, owner) = (
                mutate(&mut rng, addr, keep),
                rng.random_range(0..size.peers),
            );
            assert_eq!(
                table.insert(addr, cidr, owner),
                linear.insert(addr, cidr, owner)
            );
            given.push((addr, cidr, owner));
        }
    }
    assert_eq!(table.len(), linear.len());
    for peer in 0..=size.peers {
        for _ in 0..if peer == 0 { size.first } else { size.then } {
            let (addr, cidr, _) = *given.choose(&mut rng).unwrap();
            let keep = rng.random_range(cidr / 2..=width(addr));
            let addr = mutate(&mut rng, addr, keep);
            assert_eq!(table.lookup(addr).copied(), linear.lookup(addr), "{addr}");
        }
        for (addr, cidr, _) in given.iter().filter(|g| g.2 == peer) {
            table.remove(*addr, *cidr, peer);
        }
        linear.remove_owner(peer);
        table.v4.check();
        table.v6.check();
        assert_eq!(table.len(), linear.len());
    }
    assert_eq!((table.v4.root, table.v4.in_use()), (NONE, 0));
    assert_eq!((table.v6.root, table.v6.in_use()), (NONE, 0));
}

proptest! {
    /// Uses few distinct bits, so that networks often nest, collide and change owners. A second
    /// table has the same changes, at the positions that were found in the first.
    #[test]
    fn any_sequence_of_changes_agrees_with_a_list(
        steps in prop::collection::vec((any::<bool>(), 0u32..64, 0u8..=34, 0u32..3), 0..80),
        shortcuts: bool,
        is_v4: bool,
    ) {
        let address = |pattern: u32| -> IpAddr {
            let bits = (pattern << 26) | (pattern >> 3);
            match is_v4 {
                true => Ipv4Addr::from_bits(bits).into(),
                false => Ipv6Addr::from_bits(u128::from(bits) << 96).into(),
            }
        };
        let mut table = if shortcuts { with_shortcuts() } else { AllowedIps::new() };
        (0..3).for_each(|owner| table.set_owner(owner, owner));
        let (mut twin, mut linear) = (table.clone(), Linear::default());
        for (insert, pattern, cidr, owner) in steps {
            let addr = address(pattern);
            let position = table.position(addr, cidr);
            let cidr = cidr.min(width(addr));
            let former = position.owner();
            if insert {
                prop_assert_eq!(linear.insert(addr, cidr, owner), former);
                let number = table.give(&position, owner);
                prop_assert_eq!(twin.give(&position, owner), number);
            } else {
                prop_assert_eq!(linear.remove(addr, cidr), former);
                table.take(&position);
                twin.take(&position);
            }
            for table in [&table, &twin] {
                table.v4.check();
                table.v6.check();
                prop_assert_eq!(table.len(), linear.len());
                let in_use = table.v4.in_use() + table.v6.in_use();
                prop_assert!(in_use <= (2 * table.len()).saturating_sub(1));
            }
            for addr in (0..64).map(address) {
                prop_assert_eq!(table.lookup(addr).copied(), linear.lookup(addr));
                prop_assert_eq!(twin.lookup(addr).copied(), linear.lookup(addr));
            }
        }
    }
}
