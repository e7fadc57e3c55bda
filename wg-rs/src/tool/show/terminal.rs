//! Decides by the environment and the terminal whether to use colours and to show keys.

use std::env;
use std::fmt::{self, Display};
use std::io::{self, IsTerminal};

pub(super) const BOLD: &str = "\x1b[1m";
pub(super) const RED: &str = "\x1b[31m";
pub(super) const GREEN: &str = "\x1b[32m";
pub(super) const YELLOW: &str = "\x1b[33m";
pub(super) const CYAN: &str = "\x1b[36m";
pub(super) const RESET: &str = "\x1b[0m";

/// Whether to use colours: by `WG_COLOR_MODE`, or else if standard output is a terminal.
pub(super) fn colours() -> bool {
    match env::var_os("WG_COLOR_MODE") {
        Some(mode) if mode == "always" => true,
        Some(mode) if mode == "never" => false,
        _ => io::stdout().is_terminal(),
    }
}

/// Whether secrets may be shown to people and in JSON.
pub(super) fn reveals_keys() -> bool {
    env::var_os("WG_HIDE_KEYS").is_some_and(|value| value == "never")
}

/// A text with escape sequences before and after it for its style; without colours, only the text.
pub(super) struct Styled<'a, T> {
    pub colour: bool,
    pub codes: &'a [&'static str],
    pub text: T,
}

impl<T: Display> Display for Styled<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.colour {
            return self.text.fmt(f);
        }
        for code in self.codes {
            f.write_str(code)?;
        }
        self.text.fmt(f)?;
        f.write_str(RESET)
    }
}
