//! Compares stock `wg-quick` and ours on many config files: `up` must leave the same state, and
//! `down` the state before.
//!
//! Each program brings each file up on a new host, with `wireguard-rs` (or the kernel's module, if
//! there is one) under both. The test compares links, addresses, routes and rules of both families,
//! sysctls, the firewall, processes, sockets, the interface's configuration, the calls of
//! `resolvconf` and the output of hooks. If an older stock script differs from newer ones, or ours
//! differs from stock, the case lists the lines. `QUICK_CASES=TEXT` in the environment runs only the
//! cases with that text in their name; `WG_QUICK=FILE` uses another stock script.

mod cases;

use std::env;
use std::io::{self, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use netns_tests::quick::{Quick, Site};
use netns_tests::{HostState, Lab, until};

use cases::{Case, IPTABLES};

/// How long a daemon may take to end after its link is deleted.
const GOING: Duration = Duration::from_secs(10);
const WORKERS: usize = 3;

/// What the names in the files stand for. The keys are not secret.
const NAMES: [(&str, &str); 5] = [
    ("{iptables}", IPTABLES),
    ("{key}", "6AgToMTGwKJV1BBqhMlUFyAb3JQrbLBtRIMwkVMCi1g="),
    ("{peer}", "eJ1VQnYKSOvMXnYwTsdSNuQAB3e9fW8WDhrDsBnBCTw="),
    ("{peer2}", "Hf4iFwCZpxMqHkRCCSxXC4nYVCOAxIlKe5IIQKuMUSw="),
    ("{psk}", "cGVyaGFwcyBub3Qgc28gc2VjcmV0IGFmdGVyIGFsbCE="),
];

/// Creates both ends of `eth0`, without link-local addresses, as these depend on random MAC addresses.
const PLACE: &str = "
    printf '127.0.0.1 localhost\\n203.0.113.9 vpn.example\\n2001:db8:9::9 vpn6.example\\n' > /etc/hosts
    ip link add eth0 address 02:00:00:00:00:01 type veth peer cable address 02:00:00:00:00:02
    ip link set eth0 addrgenmode none; ip link set cable addrgenmode none
    ip link set cable up; ip link set eth0 up
    ip addr add 192.0.2.2/24 dev eth0; ip -6 addr add 2001:db8::2/64 dev eth0 nodad
    ip route add default via 192.0.2.1; ip -6 route add default via 2001:db8::1
";

/// The beginning of the unreachable route in the table of a tunnel for all traffic, in ip(8)'s format.
const UNREACHABLE: &str = "unreachable default ";

fn filled_in(text: &str) -> String {
    let put = |text: String, (name, meaning): (&str, &str)| text.replace(name, meaning);
    NAMES.into_iter().fold(text.to_owned(), put)
}

/// Whether this script is older than the change that brought the text `before`; true without a text.
fn is_meant(stock: &Quick, before: Option<&str>) -> bool {
    before.is_none_or(|text| !stock.says(text))
}

/// The result of a case with one program.
struct Outcome {
    code: Option<i32>,
    output: String,
    /// The state after `up`, with the calls of the stand-ins and the log of the hooks.
    up: HostState,
    /// The differences to the state before, after `down`.
    left: Vec<String>,
}

/// Runs `up` and `down`, and reads the state after each.
fn outcome(case: &Case, config: &str, quick: &Quick, lab: &Lab) -> io::Result<Option<Outcome>> {
    let Some(mut site) = Site::new(lab, quick.name)? else {
        return Ok(None);
    };
    site.sh(PLACE)?;
    site.sh(&filled_in(&case.place))?;
    if !case.without.is_empty() {
        site.hide(&case.without)?;
    }
    site.configure(&case.interface, &filled_in(config))?;
    let argument = match case.argument.as_str() {
        "" => &case.interface,
        argument => argument,
    };
    site.heard()?;
    let before = site.state()?;
    let check = match quick.is_stock() {
        true => None,
        false => Some(site.run(quick, &["check", argument])?),
    };
    let up = site.run(quick, &["up", argument])?;
    let mut outcome = Outcome {
        code: up.code,
        output: up.output,
        up: HostState::default(),
        left: Vec::new(),
    };
    // `check` must refuse exactly the files that `up` refuses.
    if let Some(check) = check
        && !case.by_host
        && (check.code == Some(0)) != (outcome.code == Some(0))
    {
        outcome.left.push(format!(
            "`check' ended with {:?}, `up' with {:?}: {}{}",
            check.code, outcome.code, check.output, outcome.output
        ));
        return Ok(Some(outcome));
    }
    if outcome.code == Some(0) {
        outcome.up = site.state()?;
        if !quick.is_stock() {
            // Ours adds this route beside each default route; see `a_killed_daemon_leaks_nothing`.
            outcome.up.forget(UNREACHABLE);
        }
        if !config.to_lowercase().contains("listenport") {
            outcome.up.forget("ListenPort = ");
        }
        let down = site.run(quick, &["down", argument])?;
        outcome.code = down.code;
        outcome.output.push_str(&down.output);
    }
    let gone = until(GOING, "the state before", || {
        outcome.left = before.against(&site.state()?).0;
        outcome
            .left
            // `down` does not reset this sysctl.
            .retain(|line| !line.contains("ipv4.all.src_valid_mark"));
        Ok(outcome.left.is_empty().then_some(()))
    });
    // After the time limit, the remaining differences are the result.
    gone.or_else(|error| match error.kind() {
        io::ErrorKind::TimedOut => Ok(()),
        _ => Err(error),
    })?;
    outcome.up.take(site.heard()?);
    Ok(Some(outcome))
}

/// The unexpected differences; empty if all is well. `None` if a tool is missing.
fn compare(case: &Case, stock: &Quick, ours: &Quick) -> io::Result<Option<Vec<String>>> {
    let lab = Lab::new()?;
    let mut wrong = Vec::new();
    let mut config = &case.config;
    if let Some(plain) = &case.plain
        && is_meant(stock, plain.before.as_deref())
    {
        let Some(refused) = outcome(case, config, stock, &lab)? else {
            return Ok(None);
        };
        if refused.code == Some(0) {
            wrong.push("stock takes it: it needs no other words".into());
        }
        config = &plain.config;
    }
    let Some(theirs) = outcome(case, config, stock, &lab)? else {
        return Ok(None);
    };
    let Some(mine) = outcome(case, &case.config, ours, &lab)? else {
        return Ok(None);
    };
    for (name, outcome) in [("stock", &theirs), ("ours", &mine)] {
        if (outcome.code == Some(0)) == case.fails.is_some() {
            wrong.push(format!(
                "{name} ended with {:?}: {}",
                outcome.code, outcome.output
            ));
        }
        wrong.extend(
            outcome
                .left
                .iter()
                .map(|line| format!("{name} left: {line}")),
        );
    }
    if case.fails.is_some() {
        if mine.code != case.fails {
            wrong.push(format!("exit code {:?}: {}", mine.code, mine.output));
        }
        return Ok(Some(wrong));
    }
    let mut named: Vec<&str> = Vec::new();
    for differs in &case.differs {
        if is_meant(stock, differs.before.as_deref()) {
            named.extend(differs.lines.iter().map(String::as_str));
        }
    }
    let differences = theirs.up.against(&mine.up).0;
    for line in &named {
        if !differences.iter().any(|found| found.starts_with(line)) {
            wrong.push(format!("named, but not so: {line}"));
        }
    }
    let unnamed = |found: &&String| !named.iter().any(|line| found.starts_with(line));
    wrong.extend(differences.iter().filter(unnamed).cloned());
    Ok(Some(wrong))
}

#[test]
fn up_and_down_leave_the_same_state_as_stock() -> io::Result<()> {
    let Some(stock) = Quick::stock()? else {
        return Ok(());
    };
    let ours = Quick::ours()?;
    let only = env::var("QUICK_CASES").unwrap_or_default();
    let mut cases = cases::all();
    cases.retain(|case| case.name.contains(&only));
    let next = AtomicUsize::new(0);
    let done = Mutex::new((0, Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Relaxed)) {
                    let wrong = match compare(case, &stock, &ours) {
                        Ok(Some(wrong)) => wrong,
                        Ok(None) => continue,
                        Err(error) => vec![error.to_string()],
                    };
                    let mut done = done.lock().expect("no worker panics with it");
                    done.0 += 1;
                    if !wrong.is_empty() {
                        done.1
                            .push(format!("{}\n    {}", case.name, wrong.join("\n    ")));
                    }
                }
            });
        }
    });
    let (run, wrong) = done.into_inner().expect("no worker panicked");
    // Not println!, which the test runner captures.
    writeln!(
        io::stderr(),
        "\nwg-quick and wg-quick-rs side by side: {run} cases run, {} equal",
        run - wrong.len()
    )?;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(
        run == 0 || !only.is_empty() || run >= 40,
        "only {run} cases"
    );
    Ok(())
}
