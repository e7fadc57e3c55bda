//! From nothing to a tunnel: `init`, `add`, `remove`, `disable`, `enable` and `list`.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::Duration;

use netns_tests::quick::{Quick, Site};
use netns_tests::{Host, Lab, PATIENCE, Paced, Uapi, binaries, require};

const CONF: &str = "/etc/wireguard/wg0.conf";
/// The server's address in the tunnel.
const SERVER: [u8; 4] = [10, 44, 0, 1];
/// How long to try an address that should not answer.
const IN_VAIN: Duration = Duration::from_millis(1500);

/// A server whose file `init` wrote, and a client host beside it.
struct Net {
    lab: Lab,
    server: Site,
    client: Site,
    quick: Quick,
}

impl Net {
    fn new(more: &[&str]) -> io::Result<Option<Net>> {
        let lab = Lab::new()?;
        let (Some(server), Some(client)) = (Site::new(&lab, "server")?, Site::new(&lab, "client")?)
        else {
            return Ok(None);
        };
        lab.cable((&server.host, "eth0"), (&client.host, "eth0"), 1500)?;
        server.host.address("eth0", [192, 0, 2, 1], 24)?;
        client.host.address("eth0", [192, 0, 2, 2], 24)?;
        let net = Net {
            lab,
            server,
            client,
            quick: Quick::ours()?,
        };
        let init = [
            "init",
            "wg0",
            "--address",
            "10.44.0.1/24,fd44::1/64",
            "--endpoint",
            "192.0.2.1",
        ];
        net.run(&[&init[..], more].concat())?;
        Ok(Some(net))
    }

    /// Runs `wg-quick-rs` on the server.
    fn run(&self, args: &[&str]) -> io::Result<String> {
        self.server.run(&self.quick, args)?.success()
    }

    /// Runs `wg-quick-rs` on the server, which must fail. Returns its output.
    fn refused(&self, args: &[&str]) -> io::Result<String> {
        let run = self.server.run(&self.quick, args)?;
        assert_eq!(run.code, Some(1), "{args:?}: {}", run.output);
        Ok(run.output)
    }

    /// Adds a client, and returns the client's file.
    fn add(&self, args: &[&str]) -> io::Result<String> {
        let output = format!("/etc/{}.conf", args[0]);
        let words = [&["add", "wg0"], args, &["--output", &output]].concat();
        self.run(&words)?;
        self.server.host.read(&output)
    }

    fn conf(&self) -> io::Result<String> {
        self.server.host.read(CONF)
    }

    /// The keys and networks of the running peers.
    fn running(&self) -> io::Result<BTreeSet<String>> {
        let shown = self.server.sh("wg show wg0 allowed-ips")?;
        Ok(shown.lines().map(str::to_owned).collect())
    }
}

fn addresses(client: &str) -> &str {
    let line = client
        .lines()
        .find_map(|line| line.strip_prefix("Address = "));
    line.unwrap_or_else(|| panic!("no address in {client}"))
}

/// Returns the daemon's answer to a request.
fn ask(host: &Host, request: &str) -> io::Result<String> {
    Uapi::connect(host, "wg0")?.ask(request)
}

fn mode(host: &Host, path: &str) -> io::Result<u32> {
    host.run(|| Ok(fs::metadata(path)?.permissions().mode() & 0o7777))
}

