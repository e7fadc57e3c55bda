//! `metrics`: the state of all interfaces in the text format of Prometheus, once or over HTTP.

mod collect;
mod exposition;
mod http;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::ExitCode;

use self::collect::collect;
use super::context::{Context, complain};
use super::out;

/// Runs `metrics`.
pub(super) fn run(context: &Context, args: &[OsString]) -> ExitCode {
    let words: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
    let address = match words.iter().map(AsRef::as_ref).collect::<Vec<_>>()[..] {
        [] => {
            let (text, status) = collect(&context.interfaces);
            return match (out::print(text), status) {
                (ExitCode::SUCCESS, status) => status,
                (failure, _) => failure,
            };
        }
        ["--listen"] => http::DEFAULT,
        ["--listen", address] => match listen_address(address) {
            Some(address) => address,
            None => {
                return complain(format_args!(
                    "`{address}' is neither an address and a port, as in 127.0.0.1:9586, nor a port"
                ));
            }
        },
        _ => return context.usage(),
    };
    match http::serve(address, &context.interfaces) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(format_args!("Unable to listen on {address}: {error}")),
    }
}

/// Parses an address and port, or only a port of the loopback address.
fn listen_address(text: &str) -> Option<SocketAddr> {
    let port = || Some(SocketAddr::new(http::DEFAULT.ip(), text.parse().ok()?));
    text.parse().ok().or_else(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_to_listen_on() {
        for (text, address) in [
            ("9586", Some("127.0.0.1:9586")),
            ("0.0.0.0:80", Some("0.0.0.0:80")),
            ("[::1]:80", Some("[::1]:80")),
            ("::1", None),
            ("localhost:80", None),
            ("70000", None),
            ("", None),
        ] {
            let address = address.map(|address| address.parse().unwrap());
            assert_eq!(listen_address(text), address, "{text}");
        }
    }
}
