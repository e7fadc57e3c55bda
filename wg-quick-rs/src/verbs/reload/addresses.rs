//! The addresses of a running interface.

use std::fs;
use std::net::IpAddr;

use super::others::{BY_A_HOOK, left};
use crate::file::{Address, File, hook_text};
use crate::plan::ipv6::Ipv6;
use crate::steps::failure::Failure;
use crate::steps::state::State;
use crate::steps::step::Step;
use crate::steps::transaction::Transaction;

/// The wanted addresses, and those that have to go.
pub struct Addresses {
    there: Vec<Address>,
    /// The addresses of the file that this host can have.
    pub new: Vec<Address>,
    /// The addresses to delete.
    pub gone: Vec<Address>,
}

impl Addresses {
    /// Compares the addresses of the interface with the file.
    pub fn new(there: Vec<Address>, file: &File, ipv6: Ipv6, known: Option<&State>) -> Self {
        let all = file.addresses.iter().map(|one| one.value);
        let new: Vec<Address> = all.filter(|address| ipv6.uses(address.ip)).collect();
        let by_kernel = |address: &Address| match address.ip {
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
            IpAddr::V4(_) => false,
        };
        let mut gone = there.clone();
        gone.retain(|address| {
            if new.contains(address) || by_kernel(address) {
                return false;
            }
            let is_ours = match known {
                Some(state) => state.addresses.contains(address),
                None => !hook_text::set_address(file, address.ip),
            };
            if !is_ours {
                left(format_args!("address {address}"), BY_A_HOOK);
            }
            is_ours
        });
        Addresses { there, new, gone }
    }

    /// Adds the missing addresses.
    ///
    /// # Errors
    /// A step failed, or a signal arrived.
    pub fn add(&self, transaction: &mut Transaction, file: &File) -> Result<(), Failure> {
        for address in self
            .new
            .iter()
            .filter(|address| !self.there.contains(address))
        {
            // An IPv6 address can be added only once, whatever its prefix length.
            let is_twin = |old: &&Address| old.ip == address.ip && old.ip.is_ipv6();
            if let Some(twin) = self.gone.iter().find(is_twin) {
                transaction.run(Step::DeleteAddress(*twin))?;
            }
            let line = file.addresses.iter().find(|one| one.value == *address);
            let added = transaction.run(Step::AddAddress(*address));
            added.map_err(|failure| match line {
                Some(one) => failure.at(file, one.line, "Address"),
                None => failure,
            })?;
        }
        Ok(())
    }

    /// Deletes the addresses to delete.
    ///
    /// # Errors
    /// A step failed, or a signal arrived.
    pub fn delete(&self, transaction: &mut Transaction) -> Result<(), Failure> {
        let there = transaction.target.addresses()?;
        let gone: Vec<_> = self
            .gone
            .iter()
            .filter(|address| there.contains(address))
            .collect();
        // When the first address of a network is deleted, the kernel deletes the others of that network,
        // unless this sysctl is set.
        let key = format!(
            "net/ipv4/conf/{}/promote_secondaries",
            transaction.target.interface
        );
        let path = format!("/proc/sys/{key}");
        let value = transaction.target.at_home(|| fs::read_to_string(&path))?;
        let promote = gone.iter().any(|address| address.ip.is_ipv4())
            && value.is_ok_and(|value| value.trim() == "0");
        if promote {
            transaction.run(Step::Sysctl(key.clone(), "1".into(), Some("0".into())))?;
        }
        for address in gone {
            transaction.run(Step::DeleteAddress(*address))?;
        }
        if promote {
            transaction.run(Step::Sysctl(key, "0".into(), Some("1".into())))?;
        }
        Ok(())
    }
}