#[test]
fn from_nothing_to_a_client_with_stock_tools() -> io::Result<()> {
    let (Some(net), Some(stock)) = (Net::new(&[])?, Quick::stock()?) else {
        return Ok(());
    };
    let (server, client) = (&net.server.host, &net.client);
    assert_eq!(mode(server, CONF)?, 0o600);
    let made = net.conf()?;
    assert!(made.contains("#@ Endpoint = 192.0.2.1:51820\n"), "{made}");
    // An existing file is not changed.
    let said = net.refused(&["init", "wg0"])?;
    assert!(said.contains("exists already"), "{said}");
    assert_eq!(net.conf()?, made);

    net.run(&["check", "wg0"])?;
    net.run(&["up", "wg0"])?;
    let alice = net.add(&["alice"])?;
    assert_eq!(mode(server, "/etc/alice.conf")?, 0o600);
    assert_eq!(addresses(&alice), "10.44.0.2/32, fd44::2/128");
    assert!(
        alice.contains("AllowedIPs = 10.44.0.0/24, fd44::/64\n"),
        "{alice}"
    );
    // The client's private key is stored nowhere on the server.
    let private = alice
        .lines()
        .find(|line| line.starts_with("PrivateKey"))
        .unwrap();
    let key = private.strip_prefix("PrivateKey = ").unwrap();
    net.server.sh("rm /etc/alice.conf")?;
    net.server.sh(&format!(
        "! grep -rF {key} /etc/wireguard /run/wireguard /var/run/wireguard"
    ))?;

    client.configure("wg0", &alice)?;
    client.run(&stock, &["up", "wg0"])?.success()?;
    client.host.reach(SERVER, PATIENCE)?;
    client.host.reach([0xfd44, 0, 0, 0, 0, 0, 0, 1], PATIENCE)?;
    let list = net.run(&["list", "wg0"])?;
    let line = list.lines().find(|line| line.starts_with("alice "));
    assert!(line.is_some_and(|line| line.contains(" s ago")), "{list}");
    let json = net.run(&["list", "wg0", "--json"])?;
    assert!(
        json.contains("\"name\": \"alice\"") && !json.contains(key),
        "{json}"
    );
    // The daemon knows the name, and reports it only in its status.
    assert!(ask(server, "status=1\n\n")?.contains("\nname=alice\n"));
    assert!(!ask(server, "get=1\n\n")?.contains("alice"));

    // Any of our programs switches off what the file no longer has; stock programs do not change it.
    let wg_rs = binaries::wg_rs()?;
    let conf = net.conf()?;
    let nameless = conf.replace("#@ Name = alice\n", "");
    let is_named = || Ok::<_, io::Error>(ask(server, "status=1\n\n")?.contains("\nname=alice\n"));
    for off in [
        "wg-quick-rs reload wg0".to_owned(),
        format!("{wg_rs} setconf wg0 <(wg-quick strip wg0)"),
        format!("{wg_rs} syncconf wg0 <(wg-quick strip wg0)"),
    ] {
        let off = off.replace("wg-quick-rs", &net.server.place(&net.quick)?);
        net.server.configure("wg0", &nameless)?;
        net.server.sh("wg setconf wg0 <(wg-quick strip wg0)")?;
        assert!(is_named()?);
        net.server.sh(&off)?;
        assert!(!is_named()?, "{off}");
        net.server.configure("wg0", &conf)?;
        net.run(&["reload", "wg0"])?;
        assert!(is_named()?);
        let said = net.run(&["reload", "wg0"])?;
        assert!(!said.contains("[#]"), "nothing to do: {said}");
    }
    // Stock programs ignore our lines.
    net.server.sh("wg syncconf wg0 <(wg-quick strip wg0)")?;
    client.host.reach(SERVER, PATIENCE)?;
    net.run(&["down", "wg0"])?;
    net.server.run(&stock, &["up", "wg0"])?.success()?;
    let bob = net.add(&["bob"])?;
    assert_eq!(addresses(&bob), "10.44.0.3/32, fd44::3/128");
    assert_eq!(net.running()?.len(), 2);
    net.server.run(&stock, &["down", "wg0"])?.success()?;
    // Without an interface, only the file is changed.
    let carol = net.add(&["carol"])?;
    assert_eq!(addresses(&carol), "10.44.0.4/32, fd44::4/128");
    net.run(&["up", "wg0"])?;
    assert_eq!(net.running()?.len(), 3);
    net.run(&["down", "wg0"])?;
    Ok(())
}

#[test]
fn a_daemon_that_ends_while_a_client_is_added_is_no_interface() -> io::Result<()> {
    let Some(net) = Net::new(&[])? else {
        return Ok(());
    };
    let host = &net.server.host;
    const SOCKET: &str = "/var/run/wireguard/wg0.sock";
    let daemon = host.run(|| UnixListener::bind(SOCKET))?;
    thread::scope(|scope| {
        // The first that looks for the daemon finds it. After that it has ended.
        let end = scope.spawn(move || {
            let _first = daemon.accept()?;
            host.run(|| fs::remove_file(SOCKET))
        });
        let carol = net.add(&["carol"])?;
        assert_eq!(addresses(&carol), "10.44.0.2/32, fd44::2/128");
        end.join().expect("no panic")
    })
}

