//! Times as text.

use std::time::Duration;

/// Formats a time in the largest unit that gives at least 1.
pub(super) fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86400 => format!("{} h", seconds / 3600),
        86400..172_800 => "1 day".into(),
        _ => format!("{} days", seconds / 86400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (n, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (3599, "59 min"),
            (7200, "2 h"),
            (86400, "1 day"),
            (200_000, "2 days"),
        ] {
            assert_eq!(time(Duration::from_secs(n)), text);
        }
    }
}
