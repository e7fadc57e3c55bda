//! Notifies the service manager (sd_notify(3)) through the datagram socket in `NOTIFY_SOCKET`: a
//! path, or an abstract name after `@`.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Environment variable with the name of the socket.
pub const VARIABLE: &str = "NOTIFY_SOCKET";
/// The interface exists and can be configured.
pub const READY: &str = "READY=1";
/// Followed by a process ID: the main process of the service from now on.
pub const MAIN_PID: &str = "MAINPID=";
/// The daemon is about to end.
pub const STOPPING: &str = "STOPPING=1";

/// Sends `state` to the service manager. False if `NOTIFY_SOCKET` is not set.
///
/// # Errors
/// The name is neither a path nor an abstract name, or nobody listens on the socket.
pub fn notify(state: &str) -> io::Result<bool> {
    match std::env::var_os(VARIABLE) {
        Some(name) => notify_to(&name, state).map(|()| true),
        None => Ok(false),
    }
}

fn notify_to(name: &OsStr, state: &str) -> io::Result<()> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        _ => {
            let message = format!("NOTIFY_SOCKET {name:?} is neither a path nor an abstract name");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
    };
    UnixDatagram::unbound()?
        .send_to_addr(state.as_bytes(), &address)
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(manager: &UnixDatagram) -> String {
        let mut buf = [0; 100];
        let len = manager.recv(&mut buf).unwrap();
        String::from_utf8(buf[..len].to_vec()).unwrap()
    }

    #[test]
    fn paths_and_abstract_names_are_supported() {
        let name = format!("wg-rs-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        notify_to(OsStr::new(&format!("@{name}")), READY).unwrap();
        assert_eq!(received(&manager), "READY=1");

        let path = std::env::temp_dir().join(&name);
        let manager = UnixDatagram::bind(&path).unwrap();
        notify_to(path.as_os_str(), STOPPING).unwrap();
        assert_eq!(received(&manager), "STOPPING=1");
        std::fs::remove_file(&path).unwrap();

        assert_eq!(
            notify_to(path.as_os_str(), READY).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        let error = notify_to(OsStr::new("vsock:2:1"), READY).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
