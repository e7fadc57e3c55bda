//! What `wg-quick-rs` leaves alone since it is another's, and what it knows for its own.

use std::io;

use netns_tests::quick::{Quick, Site};
use netns_tests::{Lab, PATIENCE, until};

const CONFIG: &str = "[Interface]
PrivateKey = 6AgToMTGwKJV1BBqhMlUFyAb3JQrbLBtRIMwkVMCi1g=
Address = 10.0.0.2/24
";

#[test]
fn of_two_at_once_one_works_and_the_other_harms_nothing() -> io::Result<()> {
    let lab = Lab::new()?;
    let (Some(site), quick) = (Site::new(&lab, "site")?, Quick::ours()?) else {
        return Ok(());
    };
    // While a hook of the first waits, no other may.
    site.configure(
        "wg0",
        &format!("{CONFIG}PostUp = wg-quick-rs save %i; touch /etc/waits; read < /etc/go\n"),
    )?;
    site.sh("mkfifo /etc/go")?;
    site.place(&quick)?;
    let first = site.start(&quick, &["up", "wg0"])?;
    until(PATIENCE, "the hook to run", || {
        Ok(site.host.read("/etc/waits").ok())
    })?;
    for verb in ["up", "down", "reload", "save"] {
        let run = site.run(&quick, &[verb, "wg0"])?;
        assert_eq!(run.code, Some(1), "{verb}: {}", run.output);
        let said = "`wg0' is being changed by another wg-quick-rs";
        assert!(run.output.contains(said), "{verb}: {}", run.output);
    }
    site.sh("echo > /etc/go")?;
    site.finish(first)?.success()?;
    site.sh("wg show wg0; wg-quick-rs down wg0")?;

    // Whoever comes first.
    site.configure("wg0", CONFIG)?;
    for _ in 0..5 {
        let both = [(); 2].map(|()| site.start(&quick, &["up", "wg0"]));
        let mut good = 0;
        for run in both {
            let run = site.finish(run?)?;
            good += usize::from(run.code == Some(0));
        }
        assert_eq!(good, 1);
        site.sh("wg show wg0; ip address show dev wg0 | grep -F 10.0.0.2; wg-quick-rs down wg0")?;
    }
    let left = site.sh("ls -A /var/run/wireguard")?;
    assert!(!left.contains("lock"), "{left}");
    Ok(())
}
