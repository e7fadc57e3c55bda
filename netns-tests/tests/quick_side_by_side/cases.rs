//! The config files, and the hosts on which they are tried.
//!
//! `{key}`, `{peer}`, `{peer2}` and `{psk}` are replaced by keys. Every host has `eth0` with
//! 192.0.2.2/24 and 2001:db8::2/64, default routes of both families, and MTU 1500. The `place` of a
//! case changes that.

mod guides;
mod hooks;
mod odd;
mod routes;
mod values;

/// The stock scripts from which ours differs.
#[derive(Debug, Clone, Copy)]
pub enum Stock {
    /// Scripts without this text, which is in newer ones; ours behaves like those.
    Before(&'static str),
    /// All scripts.
    Always,
}

/// A config file, and the host on which it is tried.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// The name of the case.
    pub name: &'static str,
    /// Name of the file, and of the interface unless `argument` is a path.
    pub interface: &'static str,
    /// The argument of `up` and `down`, instead of `interface`.
    pub argument: &'static str,
    /// Shell commands that change the host before.
    pub place: &'static str,
    /// A program that is removed from PATH.
    pub without: &'static str,
    /// The file.
    pub config: &'static str,
    /// If stock refuses this file: the same in a form that stock accepts.
    pub plain: Option<(Stock, &'static str)>,
    /// Both programs refuse it; ours ends with this exit code.
    pub fails: Option<i32>,
    /// `up` refuses it because of the host, so `check` accepts the file.
    pub by_host: bool,
    /// The differences between ours and stock: beginnings of lines, with `-` for stock's and `+` for
    /// ours. All differences must be listed, and each must occur.
    pub differs: &'static [(Stock, &'static [&'static str])],
}

impl Case {
    const NEW: Case = Case {
        name: "",
        interface: "wg0",
        argument: "",
        place: "",
        without: "",
        config: "",
        plain: None,
        fails: None,
        by_host: false,
        differs: &[],
    };
}

/// Creates the tables of iptables before, as iptables leaves them behind, empty.
const IPTABLES: &str = "for t in iptables ip6tables; do
    $t -A FORWARD -j ACCEPT; $t -D FORWARD -j ACCEPT; $t -A OUTPUT -j ACCEPT; $t -D OUTPUT -j ACCEPT
    for at in 'nat POSTROUTING' 'raw PREROUTING' 'mangle PREROUTING' 'mangle POSTROUTING'; do
        set -- $at; $t -t $1 -A $2 -j ACCEPT; $t -t $1 -D $2 -j ACCEPT
    done; done";

/// All cases.
pub fn all() -> Vec<Case> {
    [
        guides::CASES,
        routes::CASES,
        values::CASES,
        hooks::CASES,
        odd::CASES,
    ]
    .concat()
}
