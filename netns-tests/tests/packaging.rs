//! The Debian package in a clean root by debootstrap: it is installed, used and removed, and leaves
//! nothing. Its units run under a real systemd, which systemd-nspawn boots there.
//!
//! `WG_RS_DEB` names the package; without it, `cargo deb` builds it in the release profile. The changes of a
//! test stay in memory, in a mount namespace that ends with the test.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use netns_tests::{
    Config, Daemon, Host, Key, Keys, Lab, PATIENCE, PeerConfig, Via, Wg, binaries, debian, require,
    until,
};
use nix::mount::{MsFlags, mount};

const LONG: Duration = Duration::from_secs(120);
/// The path of the root in a host.
const ROOT: &str = "/mnt/root";

/// The package, once it is built. The lock is held by whoever builds the package or makes a root.
static BUILT: Mutex<Option<PathBuf>> = Mutex::new(None);

/// The package, and a root of this name with these packages.
fn package(root: (&str, &str)) -> io::Result<Option<(PathBuf, PathBuf)>> {
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if built.is_none() {
        *built = build()?;
    }
    let root = debian::root(Path::new(env!("CARGO_TARGET_TMPDIR")), root)?;
    Ok(built.clone().zip(root))
}

fn build() -> io::Result<Option<PathBuf>> {
    if let Some(path) = env::var_os("WG_RS_DEB") {
        return Ok(Some(path.into()));
    }
    if require("cargo-deb", binaries::on_path("cargo-deb")).is_none() {
        return Ok(None);
    }
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("wg-rs.deb");
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["deb", "--quiet", "--package", "wg-quick-rs", "--output"]);
    // As in the README.
    command.arg(&path).args(["--dbgsym", "--", "--locked"]);
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    debian::run(&mut command)?;
    Ok(Some(path))
}

/// A host whose [`ROOT`] is a copy of a clean root, with the package in it, and a gateway.
struct Debian {
    _lab: Lab,
    host: Host,
    wg: Wg,
    client: Keys,
}

impl Debian {
    fn new(root: (&str, &str)) -> io::Result<Option<Debian>> {
        let Some((package, root)) = package(root)? else {
            return Ok(None);
        };
        let lab = Lab::new()?;
        let (host, gateway) = (lab.host("debian")?, lab.host("gateway")?);
        host.run(|| lay_over(&root))
            .map_err(|error| io::Error::new(error.kind(), format!("mount {ROOT}: {error}")))?;
        host.run(|| fs::copy(package, format!("{ROOT}/wg-rs.deb")))?;

        lab.cable((&host, "eth0"), (&gateway, "eth0"), 1500)?;
        host.address("eth0", [192, 0, 2, 1], 24)?;
        gateway.address("eth0", [192, 0, 2, 2], 24)?;
        let (client, server) = (Keys::generate(), Keys::generate());
        let wg = Daemon::ours()?.start(&gateway, "wg0", Via::Uapi)?;
        let peer = PeerConfig::new(client.public).allow([10, 77, 0, 1], 32);
        wg.set(&Config::new(&server, 51820).peer(peer))?;
        wg.up(1420, &[([10, 77, 0, 2].into(), 24)])?;
        let debian = Debian {
            _lab: lab,
            host,
            wg,
            client,
        };
        debian
            .host
            .run(|| fs::create_dir_all(format!("{ROOT}/tmp")))?;
        let file = format!("{ROOT}/tmp/wg0.conf");
        debian.host.write(&file, &debian.config(server.public))?;
        Ok(Some(debian))
    }

    fn config(&self, gateway: Key) -> String {
        format!(
            "[Interface]\nPrivateKey = {}\nAddress = 10.77.0.1/24\nMTU = 1400\n\
             PreUp = mkdir -p /run/hook; mount -t tmpfs tmpfs /run/hook; echo %i > /etc/hooked\n\
             PreUp = grep CapBnd /proc/self/status > /run/rights\n\
             PostDown = umount /run/hook; rmdir /run/hook; rm /etc/hooked\n\n\
             [Peer]\nPublicKey = {gateway}\nEndpoint = 192.0.2.2:51820\nAllowedIPs = 10.77.0.2/32\n",
            self.client.private
        )
    }

    /// Runs a script in the root.
    fn sh(&self, script: &str) -> io::Result<String> {
        let mut command = Command::new("chroot");
        command.args([ROOT, "/bin/sh", "-euc", script]).env_clear();
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        self.host.spawn(&mut command)?.success(LONG)
    }

