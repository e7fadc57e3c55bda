//! Cryptokey routing: which peer owns an address (whitepaper section 2).

mod trie;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use trie::Trie;

/// The networks of both families and their owners. Each network has exactly one owner.
#[derive(Clone)]
pub struct AllowedIps<T> {
    v4: Trie<u32, T>,
    v6: Trie<u128, T>,
}

impl<T: Clone + PartialEq> AllowedIps<T> {
    /// An empty table.
    pub const fn new() -> Self {
        AllowedIps {
            v4: Trie::new(),
            v6: Trie::new(),
        }
    }

    /// Gives `addr/cidr` to `value`; host bits are ignored. Returns the former owner of exactly
    /// this network. A `cidr` above the address's length means the whole address.
    pub fn insert(&mut self, addr: IpAddr, cidr: u8, value: T) -> Option<T> {
        match addr {
            IpAddr::V4(addr) => self.v4.insert(addr.to_bits(), cidr, value),
            IpAddr::V6(addr) => self.v6.insert(addr.to_bits(), cidr, value),
        }
    }

    /// Removes `addr/cidr` if `owner` owns exactly this network. Returns whether it did.
    pub fn remove(&mut self, addr: IpAddr, cidr: u8, owner: &T) -> bool {
        match addr {
            IpAddr::V4(addr) => self.v4.remove(addr.to_bits(), cidr, owner),
            IpAddr::V6(addr) => self.v6.remove(addr.to_bits(), cidr, owner),
        }
    }

    /// The owner of the longest prefix that contains `addr`.
    pub fn lookup(&self, addr: IpAddr) -> Option<&T> {
        match addr {
            IpAddr::V4(addr) => self.lookup_v4(addr),
            IpAddr::V6(addr) => self.lookup_v6(addr),
        }
    }

    /// The owner of the longest prefix that contains `addr`.
    pub fn lookup_v4(&self, addr: Ipv4Addr) -> Option<&T> {
        self.v4.lookup(addr.to_bits())
    }

    /// The owner of the longest prefix that contains `addr`.
    pub fn lookup_v6(&self, addr: Ipv6Addr) -> Option<&T> {
        self.v6.lookup(addr.to_bits())
    }

    /// The number of networks of both families.
    pub fn len(&self) -> usize {
        self.v4.len + self.v6.len
    }

    /// Whether there are no networks.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T: Clone + PartialEq> Default for AllowedIps<T> {
    fn default() -> Self {
        AllowedIps::new()
    }
}

