//! Resolves endpoints to addresses.

use std::env;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use crate::sys::resolve;

use super::error::shown;
use super::{ConfigEndpoint, NotAHost, Reason};

/// How often a name is resolved again after a temporary failure; None means without limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries(pub Option<u32>);

const VARIABLE: &str = "WG_ENDPOINT_RESOLUTION_RETRIES";
const DEFAULT: u32 = 15;
const FIRST_DELAY: Duration = Duration::from_secs(1);
const MAX_DELAY: Duration = Duration::from_secs(20);

impl Retries {
    /// Reads `WG_ENDPOINT_RESOLUTION_RETRIES`; 15 if it is not set.
    ///
    /// # Errors
    /// [`Reason::Retries`]: the variable is neither a number nor `infinity`.
    pub fn from_env() -> Result<Self, Reason> {
        match env::var_os(VARIABLE) {
            None => Ok(Retries(Some(DEFAULT))),
            Some(value) => Retries::parse(&value.to_string_lossy()),
        }
    }

    /// Parses a number or `infinity`. Zero means no retry.
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

impl ConfigEndpoint {
    /// Resolves to the first address. Before each retry, `pause` gets the reason and the delay, and
    /// returns whether to continue.
    pub fn resolve(
        &self,
        retries: Retries,
        pause: &mut dyn FnMut(&Reason, Duration) -> bool,
    ) -> Result<SocketAddr, Reason> {
        self.resolve_by(ConfigEndpoint::addresses, retries, pause)
    }

    /// Like [`ConfigEndpoint::resolve`], with another resolver: `ask` returns all addresses, at least
    /// one, with the preferred one first.
    pub fn resolve_by(
        &self,
        ask: impl Fn(&ConfigEndpoint) -> Result<Vec<SocketAddr>, resolve::ResolveError>,
        retries: Retries,
        pause: &mut dyn FnMut(&Reason, Duration) -> bool,
    ) -> Result<SocketAddr, Reason> {
        let ask = || {
            ask(self).map(|addrs| addrs[0]).map_err(|failure| {
                let text = shown(&self.to_string());
                let why = self.not_a_host();
                let reason = Reason::Unresolved(failure.to_string(), text, why);
                (reason, failure.is_final() || why.is_some())
            })
        };
        ask_again(ask, retries, pause)
    }

    /// All addresses, at least one, with the preferred one first. A failure is not retried.
    pub fn addresses(&self) -> Result<Vec<SocketAddr>, resolve::ResolveError> {
        match self.numeric() {
            Some(address) => Ok(vec![address]),
            None => resolve::host(&self.host, self.port),
        }
    }

    /// The address, if the host is a numeric address; no resolver is asked. A scope may be the name
    /// of a link in the calling thread's network namespace.
    pub fn numeric(&self) -> Option<SocketAddr> {
        match self.host.parse::<IpAddr>() {
            Ok(ip) => Some(SocketAddr::new(ip, self.port)),
            Err(_) => resolve::numeric(&self.host, self.port),
        }
    }

    /// Why the host is neither an address nor can be a name. No resolver is asked. The scope of an
    /// address is not checked: it depends on the links that exist now.
    pub fn not_a_host(&self) -> Option<NotAHost> {
        let host = &*self.host;
        let is_digit_or_dot = |c: char| c.is_ascii_digit() || c == '.';
        if host.contains("://") {
            Some(NotAHost::Url)
        } else if host.contains('/') {
            Some(NotAHost::Slash)
        } else if host.contains(':') {
            let address = host.split('%').next().unwrap_or(host);
            address.parse::<Ipv6Addr>().is_err().then_some(NotAHost::V6)
        } else if !host.is_empty() && host.chars().all(is_digit_or_dot) {
            self.numeric().is_none().then_some(NotAHost::V4)
        } else {
            None
        }
    }
}

/// `ask` fails with a reason, and whether the failure is final.
fn ask_again<T>(
    mut ask: impl FnMut() -> Result<T, (Reason, bool)>,
    Retries(mut left): Retries,
    pause: &mut dyn FnMut(&Reason, Duration) -> bool,
) -> Result<T, Reason> {
    let mut delay = FIRST_DELAY;
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err((reason, is_final)) => {
                if is_final || left == Some(0) || !pause(&reason, delay) {
                    return Err(reason);
                }
            }
        }
        left = left.map(|left| left - 1);
        delay = (delay * 6 / 5).min(MAX_DELAY);
    }
}

/// Resolves like `wg`: with as many retries as the environment allows, and messages on standard
/// error.
pub fn look_up(endpoint: &ConfigEndpoint) -> Result<SocketAddr, Reason> {
    endpoint.resolve(Retries::from_env()?, &mut again)
}