    /// All files, except those to which dpkg itself writes.
    fn files(&self) -> io::Result<String> {
        self.sh(
            "find / -xdev \\( -path /var/lib/dpkg -o -path /var/log -o -path /var/cache \
             -o -path /tmp -o -path /mnt \\) -prune -o -print | sort",
        )
    }
}

/// Mounts a copy of a root in memory, with the mounts of a running system.
fn lay_over(root: &Path) -> io::Result<()> {
    let none = None::<&str>;
    let flags = MsFlags::empty();
    mount(Some("tmpfs"), "/mnt", Some("tmpfs"), flags, none)?;
    for folder in ["/mnt/upper", "/mnt/work", ROOT] {
        fs::create_dir(folder)?;
    }
    let options = format!(
        "lowerdir={},upperdir=/mnt/upper,workdir=/mnt/work",
        root.display()
    );
    mount(
        Some("overlay"),
        ROOT,
        Some("overlay"),
        flags,
        Some(options.as_str()),
    )?;
    let place = |name: &str| format!("{ROOT}/{name}");
    mount(
        Some("proc"),
        place("proc").as_str(),
        Some("proc"),
        flags,
        none,
    )?;
    mount(
        Some("tmpfs"),
        place("run").as_str(),
        Some("tmpfs"),
        flags,
        none,
    )?;
    let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some("/dev"), place("dev").as_str(), none, bind, none)?;
    Ok(())
}

#[test]
fn installed_used_and_removed() -> io::Result<()> {
    let Some(debian) = Debian::new(debian::PLAIN)? else {
        return Ok(());
    };
    let before = debian.files()?;
    debian.sh("dpkg -i /wg-rs.deb")?;
    debian.sh(
        "wg-rs --version; wireguard-rs --version; wg-quick-rs help\n\
         for page in wg-quick-rs wg-rs wireguard-rs; do gzip -t /usr/share/man/man8/$page.8.gz; done\n\
         gzip -t /usr/share/man/man7/wg-hub.7.gz\n\
         test $(stat -c %a:%U /etc/wireguard) = 700:root\n\
         test -e /usr/lib/systemd/system/wg-quick-rs@.service\n\
         (cd /usr/lib/systemd/user; ls wg-rs-socks@.service wg-rs-forward@.service wg-rs-relay@.service)\n\
         wg-quick-rs completions bash | cmp - /usr/share/bash-completion/completions/wg-quick-rs\n\
         bash -c '. /usr/share/bash-completion/completions/wg-rs; complete -p wg-rs'\n\
         ls /usr/share/zsh/vendor-completions/_wg-rs /usr/share/fish/vendor_completions.d/wg-rs.fish\n\
         ls /usr/share/doc/wg-rs | grep LICENSE",
    )?;

    debian.sh("install -m 600 /tmp/wg0.conf /etc/wireguard/; wg-quick-rs check wg0")?;
    debian.sh("wg-quick-rs up wg0")?;
    debian.host.reach([10, 77, 0, 2], PATIENCE)?;
    assert!(
        debian
            .wg
            .peer(debian.client.public)?
            .last_handshake
            .is_some()
    );
    assert_eq!(debian.sh("wg-rs show interfaces")?.trim(), "wg0");
    debian.sh("wg-quick-rs down wg0; test ! -e /var/run/wireguard/wg0.sock")?;

    // A config file stays when the package is removed, and also when it is purged.
    debian.sh("dpkg --remove wg-rs; test -e /etc/wireguard/wg0.conf; ! command -v wg-rs")?;
    debian.sh("dpkg -i /wg-rs.deb; rm /etc/wireguard/wg0.conf; dpkg --purge wg-rs")?;
    let after = debian.files()?;
    let files = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let (before, after) = (files(&before), files(&after));
    let changed: Vec<_> = before.symmetric_difference(&after).collect();
    assert!(changed.is_empty(), "{changed:?}");
    Ok(())
}

/// The script of a unit that runs under the real systemd, and shuts it down at the end.
const SCRIPT: &str = r#"
set -eux
export SYSTEMD_PAGER=
gone() { if "$@"; then exit 1; fi; }
main_process() { systemctl show --property MainPID --value wg-quick-rs@wg0.service; }
await() { n=0; until "$@"; do n=$((n + 1)); test $n -lt 300; sleep 0.1; done; }
units='wg-quick-rs@wg0.service wg-quick-rs-reresolve.service wg-quick-rs-reresolve.timer wg-quick-rs.target'
test -z "$(systemd-analyze verify --man=no $units 2>&1)"
systemd-analyze security --no-pager --threshold=25 wg-quick-rs-reresolve.service

