//! `wireguard-rs`: connects the tunnel with its device, its sockets and its configuration.
//!
//! ```text
//! parent   creates TUN and UAPI socket ─► starts itself again with both ─► exits when it is ready
//! child    (or with -f the parent) ─► drops capabilities ─► starts threads ─► serves until the end
//! ```

mod control;
mod interface;
mod link;
mod log;
mod machine;
pub(crate) mod options;
mod report;
mod seen;
mod undelivered;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use nix::errno::Errno;
use tokio::sync::oneshot;
use wg_crypto::{AeadBackend, wipe_stack_after};

use self::control::{Control, End, EndSignals};
use self::interface::RunningInterface;
use self::log::{LogDestination, Queue};
use self::options::{Environment, LogLevel, Offloads, Options, Switch};
use self::seen::Seen;
use self::undelivered::IcmpErrors;
use crate::datapath::lane::default_workers;
use crate::datapath::network::log_refused;
use crate::model::{self, status::Status};
use crate::sys;
use crate::sys::netlink::Netlink;
use crate::sys::process::background::{self, Background, Parent};
use crate::sys::process::sandbox::{self, Sandbox};
use crate::sys::process::{confine, notify, slice};
use crate::sys::tun::{Tun, TunOffloads};
use crate::tunnel::config::ConfigError;
use crate::tunnel::timers;
use crate::uapi::RUN_DIR;
use crate::uapi::server::{self, Handler};
use crate::uapi::socket::{BindError, Listener};

/// How long a daemon whose link was deleted may keep its socket, and how often to check.
const FORMER_DAEMON: Duration = Duration::from_secs(2);
const LISTEN_AGAIN: Duration = Duration::from_millis(5);

/// An error that ends the program, as a message for the user.
struct Fatal(String);

impl Fatal {
    fn new<E: Display>(what: impl Display) -> impl FnOnce(E) -> Fatal {
        move |error| Fatal(format!("{what}: {error}"))
    }
}

