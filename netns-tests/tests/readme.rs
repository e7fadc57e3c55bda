//! Runs the README's commands, unchanged and in order.
//!
//! The word after the language of a code block says where it is run:
//!
//! ```text
//! sh ci        by .ci/run, as it takes too long for a test
//! sh laptop    on a host that has its own /etc and /usr/local
//! sh server    on another such host, which the laptop knows as vpn.example.com
//! sh both      on both
//! sh image     by image.rs, on a host with the image's base
//! ```
//!
//! On these hosts `cargo`, `apt`, `systemctl`, `journalctl`, `ping` and `scp` are stand-ins: the programs
//! are already built, `packaging.rs` tests the package, `systemctl` runs the command in the unit's file,
//! and the test itself takes the files that `scp` copies to the laptop.

use std::fs;
use std::io;
use std::sync::LazyLock;

use netns_tests::containers::{ContainerEngine, Kind};
use netns_tests::quick::{BIN, Quick, Site};
use netns_tests::{Lab, NameServer, PATIENCE, binaries, require, until};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const LAPTOP: [u8; 4] = [192, 0, 2, 1];
const SERVER: [u8; 4] = [192, 0, 2, 2];
/// The name server on the server, inside of the tunnel.
const DNS: [u8; 4] = [10, 9, 0, 1];
/// What it answers to every question.
const ANSWER: [u8; 4] = [203, 0, 113, 1];

/// A code block.
#[derive(Debug)]
struct Block {
    language: &'static str,
    place: &'static str,
    text: &'static str,
}

fn blocks() -> Vec<Block> {
    static README: LazyLock<String> = LazyLock::new(|| {
        fs::read_to_string(format!("{ROOT}/README.md")).expect("there is a README")
    });
    let parts = README.split("\n```").skip(1).step_by(2);
    parts
        .map(|part| {
            let (info, text) = part.split_once('\n').expect("a block has lines");
            let (language, place) = info.split_once(' ').unwrap_or((info, ""));
            Block {
                language,
                place,
                text,
            }
        })
        .collect()
}

const CARGO: &str = r#"#!/bin/sh
case "$*" in
"build --release --locked") ls target/release/wg-quick-rs > /dev/null ;;
"install --locked cargo-deb") ;;
"deb -p wg-quick-rs --dbgsym") mkdir -p target/debian; touch target/debian/wg-rs_0_amd64.deb ;;
*) echo "what is cargo $*?" >&2; exit 1 ;;
esac
"#;

const APT: &str = r#"#!/bin/sh
[ "$#" = 2 ] && [ "$1" = install ] && [ -e "$2" ]
"#;

const SYSTEMCTL: &str = r#"#!/bin/sh -e
unit() { cat "/usr/local/lib/systemd/system/$1"; }
case "$*" in
daemon-reload) ;;
"enable --now wg-quick-rs@"*)
    name=${3#*@}
    line=$(unit wg-quick-rs@.service | sed -n 's/^ExecStart=//p' | sed "s/%i/$name/") ;;
"enable --now wg-quick-rs-reresolve.timer")
    unit wg-quick-rs-reresolve.timer > /dev/null
    line=$(unit wg-quick-rs-reresolve.service | sed -n 's/^ExecStart=//p') ;;
"stop wg-quick-rs@"*)
    name=${2#*@}
    line=$(unit wg-quick-rs@.service | sed -n 's/^ExecStop=//p' | sed "s/%i/$name/") ;;
*) echo "what is systemctl $*?" >&2; exit 1 ;;
esac
# By its path: as installed, and nowhere else.
exec $line
"#;

/// Keeps a copy for the test to take to the other host.
const SCP: &str = "#!/bin/sh -e\n[ \"$#\" = 2 ]\ncp \"$1\" /etc/copied\n";

const JOURNALCTL: &str = "#!/bin/sh\n[ \"$1\" = -u ] && [ \"${2%@*}\" = wg-quick-rs ]\n";

/// A host as the README expects it.
fn machine(lab: &Lab, name: &str) -> io::Result<Option<Site>> {
    let Some(site) = Site::new(lab, name)? else {
        return Ok(None);
    };
    for (name, script) in [
        ("cargo", CARGO),
        ("apt", APT),
        ("systemctl", SYSTEMCTL),
        ("journalctl", JOURNALCTL),
        ("scp", SCP),
        ("ping", "#!/bin/sh\nexec busybox ping \"$@\"\n"),
    ] {
        site.stand_in(name, script)?;
    }
    // Our programs are not on PATH until the README's commands have installed them.
    let programs = [
        Quick::ours()?.path().to_owned(),
        binaries::build("wg-rs")?,
        binaries::build("wireguard-rs")?,
    ];
    site.sh(&format!(
        "rm {BIN}/wireguard-rs
         for folder in /usr/local /srv; do
             layer=/var/run/wireguard/.layer$folder
             mkdir -p $layer/upper $layer/work
             mount -t overlay -o lowerdir=$folder,upperdir=$layer/upper,workdir=$layer/work \
                 overlay $folder
         done
         rm -f /usr/local/bin/{{wg-rs,wg-quick-rs,wireguard-rs}}
         mkdir -p /srv/wg-rs/target/release
         ln -s {ROOT}/Makefile {ROOT}/man {ROOT}/wg-rs {ROOT}/wg-quick-rs /srv/wg-rs/
         echo 192.0.2.2 vpn.example.com >> /etc/hosts"
    ))?;
    for program in programs {
        site.sh(&format!(
            "cp {} /srv/wg-rs/target/release/",
            program.display()
        ))?;
    }
    Ok(Some(site))
}

