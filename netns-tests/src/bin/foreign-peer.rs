//! boringtun's own device as a program: an implementation by others that is available on every machine
//! that can build this crate. `foreign-peer [-f] IFACE` stays in the foreground, and ends on SIGTERM or
//! when its socket is removed.
//!
//! boringtun 0.7.1 panics at a `set` of a peer that it already has, so tests configure each peer only
//! once. A panic in any thread ends the process, so that a test sees it. Connected sockets are off,
//! as they keep their first address.

use std::process::ExitCode;

use boringtun::device::{DeviceConfig, DeviceHandle};

fn main() -> ExitCode {
    let name = std::env::args().skip(1).find(|argument| argument != "-f");
    let Some(name) = name else {
        eprintln!("usage: foreign-peer [-f] IFACE");
        return ExitCode::FAILURE;
    };
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        print(info);
        std::process::abort();
    }));
    let config = DeviceConfig {
        use_connected_socket: false,
        ..DeviceConfig::default()
    };
    match DeviceHandle::new(&name, config) {
        Ok(mut device) => {
            device.wait();
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("foreign-peer {name}: {error}");
            ExitCode::FAILURE
        }
    }
}