/// Runs `wireguard-rs`: exit status 0, or 1 with a line that describes the error.
pub fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(message) => {
            let _ = message.print();
            return if message.use_stderr() {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Fatal(message)) => {
            let message = sys::reason(&message);
            let line = format!("wireguard-rs: {}: {message}\n", options.interface);
            let _ = io::stderr().write_all(line.as_bytes());
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Fatal> {
    let environment = Environment::read(|name| std::env::var_os(name));
    let destination = if environment.logs_to_syslog() {
        LogDestination::Syslog(&options.interface)
    } else {
        LogDestination::Stderr
    };
    let queue = log::start(environment.log_level, destination);
    if timers::SPEED != 1 {
        tracing::error!("{}", options::TEST_BUILD);
    }
    if let Some(level) = &environment.unknown_level {
        tracing::warn!(
            "LOG_LEVEL: `{}' is not silent, error, verbose or debug; the level `error' is used",
            level.escape_debug()
        );
    }
    let aead = options::aead(|name| std::env::var_os(name)).map_err(Fatal)?;
    if options.foreground || environment.foreground {
        let result = in_foreground(options, aead, queue);
        log::flush();
        return result;
    }
    let (tun, _, listener) = make(options, false)?;
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let background = Background {
        args: &args,
        tun: tun.as_fd(),
        uapi: listener.as_fd(),
        keep_output: environment.keep_stdio,
    };
    background
        .start()
        .map_err(|error| Fatal(error.to_string()))?;
    // The socket file now belongs to the child.
    listener.into_fd();
    Ok(())
}

/// The TUN device, the name that we gave to its link, and the configuration socket: inherited or created.
/// `prepared`: a parent process has set up the link.
fn make(options: &Options, prepared: bool) -> Result<(Tun, Option<String>, Listener), Fatal> {
    if let Some(warning) = options.offload.warning().filter(|_| !prepared) {
        tracing::error!("{warning}");
    }
    let Offloads {
        tso, uso, tunnels, ..
    } = options.offload;
    let want = TunOffloads {
        vnet_hdr: true,
        tso,
        uso,
        tunnels,
    };
    let inherited = background::inherited(background::TUN_FD).map_err(Fatal::new("TUN device"))?;
    let is_named_by_us = inherited.is_none() || prepared;
    let tun = match inherited {
        Some(fd) => {
            let tun = Tun::from_fd(fd, want).map_err(Fatal::new(background::TUN_FD))?;
            let prepare = |name: String| {
                if prepared {
                    Ok(())
                } else {
                    link::prepare(&name)
                }
            };
            if let Err(error) = tun.name().and_then(prepare) {
                // The process that opened the TUN may have moved its link, and is responsible for
                // its settings.
                tracing::error!(%error, "the link keeps its settings");
            }
            tun
        }
        None => {
            let tun = Tun::create(&options.interface, want)
                .map_err(|error| cannot_create(&options.interface, &error))?;
            link::prepare(&options.interface).map_err(Fatal::new("cannot set up the link"))?;
            tun
        }
    };
    let used = tun.offloads();
    let offloads = [
        ("tso", tso, used.tso),
        ("uso", uso, used.uso),
        ("tunnels", tunnels, used.tunnels),
    ];
    log_refused(&offloads, None);
    let listener = match background::inherited(background::UAPI_FD)
        .map_err(Fatal::new("configuration socket"))?
    {
        Some(fd) => Listener::from_fd(fd).map_err(Fatal::new(background::UAPI_FD))?,
        None => {
            listen(&options.interface).map_err(Fatal::new("cannot listen for configuration"))?
        }
    };
    let name = is_named_by_us.then(|| options.interface.clone());
    Ok((tun, name, listener))
}

/// The error of a TUN device that cannot be created, with what is in its way.
fn cannot_create(name: &str, error: &io::Error) -> Fatal {
    let link = || {
        Netlink::open()
            .and_then(|mut netlink| netlink.link(name))
            .ok()
    };
    let why = match error.raw_os_error() {
        // It may be another program than a daemon of WireGuard.
        Some(libc::EBUSY) => " (a program uses the TUN device of this name)".into(),
        Some(libc::EINVAL) => link().map_or_else(String::new, |link| {
            // A TAP device has the kind of a TUN device.
            let kind = link.kind.filter(|kind| kind != "tun");
            let kind = kind.map(|kind| format!(", of the kind {kind}"));
            let kind = kind.unwrap_or_default();
            format!(" (`{name}' is the name of another interface{kind}: choose another name)")
        }),
        _ => String::new(),
    };
    Fatal(format!("cannot create the TUN device: {error}{why}"))
}

/// Creates the configuration socket. The link of this name is already ours. A daemon that still has
/// the socket is usually about to end because its link was deleted.
fn listen(interface: &str) -> Result<Listener, BindError> {
    let patience = Instant::now() + FORMER_DAEMON;
    loop {
        match Listener::bind(Path::new(RUN_DIR), interface) {
            Err(BindError::InUse(_)) if Instant::now() < patience => {
                std::thread::sleep(LISTEN_AGAIN);
            }
            result => return result,
        }
    }
}

/// Serves until the end. Reports the result of the start to a waiting parent.
fn in_foreground(options: &Options, aead: AeadBackend, queue: Queue) -> Result<(), Fatal> {
    let mut parent = Parent::take().map_err(Fatal::new("parent"))?;
    let result = serve(options, aead, queue, parent.is_some(), || {
        if let Some(parent) = parent.take() {
            parent.ready();
        }
        if let Err(error) = notify::notify(notify::READY) {
            tracing::error!(%error, "cannot notify the service manager");
        }
    });
    match (&result, parent) {
        (Err(Fatal(message)), Some(parent)) => parent.failed(message),
        // The process that started the daemon has ended.
        (Err(Fatal(message)), None) => tracing::error!("{message}"),
        (Ok(()), _) => {}
    }
    result
}

fn serve(
    options: &Options,
    aead: AeadBackend,
    queue: Queue,
    prepared: bool,
    ready: impl FnOnce(),
) -> Result<(), Fatal> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(Fatal::new("cannot start the control loop"))?;
    let signals = {
        let _in_runtime = runtime.enter();
        EndSignals::new().map_err(Fatal::new("cannot catch signals"))?
    };
    let (tun, name, listener) = make(options, prepared)?;
    let tun = Arc::new(tun);
    confine::no_core_dumps().map_err(Fatal::new("cannot disable core dumps"))?;
    let (watch, events) =
        link::LinkWatch::new(tun.clone(), name).map_err(Fatal::new("cannot watch the link"))?;
    let icmp = IcmpErrors::open();
    // Before other threads start, because they inherit it.
    if let Err(error) = slice::shorten() {
        tracing::debug!(%error, "the threads keep the usual slice of time");
    }
    if let Err(error) = confine::lock_memory() {
        tracing::info!(%error, "the memory may be swapped out");
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = (options.workers).map_or_else(|| default_workers(cores), usize::from);
    // Before other threads start, because they inherit the capabilities and the sandbox of this one.
    confine::drop_capabilities().map_err(Fatal::new("cannot drop capabilities"))?;
    let _sandbox = enter_sandbox(options.sandbox, &listener);

    queue.serve().map_err(Fatal::new("cannot start threads"))?;
    let (gone, tun_gone) = oneshot::channel();
    let interface = RunningInterface::start(tun, aead, options.offload, workers, move |error| {
        let _ = gone.send(error);
    });
    let interface = Arc::new(interface.map_err(Fatal::new("cannot start threads"))?);
    let end = runtime.block_on(async {
        // An inherited socket file with another name keeps that name.
        let socket = listener
            .file()
            .filter(|file| file.is_named_for(&options.interface));
        let seen = Seen::new(Path::new(RUN_DIR), &options.interface, model::Wall::now());
        interface.clients_were_at(seen.addresses());
        let icmp = IcmpErrors::new(icmp)?;
        let control = Control::new(&interface, watch, events, socket, icmp, seen)?;
        let serve = server::serve(listener, interface.clone());
        ready();
        tokio::select! {
            end = control.run(signals, tun_gone) => end.map(|end| (end, None)),
            watch = serve => watch.map(|watch| (End::SocketRemoved, Some(watch))),
        }
    });
    let (end, watch) = end.map_err(Fatal::new("control loop"))?;
    tracing::info!(?end, "ending");
    let _ = notify::notify(notify::STOPPING);
    // Connections also hold a reference to the interface. The link is deleted with the last
    // reference, and another process may be waiting for that.
    drop((interface, runtime));
    drop(watch);
    Ok(())
}

/// Restricts this process to what it needs from now on. What the kernel does not support is left out.
fn enter_sandbox(switch: Switch, listener: &Listener) -> Option<Sandbox> {
    if switch == Switch::Off {
        tracing::info!("the sandbox is off: neither seccomp nor Landlock restricts the daemon");
        return None;
    }
    let folder = listener.file().and_then(|file| file.folder());
    let sandbox = sandbox::enter(folder.as_deref(), Path::new(RUN_DIR));
    tracing::info!("{sandbox}");
    for missing in sandbox.missing() {
        tracing::warn!("{missing}");
    }
    Some(sandbox)
}

/// The errno that the kernel module returns for this error.
fn errno(error: &ConfigError) -> Errno {
    let said = |source: &io::Error| source.raw_os_error().map(Errno::from_raw);
    match error {
        ConfigError::Bind { source, .. } => said(source).unwrap_or(Errno::EADDRINUSE),
        ConfigError::FwMark { source, .. } => said(source).unwrap_or(Errno::EIO),
        ConfigError::TooManyPeers => Errno::ENOMEM,
        ConfigError::NoPeer => Errno::EINVAL,
        ConfigError::TooManyGroups => Errno::ENOSPC,
    }
}

// Requests leave copies of keys on the stack, because keys are moved.
impl Handler for RunningInterface {
    fn get(&self) -> Result<model::Interface, Errno> {
        Ok(wipe_stack_after(|| RunningInterface::get(self)))
    }

    fn status(&self) -> Result<Status, Errno> {
        Ok(wipe_stack_after(|| RunningInterface::status(self)))
    }

    fn log(&self, level: &str) -> Result<(), Errno> {
        let level = LogLevel::of_name(level).ok_or(Errno::EINVAL)?;
        log::set_level(level);
        self.level_changed.notify_one();
        Ok(())
    }

    fn set(&self, changes: Vec<model::Change>) -> Result<(), Errno> {
        wipe_stack_after(|| RunningInterface::set(self, &changes)).map_err(|error| {
            tracing::error!(%error, "configuration refused");
            errno(&error)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_the_way_of_a_tun_is_named() {
        let said = |name: &str, errno| {
            let error = io::Error::from_raw_os_error(errno);
            sys::reason(&cannot_create(name, &error).0)
        };
        assert_eq!(
            said("lo", libc::EINVAL),
            "cannot create the TUN device: Invalid argument (`lo' is the name of another interface: choose \
             another name)"
        );
        let plain = "cannot create the TUN device: Invalid argument";
        assert_eq!(said("wg-no-such-one", libc::EINVAL), plain);
        assert!(said("wg0", libc::EBUSY).contains("(a program uses the TUN device of "));
    }

    #[test]
    fn errors_have_the_numbers_of_the_kernel_module() {
        let refused = || io::Error::from_raw_os_error(libc::EACCES);
        let bind = |source| ConfigError::Bind { port: 53, source };
        for (error, number) in [
            (bind(refused()), Errno::EACCES),
            (bind(io::ErrorKind::AddrInUse.into()), Errno::EADDRINUSE),
            (
                ConfigError::FwMark {
                    mark: 1,
                    source: refused(),
                },
                Errno::EACCES,
            ),
            (ConfigError::TooManyPeers, Errno::ENOMEM),
            (ConfigError::NoPeer, Errno::EINVAL),
            (ConfigError::TooManyGroups, Errno::ENOSPC),
        ] {
            assert_eq!(errno(&error), number, "{error}");
        }
    }
}
