//! Numbers of bytes for people, as `wg` prints them.

/// A number and its unit: 2 decimals from a KiB on. The unit is chosen before rounding: 1048575 bytes are
/// `("1024.00", "KiB")`.
pub(super) fn size(bytes: u64) -> (String, &'static str) {
    let mut scaled = bytes as f64;
    let mut unit = "B";
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if scaled < 1024.0 {
            break;
        }
        (scaled, unit) = (scaled / 1024.0, larger);
    }
    let decimals = if unit == "B" { 0 } else { 2 };
    (format!("{scaled:.decimals$}"), unit)
}
