//! The config files, and the hosts on which they are tried: the files in `cases/`.
//!
//! `{key}`, `{peer}`, `{peer2}` and `{psk}` are replaced by keys, and `{iptables}` by commands. Every host has
//! `eth0` with 192.0.2.2/24 and 2001:db8::2/64, default routes of both families, and MTU 1500. The `place`
//! of a case changes that.

use serde::Deserialize;

/// A config file, and the host on which it is tried.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// The name of the case.
    pub name: String,
    /// Name of the file, and of the interface unless `argument` is a path.
    #[serde(default = "wg0")]
    pub interface: String,
    /// The argument of `up` and `down`, instead of `interface`.
    #[serde(default)]
    pub argument: String,
    /// Shell commands that change the host before.
    #[serde(default)]
    pub place: String,
    /// A program that is removed from PATH.
    #[serde(default)]
    pub without: String,
    /// The file.
    pub config: String,
    /// If stock refuses this file: the same in a form that stock accepts.
    pub plain: Option<Plain>,
    /// Both programs refuse it; ours ends with this exit code.
    pub fails: Option<i32>,
    /// `up` refuses it because of the host, so `check` accepts the file.
    #[serde(default)]
    pub by_host: bool,
    /// The differences between ours and stock. All must be listed, and each must occur.
    #[serde(default)]
    pub differs: Vec<Differs>,
}

/// A file in a form that stock accepts.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plain {
    /// Only scripts without this text, which is in newer ones, need that form. By default all scripts do.
    pub before: Option<String>,
    /// The file.
    pub config: String,
}

/// Differences between ours and stock.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Differs {
    /// Only scripts without this text, which is in newer ones, differ; ours behaves like the newer ones. By
    /// default all scripts differ.
    pub before: Option<String>,
    /// Beginnings of lines, with `-` for stock's and `+` for ours.
    pub lines: Vec<String>,
}

/// A file of cases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases {
    case: Vec<Case>,
}

fn wg0() -> String {
    "wg0".into()
}

/// Creates the tables of iptables before, as iptables leaves them behind, empty.
pub const IPTABLES: &str = "for t in iptables ip6tables; do
    $t -A FORWARD -j ACCEPT; $t -D FORWARD -j ACCEPT; $t -A OUTPUT -j ACCEPT; $t -D OUTPUT -j ACCEPT
    for at in 'nat POSTROUTING' 'raw PREROUTING' 'mangle PREROUTING' 'mangle POSTROUTING'; do
        set -- $at; $t -t $1 -A $2 -j ACCEPT; $t -t $1 -D $2 -j ACCEPT
    done; done";

/// All cases.
pub fn all() -> Vec<Case> {
    let files = [
        include_str!("cases/guides.toml"),
        include_str!("cases/routes.toml"),
        include_str!("cases/values.toml"),
        include_str!("cases/hooks.toml"),
        include_str!("cases/odd.toml"),
    ];
    let cases = |text| {
        let cases: Cases = toml::from_str(text).expect("the files of cases are valid");
        cases.case
    };
    files.into_iter().flat_map(cases).collect()
}