#[test]
fn adding_and_removing_clients_does_not_disturb_others() -> io::Result<()> {
    let Some(net) = Net::new(&[])? else {
        return Ok(());
    };
    net.run(&["up", "wg0"])?;
    let alice = net.add(&["alice"])?;
    net.client.configure("wg0", &alice)?;
    net.client.run(&net.quick, &["up", "wg0"])?.success()?;
    net.client.host.reach(SERVER, PATIENCE)?;
    let stream = Paced::start(&net.client.host, (&net.server.host, SERVER.into()))?;
    stream.go_on(100)?;
    for words in [
        &["add", "wg0", "bob"][..],
        &["disable", "wg0", "bob"],
        &["enable", "wg0", "bob"],
        &["add", "wg0", "--replace", "bob"],
        &["remove", "wg0", "bob"],
        &["reload", "wg0"],
    ] {
        net.run(words)?;
        stream.go_on(50)?;
    }
    let count = stream.finish()?;
    assert_eq!(count.lost(), 0, "{count:?}");
    let running = net.running()?;
    assert_eq!(running.len(), 1, "{running:?}");
    net.client.run(&net.quick, &["down", "wg0"])?.success()?;
    net.run(&["down", "wg0"])?;
    Ok(())
}

#[test]
fn clients_added_concurrently_get_different_addresses() -> io::Result<()> {
    let Some(net) = Net::new(&[])? else {
        return Ok(());
    };
    net.run(&["up", "wg0"])?;
    let names = ["ada", "bea", "cleo", "dora", "eva", "fay"];
    let start = |name: &&str| {
        let output = format!("/etc/{name}.conf");
        net.server
            .start(&net.quick, &["add", "wg0", name, "--output", &output])
    };
    let runs = names.iter().map(start).collect::<io::Result<Vec<_>>>()?;
    for run in runs {
        net.server.finish(run)?.success()?;
    }
    let mut taken = BTreeSet::new();
    for name in names {
        let file = net.server.host.read(&format!("/etc/{name}.conf"))?;
        taken.insert(addresses(&file).to_owned());
    }
    assert_eq!(taken.len(), names.len(), "{taken:?}");
    assert_eq!(net.running()?.len(), names.len());
    let conf = net.conf()?;
    assert!(
        names
            .iter()
            .all(|name| conf.contains(&format!("#@ Name = {name}\n"))),
        "{conf}"
    );
    net.run(&["down", "wg0"])?;
    Ok(())
}

