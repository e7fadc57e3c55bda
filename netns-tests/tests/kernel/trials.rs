//! Trials of the interop matrix with the kernel module, each with our daemon as the end that it is about and
//! with the module as that end.

use std::io;

use netns_tests::{Trial, vm};

fn both_ways(trial: Trial) -> io::Result<()> {
    let plans = super::plans()?;
    plans.iter().try_for_each(|plan| trial.check(plan))
}

#[test]
fn a_cookie_under_load() {
    vm::inside(|| both_ways(Trial::Cookie));
}

#[test]
fn great_mtus() {
    vm::inside(|| both_ways(Trial::Jumbo));
}

#[test]
fn marks_of_congestion() {
    vm::inside(|| both_ways(Trial::Ecn));
}

#[test]
fn a_persistent_keepalive_holds_a_nat_mapping() {
    vm::inside(|| both_ways(Trial::Keepalive));
}
