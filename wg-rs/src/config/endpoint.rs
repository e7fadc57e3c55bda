//! From the endpoint that was asked for to an address.

use std::env;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use crate::sys::resolve;

use super::error::shown;
use super::{Endpoint, Reason};

/// How often a name is asked for again that could not be resolved this time; `None` for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries(pub Option<u32>);

const VARIABLE: &str = "WG_ENDPOINT_RESOLUTION_RETRIES";
const DEFAULT: u32 = 15;
const FIRST_DELAY: Duration = Duration::from_secs(1);
const MAX_DELAY: Duration = Duration::from_secs(20);

impl Retries {
    /// As `WG_ENDPOINT_RESOLUTION_RETRIES` has it; 15 times if it is not set.
    pub fn from_env() -> Result<Self, Reason> {
        match env::var_os(VARIABLE) {
            None => Ok(Retries(Some(DEFAULT))),
            Some(value) => Retries::parse(&value.to_string_lossy()),
        }
    }

    /// A number, none of which is 0, or `infinity`.
    fn parse(text: &str) -> Result<Self, Reason> {
        if text == "infinity" {
            return Ok(Retries(None));
        }
        let number: Option<i32> = if text.is_empty() {
            Some(0)
        } else {
            text.parse().ok()
        };
        let number = number.and_then(|number| u32::try_from(number).ok());
        match number {
            Some(number) => Ok(Retries(Some(number))),
            None => Err(Reason::Retries(shown(text))),
        }
    }
}

impl Endpoint {
    /// Its address, the first of several. Before a name is asked for again, `pause` is told why and for
    /// how long to wait; it returns whether to go on.
    pub fn resolve(
        &self,
        retries: Retries,
        pause: &mut dyn FnMut(&Reason, Duration) -> bool,
    ) -> Result<SocketAddr, Reason> {
        let (mut left, mut delay) = (retries.0, FIRST_DELAY);
        loop {
            let failure = match self.addresses() {
                Ok(addrs) => return Ok(addrs[0]),
                Err(failure) => failure,
            };
            let reason = Reason::Unresolved(failure.to_string(), shown(&self.to_string()));
            if failure.is_final() || left == Some(0) || !pause(&reason, delay) {
                return Err(reason);
            }
            left = left.map(|left| left - 1);
            delay = (delay * 6 / 5).min(MAX_DELAY);
        }
    }

    /// All its addresses, the preferred one first, never none; names are asked for once.
    pub fn addresses(&self) -> Result<Vec<SocketAddr>, resolve::Failure> {
        match self.host.parse::<IpAddr>() {
            Ok(ip) => Ok(vec![SocketAddr::new(ip, self.port)]),
            Err(_) => resolve::host(&self.host, self.port),
        }
    }
}

/// Resolves as `wg` does: as often as the environment has it, speaking of it on standard error.
pub fn look_up(endpoint: &Endpoint) -> Result<SocketAddr, Reason> {
    endpoint.resolve(Retries::from_env()?, &mut again)
}

/// Says on standard error that a name will be asked for again, and waits.
pub fn again(reason: &Reason, delay: Duration) -> bool {
    let seconds = delay.as_secs_f64();
    // If nobody listens there, waiting is right all the same.
    let _ = writeln!(
        io::stderr(),
        "{reason}. Trying again in {seconds:.2} seconds..."
    );
    thread::sleep(delay);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(host: &str, retries: Option<u32>) -> (Result<SocketAddr, Reason>, usize) {
        let endpoint = Endpoint {
            host: host.into(),
            port: 80,
            line: 0,
        };
        let mut pauses = 0;
        let result = endpoint.resolve(Retries(retries), &mut |_, _| {
            pauses += 1;
            true
        });
        (result, pauses)
    }

    #[test]
    fn addresses_are_taken_as_they_are() {
        for (host, addr) in [
            ("192.0.2.1", "192.0.2.1:80"),
            ("::ffff:192.0.2.1", "[::ffff:192.0.2.1]:80"),
            ("fe80::1%lo", "[fe80::1%1]:80"),
        ] {
            assert_eq!(resolve(host, None), (Ok(addr.parse().unwrap()), 0));
        }
    }

    #[test]
    fn a_name_that_does_not_exist_is_not_asked_for_again() {
        let (result, pauses) = resolve("", None);
        let reason = result.unwrap_err();
        assert_eq!(reason.to_string(), "Name or service not known: `:80'");
        assert_eq!(pauses, 0);
    }

    #[test]
    fn numbers_of_retries() {
        for (text, retries) in [
            ("0", Some(0)),
            ("", Some(0)),
            ("7", Some(7)),
            ("2147483647", Some(2147483647)),
            ("infinity", None),
        ] {
            assert_eq!(Retries::parse(text), Ok(Retries(retries)), "{text}");
        }
        for text in ["2147483648", "-1", "x", "1x", "Infinity", "1 "] {
            let error = Retries::parse(text).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("Unable to parse WG_ENDPOINT_RESOLUTION_RETRIES: `{text}'")
            );
        }
    }
}