#[test]
fn a_client_is_disabled_enabled_and_removed() -> io::Result<()> {
    let Some(net) = Net::new(&[])? else {
        return Ok(());
    };
    net.run(&["up", "wg0"])?;
    let alone = net.conf()?;
    let alice = net.add(&["alice"])?;
    // The file has comments of its owner.
    let conf = net.conf()?.replace("[Peer]", "# the phone\n[Peer] # hers");
    net.server.configure("wg0", &conf)?;
    net.client.configure("wg0", &alice)?;
    net.client.run(&net.quick, &["up", "wg0"])?.success()?;
    net.client.host.reach(SERVER, PATIENCE)?;
    let running = net.running()?;

    net.run(&["disable", "wg0", "alice"])?;
    assert!(net.running()?.is_empty());
    assert!(net.client.host.reach(SERVER, IN_VAIN).is_err());
    let off = net.conf()?;
    assert!(
        off.contains("# the phone\n#! [Peer] # hers\n#! #@ Name = alice\n"),
        "{off}"
    );
    assert!(net.run(&["list", "wg0"])?.contains("disabled"));
    // While disabled, it keeps its address and its name, and stock tools do not see it.
    assert!(
        net.server
            .sh("wg-quick strip wg0")?
            .lines()
            .all(|line| line != "[Peer]")
    );
    let bob = net.add(&["bob"])?;
    assert_eq!(addresses(&bob), "10.44.0.3/32, fd44::3/128");
    assert!(
        net.refused(&["add", "wg0", "alice"])?
            .contains("already exists")
    );
    net.run(&["remove", "wg0", "bob"])?;
    assert_eq!(net.conf()?, off);
    let said = net.run(&["disable", "wg0", "alice"])?;
    assert!(said.contains("already disabled"), "{said}");

    net.run(&["enable", "wg0", "alice"])?;
    assert_eq!(net.conf()?, conf);
    assert_eq!(net.running()?, running);
    net.client.host.reach(SERVER, PATIENCE)?;

    // With new keys the old file is useless.
    let again = net
        .add(&["alice", "--replace", "--allowed-ips", "10.44.0.1/32"])
        .expect_err("its file is there still");
    assert!(again.to_string().contains("exists already"), "{again}");
    assert_eq!(net.conf()?, conf);
    net.server.sh("rm /etc/alice.conf")?;
    let again = net.add(&["alice", "--replace", "--allowed-ips", "10.44.0.1/32"])?;
    assert_eq!(addresses(&again), addresses(&alice));
    assert!(again.contains("AllowedIPs = 10.44.0.1/32\n"), "{again}");
    assert!(net.client.host.reach(SERVER, IN_VAIN).is_err());
    net.client.run(&net.quick, &["down", "wg0"])?.success()?;
    net.client.configure("wg0", &again)?;
    net.client.run(&net.quick, &["up", "wg0"])?.success()?;
    net.client.host.reach(SERVER, PATIENCE)?;
    assert_eq!(net.running()?.len(), 1);

    net.run(&["remove", "wg0", "alice"])?;
    assert!(net.running()?.is_empty());
    assert_eq!(net.conf()?, alone);
    let said = net.refused(&["remove", "wg0", "alice"])?;
    assert!(said.contains("no peer `alice'"), "{said}");
    net.client.run(&net.quick, &["down", "wg0"])?.success()?;
    net.run(&["down", "wg0"])?;
    Ok(())
}

/// The network behind a peer needs a route, which is added and removed with the peer.
#[test]
fn routes_are_added_and_removed_with_a_peer() -> io::Result<()> {
    let Some(net) = Net::new(&[])? else {
        return Ok(());
    };
    net.add(&["site"])?;
    let conf = net
        .conf()?
        .replace("fd44::2/128", "fd44::2/128, 10.99.0.0/16");
    net.server.configure("wg0", &conf)?;
    net.run(&["up", "wg0"])?;
    let routes = || net.server.sh("ip route show dev wg0");
    let before = routes()?;
    assert!(before.contains("10.99.0.0/16"), "{before}");
    net.run(&["disable", "wg0", "site"])?;
    assert!(!routes()?.contains("10.99.0.0/16"));
    net.run(&["enable", "wg0", "site"])?;
    assert_eq!(routes()?, before);
    net.run(&["remove", "wg0", "site"])?;
    assert!(!routes()?.contains("10.99.0.0/16"));
    net.run(&["down", "wg0"])?;
    Ok(())
}