systemctl enable --now wg-quick-rs@wg0.service
ping -c 1 -W 20 10.77.0.2
test "$(cat /etc/hooked)" = wg0
# The daemon lives in the unit, and what a hook mounts is seen outside.
grep wg-quick-rs@wg0.service /proc/$(pidof wireguard-rs)/cgroup
mountpoint /run/hook
systemctl is-active wg-quick-rs@wg0.service
# The unit takes nothing away from hooks: no capability (CAP_LINUX_IMMUTABLE is for chattr), and no device.
grep CapBnd /proc/1/status | cmp - /run/rights
property() { systemctl show --property "$1" --value wg-quick-rs@wg0.service; }
test "$(property Type)" = notify
test "$(property DevicePolicy)" = auto
for limit in NoNewPrivileges PrivateDevices PrivateTmp ProtectHome ProtectSystem ProtectKernelTunables; do
  test "$(property $limit)" = no
done
# What the daemon logs is in the journal of the unit.
in_journal() { journalctl --no-pager --unit wg-quick-rs@wg0.service | grep -i "$1"; }
systemctl restart wg-quick-rs@wg0.service
wg-rs log wg0 verbose
ping -c 1 -W 20 10.77.0.2
await in_journal 'wireguard-rs.*handshake'
wg-rs log wg0 error

daemon=$(pidof wireguard-rs)
sed -i 's/MTU = 1400/MTU = 1300/' /etc/wireguard/wg0.conf
systemctl reload wg-quick-rs@wg0.service
ip link show wg0 | grep 'mtu 1300'
test "$(pidof wireguard-rs)" = "$daemon"

echo '127.0.0.1 localhost' > /etc/hosts
sed -i 's/Endpoint = .*/Endpoint = localhost:9/' /etc/wireguard/wg0.conf
systemctl start wg-quick-rs-reresolve.service
systemctl enable --now wg-quick-rs-reresolve.timer
systemctl is-active wg-quick-rs-reresolve.timer
wg-rs show wg0 endpoints | grep 192.0.2.2

systemctl restart wg-quick-rs@wg0.service
ip link show wg0
systemctl stop wg-quick-rs@wg0.service
gone ip link show wg0
gone mountpoint /run/hook

# A daemon that is killed is followed by another one. Until then nothing is sent in clear, and what the
# hooks did is not done twice.
ip route add default via 192.0.2.2
sed -i 's|Endpoint = .*|Endpoint = 192.0.2.2:51820|; s|AllowedIPs = .*|AllowedIPs = 0.0.0.0/0|
  /^Address/aPreDown = (ip route get 203.0.113.1 2>\&1 || :) >> /ways' /etc/wireguard/wg0.conf
systemctl start wg-quick-rs@wg0.service || { journalctl --no-pager --unit wg-quick-rs@wg0.service; exit 1; }
# The main process is asked for last: until the unit is active it is `up'.
is_another() {
  test "$(systemctl is-active wg-quick-rs@wg0.service)" = active &&
  new=$(main_process) && test "$new" != 0 -a "$new" != "$daemon"
}
# The port is another one each time, as the file does not set it, and so are the priorities of the rules.
state() {
  ip -brief address show wg0; ip link show wg0 | grep -o 'mtu [0-9]*'; wg-rs showconf wg0 | grep -v ListenPort
  ip route show table all dev wg0; ip rule show | cut -f 2; nft list ruleset
}
state > /before
for round in 1 2; do
  daemon=$(pidof wireguard-rs)
  test "$(main_process)" = "$daemon"
  kill -9 "$daemon"
  await is_another
  test "$(pidof wireguard-rs)" = "$new"
  ping -c 1 -W 20 10.77.0.2
  ip route get 203.0.113.1 | grep 'dev wg0'
  test "$(ip -4 rule show | grep -c fwmark)" = 1
  test "$(ip -4 rule show | grep -c suppress_prefixlength)" = 1
  test "$(grep -c /run/hook /proc/mounts)" = 1
  test "$(wc -l < /ways)" = $round
  state | diff /before -
done
gone grep 'dev' /ways
# One that is asked to end is not. The unit is stopped as ever.
is_without() { test "$(main_process)" = 0; }
kill "$(pidof wireguard-rs)"
await is_without
systemctl is-active wg-quick-rs@wg0.service
systemctl stop wg-quick-rs@wg0.service
test "$(ip -4 rule show | wc -l)" = 3
gone mountpoint /run/hook
test "$(wc -l < /ways)" = 3

