//! All network namespaces that are visible, each with its best name.
//!
//! Each namespace is held by a descriptor. Container engines are asked last, and only if a name is
//! needed.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

use super::container_engine::{Container, ContainerEngine};
use super::namespace::Namespace;
use crate::sys::netns::{NAMED, NetNs, NetNsId};
use crate::sys::process::other;

/// The namespaces with a name that a user may remember: those of `ip netns` and of running
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

/// A namespace and its name. None for the caller's own namespace, if it has no name.
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
    /// Reads process 1, the names of `ip netns` and all processes, in this order. The first name of
    /// a namespace counts.
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
            // Most namespaces are already known, so the process's namespace is not opened.
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

    /// All namespaces, in no particular order.
    pub fn known(&self) -> impl Iterator<Item = &Known> {
        self.known.values()
    }

    /// Finds the names of containers, if one of these namespaces is so far only known by a process
    /// ID.
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

    /// The name of this namespace.
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

/// The names in `ip netns`, sorted.
fn names() -> Vec<String> {
    let entries = fs::read_dir(NAMED).into_iter().flatten();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    names
}