/// Whatever step fails, the file, the interface and the output stay as before; so they do if the client's
/// file cannot be printed.
#[test]
fn a_failed_add_changes_nothing() -> io::Result<()> {
    let (Some(net), Some(_)) = (
        Net::new(&[])?,
        require("strace", binaries::on_path("strace")),
    ) else {
        return Ok(());
    };
    net.run(&["up", "wg0"])?;
    net.add(&["alice"])?;
    let (conf, running) = (net.conf()?, net.running()?);
    let files = || net.server.sh("ls -A /etc /etc/wireguard");
    let before = files()?;
    let is_as_before = |what: &str| -> io::Result<()> {
        assert_eq!(net.conf()?, conf, "{what}");
        assert_eq!(net.running()?, running, "{what}");
        assert_eq!(files()?, before, "{what}");
        Ok(())
    };
    let program = net.server.place(&net.quick)?;
    net.server
        .sh(&format!("! {program} add wg0 bob > /dev/full"))?;
    is_as_before("the client's file cannot be printed")?;

    let add = |inject: &str, trace: &str| {
        let log = "/etc/netns-tests/trace";
        net.server.sh(&format!(
            "code=0; strace -f -o {log} -e trace={trace} {inject} {program} add wg0 bob --output /etc/bob.conf \
             > /etc/netns-tests/said 2>&1 || code=$?; echo $code; cat /etc/netns-tests/said >&2"
        ))
        .map(|said| said.lines().next().unwrap_or_default().to_owned())
    };
    let undo = || {
        net.server
            .sh(&format!("{program} remove wg0 bob; rm /etc/bob.conf"))
    };
    let (mut refused, mut tolerated) = (0, 0);
    for call in [
        "connect", "sendto", "write", "rename", "link", "fsync", "openat",
    ] {
        assert_eq!(add("", call)?, "0");
        undo()?;
        let trace = net.server.host.read("/etc/netns-tests/trace")?;
        let calls = trace
            .lines()
            .filter(|line| line.contains(&format!(" {call}(")));
        // The first calls open the loader's own files, which are not tested here.
        let calls: Vec<&str> = calls.collect();
        for (n, line) in calls.iter().enumerate().filter(|(_, line)| {
            call != "openat" || line.contains("wireguard") || line.contains("bob.conf")
        }) {
            let inject = format!("-e inject={call}:error=EIO:when={}", n + 1);
            match add(&inject, call)?.as_str() {
                "0" => {
                    tolerated += 1;
                    undo()?;
                }
                "1" => refused += 1,
                code => panic!("exit code {code} after {line}"),
            }
            is_as_before(line)?;
        }
    }
    assert!(refused >= 10, "{refused} refused, {tolerated} tolerated");
    // FAT has no links.
    assert_eq!(add("-e inject=link:error=EPERM", "link")?, "0");
    undo()?;
    net.run(&["down", "wg0"])?;
    Ok(())
}

#[test]
fn all_traffic_goes_through_the_server() -> io::Result<()> {
    if require("nft", binaries::on_path("nft")).is_none() {
        return Ok(());
    }
    let Some(net) = Net::new(&["--nat"])? else {
        return Ok(());
    };
    let web = net.lab.host("web")?;
    net.lab
        .cable((&net.server.host, "eth1"), (&web, "eth0"), 1500)?;
    net.server.host.address("eth1", [198, 51, 100, 1], 24)?;
    net.server
        .host
        .address("eth1", [0x2001, 0xdb8, 1, 0, 0, 0, 0, 1], 64)?;
    // This host has no route to the tunnel's network, so it can answer only translated packets.
    web.address("eth0", [198, 51, 100, 2], 24)?;
    web.address("eth0", [0x2001, 0xdb8, 1, 0, 0, 0, 0, 2], 64)?;
    net.run(&["up", "wg0"])?;
    let said = net.run(&[
        "add",
        "wg0",
        "phone",
        "--full-tunnel",
        "--output",
        "/etc/phone.conf",
    ])?;
    assert!(said.contains("--dns"), "{said}");
    let phone = net.server.host.read("/etc/phone.conf")?;
    assert!(phone.contains("AllowedIPs = 0.0.0.0/0, ::/0\n"), "{phone}");
    net.client.configure("wg0", &phone)?;
    net.client.run(&net.quick, &["up", "wg0"])?.success()?;
    net.client.host.reach([198, 51, 100, 2], PATIENCE)?;
    net.client
        .host
        .reach([0x2001, 0xdb8, 1, 0, 0, 0, 0, 2], PATIENCE)?;
    net.client.run(&net.quick, &["down", "wg0"])?.success()?;
    net.run(&["down", "wg0"])?;
    let left = net.server.sh("nft list tables")?;
    assert!(!left.contains("wg0"), "{left}");
    // A link that was deleted leaves its table; the next `up` replaces it.
    net.run(&["up", "wg0"])?;
    net.server.sh("ip link del wg0")?;
    net.run(&["up", "wg0"])?;
    assert_eq!(
        net.server.sh("nft list tables")?.matches("nat-wg0").count(),
        1
    );
    net.run(&["down", "wg0"])?;
    Ok(())
}

