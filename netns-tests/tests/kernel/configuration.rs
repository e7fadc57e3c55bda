//! An interface of the kernel, read and changed by `wg-rs` and by stock `wg`.

use std::fmt::Write;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::time::Duration;

use netns_tests::{Config, Daemon, Host, Key, Keys, Lab, PeerConfig, Via, Wg, binaries, vm};

/// A kernel interface `wg0` in each of two hosts: stock `wg` acts on the first, ours on the other.
struct Pair {
    hosts: [Host; 2],
    _interfaces: [Wg; 2],
    _lab: Lab,
}

impl Pair {
    fn new() -> io::Result<Pair> {
        let lab = Lab::new()?;
        let hosts = [lab.host("stock")?, lab.host("ours")?];
        let kernel = Daemon::kernel(&hosts[0])?;
        let interface = |host| kernel.start(host, "wg0", Via::StockWg);
        Ok(Pair {
            _interfaces: [interface(&hosts[0])?, interface(&hosts[1])?],
            hosts,
            _lab: lab,
        })
    }

    /// The output of the two programs for the same arguments, and whether they succeed.
    fn say(&self, args: &[&str], stdin: &str) -> [Result<String, String>; 2] {
        let say = |host: &Host, program: &str| {
            let ended = format!("{program} ended with ");
            host.sh_with(program, args, stdin)
                .map_err(|error| error.to_string().replace(&ended, ""))
        };
        [say(&self.hosts[0], "wg"), say(&self.hosts[1], "wg-rs")]
    }

    /// Checks that both programs print the same, and returns it.
    fn agree(&self, args: &[&str], stdin: &str) -> Result<String, String> {
        let [stock, ours] = self.say(args, stdin);
        assert_eq!(ours, stock, "{args:?}");
        ours
    }

    /// Checks that both programs succeed and print the same, and returns it.
    fn show(&self, args: &str) -> io::Result<String> {
        let args: Vec<_> = args.split_whitespace().collect();
        self.agree(&args, "").map_err(io::Error::other)
    }

    /// Checks that both programs succeed, and that the interfaces are then equal.
    fn change(&self, args: &str, stdin: &str) -> io::Result<()> {
        let args: Vec<_> = args.split_whitespace().collect();
        self.agree(&args, stdin).map_err(io::Error::other)?;
        let dump = ["show", "wg0", "dump"];
        let state = self.hosts[0].sh("wg", &dump)?;
        assert_eq!(self.hosts[1].sh("wg", &dump)?, state, "after {args:?}");
        assert_eq!(self.hosts[1].sh("wg-rs", &dump)?, state, "after {args:?}");
        Ok(())
    }
}

