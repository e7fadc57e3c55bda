//! `wg-rs relay`: relays between the peers of a file.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use super::super::context::Context;
use super::session::{self, arguments, cannot_start, say, text};
use crate::config;
use crate::stack::{Config, Tunnel};

/// Relay between peers, without root and without a network interface
#[derive(Debug, Parser)]
pub(crate) struct RelayArguments {
    /// File of `wg' or `wg-quick' that lists the peers
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,
}

/// Runs `relay`.
pub(crate) fn run(context: &Context, args: &[OsString]) -> ExitCode {
    let RelayArguments { file } = match arguments(context, args) {
        Ok(relay) => relay,
        Err(status) => return status,
    };
    let start = || -> Result<Tunnel, String> {
        let config = Config::from_file(&file).map_err(|error| text(&error))?;
        Tunnel::relay_by(config, config::look_up).map_err(|error| cannot_start(&file, &error))
    };
    session::run(&file, start(), async |tunnel: Tunnel| {
        say(format_args!(
            "Listening on udp port {}, to relay between peers",
            tunnel.listen_port()
        ));
        Ok(())
    })
}