/// A file that was written for stock wg-quick: no names, an MTU, hooks, comments.
#[test]
fn a_file_for_stock_wg_quick_takes_clients() -> io::Result<()> {
    let Some(net) = Net::new(&[])? else {
        return Ok(());
    };
    let (server, other) = (netns_tests::Keys::generate(), netns_tests::Keys::generate());
    let text = format!(
        "# ours\n[Interface]\nPrivateKey = {}\nAddress = 10.44.0.9/24\nListenPort = 4500\nMTU = 1380\n\
         PostUp = true # quiet\n\n[Peer] # an old friend\nPublicKey = {}\nAllowedIPs = 10.44.0.1/32\n",
        server.private, other.public
    );
    net.server.configure("wg0", &text)?;
    let said = net.refused(&["add", "wg0", "alice"])?;
    assert!(said.contains("#@ Endpoint = HOST:PORT"), "{said}");
    let alice = net.add(&["alice", "--endpoint", "vpn.example.com"])?;
    assert!(
        alice.contains("Endpoint = vpn.example.com:4500\n"),
        "{alice}"
    );
    assert_eq!(addresses(&alice), "10.44.0.2/32");
    assert!(net.conf()?.starts_with(&text));
    net.run(&["remove", "wg0", &other.public.to_string()])?;
    assert!(!net.conf()?.contains("old friend"));

    // An error is reported with its line, and nothing is changed.
    let wrong = net.conf()?.replace("#@ Name", "#@ Nmae");
    net.server.configure("wg0", &wrong)?;
    let said = net.refused(&["add", "wg0", "bob", "--endpoint", "vpn.example.com"])?;
    assert!(said.contains("#@ Nmae' (did you mean `Name'?)"), "{said}");
    assert_eq!(net.conf()?, wrong);
    Ok(())
}

/// A daemon that does not support names works without them.
#[test]
fn another_daemon_takes_clients_too() -> io::Result<()> {
    let (Some(net), Some(_)) = (
        Net::new(&[])?,
        require("wireguard-go", binaries::on_path("wireguard-go")),
    ) else {
        return Ok(());
    };
    let program = net.server.place(&net.quick)?;
    let run = |args: &str| {
        net.server.sh(&format!(
            "WG_QUICK_USERSPACE_IMPLEMENTATION=wireguard-go {program} {args}"
        ))
    };
    run("add wg0 alice --output /etc/alice.conf")?;
    run("up wg0")?;
    run("add wg0 bob --output /etc/bob.conf")?;
    assert_eq!(net.running()?.len(), 2);
    run("reload wg0")?;
    net.client
        .configure("wg0", &net.server.host.read("/etc/bob.conf")?)?;
    net.client.run(&net.quick, &["up", "wg0"])?.success()?;
    net.client.host.reach(SERVER, PATIENCE)?;
    run("disable wg0 bob")?;
    assert_eq!(net.running()?.len(), 1);
    let wg_rs = binaries::wg_rs()?;
    let key = net.server.sh("wg show wg0 peers")?;
    let said = net.server.sh(&format!(
        "{wg_rs} set wg0 peer {} name x 2>&1 || true",
        key.trim()
    ))?;
    assert!(said.contains("does not support `name'"), "{said}");
    run("down wg0")?;
    net.client.run(&net.quick, &["down", "wg0"])?.success()?;
    Ok(())
}

#[test]
fn init_picks_an_unused_network() -> io::Result<()> {
    let Some(net) = Net::new(&[])? else {
        return Ok(());
    };
    let said = net.run(&["init", "wg1"])?;
    let text = net.server.host.read("/etc/wireguard/wg1.conf")?;
    assert!(
        said.contains("Next: ") && said.contains("add wg1 NAME"),
        "{said}"
    );
    assert!(
        text.contains("Address = 10.") && !text.contains("10.44.0."),
        "{text}"
    );
    // Without a default route, the server's public address is not known.
    assert!(!text.contains("#@"), "{text}");
    assert!(
        net.refused(&["add", "wg1", "alice"])?
            .contains("--endpoint")
    );
    let said = net.run(&["init", "wg2", "--address", "10.44.0.7/24"])?;
    assert!(said.contains("overlaps"), "{said}");
    net.run(&["up", "wg0"])?;
    let said = net.refused(&["init", "wg3"])?;
    assert!(said.contains("port 51820"), "{said}");
    net.run(&["down", "wg0"])?;
    Ok(())
}