/// Runs a block on a host.
fn run(site: &Site, block: &Block, more: &str) -> io::Result<String> {
    let script = format!(
        "{more}\nexport PATH={BIN}:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n\
         cd /srv/wg-rs\n{}",
        block.text
    );
    site.sh(&script).map_err(|error| {
        let name = site.host.name();
        io::Error::other(format!("on the {name}:\n{}\n{error}", block.text))
    })
}

/// A container engine with an image `nginx` that only does what the README needs: run, and look up
/// names.
fn engine(site: &Site) -> io::Result<Option<ContainerEngine>> {
    let Some(engine) = ContainerEngine::start(Kind::Docker, &site.host)? else {
        return Ok(None);
    };
    site.sh(
        "printf '#!/bin/sh\\nexec /bin/busybox nslookup \"$2\"\\n' > /etc/getent; chmod 755 /etc/getent",
    )?;
    for command in [
        &[
            "create",
            "--name",
            "seed",
            "--network",
            "none",
            "box",
            "/bin/sh",
        ][..],
        &["cp", "/etc/getent", "seed:/bin/getent"],
        &[
            "commit",
            "--change",
            r#"CMD ["/bin/sleep", "600"]"#,
            "seed",
            "nginx",
        ],
        &["rm", "seed"],
    ] {
        engine.command(command)?;
    }
    Ok(Some(engine))
}

#[test]
fn the_commands_of_the_readme_work() -> io::Result<()> {
    if require("busybox", binaries::on_path("busybox")).is_none() {
        return Ok(());
    }
    let lab = Lab::new()?;
    let (Some(laptop), Some(server)) = (machine(&lab, "laptop")?, machine(&lab, "server")?) else {
        return Ok(());
    };
    lab.cable((&laptop.host, "eth0"), (&server.host, "eth0"), 1500)?;
    laptop.host.address("eth0", LAPTOP, 24)?;
    server.host.address("eth0", SERVER, 24)?;
    server.host.address("lo", ANSWER, 32)?;
    let sites = [("laptop", &laptop), ("server", &server)];

    let mut dns = None;
    let mut docker = None;
    let mut ran = 0;
    for block in blocks() {
        match (block.language, block.place) {
            ("sh", "ci") => by_ci(block.text)?,
            ("sh", "image") => {}
            ("sh", place) => {
                let mut more = String::new();
                if block.text.contains("docker ") {
                    if docker.is_none() {
                        docker = engine(&laptop)?;
                    }
                    let Some(engine) = &docker else { continue };
                    more = format!("export DOCKER_HOST={}", engine.socket());
                }
                for (name, site) in sites {
                    if place == name || place == "both" {
                        let said = run(site, &block, &more)?;
                        holds(&block, &said, site)?;
                        ran += 1;
                    }
                }
                if let Some((_, copy)) = block.text.split_once("scp ") {
                    copy_to_laptop(copy, &server, &laptop)?;
                }
                if dns.is_none() && block.text.contains("up wg0") {
                    dns = Some(NameServer::start(&server.host, DNS, |_| {
                        Some(ANSWER.into())
                    })?);
                }
            }
            ("", "") | ("text", "") => {}
            _ => panic!("the README does not say where to run {block:?}"),
        }
    }
    assert!(ran >= 14, "only {ran} blocks");
    Ok(())
}

/// Does what `scp FILE laptop:/etc/wireguard/FILE` is for: its stand-in cannot reach the other host.
fn copy_to_laptop(copy: &str, server: &Site, laptop: &Site) -> io::Result<()> {
    let to = copy.split_whitespace().nth(1).unwrap_or_default();
    let name = to.strip_prefix("laptop:/etc/wireguard/");
    let name = name.and_then(|name| name.strip_suffix(".conf"));
    let name = name.unwrap_or_else(|| panic!("scp {copy}"));
    laptop.configure(name, &server.host.read("/etc/copied")?)
}

/// Checks the results of some blocks.
fn holds(block: &Block, said: &str, site: &Site) -> io::Result<()> {
    if block.text.contains("ping -c") {
        assert!(said.contains(" 0% packet loss"), "{said}");
        assert!(said.contains("latest handshake"), "{said}");
    }
    if block.text.contains("list wg0") {
        assert!(said.contains("laptop ") && said.contains(" ago"), "{said}");
    }
    if block.text.contains("getent hosts") {
        assert!(said.contains("203.0.113.1"), "{said}");
    }
    if block.text.contains("LOG_LEVEL") {
        until(PATIENCE, "a handshake in the log", || {
            let log = site.sh("cat /srv/wg-rs/wg0.log")?;
            Ok(log.to_lowercase().contains("handshake").then_some(()))
        })?;
    }
    Ok(())
}

/// Checks that .ci/run runs the same programs, though with fewer rounds.
fn by_ci(text: &str) -> io::Result<()> {
    let ci = fs::read_to_string(format!("{ROOT}/.ci/run"))?;
    let first_two = |line: &str| {
        blocks()
            .iter()
            .take(2)
            .any(|block| block.text.contains(line))
    };
    for line in text.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        let flag = |name: &str| {
            let at = words.iter().position(|word| *word == name)?;
            words.get(at + 1).map(|value| format!("{name} {value}"))
        };
        let program = flag("--bin")
            .or_else(|| flag("--bench"))
            .unwrap_or_default();
        assert!(
            first_two(line) || (!program.is_empty() && ci.contains(&program)),
            "{line}"
        );
    }
    Ok(())
}