# A tunnel without programs could not be taken down: removal does.
systemctl start wg-quick-rs@wg0.service
dpkg --remove wg-rs
gone ip link show wg0
dpkg --purge wg-rs
test -z "$(find /etc/systemd/system -lname '*wg-quick-rs*')"
echo PASSED
"#;

const UNIT: &str = "[Unit]\nAfter=multi-user.target\n[Service]\nType=oneshot\n\
    ExecStart=/bin/sh -c '/bin/sh /test.sh > /result 2>&1'\nExecStopPost=/bin/systemctl --no-block poweroff\n\
    [Install]\nWantedBy=multi-user.target\n";

/// Control groups of a container, one in each hierarchy.
struct Groups(Vec<PathBuf>);

impl Groups {
    fn new() -> io::Result<Groups> {
        let mut groups = Groups(Vec::new());
        for hierarchy in ["", "systemd", "unified"] {
            let folder = Path::new("/sys/fs/cgroup").join(hierarchy);
            if folder.join("cgroup.procs").exists() {
                let group = folder.join(format!("wg-rs-packaging-{}", std::process::id()));
                fs::create_dir(&group)?;
                groups.0.push(group);
            }
        }
        Ok(groups)
    }

    fn remove(group: &Path) {
        let inner = fs::read_dir(group).into_iter().flatten().flatten();
        for entry in inner.filter(|entry| entry.path().is_dir()) {
            Groups::remove(&entry.path());
        }
        let _ = fs::remove_dir(group);
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        // The killed processes may not have ended yet.
        let _ = until(PATIENCE, "the end of the container", || {
            self.0.iter().for_each(|group| Groups::remove(group));
            Ok((!self.0.iter().any(|group| group.exists())).then_some(()))
        });
    }
}

/// Exceptions are in the package itself, each with its reason.
#[test]
fn lintian_accepts_the_package() -> io::Result<()> {
    if require("lintian", binaries::on_path("lintian")).is_none() {
        return Ok(());
    }
    let Some((package, _)) = package(debian::PLAIN)? else {
        return Ok(());
    };
    let mut lintian = Command::new("lintian");
    let said = debian::run(lintian.args(["--fail-on", "warning,error"]).arg(package))?;
    assert_eq!(said, "");
    Ok(())
}

#[test]
fn the_units_run_under_systemd() -> io::Result<()> {
    if require("systemd-nspawn", binaries::on_path("systemd-nspawn")).is_none() {
        return Ok(());
    }
    let packages = "iproute2,iputils-ping,systemd-sysv,dbus,procps,nftables";
    // Dropped after the lab, which ends all processes in them.
    let groups = Groups::new()?;
    let Some(debian) = Debian::new(("debian-systemd", packages))? else {
        return Ok(());
    };
    debian.sh(
        "dpkg -i /wg-rs.deb; install -m 600 /tmp/wg0.conf /etc/wireguard/; rm -f /etc/machine-id",
    )?;
    let write = |name: &str, text: &str| debian.host.write(&format!("{ROOT}{name}"), text);
    write("/test.sh", SCRIPT)?;
    write("/etc/systemd/system/test.service", UNIT)?;
    debian.sh(
        "cd /etc/systemd/system; ln -s ../test.service multi-user.target.wants/\n\
         for unit in networkd networkd-wait-online; do ln -sf /dev/null systemd-$unit.service; done",
    )?;
    // This file cannot be written in the container.
    let valid_mark = "/proc/sys/net/ipv4/conf/all/src_valid_mark";
    debian.host.write(valid_mark, "1")?;
    // systemd-nspawn mounts its own.
    debian.sh("umount -R /dev /run /proc")?;

    let join: Vec<_> = groups
        .0
        .iter()
        .map(|group| format!("echo $$ > {}/cgroup.procs", group.display()))
        .collect();
    let boot = format!(
        "{}; exec systemd-nspawn --quiet --directory={ROOT} --register=no --keep-unit \
         --capability=CAP_NET_ADMIN,CAP_NET_RAW --bind=/dev/net/tun --console=pipe --boot",
        join.join("; ")
    );
    let mut container = debian
        .host
        .spawn(Command::new("sh").args(["-euc", &boot]))?;
    let status = container.wait(LONG);
    let result = debian.host.read(&format!("{ROOT}/result"));
    let Ok(result) = result else {
        let why = format!("{status:?}: {}", container.output());
        require(&format!("a systemd that boots ({why})"), None::<()>);
        return Ok(());
    };
    assert!(result.ends_with("PASSED\n"), "{result}");
    Ok(())
}
