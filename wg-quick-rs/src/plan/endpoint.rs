//! Turns settings into changes: endpoints that are names are looked up, and a signal ends the wait for
//! the answer.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use wg_rs::config::{Apply, ConfigEndpoint, Reason, Retries, Settings};
use wg_rs::model::Change;

use crate::plan::ask::Around;
use crate::steps::console;
use crate::steps::failure::Failure;
use crate::steps::signals::Signals;

/// The changes that `wg addconf` would make. Names that the system cannot resolve are looked up `around`
/// a tunnel, if one is in the way.
///
/// # Errors
/// An endpoint cannot be resolved, or a signal arrived.
pub fn changes(
    settings: &Settings,
    around: Option<&Around>,
    signals: &Signals,
) -> Result<Vec<Change>, Failure> {
    settings.warnings().for_each(console::line);
    let retries = Retries::from_env().map_err(Failure::new)?;
    let resolve = |endpoint: &ConfigEndpoint| resolve(endpoint, around, retries, signals);
    let changes = settings.changes(Apply::AddConf, resolve);
    if let Some(signal) = signals.caught() {
        return Err(Failure::Signal(signal));
    }
    changes.map_err(Failure::new)
}

/// The address of an endpoint; the lookup is repeated as often as `retries` says.
///
/// # Errors
/// The last error of the resolver, or any error if a signal arrived.
pub fn resolve(
    endpoint: &ConfigEndpoint,
    around: Option<&Around>,
    retries: Retries,
    signals: &Signals,
) -> Result<SocketAddr, Reason> {
    if endpoint.numeric().is_some() {
        return endpoint.resolve(retries, &mut |_, _| false);
    }
    // The C library returns only when it has an answer or gives up. It runs on a thread of its own, so
    // that a signal can end the wait.
    enum News {
        Pause(String, Duration),
        Done(Result<SocketAddr, Reason>),
    }
    let (send, news) = mpsc::channel();
    let (go_on, told) = mpsc::channel();
    let waker = signals.waker();
    let wake = move || {
        if let Ok(waker) = &waker {
            waker.wake();
        }
    };
    let endpoint = endpoint.clone();
    let around = around.cloned();
    thread::spawn(move || {
        let ask = |endpoint: &ConfigEndpoint| match &around {
            Some(around) => around.addresses(endpoint),
            None => endpoint.addresses(),
        };
        let resolved = endpoint.resolve_by(ask, retries, &mut |reason, delay| {
            let _ = send.send(News::Pause(reason.to_string(), delay));
            wake();
            told.recv().is_ok()
        });
        let _ = send.send(News::Done(resolved));
        wake();
    });
    loop {
        match news.try_recv() {
            Ok(News::Done(resolved)) => return resolved,
            Ok(News::Pause(reason, delay)) => {
                console::line(format_args!(
                    "{reason}. Trying again in {:.2} seconds...",
                    delay.as_secs_f64()
                ));
                let until = Instant::now() + delay;
                while Instant::now() < until && signals.caught().is_none() {
                    signals.wait(Some(until - Instant::now()));
                }
                let _ = go_on.send(());
            }
            Err(_) => signals.wait(None),
        }
        if signals.caught().is_some() {
            return Err(Reason::Unresolved(
                "interrupted".into(),
                String::new(),
                None,
            ));
        }
    }
}
