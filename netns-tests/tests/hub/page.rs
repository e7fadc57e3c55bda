//! The files of the page wg-hub(7), as they are there, except that the name of the hub is its address.

use std::fs;
use std::io;
use std::net::IpAddr;

use netns_tests::{Daemon, Family, Host, Internet, NatKind, PATIENCE, Via, Wg, binaries};

use crate::has_nft;

/// The examples of the page: the hub, a laptop with any implementation, one with ours, a phone.
fn files() -> io::Result<[String; 4]> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../man/wg-hub.7");
    let page = fs::read_to_string(page)?;
    let (_, examples) = page.split_once(".Sh EXAMPLES").expect("its examples");
    let hub = Internet::hub(Family::V4).to_string();
    let files = examples.split(".Bd -literal -offset indent\n").skip(1);
    let files = files.filter_map(|file| Some(file.split_once(".Ed")?.0));
    let files: Vec<_> = files
        .map(|file| file.replace("hub.example.com", &hub))
        .collect();
    let count = |files: Vec<_>| io::Error::other(format!("{} files", files.len()));
    files.try_into().map_err(count)
}

struct Machine {
    host: Host,
    address: IpAddr,
    _wg: Wg,
}

impl Machine {
    fn start(host: &Host, file: &str) -> io::Result<Machine> {
        let wg = Daemon::ours()?.start(host, "wg0", Via::Uapi)?;
        let is_address = |line: &&str| line.starts_with("Address = ");
        let rest: Vec<&str> = file.lines().filter(|line| !is_address(line)).collect();
        let setconf = ["setconf", "wg0", "/dev/stdin"];
        host.sh_with(&binaries::wg_rs()?, &setconf, &rest.join("\n"))?;
        let address = file.lines().find(is_address);
        let address = address.and_then(|line| line[10..].split('/').next());
        let address = address.and_then(|address| address.parse().ok());
        let address = address.ok_or_else(|| io::Error::other("no address in the file"))?;
        wg.up(1420, &[(address, 24)])?;
        Ok(Machine {
            host: host.clone(),
            address,
            _wg: wg,
        })
    }
}

#[test]
fn a_laptop_and_a_phone_reach_each_other_with_the_files_of_the_page() -> io::Result<()> {
    if !has_nft() {
        return Ok(());
    }
    let [hub, any_laptop, our_laptop, phone] = files()?;
    for laptop in [any_laptop, our_laptop] {
        let net = Internet::new(&[NatKind::PortRestricted, NatKind::Symmetric])?;
        let _hub = Machine::start(&net.hub, &hub)?;
        let laptop = Machine::start(&net.branches[0].host, &laptop)?;
        let phone = Machine::start(&net.branches[1].host, &phone)?;
        laptop.host.reach(phone.address, PATIENCE)?;
        phone.host.reach(laptop.address, PATIENCE)?;
    }
    Ok(())
}
