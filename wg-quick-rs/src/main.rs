//! `wg-quick-rs`: the `wg-quick` command. See wg-quick-rs(8).
//!
//! ```text
//! command_line ─► file ─► up, down, … ─► steps ─► engine: done one by one, undone on failure
//! ```

#![forbid(unsafe_code)]

mod ask;
mod beside;
mod check;
mod command_line;
mod completions;
mod console;
mod default_route;
mod difference;
mod dns;
mod down;
mod edit;
mod endpoint;
mod engine;
mod failure;
mod file;
mod find;
mod firewall;
mod hook_text;
mod ipv6;
mod lines;
mod lock;
mod loops;
mod mtu;
mod ours;
mod program;
mod qr;
mod reload;
mod replace;
mod reresolve;
mod resolv_conf;
mod routes;
mod save;
mod signals;
mod state;
mod step;
mod table;
mod up;
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    command_line::main()
}