#[test]
fn set_and_show() {
    vm::inside(|| {
        let pair = Pair::new()?;
        let set = |args: &str, stdin: &str| pair.change(&format!("set wg0 {args}"), stdin);
        let [key, psk] = [Key::random(), Key::random()];
        let [a, b, c] = [Key::random(), Key::random(), Key::random()];
        set("listen-port 7000 fwmark 0xca6c", "")?;
        set("private-key /dev/stdin", &format!("{key}\n"))?;
        set(
            &format!(
                "peer {a} preshared-key /dev/stdin endpoint 192.0.2.1:51820 \
                 persistent-keepalive 25 allowed-ips 10.0.0.0/24,fd00::/64,192.0.2.0/25 \
                 peer {b} endpoint [2001:db8::1]:7 allowed-ips 0.0.0.0/0,::/0 peer {c}"
            ),
            &psk.to_string(),
        )?;
        for parameter in [
            "",
            "public-key",
            "private-key",
            "listen-port",
            "fwmark",
            "peers",
            "preshared-keys",
            "endpoints",
            "allowed-ips",
            "latest-handshakes",
            "transfer",
            "persistent-keepalive",
            "dump",
        ] {
            pair.show(&format!("show wg0 {parameter}"))?;
        }
        for all in ["", "show all dump", "show interfaces", "showconf wg0"] {
            assert_ne!(pair.show(all)?, "");
        }
        // Networks move from one peer to another, and back.
        set(&format!("peer {c} allowed-ips 10.0.0.0/24,::/0"), "")?;
        set(&format!("peer {c} allowed-ips 10.0.0.0/24"), "")?;
        set(&format!("peer {a} allowed-ips 10.1.2.3/8"), "")?;
        set(
            &format!("peer {a} preshared-key /dev/null persistent-keepalive off"),
            "",
        )?;
        set(
            &format!("peer {b} remove peer {c} endpoint 192.0.2.9:9"),
            "",
        )?;
        // A peer with the interface's own key is ignored, or removed when the key becomes its own.
        set(
            &format!("peer {} allowed-ips 10.9.0.0/16", key.public()),
            "",
        )?;
        set(
            &format!("peer {} allowed-ips 10.8.0.0/16", psk.public()),
            "",
        )?;
        set("private-key /dev/stdin", &psk.to_string())?;
        set("fwmark off private-key /dev/null", "")?;
        // A newer `wg` removes a single network if the kernel can do so (6.16).
        let known = pair.hosts[1].sh("wg", &["show", "wg0", "dump"])?;
        let minus = [
            "set",
            "wg0",
            "peer",
            &a.to_string(),
            "allowed-ips",
            "-10.0.0.0/8",
        ];
        let taken = pair.hosts[1].sh("wg-rs", &minus);
        let left = pair.hosts[1].sh("wg", &["show", "wg0", "dump"])?;
        match taken {
            Ok(_) => assert_eq!(left, known.replace("10.0.0.0/8", "(none)")),
            Err(error) => {
                assert!(error.to_string().contains("Invalid argument"), "{error}");
                assert_eq!(left, known);
            }
        }
        Ok(())
    });
}

#[test]
fn setconf_addconf_and_syncconf() {
    vm::inside(|| {
        let pair = Pair::new()?;
        let keys = Keys::generate();
        let peer = |i: u8| PeerConfig::new(Key([i; 32])).allow([10, i, 0, 0], 16);
        let full = Config::new(&keys, 7001)
            .peer(peer(1).at(([192, 0, 2, 1], 9)).keepalive(5))
            .peer(
                peer(2)
                    .preshared(Key::random())
                    .allow(Ipv6Addr::LOCALHOST, 128),
            )
            .peer(peer(3).keepalive(7));
        let mut other = Config::new(&keys, 7002)
            .peer(peer(3).keepalive(7))
            .peer(peer(2))
            .peer(peer(4));
        other.fwmark = Some(7);
        let more = Config::default()
            .peer(peer(5))
            .peer(PeerConfig::new(Key([1; 32])));
        for (verb, config) in [
            ("setconf", &full),
            ("addconf", &more),
            ("setconf", &other),
            ("syncconf", &full),
            ("addconf", &full),
            ("setconf", &more),
        ] {
            pair.change(&format!("{verb} wg0 /dev/stdin"), &config.file(&[]))?;
            let shown = pair.show("showconf wg0")?;
            pair.change("syncconf wg0 /dev/stdin", &shown)?;
        }
        // Stock `wg` of 2021 does not change these two.
        let [old, new] = [peer(2).keepalive(9).preshared(Key::random()), peer(2)];
        let host = &pair.hosts[1];
        for peer in [old, new] {
            let file = Config::new(&keys, 7001).peer(peer).file(&[]);
            host.sh_with("wg-rs", &["syncconf", "wg0", "/dev/stdin"], &file)?;
        }
        let peer = host.sh("wg", &["show", "wg0", "dump"])?;
        let fields: Vec<_> = peer.lines().nth(1).unwrap_or("").split('\t').collect();
        assert_eq!((fields[1], fields[7]), ("(none)", "off"), "{peer}");
        Ok(())
    });
}

/// Runs the table of the program `side-by-side` on an interface of the kernel: in two halves, as an
/// emulated processor is slow.
fn side_by_side(skip: &str) -> io::Result<()> {
    let lab = Lab::new()?;
    let host = lab.host("alone")?;
    let _interface = Daemon::kernel(&host)?.start(&host, "wg7", Via::StockWg)?;
    let found = |name| binaries::on_path(name).ok_or_else(|| io::Error::other(name));
    let mut command = Command::new(binaries::build("side-by-side")?);
    command.arg("--wg").arg(found("wg")?);
    command.arg("--ours").arg(found("wg-rs")?);
    command.args(["--interface", "wg7", "--every", "2", "--skip", skip]);
    let report = host
        .spawn(&mut command)?
        .success(Duration::from_secs(1500))?;
    println!("{report}");
    Ok(())
}

