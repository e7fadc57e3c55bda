//! Generic netlink: commands of a family that the kernel knows by name.
//!
//! The buffers of messages are wiped. A message that contains secrets wipes itself when dropped.

use std::fmt;
use std::io;
use std::marker::PhantomData;

use netlink_packet_core::{Emitable, NLM_F_ACK, NetlinkMessage, ParseableParametrized};
use netlink_packet_generic::ctrl::nlas::GenlCtrlAttrs;
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};
use netlink_sys::protocols::NETLINK_GENERIC;

use super::{Channel, envelope};

/// A connection to a family, for one request at a time. It belongs to the network namespace that
/// its thread was in when it was opened. Errors are the kernel's errno.
#[derive(Debug)]
pub struct Generic<F> {
    channel: Channel,
    id: u16,
    family: PhantomData<F>,
}

impl<F> Generic<F>
where
    F: GenlFamily + Emitable + ParseableParametrized<[u8], GenlHeader> + fmt::Debug,
{
    /// Looks up the family. For root the kernel may load a module that provides it.
    ///
    /// # Errors
    /// ENOENT: there is no such family.
    pub fn open() -> io::Result<Self> {
        let mut channel = Channel::open(NETLINK_GENERIC)?;
        let mut request = envelope(GenlMessage::from_payload(GenlCtrl {
            cmd: GenlCtrlCmd::GetFamily,
            nlas: vec![GenlCtrlAttrs::FamilyName(F::family_name().into())],
        }));
        let mut id = None;
        let mut find = |message: io::Result<GenlMessage<GenlCtrl>>| {
            id = message?.payload.nlas.iter().find_map(|nla| match nla {
                GenlCtrlAttrs::FamilyId(id) => Some(*id),
                _ => None,
            });
            Ok(())
        };
        channel.exchange(&mut request, NLM_F_ACK, &mut find)?;
        Ok(Generic {
            channel,
            id: id.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))?,
            family: PhantomData,
        })
    }

    /// Sends a request for a change. The change is complete when the function returns.
    ///
    /// # Errors
    /// The kernel's errno if the family refuses the request.
    pub fn request(&mut self, request: F) -> io::Result<()> {
        let mut request = self.envelope(request);
        let mut ignore = |message: io::Result<_>| message.map(drop);
        self.channel
            .exchange(&mut request, NLM_F_ACK, &mut ignore)
            .map(drop)
    }

    /// Requests a list. `collect` adds each message to the result; if the list changes during the
    /// request, it starts again with an empty result.
    ///
    /// # Errors
    /// The kernel's errno if the family refuses the request; EINTR: the list keeps changing; errors
    /// of `collect`.
    pub fn dump<T: Default>(
        &mut self,
        request: F,
        mut collect: impl FnMut(&mut T, F) -> io::Result<()>,
    ) -> io::Result<T> {
        let mut request = self.envelope(request);
        self.channel
            .dump(&mut request, |list, message: io::Result<GenlMessage<F>>| {
                collect(list, message?.payload)
            })
    }

    fn envelope(&self, payload: F) -> NetlinkMessage<GenlMessage<F>> {
        let mut message = GenlMessage::from_payload(payload);
        message.set_resolved_family_id(self.id);
        envelope(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_controller_family_lists_itself() {
        let mut generic = Generic::<GenlCtrl>::open().unwrap();
        let request = GenlCtrl {
            cmd: GenlCtrlCmd::GetFamily,
            nlas: Vec::new(),
        };
        let names = generic.dump(request, |names: &mut Vec<String>, family| {
            names.extend(family.nlas.into_iter().filter_map(|nla| match nla {
                GenlCtrlAttrs::FamilyName(name) => Some(name),
                _ => None,
            }));
            Ok(())
        });
        assert!(names.unwrap().contains(&"nlctrl".to_owned()));
    }

    #[test]
    fn refusals_are_errnos() {
        let mut generic = Generic::<GenlCtrl>::open().unwrap();
        let nobody = GenlCtrl {
            cmd: GenlCtrlCmd::GetFamily,
            nlas: vec![GenlCtrlAttrs::FamilyName("nobody".into())],
        };
        let error = generic.request(nobody.clone()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
        let there = GenlCtrl {
            nlas: vec![GenlCtrlAttrs::FamilyName("nlctrl".into())],
            ..nobody
        };
        generic.request(there).unwrap();
    }
}