/// Announces a retry on standard error, and waits.
fn again(reason: &Reason, delay: Duration) -> bool {
    let seconds = delay.as_secs_f64();
    // If standard error is closed, waiting is still right.
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

    fn endpoint(host: &str) -> ConfigEndpoint {
        ConfigEndpoint {
            host: host.into(),
            port: 80,
            line: 0,
        }
    }

    #[test]
    fn numeric_addresses_are_not_resolved() {
        for (host, addr) in [
            ("192.0.2.1", "192.0.2.1:80"),
            ("::ffff:192.0.2.1", "[::ffff:192.0.2.1]:80"),
            ("fe80::1%lo", "[fe80::1%1]:80"),
        ] {
            let resolved = endpoint(host).resolve(Retries(None), &mut |_, _| false);
            assert_eq!(resolved, Ok(addr.parse().unwrap()));
            assert_eq!(endpoint(host).numeric(), addr.parse().ok());
        }
    }

    #[test]
    fn a_name_that_does_not_exist_is_not_retried() {
        let pause = &mut |_: &Reason, _| panic!("waits");
        assert_eq!(endpoint("").numeric(), None);
        assert_eq!(endpoint("localhost").numeric(), None);
        let reason = endpoint("").resolve(Retries(None), pause).unwrap_err();
        assert_eq!(reason.to_string(), "Name or service not known: `:80'");
    }

    #[test]
    fn what_is_no_host() {
        for (host, why) in [
            ("udp://vpn.example", Some(NotAHost::Url)),
            ("vpn.example/24", Some(NotAHost::Slash)),
            ("300.1.1.1", Some(NotAHost::V4)),
            ("10.0.0.1.2", Some(NotAHost::V4)),
            ("10.0.0.256", Some(NotAHost::V4)),
            ("...", Some(NotAHost::V4)),
            // An address without a port.
            ("2001:db8:", Some(NotAHost::V6)),
            ("::g", Some(NotAHost::V6)),
            ("vpn.example:51820", Some(NotAHost::V6)),
            ("192.0.2.1", None),
            // The C library takes this for 10.0.0.1.
            ("10.1", None),
            ("2001:db8::1", None),
            ("fe80::1%no-such-link", None),
            ("vpn.example", None),
            ("300.example", None),
            ("4", None),
            ("", None),
        ] {
            assert_eq!(endpoint(host).not_a_host(), why, "{host}");
        }
    }

    #[test]
    fn what_is_no_host_is_not_retried() {
        let again = || resolve::host("", 80).unwrap_err();
        let pause = &mut |_: &Reason, _| panic!("waits");
        let resolved = endpoint("300.1.1.1").resolve_by(|_| Err(again()), Retries(None), pause);
        assert_eq!(
            resolved.unwrap_err().to_string(),
            "Name or service not known: `300.1.1.1:80' (an IPv4 address is four numbers from 0 to 255)"
        );
    }

    /// Resolves without success until `pause`, which gets the number of the delay, returns false.
    fn in_vain(retries: Option<u32>, mut pause: impl FnMut(usize) -> bool) -> Vec<String> {
        let failure = || Reason::Unresolved("Try later".into(), "host:80".into(), None);
        let mut delays = Vec::new();
        let asked = ask_again(
            || Err::<(), _>((failure(), false)),
            Retries(retries),
            &mut |reason, delay| {
                assert_eq!(reason, &failure());
                delays.push(format!("{:.2}", delay.as_secs_f64()));
                pause(delays.len())
            },
        );
        assert_eq!(asked, Err(failure()));
        delays
    }

    #[test]
    fn delays_grow_to_twenty_seconds() {
        let delays = in_vain(Some(15), |_| true);
        assert_eq!(
            delays.join(" "),
            "1.00 1.20 1.44 1.73 2.07 2.49 2.99 3.58 4.30 5.16 6.19 7.43 8.92 10.70 12.84"
        );
        assert_eq!(
            in_vain(Some(18), |_| true)[15..],
            ["15.41", "18.49", "20.00"]
        );
    }

    #[test]
    fn retries_end_at_the_limit_or_with_an_answer() {
        assert_eq!(in_vain(Some(0), |_| true).len(), 0);
        assert_eq!(in_vain(Some(1), |_| true).len(), 1);
        assert_eq!(in_vain(None, |delays| delays < 99).len(), 99);
        assert_eq!(in_vain(Some(9), |_| false).len(), 1);
        let mut answers = vec![Ok(7), Err((Reason::NoPublicKey, false))];
        let asked = ask_again(|| answers.pop().unwrap(), Retries(None), &mut |_, _| true);
        assert_eq!(asked, Ok(7));
    }

    #[test]
    fn retries_are_parsed() {
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
