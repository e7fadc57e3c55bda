//! `wg-rs socks`: a proxy into the tunnel, for SOCKS5 and HTTP CONNECT on one port.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use tokio::sync::Semaphore;

use super::super::context::{Context, complain};
use super::proxy;
use super::session::{self, TunnelArguments, arguments, say, warn};
use crate::stack::Tunnel;

/// The default address to listen on, with the port that IANA assigned to SOCKS.
const ADDRESS: &str = "127.0.0.1:1080";
/// Maximum number of clients at a time.
const MOST_CLIENTS: usize = 2048;
/// How long to wait when no client can be accepted.
const REST: Duration = Duration::from_millis(100);

const EXAMPLES: &str = "\
Names are resolved inside of the tunnel, by the servers of `DNS' in the file, or refused; they are never \
asked for outside.

Examples:
  wg-rs socks wg0.conf 127.0.0.1:1080
  curl --proxy socks5h://127.0.0.1:1080 http://intranet.example/
  curl --proxy http://127.0.0.1:1080 https://intranet.example/";

/// A SOCKS5 and HTTP CONNECT proxy into a tunnel that needs no root and no network interface
#[derive(Debug, Parser)]
#[command(after_help = EXAMPLES, arg_required_else_help = true)]
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
    session::run(&tunnel, async |tunnel: Tunnel| {
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
        match listener.accept().await {
            Ok((client, _)) => {
                let tunnel = tunnel.clone();
                tokio::spawn(async move {
                    proxy::serve(client, tunnel).await;
                    drop(place);
                });
            }
            Err(error) => {
                warn(format_args!("Unable to accept a client: {error}"));
                tokio::time::sleep(REST).await;
            }
        }
    }
}
