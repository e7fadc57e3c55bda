//! The time since a handshake in the output of `wg` grows between two runs, so it is replaced by the
//! time of the handshake.

use std::time::{SystemTime, UNIX_EPOCH};

const UNITS: [(&str, u64); 5] = [
    ("year", 365 * 24 * 60 * 60),
    ("day", 24 * 60 * 60),
    ("hour", 60 * 60),
    ("minute", 60),
    ("second", 1),
];

/// The longest time between writing and reading a text, in seconds.
const MINUTE: u64 = 60;

/// Replaces `LABEL: 2 minutes, 5 seconds ago` by the minute of that time, if it is written as `wg`
/// writes it, with or without colours.
pub fn absolute(text: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |since| since.as_secs());
    let line = |line: &str| replaced(line, now).unwrap_or_else(|| line.to_owned());
    text.split_inclusive('\n')
        .map(|text| match text.strip_suffix('\n') {
            Some(rest) => line(rest) + "\n",
            None => line(text),
        })
        .collect()
}

fn replaced(line: &str, now: u64) -> Option<String> {
    let (label, time) = line.strip_suffix(" ago")?.rsplit_once(": ")?;
    let plain = time.replace("\x1b[36m", "").replace("\x1b[0m", "");
    let mut seconds = 0;
    for part in plain.split(", ") {
        let (number, unit) = part.split_once(' ')?;
        let singular = unit.strip_suffix('s').unwrap_or(unit);
        let (_, length) = UNITS.iter().find(|(name, _)| *name == singular)?;
        seconds += number.parse::<u64>().ok()? * length;
    }
    let style = [("plain", false), ("coloured", true)]
        .into_iter()
        .find_map(|(style, coloured)| (written(seconds, coloured) == time).then_some(style))?;
    let at = now.checked_sub(seconds)? / MINUTE;
    Some(format!("{label}: {style}, in minute {at}"))
}

/// A time as `wg` writes it.
fn written(mut seconds: u64, coloured: bool) -> String {
    let (colour, reset) = if coloured {
        ("\x1b[36m", "\x1b[0m")
    } else {
        ("", "")
    };
    let mut parts = Vec::new();
    for (name, length) in UNITS {
        let number = seconds / length;
        seconds %= length;
        let plural = if number == 1 { "" } else { "s" };
        if number > 0 {
            parts.push(format!("{number} {colour}{name}{plural}{reset}"));
        }
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_replaced_only_as_wg_writes_it() {
        let at = |text| replaced(text, 1_000_000_000);
        let told = "  latest handshake: 1 day, 1 minute, 2 seconds ago";
        let minute = (1_000_000_000 - 86_462) / 60;
        let expected = format!("  latest handshake: plain, in minute {minute}");
        assert_eq!(at(told), Some(expected));
        let coloured = "latest handshake: 3 \x1b[36mhours\x1b[0m ago";
        assert!(at(coloured).is_some_and(|text| text.contains("coloured")));
        for wrong in [
            "latest handshake: 1 days ago",
            "latest handshake: 60 seconds ago",
            "latest handshake: 1 minute 2 seconds ago",
            "latest handshake: 0 seconds ago",
            "latest handshake: (none)",
        ] {
            assert_eq!(at(wrong), None, "{wrong}");
        }
    }
}
