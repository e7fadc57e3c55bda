//! The config files, and where each is tried.
//!
//! `{key}`, `{peer}`, `{peer2}` and `{psk}` stand for keys. Every place has `eth0`, 192.0.2.2/24 and
//! 2001:db8::2/64 with default routes over both, MTU 1500; what a case's `place` says is done to it.

mod guides;
mod hooks;
mod odd;
mod routes;
mod values;

/// Which stock scripts are not as ours.
#[derive(Debug, Clone, Copy)]
pub enum Stock {
    /// Those without this text, which is in the newer ones that ours follows.
    Before(&'static str),
    /// All: ours departs from them.
    Always,
}

/// A config file and where it is tried.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// What it shows.
    pub name: &'static str,
    /// Name of the file, and of the interface unless `argument` is a path.
    pub interface: &'static str,
    /// What is given to `up` and `down` instead of `interface`.
    pub argument: &'static str,
    /// Shell commands that make the place, beforehand.
    pub place: &'static str,
    /// A program that is not on PATH.
    pub without: &'static str,
    /// The file.
    pub config: &'static str,
    /// What stock is given instead, where it refuses this: the same thing in the way it takes.
    pub plain: Option<(Stock, &'static str)>,
    /// Neither takes it; ours ends with this exit code.
    pub fails: Option<i32>,
    /// It is refused for what a file does not tell: `check` passes it.
    pub by_host: bool,
    /// How ours is not as stock: starts of lines, with `-` stock's, with `+` ours. All of the
    /// differences are named, and each is there.
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

/// The tables of iptables, made beforehand: it leaves them behind, empty.
const IPTABLES: &str = "for t in iptables ip6tables; do
    $t -A FORWARD -j ACCEPT; $t -D FORWARD -j ACCEPT; $t -A OUTPUT -j ACCEPT; $t -D OUTPUT -j ACCEPT
    for at in 'nat POSTROUTING' 'raw PREROUTING' 'mangle PREROUTING' 'mangle POSTROUTING'; do
        set -- $at; $t -t $1 -A $2 -j ACCEPT; $t -t $1 -D $2 -j ACCEPT
    done; done";

/// All of them.
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
