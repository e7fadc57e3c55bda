//! `wg-rs forward`: forwards ports of this machine into the tunnel, and ports of this end of the tunnel out
//! of it.

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use clap::Parser;

use super::super::context::{Context, complain};
use super::connection::{accept, join, reset};
use super::datagrams::{self, Port};
use super::session::{self, TunnelArguments, arguments, say, text, warn};
use super::specification::Specification;
use crate::stack::{self, Tunnel};

/// Forward ports through a tunnel that needs no root and no network interface
#[derive(Debug, Parser)]
pub(crate) struct Forward {
    #[command(flatten)]
    tunnel: TunnelArguments,
    /// Listen on PORT of this machine and forward to HOST:PORT inside the tunnel
    #[arg(value_name = "[udp/][ADDRESS:]PORT:HOST:PORT")]
    forwards: Vec<Specification>,
    /// The same, with the option letter of ssh
    #[arg(short = 'L', long, value_name = "[udp/][ADDRESS:]PORT:HOST:PORT")]
    local: Vec<Specification>,
    /// Listen on PORT inside the tunnel and forward to HOST:PORT outside
    #[arg(short = 'R', long, value_name = "[udp/][ADDRESS:]PORT:HOST:PORT")]
    remote: Vec<Specification>,
}

/// Runs `forward`.
pub(crate) fn run(context: &Context, args: &[OsString]) -> ExitCode {
    let forward: Forward = match arguments(context, args) {
        Ok(forward) => forward,
        Err(status) => return status,
    };
    let Forward {
        tunnel,
        mut forwards,
        local,
        remote,
    } = forward;
    forwards.extend(local);
    if forwards.is_empty() && remote.is_empty() {
        return complain("Nothing to forward: give PORT:HOST:PORT, or -R PORT:HOST:PORT");
    }
    let addresses = forwards.iter().map(Specification::local_address);
    let check = { addresses }.try_for_each(|address| tunnel.check_address(address));
    if let Err(message) = check {
        return complain(message);
    }
    session::run(&tunnel.file, tunnel.start(), async |tunnel: Tunnel| {
        for specification in forwards {
            listen_outside(&tunnel, specification).await?;
        }
        for specification in remote {
            listen_inside(&tunnel, specification)?;
        }
        Ok(())
    })
}

async fn listen_outside(tunnel: &Tunnel, specification: Specification) -> Result<(), String> {
    let address = (specification.local_address(), specification.port);
    let cannot = |error: io::Error| format!("Unable to listen for {specification}: {error}");
    let destination = specification.destination();
    let tunnel = tunnel.clone();
    if specification.udp {
        let socket = tokio::net::UdpSocket::bind(address).await.map_err(cannot)?;
        let at = socket.local_addr().map_err(cannot)?;
        say(format_args!(
            "Listening on udp/{at}, for {destination} in the tunnel"
        ));
        let front = Port::Outside(socket);
        tokio::spawn(datagrams::pass_on(front, tunnel, specification));
    } else {
        let listener = tokio::net::TcpListener::bind(address)
            .await
            .map_err(cannot)?;
        let at = listener.local_addr().map_err(cannot)?;
        say(format_args!(
            "Listening on {at}, for {destination} in the tunnel"
        ));
        tokio::spawn(async move {
            loop {
                let stream = accept(&listener, &specification).await;
                tokio::spawn(lead_in(stream, tunnel.clone(), specification.clone()));
            }
        });
    }
    Ok(())
}

fn listen_inside(tunnel: &Tunnel, specification: Specification) -> Result<(), String> {
    let Specification { udp, port, .. } = specification;
    let cannot =
        |error: stack::Error| format!("Unable to listen for -R {specification}: {}", text(&error));
    let destination = specification.destination();
    if udp {
        let socket = tunnel.bind_udp(port).map_err(cannot)?;
        let at = socket.port();
        say(format_args!(
            "Listening on udp port {at} in the tunnel, for {destination}"
        ));
        let front = Port::Inside(socket);
        tokio::spawn(datagrams::pass_on(front, tunnel.clone(), specification));
    } else {
        let listener = match specification.address {
            Some(address) => tunnel.listen_at((address, port).into()),
            None => tunnel.listen(port),
        };
        let listener = listener.map_err(cannot)?;
        let at = listener.port();
        say(format_args!(
            "Listening on port {at} in the tunnel, for {destination}"
        ));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(lead_out(stream, specification.clone()));
            }
        });
    }
    Ok(())
}

async fn lead_in(local: tokio::net::TcpStream, tunnel: Tunnel, specification: Specification) {
    let Specification {
        host, host_port, ..
    } = &specification;
    match tunnel.connect_to(host, *host_port).await {
        Ok(remote) => join(local, remote).await,
        Err(error) => {
            warn(format_args!("{specification}: {error}"));
            reset(local);
        }
    }
}

async fn lead_out(inside: stack::TcpStream, specification: Specification) {
    let Specification {
        host, host_port, ..
    } = &specification;
    match tokio::net::TcpStream::connect((host.as_str(), *host_port)).await {
        Ok(outside) => join(outside, inside).await,
        Err(error) => {
            warn(format_args!("-R {specification}: {error}"));
            inside.reset();
        }
    }
}
