//! Numbers of bytes for people, with the units that `wg` prints.

/// A number and its unit, from a KiB on with this many decimals. The unit is chosen before rounding: with
/// 2 decimals, 1048575 bytes are `("1024.00", "KiB")`.
pub fn size(bytes: u64, decimals: usize) -> (String, &'static str) {
    let mut scaled = bytes as f64;
    let mut unit = "B";
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if scaled < 1024.0 {
            break;
        }
        (scaled, unit) = (scaled / 1024.0, larger);
    }
    let decimals = if unit == "B" { 0 } else { decimals };
    (format!("{scaled:.decimals$}"), unit)
}
