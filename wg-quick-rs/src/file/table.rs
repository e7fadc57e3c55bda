//! The key `Table`, and iproute2's names of routing tables.

use std::fs;
use std::path::PathBuf;
use std::str::FromStr;

use wg_rs::config::shown;
use wg_rs::sys::netlink::route::MAIN_TABLE;

/// The routing table for the tunnel's routes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Table {
    /// The main table; a default route goes to a table of its own, with rules.
    #[default]
    Auto,
    /// No routes are added.
    Off,
    /// All routes go to this table.
    Number(u32),
}

/// The folders with iproute2's names of tables, in the order in which it searches them.
const FOLDERS: [&str; 2] = ["/etc/iproute2", "/usr/share/iproute2"];

impl FromStr for Table {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.eq_ignore_ascii_case("auto") {
            return Ok(Table::Auto);
        }
        if text.eq_ignore_ascii_case("off") {
            return Ok(Table::Off);
        }
        let number = match text {
            "local" => Some(255),
            "main" => Some(MAIN_TABLE),
            "default" => Some(253),
            _ => number(text).or_else(|| named(text)),
        };
        // The kernel takes table 0 (`unspec') for the main table.
        let number = number.map(|number| if number == 0 { MAIN_TABLE } else { number });
        number.map(Table::Number).ok_or_else(|| {
            format!(
                "`{}' is neither auto, off, a number nor the name of a routing table",
                shown(text)
            )
        })
    }
}

/// Reads a decimal number, or a hexadecimal one that begins with `0x`.
fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None if text.starts_with(|c: char| c.is_ascii_digit()) => text.parse().ok(),
        None => None,
    }
}

fn named(name: &str) -> Option<u32> {
    let files = FOLDERS.iter().flat_map(|folder| {
        let more = fs::read_dir(format!("{folder}/rt_tables.d"));
        let more = more
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path());
        let mut more: Vec<PathBuf> = more
            .filter(|path| {
                path.extension()
                    .is_some_and(|extension| extension == "conf")
            })
            .collect();
        more.sort();
        std::iter::once(PathBuf::from(format!("{folder}/rt_tables"))).chain(more)
    });
    files
        .filter_map(|path| fs::read_to_string(path).ok())
        .find_map(|text| find(&text, name))
}

fn find(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let number = number(words.next()?)?;
        (words.next()? == name).then_some(number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_numbers() {
        for (text, table) in [
            ("", Table::Auto),
            ("AUTO", Table::Auto),
            ("Off", Table::Off),
            ("1234", Table::Number(1234)),
            ("0x10", Table::Number(16)),
            ("main", Table::Number(254)),
            ("0", Table::Number(254)),
        ] {
            assert_eq!(text.parse(), Ok(table), "{text}");
        }
        for bad in ["-1", "4294967296", "no such", "+5"] {
            assert!(bad.parse::<Table>().is_err(), "{bad}");
        }
    }

    #[test]
    fn names() {
        let text = "#\n255\tlocal\n0x10 hex # sixteen\n#7 no\n100 vpn\n";
        assert_eq!(find(text, "vpn"), Some(100));
        assert_eq!(find(text, "hex"), Some(16));
        assert_eq!(find(text, "no"), None);
    }
}
