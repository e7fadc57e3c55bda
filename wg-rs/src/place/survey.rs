//! The network namespaces there are, each by the best of its names, and what lives in them.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;

use super::daemon;
use super::engine::Engine;
use super::namespace::{Namespace, init};
use crate::sys::netns::{NetNs, NetNsId};

/// The namespaces that a user may name without knowing numbers: those of `ip netns`, and of the
/// containers that run.
pub fn namespaces() -> Vec<Namespace> {
    let named = names().into_iter().map(Namespace::Named);
    let engines = Engine::ALL.iter().flat_map(|engine| engine.containers());
    let containers = engines.map(|container| container.namespace);
    std::iter::once(Namespace::Init)
        .chain(named)
        .chain(containers)
        .collect()
}

/// A namespace that is known.
#[derive(Debug)]
pub(super) struct Known {
    pub netns: NetNs,
    id: NetNsId,
    /// `None`: that of the caller, which has no name that anybody could use.
    pub namespace: Option<Namespace>,
}

/// All namespaces that the caller may see.
#[derive(Debug, Default)]
pub(super) struct Survey {
    pub known: Vec<Known>,
    ids: HashSet<NetNsId>,
}

impl Survey {
    /// Looks at names, containers (if `engines` are to be asked) and processes, in this order: a
    /// namespace goes by the first name found.
    pub fn new(engines: bool) -> Self {
        let mut survey = Survey::default();
        survey.add(Namespace::Init);
        for name in names() {
            survey.add(Namespace::Named(name));
        }
        let engines = Engine::ALL.iter().filter(|_| engines);
        for container in engines.flat_map(|engine| engine.containers()) {
            if let Ok(netns) = NetNs::of_pid(container.pid) {
                survey.insert(netns, Some(container.namespace));
            }
        }
        let own = std::process::id();
        for pid in daemon::processes().filter(|pid| *pid != own) {
            // Asked without opening it, as nearly all are known by now.
            let seen = fs::metadata(format!("/proc/{pid}/ns/net"));
            let seen = seen.map(|meta| NetNsId::new(meta.dev(), meta.ino()));
            if seen.is_ok_and(|id| !survey.ids.contains(&id)) {
                survey.add(Namespace::Pid(pid));
            }
        }
        if let Ok(netns) = NetNs::current() {
            survey.insert(netns, None);
        }
        survey
    }

    /// What the user may call this namespace.
    pub fn name(&self, netns: &NetNs) -> Option<Namespace> {
        let id = netns.id().ok()?;
        let known = self.known.iter().find(|known| known.id == id)?;
        known.namespace.clone()
    }

    fn add(&mut self, namespace: Namespace) {
        let netns = match &namespace {
            Namespace::Init => init(),
            Namespace::Named(name) => NetNs::of_name(name),
            Namespace::Pid(pid) => NetNs::of_pid(*pid),
            _ => return,
        };
        if let Ok(netns) = netns {
            self.insert(netns, Some(namespace));
        }
    }

    fn insert(&mut self, netns: NetNs, namespace: Option<Namespace>) {
        let Ok(id) = netns.id() else { return };
        if self.ids.insert(id) {
            self.known.push(Known {
                netns,
                id,
                namespace,
            });
        }
    }
}

/// The names that `ip netns` knows, in order.
fn names() -> Vec<String> {
    let entries = fs::read_dir(crate::sys::netns::NAMED).into_iter().flatten();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    names
}
