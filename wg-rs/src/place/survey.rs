//! The network namespaces there are, each by the best of its names.
//!
//! Every namespace is kept by a descriptor. Container engines are asked last, and only if their names are
//! wanted for something.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

use super::container_engine::{Container, ContainerEngine};
use super::namespace::Namespace;
use crate::sys::netns::{NAMED, NetNs, NetNsId};
use crate::sys::process::other;

/// The namespaces that have a name that a user may remember: those of `ip netns`, and of running
/// containers.
pub fn namespaces() -> Vec<Namespace> {
    let named = names().into_iter().map(Namespace::Named);
    let containers = ContainerEngine::containers();
    let containers = containers.iter().map(Namespace::from);
    std::iter::once(Namespace::Init)
        .chain(named)
        .chain(containers)
        .collect()
}

impl From<&Container> for Namespace {
    fn from(container: &Container) -> Self {
        match container.engine {
            ContainerEngine::Docker => Namespace::Docker(container.name.clone()),
            ContainerEngine::Podman => Namespace::Podman(container.name.clone()),
        }
    }
}

/// A namespace, and what the user may call it. `None`: the caller's own, where it has no name.
#[derive(Debug)]
pub(super) struct Known {
    pub netns: NetNs,
    namespace: Option<Namespace>,
}

/// All namespaces that the caller may see.
#[derive(Debug, Default)]
pub(super) struct Survey {
    known: HashMap<NetNsId, Known>,
}

impl Survey {
    /// Looks at process 1, the names of `ip netns` and all processes, in this order: a namespace goes by
    /// the first name found.
    pub fn new() -> Self {
        let mut survey = Survey::default();
        if let Ok(netns) = NetNs::of_init() {
            survey.add(netns, Some(Namespace::Init));
        }
        for name in names() {
            if let Ok(netns) = NetNs::of_name(&name) {
                survey.add(netns, Some(Namespace::Named(name)));
            }
        }
        let own = std::process::id();
        for pid in other::ids().filter(|pid| *pid != own) {
            // Most are known by now: asked without opening it.
            let seen = fs::metadata(format!("/proc/{pid}/ns/net"));
            let seen = seen.map(|meta| NetNsId::new(meta.dev(), meta.ino()));
            if seen.is_ok_and(|id| !survey.known.contains_key(&id))
                && let Ok(netns) = NetNs::of_pid(pid)
            {
                survey.add(netns, Some(Namespace::Pid(pid)));
            }
        }
        if let Ok(netns) = NetNs::current() {
            survey.add(netns, None);
        }
        survey
    }

    /// All of them, in no order.
    pub fn known(&self) -> impl Iterator<Item = &Known> {
        self.known.values()
    }

    /// Gives containers their names, if one of these namespaces has no name but a process ID yet.
    pub fn name_containers(&mut self, wanted: &[NetNsId]) {
        let nameless = |id: &NetNsId| {
            let namespace = self
                .known
                .get(id)
                .and_then(|known| known.namespace.as_ref());
            matches!(namespace, None | Some(Namespace::Pid(_)))
        };
        if !wanted.iter().any(nameless) {
            return;
        }
        for container in ContainerEngine::containers() {
            let known = container.netns.id().ok();
            let known = known.and_then(|id| self.known.get_mut(&id));
            if let Some(Known { namespace, .. }) = known
                && matches!(namespace, None | Some(Namespace::Pid(_)))
            {
                *namespace = Some(Namespace::from(&container));
            }
        }
    }

    /// What the user may call this namespace.
    pub fn name(&self, id: NetNsId) -> Option<Namespace> {
        self.known.get(&id)?.namespace.clone()
    }

    fn add(&mut self, netns: NetNs, namespace: Option<Namespace>) {
        if let Ok(id) = netns.id() {
            let known = Known { netns, namespace };
            self.known.entry(id).or_insert(known);
        }
    }
}

/// The names that `ip netns` knows, in order.
fn names() -> Vec<String> {
    let entries = fs::read_dir(NAMED).into_iter().flatten();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    names
}
