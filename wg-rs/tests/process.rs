//! Tests of `wg_rs::sys::process` that need a process with one thread, which the test may modify.
//! Each scenario starts this program again. They need root.

use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Output, Stdio, exit};

use wg_rs::sys::netlink::{Events, MulticastGroups, Netlink};
use wg_rs::sys::netns::NetNs;
use wg_rs::sys::process::background::{self, Background, Parent};
use wg_rs::sys::process::confine;
use wg_rs::sys::tun::{Tun, TunOffloads};
use wg_rs::sys::udp::{Family, UdpOptions, UdpSocket};

type Scenario = (&'static str, fn());

/// The tests, which run in the outer process.
const TESTS: [Scenario; 6] = [
    ("all_other_capabilities_are_dropped", || ok(run("confined"))),
    ("core_dumps_and_inspection_are_disabled", || {
        ok(run("undumpable"))
    }),
    (
        "dropping_capabilities_with_several_threads_is_refused",
        || ok(run("threaded")),
    ),
    ("the_parent_exits_when_the_child_is_ready", || {
        ok(run("parent-ready"))
    }),
    ("the_parent_fails_with_the_message_of_the_child", || {
        ok(run("parent-failed"))
    }),
    (
        "the_parent_fails_when_the_child_ends_without_a_message",
        || ok(run("parent-ended")),
    ),
];

/// The scenarios, which run in a new process.
const SCENARIOS: [Scenario; 7] = [
    ("confined", confined),
    ("undumpable", undumpable),
    ("threaded", threaded),
    ("parent-ready", parent_ready),
    ("parent-failed", parent_failed),
    ("parent-ended", parent_ended),
    ("child", child),
];

fn main() {
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some("scenario") {
        let name = args.next().expect("a scenario's name");
        let (_, scenario) = SCENARIOS
            .iter()
            .find(|(known, _)| *known == name)
            .expect("known");
        return scenario();
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("these tests drop capabilities, so they must start as root");
        exit(1);
    }
    for (name, test) in TESTS {
        test();
        println!("test {name} ... ok");
    }
}

fn run(scenario: &str) -> Output {
    let program = std::env::current_exe().unwrap();
    Command::new(program)
        .args(["scenario", scenario])
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn ok(output: Output) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {text}", output.status);
}

fn status(field: &str) -> String {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().to_owned()
}

fn enter_new_netns() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    Netlink::open().unwrap().set_up("lo", true).unwrap();
}

fn confined() {
    enter_new_netns();
    let elsewhere = NetNs::new().unwrap();
    let mut events = Events::open(MulticastGroups {
        links: true,
        ..MulticastGroups::default()
    })
    .unwrap();
    let tun = Tun::create("tun0", TunOffloads::ALL).unwrap();
    Netlink::open()
        .unwrap()
        .move_link("tun0", elsewhere.as_fd())
        .unwrap();

    confine::drop_capabilities().unwrap();
    let kept = format!("{:016x}", 1 << 10 | 1 << 12);
    assert_eq!(status("CapPrm"), kept);
    assert_eq!(status("CapEff"), kept);
    for set in ["CapInh", "CapBnd", "CapAmb"] {
        assert_eq!(status(set), "0000000000000000", "{set}");
    }
    assert_eq!(status("NoNewPrivs"), "1");
    std::thread::spawn(move || assert_eq!(status("CapPrm"), kept))
        .join()
        .unwrap();

    // The rights of root are gone,
    assert!(NetNs::new().is_err());
    let shadow = Command::new("cat")
        .arg("/proc/thread-self/status")
        .output()
        .unwrap();
    let shadow = String::from_utf8(shadow.stdout).unwrap();
    assert!(shadow.contains("CapPrm:\t0000000000000000"), "{shadow}");
    // but the daemon can still do its work.
    let options = UdpOptions {
        fwmark: 7,
        ..UdpOptions::default()
    };
    let socket = UdpSocket::bind(Family::V4, 53, &options).unwrap();
    let buffer = nix::sys::socket::getsockopt(&socket, nix::sys::socket::sockopt::RcvBuf).unwrap();
    assert!(buffer >= 8 << 20);
    socket.set_fwmark(8).unwrap();
    let mut netlink = Netlink::open().unwrap();
    netlink.set_mtu("lo", 9000).unwrap();
    // The link in its other namespace can be found, and its events arrive.
    let nsid = netlink.nsid_or_new(tun.netns().unwrap().as_fd()).unwrap();
    assert!(!netlink.link_in(nsid, &tun.name().unwrap()).unwrap().up);
    while events.recv().is_ok() {}
    drop(tun);
    wg_rs::sys::poll::wait([events.as_fd()], None).unwrap();
    assert!(std::iter::from_fn(|| events.recv().ok()).any(|event| matches!(
        event,
        wg_rs::sys::netlink::NetlinkEvent::LinkGone { netns, moved_to: None, .. } if netns == Some(nsid)
    )));
}