#[test]
fn side_by_side_one_half() {
    vm::inside(|| side_by_side("0"));
}

#[test]
fn side_by_side_the_other_half() {
    vm::inside(|| side_by_side("1"));
}

/// Requests and answers that do not fit in one netlink message.
#[test]
fn a_thousand_allowed_ips_and_a_thousand_peers() {
    vm::inside(|| {
        let pair = Pair::new()?;
        let number = |i: u16| {
            let mut key = [7; 32];
            key[..2].copy_from_slice(&i.to_be_bytes());
            Key(key)
        };
        let v4 = |i: u16| Ipv4Addr::from_bits(0x0a00_0000 | u32::from(i) << 2);
        let v6 = |i: u16| Ipv6Addr::from_bits(0xfd << 120 | u128::from(i) << 32);
        let keys = Keys::generate();
        let mut fat = PeerConfig::new(number(1001));
        for i in 0..1000 {
            fat = fat.allow(v4(i), 30).allow(v6(i), 96);
        }
        let mut config = Config::new(&keys, 7000)
            .peer(PeerConfig::new(number(1000)))
            .peer(fat);
        pair.change("setconf wg0 /dev/stdin", &config.file(&[]))?;
        let shown = pair.show("show wg0 allowed-ips")?;
        assert_eq!(shown.split_whitespace().count(), 3 + 2 * 1000);

        for i in 0..1000 {
            let psk = Key([i as u8 | 1; 32]);
            let peer = PeerConfig::new(number(i)).allow(v4(i), 30).allow(v6(i), 96);
            config = config.peer(peer.preshared(psk).at((v4(i), 9)));
        }
        pair.change("syncconf wg0 /dev/stdin", &config.file(&[]))?;
        assert_eq!(pair.show("show wg0 peers")?.lines().count(), 1002);
        // The thousand peers took all networks of the first one.
        assert!(pair.show("show wg0 allowed-ips")?.contains("(none)"));
        config.peers.truncate(500);
        pair.change("syncconf wg0 /dev/stdin", &config.file(&[]))?;
        let mut removal = String::from("set wg0");
        for i in 0..400 {
            let _ = write!(removal, " peer {} remove", number(i));
        }
        pair.change(&removal, "")?;
        Ok(())
    });
}

#[test]
fn errors_are_those_of_wg() {
    vm::inside(|| {
        let pair = Pair::new()?;
        for args in [
            "show lo",
            "show nope",
            "show a/b",
            "show lo dump",
            "showconf nope",
            "set lo fwmark 1",
            "set nope fwmark 1",
            "syncconf nope /dev/null",
            "setconf lo /dev/null",
        ] {
            let args: Vec<_> = args.split_whitespace().collect();
            let refused = pair.agree(&args, "");
            assert!(refused.is_err(), "{args:?} succeeded");
        }
        // The text of a newer `wg`; the stock one says "Invalid argument".
        let [_, ours] = pair.say(&["show", "a-name-of-16-chr"], "");
        assert!(ours.unwrap_err().contains("File name too long"));
        // Stock `wg` would cut the name, and change the interface of that name.
        let [_, ours] = pair.say(&["set", "a-name-of-16-chr", "fwmark", "1"], "");
        assert!(ours.unwrap_err().contains("No such device"));

        let nobody = ["--reuid", "65534", "--regid", "65534", "--clear-groups"];
        for args in [
            &["show", "wg0"][..],
            &["show", "interfaces"],
            &["set", "wg0", "fwmark", "1"],
        ] {
            let [stock, ours] = ["wg", "wg-rs"].map(|program| {
                let args = [&nobody[..], &[program], args].concat();
                let said = pair.hosts[0].sh("setpriv", &args);
                said.map_err(|error| error.to_string())
            });
            assert_eq!(ours, stock, "{args:?}");
        }
        Ok(())
    });
}
