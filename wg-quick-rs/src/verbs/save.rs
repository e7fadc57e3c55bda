//! `save`: writes the state of a running interface into its file. `down` does so too, with `SaveConfig`.

use std::fs;
use std::net::IpAddr;
use std::process::ExitCode;

use zeroize::Zeroizing;

use crate::file::replace::replace;
use crate::file::saved::{Snapshot, edited};
use crate::file::{Address, File, Location};
use crate::plan::beside::may_have_default_route;
use crate::plan::find::with_found;
use crate::plan::ipv6::Ipv6;
use crate::steps::console;
use crate::steps::dns::DnsSettings;
use crate::steps::failure::Failure;
use crate::steps::transaction::Transaction;

/// Writes the state of an interface into its file.
pub fn save(location: &Location) -> ExitCode {
    with_found(location, save_config)
}

/// Writes the state of an interface that was found into its file.
///
/// # Errors
/// The interface cannot be read, or the file cannot be written.
pub fn save_config(transaction: &mut Transaction, file: &File) -> Result<(), Failure> {
    let target = &mut transaction.target;
    let interface = target.get()?;
    let written = |address: &Address| file.addresses.iter().any(|one| one.value == *address);
    let by_kernel = |address: &Address| match address.ip {
        IpAddr::V6(ip) => ip.is_unicast_link_local() && !written(address),
        IpAddr::V4(_) => false,
    };
    // IPv6 addresses that could not be set on this host stay in the file.
    let ipv6 = Ipv6::of(target, file)?;
    let of_file = file.addresses.iter().map(|address| address.value);
    let left_out = of_file.filter(|address| !ipv6.uses(address.ip));
    let addresses: Vec<_> = target
        .addresses()?
        .iter()
        .filter(|address| !by_kernel(address))
        .copied()
        .chain(left_out)
        .collect();
    let mtu = target.home.link(&file.interface)?.mtu;
    let state = transaction.state.as_ref();
    let resolver = match state.and_then(|state| state.dns.clone()) {
        Some(resolver) => Some(resolver),
        None => DnsSettings::new(&file.dns, target),
    };
    let dns = resolver
        .and_then(|resolver| resolver.current(target, &transaction.signals))
        .map(|dns| dns.addresses())
        // Without a record, the servers are not known.
        .filter(|servers| !servers.is_empty());
    // Only the record of `up` tells who chose the port and the mark. Without one, they are saved, so
    // that a port that the user chose is not lost.
    let chosen_port = state.and_then(|state| state.chosen_port);
    let chosen_port = chosen_port.filter(|_| matches!(file.settings.listen_port, None | Some(0)));
    let chosen_mark = match (file.settings.fwmark, state) {
        (None, Some(state)) => state.chosen_mark,
        (None, None) if may_have_default_route(&interface, file) => Some(interface.fwmark),
        _ => None,
    };
    let snapshot = Snapshot {
        interface: &interface,
        addresses: &addresses,
        mtu,
        dns: dns.as_deref(),
        chosen_port: chosen_port.unwrap_or(0),
        chosen_mark: chosen_mark.unwrap_or(0),
    };
    let old = Zeroizing::new(fs::read(&file.path)?);
    let new = edited(&old, &snapshot);
    if *new != *old {
        console::note(format_args!(
            "Saving the settings of `{}' in {}; only the lines that differ are changed.",
            file.interface,
            file.path.display()
        ));
        replace(&file.path, &new).map_err(Failure::new)?;
    }
    Ok(())
}