fn undumpable() {
    confine::no_core_dumps().unwrap();
    assert!(!nix::sys::prctl::get_dumpable().unwrap());
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .unwrap();
    assert_eq!(
        line.split_whitespace().collect::<Vec<_>>()[4..6],
        ["0", "0"]
    );
}

fn threaded() {
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || ended.recv());
    let before = status("CapPrm");
    let error = confine::drop_capabilities().unwrap_err();
    assert!(error.to_string().contains("2 threads"), "{error}");
    assert_eq!(status("CapPrm"), before);
    assert_eq!(status("NoNewPrivs"), "0");
    drop(end);
    thread.join().unwrap().unwrap_err();
    confine::drop_capabilities().unwrap();
}

/// Creates a TUN and a listener, and starts the child `what`. Returns the result, and the
/// listener's path.
fn start(what: &str) -> (Result<(), background::Error>, std::path::PathBuf) {
    enter_new_netns();
    let path = std::env::temp_dir().join(format!("wg-rs-process-{}", std::process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    let tun = Tun::create("tun0", TunOffloads::ALL).unwrap();
    let args = ["scenario", "child", what].map(OsString::from);
    // Descriptors that our caller left open must not be inherited by the child.
    let left_open = nix::unistd::dup(&listener).unwrap();
    let background = Background {
        args: &args,
        tun: tun.as_fd(),
        uapi: listener.as_fd(),
        keep_output: false,
    };
    let result = background.start();
    drop(left_open);
    (result, path)
}

fn parent_ready() {
    let (result, path) = start("ready");
    result.unwrap();
    // Our own TUN and listener are already closed; the child answers.
    assert!(Netlink::open().unwrap().link("tun0").is_ok());
    let mut client = UnixStream::connect(&path).unwrap();
    fs::remove_file(&path).unwrap();
    client.write_all(b"?").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    let own_session = nix::unistd::getsid(None).unwrap().to_string();
    let lines: Vec<_> = answer.lines().collect();
    assert_eq!(lines[..4], ["tun0", "/dev/null", "/dev/null", "/dev/null"]);
    assert_ne!(lines[4], own_session);
    // The child has no other descriptors: 0, 1, 2, TUN, listener, this client, and the closed pipe.
    assert_eq!(lines[5], "0 1 2 3 4");
}

fn parent_failed() {
    let (result, path) = start("failed");
    fs::remove_file(path).unwrap();
    assert_eq!(result.unwrap_err().to_string(), "no such luck");
    assert!(
        Netlink::open()
            .unwrap()
            .link("tun0")
            .unwrap_err()
            .is_absent()
    );
}

fn parent_ended() {
    let (result, path) = start("ended");
    fs::remove_file(path).unwrap();
    assert_eq!(
        result.unwrap_err().to_string(),
        "ended with exit status: 3 before it was ready"
    );
}

fn child() {
    assert_eq!(std::env::var(background::FOREGROUND).unwrap(), "1");
    let parent = Parent::take().unwrap().expect("a parent");
    match std::env::args().nth(3).as_deref() {
        Some("failed") => return parent.failed("no such luck\n"),
        Some("ended") => exit(3),
        _ => {}
    }
    let tun = background::inherited(background::TUN_FD).unwrap().unwrap();
    let tun = Tun::from_fd(tun, TunOffloads::ALL).unwrap();
    let listener = background::inherited(background::UAPI_FD).unwrap().unwrap();
    let listener = UnixListener::from(listener);
    assert!(background::inherited(background::TUN_FD).is_err());
    parent.ready();
    let mut open: Vec<u32> = fs::read_dir("/proc/self/fd")
        .unwrap()
        .map(|entry| {
            entry
                .unwrap()
                .file_name()
                .to_str()
                .unwrap()
                .parse()
                .unwrap()
        })
        .collect();
    open.sort_unstable();
    // The last descriptor is the directory that is being read.
    open.pop();
    let open: Vec<_> = open.iter().map(ToString::to_string).collect();
    let (mut client, _) = listener.accept().unwrap();
    client.read_exact(&mut [0]).unwrap();
    let stdio = [0, 1, 2].map(|fd| {
        fs::read_link(format!("/proc/self/fd/{fd}"))
            .unwrap()
            .display()
            .to_string()
    });
    let session = nix::unistd::getsid(None).unwrap();
    let answer = format!(
        "{}\n{}\n{session}\n{}\n",
        tun.name().unwrap(),
        stdio.join("\n"),
        open.join(" ")
    );
    client.write_all(answer.as_bytes()).unwrap();
}
