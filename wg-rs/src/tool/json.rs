//! Writes a JSON document.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter};

/// The layout of a JSON document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JsonLayout {
    /// One value per line, indented by tabs.
    Lines,
    /// Everything on one line.
    OneLine,
}

/// Writes a value, and a newline.
pub(super) fn write(
    out: &mut impl Write,
    value: &impl Serialize,
    layout: JsonLayout,
) -> io::Result<()> {
    match layout {
        JsonLayout::Lines => format(out, value, PrettyFormatter::with_indent(b"\t")),
        JsonLayout::OneLine => format(out, value, CompactFormatter),
    }
}

fn format(
    out: &mut impl Write,
    value: &impl Serialize,
    formatter: impl Formatter,
) -> io::Result<()> {
    let mut serializer = serde_json::Serializer::with_formatter(&mut *out, formatter);
    value.serialize(&mut serializer)?;
    writeln!(out)
}
