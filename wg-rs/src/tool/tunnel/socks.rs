//! `wg-rs socks`: a proxy into the tunnel, for SOCKS5 and HTTP CONNECT on one port.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use tokio::sync::Semaphore;

use super::super::context::{Context, complain};
use super::connection::accept;
use super::proxy;
use super::session::{self, TunnelArguments, arguments, say};
use crate::stack::Tunnel;

/// The default address to listen on, with the port that IANA assigned to SOCKS.
const ADDRESS: &str = "127.0.0.1:1080";
/// Maximum number of clients at a time.
const MOST_CLIENTS: usize = 2048;

/// A SOCKS5 and HTTP CONNECT proxy into a tunnel that needs no root and no network interface
#[derive(Debug, Parser)]
pub(crate) struct Socks {
    #[command(flatten)]
    tunnel: TunnelArguments,
    /// Address and port to listen on
    #[arg(value_name = "ADDRESS:PORT", default_value = ADDRESS)]
    listen: SocketAddr,
}

/// Runs `socks`.
pub(crate) fn run(context: &Context, args: &[OsString]) -> ExitCode {
    let Socks { tunnel, listen } = match arguments(context, args) {
        Ok(socks) => socks,
        Err(status) => return status,
    };
    if let Err(message) = tunnel.check_address(listen.ip()) {
        return complain(message);
    }
    session::run(&tunnel.file, tunnel.start(), async |tunnel: Tunnel| {
        let cannot = |error| format!("Unable to listen on {listen}: {error}");
        let listener = tokio::net::TcpListener::bind(listen)
            .await
            .map_err(cannot)?;
        let at = listener.local_addr().map_err(cannot)?;
        say(format_args!(
            "Listening on {at}, for SOCKS5 and HTTP CONNECT"
        ));
        tokio::spawn(serve(listener, tunnel));
        Ok(())
    })
}

async fn serve(listener: tokio::net::TcpListener, tunnel: Tunnel) {
    let places = Arc::new(Semaphore::new(MOST_CLIENTS));
    loop {
        // The semaphore is never closed.
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let client = accept(&listener, "Unable to accept a client").await;
        let tunnel = tunnel.clone();
        tokio::spawn(async move {
            proxy::serve(client, tunnel).await;
            drop(place);
        });
    }
}