#[cfg(test)]
mod tests {
    use super::trie::{Bits, NONE};
    use super::*;
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng, seq::IndexedRandom};
    use rand_chacha::ChaCha8Rng;
    use std::collections::HashMap;

    /// A table that uses shortcuts from the first network on, and often creates them again.
    fn with_shortcuts<T: Clone + PartialEq>() -> AllowedIps<T> {
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
        table: AllowedIps<char>,
        given: Vec<(IpAddr, u8, char)>,
    }

    impl Fixture {
        fn insert(&mut self, owner: char, text: &str) -> Option<char> {
            let (addr, cidr) = prefix(text);
            self.given.push((addr, cidr, owner));
            self.table.insert(addr, cidr, owner)
        }

        fn remove_peer(&mut self, owner: char) {
            for (addr, cidr, _) in self.given.extract_if(.., |(_, _, o)| *o == owner) {
                self.table.remove(addr, cidr, &owner);
            }
        }

        #[track_caller]
        fn expect(&self, owner: impl Into<Option<char>>, addr: &str) {
            assert_eq!(
                self.table.lookup(addr.parse().unwrap()).copied(),
                owner.into(),
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
            assert!(t.remove(IpAddr::V6(Ipv6Addr::from_bits(!(1 << bit))), 128, &bit));
        }
        assert_eq!(t.v6.root, NONE);
    }

    #[test]
    fn removal_needs_the_owner_and_the_exact_network() {
        let mut t = Fixture::default();
        t.insert('a', "10.0.0.0/8");
        assert_eq!(t.insert('b', "10.9.9.9/8"), Some('a'));
        let (addr, cidr) = prefix("10.0.0.0/8");
        assert!(
            !t.table.remove(addr, cidr, &'a'),
            "b has taken the network from a"
        );
        assert!(!t.table.remove(addr, 7, &'b') && !t.table.remove(addr, 9, &'b'));
        t.expect('b', "10.200.0.1");
        assert!(
            t.table.remove(prefix("10.1.2.3/8").0, cidr, &'b'),
            "host bits are ignored"
        );
        assert!(!t.table.remove(addr, cidr, &'b'));
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
        assert_eq!(before.lookup_v4(Ipv4Addr::new(10, 1, 1, 1)), Some(&'a'));
        assert_eq!(before.lookup_v4(Ipv4Addr::new(10, 200, 1, 1)), Some(&'a'));
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
        table.insert(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0, u32::MAX);
        let (mut nets, mut hosts) = (HashMap::new(), HashMap::new());
        for owner in 0..20_000u32 {
            let (host, net) = (rng.random::<u32>(), rng.random::<u32>() & !0xff);
            table.insert(Ipv4Addr::from_bits(host).into(), 32, owner);
            table.insert(Ipv4Addr::from_bits(net).into(), 24, owner);
            hosts.insert(host, owner);
            nets.insert(net, owner);
        }
        assert!(table.v4.has_shortcuts() && !table.v6.has_shortcuts());
        table.v4.check_shortcuts();
        let mut table = table.clone();
        for addr in hosts
            .keys()
            .chain(nets.keys())
            .flat_map(|a| [*a, a ^ 1, a ^ 0x180])
        {
            let expected = hosts.get(&addr).or_else(|| nets.get(&(addr & !0xff)));
            let found = table.lookup_v4(Ipv4Addr::from_bits(addr));
            assert_eq!(found, expected.or(Some(&u32::MAX)));
        }
        for (cidr, given) in [(32, hosts), (24, nets)] {
            for (addr, owner) in given {
                assert!(table.remove(Ipv4Addr::from_bits(addr).into(), cidr, &owner));
            }
            table.v4.check_shortcuts();
        }
        assert_eq!((table.len(), table.v4.in_use()), (1, 1));
    }

    /// The simplest table: a list that is searched from end to end.
    #[derive(Default)]
    struct Linear(Vec<(IpAddr, u8, u32)>);

    impl Linear {
        fn holds(prefix: IpAddr, cidr: u8, addr: IpAddr) -> bool {
            match (prefix, addr) {
                (IpAddr::V4(p), IpAddr::V4(a)) => {
                    p.to_bits().masked(cidr) == a.to_bits().masked(cidr)
                }
                (IpAddr::V6(p), IpAddr::V6(a)) => {
                    p.to_bits().masked(cidr) == a.to_bits().masked(cidr)
                }
                _ => false,
            }
        }

        fn insert(&mut self, addr: IpAddr, cidr: u8, owner: u32) -> Option<u32> {
            for entry in &mut self.0 {
                if entry.1 == cidr && Self::holds(entry.0, cidr, addr) {
                    return Some(std::mem::replace(&mut entry.2, owner));
                }
            }
            self.0.push((addr, cidr, owner));
            None
        }

        fn lookup(&self, addr: IpAddr) -> Option<&u32> {
            let holding = self.0.iter().filter(|e| Self::holds(e.0, e.1, addr));
            holding.max_by_key(|e| e.1).map(|e| &e.2)
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

    fn random_prefixes(mut table: AllowedIps<u32>, size: &Size) {
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
        assert_eq!(table.len(), linear.0.len());
        for peer in 0..=size.peers {
            for _ in 0..if peer == 0 { size.first } else { size.then } {
                let (addr, cidr, _) = *given.choose(&mut rng).unwrap();
                let keep = rng.random_range(cidr / 2..=width(addr));
                let addr = mutate(&mut rng, addr, keep);
                assert_eq!(table.lookup(addr), linear.lookup(addr), "{addr}");
            }
            for (addr, cidr, _) in given.iter().filter(|g| g.2 == peer) {
                table.remove(*addr, *cidr, &peer);
            }
            linear.0.retain(|e| e.2 != peer);
            table.v4.check_shortcuts();
            table.v6.check_shortcuts();
            assert_eq!(table.len(), linear.0.len());
        }
        assert_eq!((table.v4.root, table.v4.in_use()), (NONE, 0));
        assert_eq!((table.v6.root, table.v6.in_use()), (NONE, 0));
    }

    proptest! {
        /// Uses few distinct bits, so that networks often nest, collide and change owners.
        #[test]
        fn any_sequence_of_insert_and_remove_agrees_with_a_list(
            steps in prop::collection::vec((any::<bool>(), 0u32..64, 0u8..=34, 0u32..3), 0..80),
            shortcuts: bool,
        ) {
            let mut table = if shortcuts { with_shortcuts() } else { AllowedIps::new() };
            let mut linear = Linear::default();
            for (insert, pattern, cidr, owner) in steps {
                let addr = Ipv4Addr::from_bits((pattern << 26) | (pattern >> 3));
                if insert {
                    let cidr = cidr.min(32);
                    let former = linear.insert(addr.into(), cidr, owner);
                    prop_assert_eq!(table.insert(addr.into(), cidr, owner), former);
                } else {
                    let before = linear.0.len();
                    linear.0.retain(|e| {
                        e.2 != owner || e.1 != cidr.min(32) || !Linear::holds(e.0, e.1, addr.into())
                    });
                    let removed = linear.0.len() < before;
                    prop_assert_eq!(table.remove(addr.into(), cidr, &owner), removed);
                }
                table.v4.check_shortcuts();
                prop_assert_eq!(table.len(), linear.0.len());
                prop_assert!(table.v4.in_use() <= (2 * table.len()).saturating_sub(1));
                for pattern in 0..64u32 {
                    let addr = Ipv4Addr::from_bits((pattern << 26) | (pattern >> 3));
                    prop_assert_eq!(table.lookup_v4(addr), linear.lookup(addr.into()));
                }
            }
        }
    }
}
