//! Netlink, blocking: rtnetlink (links, addresses, routes, rules and their events), and commands of
//! `generic` netlink families.
//!
//! A [`Netlink`] belongs to the network namespace that its thread was in when it was opened, even
//! if the thread enters another namespace later. The capabilities at the time of each request
//! count. Each file has one kind of object and each method one action. Each error names the action
//! and the object.

pub(crate) mod address;
pub(crate) mod changes;
pub(crate) mod diag;
pub(crate) mod event;
pub(crate) mod generic;
pub(crate) mod keep;
pub(crate) mod link;
mod refusal;
pub mod route;
pub(crate) mod rule;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use netlink_packet_core::{
    DecodeError, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkDeserializable,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use zeroize::Zeroizing;

use super::netns::NetNs;
use super::{check, reason};
use refusal::KernelError;

pub use address::LinkAddress;
pub use changes::Changes;
pub use event::{Events, MulticastGroups, NetlinkEvent};
pub use keep::Kept;
pub use link::{Link, LinkId};
pub use route::{NextHop, Route, RouteFilter};
pub use rule::Rule;

/// Returns a socket's network namespace (linux/sockios.h).
pub(crate) const SIOCGSKNS: libc::Ioctl = 0x894c;

/// How often a list that changed during the request is requested again.
const DUMP_ATTEMPTS: usize = 16;

/// The action that failed, and the reason.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action}: {}", reason(source))]
pub struct Error {
    action: String,
    source: io::Error,
}

impl Error {
    /// The kernel's errno, if the kernel refused.
    pub fn errno(&self) -> Option<i32> {
        KernelError::errno(&self.source)
    }

    /// Whether there is no such link, address, route or rule.
    pub fn is_absent(&self) -> bool {
        let absent = [
            libc::ENODEV,
            libc::ENOENT,
            libc::ESRCH,
            libc::EADDRNOTAVAIL,
            libc::EBADFD,
        ];
        self.errno().is_some_and(|errno| absent.contains(&errno))
    }

    /// Whether the kernel lacks the address family.
    pub fn is_family_unknown(&self) -> bool {
        self.errno() == Some(libc::EAFNOSUPPORT)
    }

    /// Whether the object already exists.
    pub fn is_present(&self) -> bool {
        self.errno() == Some(libc::EEXIST)
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        io::Error::new(error.source.kind(), error)
    }
}

/// A connection to rtnetlink, for one request at a time.
#[derive(Debug)]
pub struct Netlink {
    channel: Channel,
}

impl Netlink {
    /// Connects to the calling thread's network namespace.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM.
    pub fn open() -> Result<Self, Error> {
        let open = || {
            let channel = Channel::open(NETLINK_ROUTE)?;
            refusal::ask_for_words(&channel.socket);
            Ok(Netlink { channel })
        };
        open().map_err(|source| Error {
            action: "open a netlink socket".into(),
            source,
        })
    }

    /// The namespace of this connection.
    fn netns(&self) -> io::Result<NetNs> {
        // SAFETY: the operation has no argument.
        let fd = check(unsafe { libc::ioctl(self.channel.socket.as_raw_fd(), SIOCGSKNS) })?;
        // SAFETY: the kernel has just opened this descriptor for us, and nobody else uses it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) }.into())
    }

    /// Requests a change, or one object. Returns the kernel's reply, if it is more than an
    /// acknowledgement.
    fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        action: impl fmt::Display,
    ) -> Result<Option<RouteNetlinkMessage>, Error> {
        let mut answer = None;
        let mut first = |message: io::Result<_>| {
            let message = message?;
            answer.get_or_insert(message);
            Ok(())
        };
        self.channel
            .exchange(&mut envelope(message), flags | NLM_F_ACK, &mut first)
            .map_err(|source| Error {
                action: action.to_string(),
                source,
            })?;
        Ok(answer)
    }

    /// Requests all objects of a kind. Objects that cannot be decoded are left out.
    fn dump(
        &mut self,
        message: RouteNetlinkMessage,
        action: impl fmt::Display,
    ) -> Result<Vec<RouteNetlinkMessage>, Error> {
        let mut request = envelope(message);
        self.channel
            .dump(&mut request, |objects: &mut Vec<_>, message| {
                objects.extend(message);
                Ok(())
            })
            .map_err(|source| Error {
                action: action.to_string(),
                source,
            })
    }
}

/// A socket of any netlink protocol, for one request at a time. Messages may contain secrets, so
/// the buffers are wiped.
#[derive(Debug)]
struct Channel {
    socket: Socket,
    sequence: u32,
}

impl Channel {
    /// Connects to the calling thread's network namespace.
    fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        Ok(Channel {
            socket,
            sequence: 0,
        })
    }

    /// Requests a list. `collect` adds each message to the result, and starts again if the list
    /// changes during the request.
    fn dump<M, T: Default>(
        &mut self,
        request: &mut NetlinkMessage<M>,
        mut collect: impl FnMut(&mut T, io::Result<M>) -> io::Result<()>,
    ) -> io::Result<T>
    where
        M: NetlinkSerializable + NetlinkDeserializable<Error = DecodeError>,
    {
        for _ in 0..DUMP_ATTEMPTS {
            let mut list = T::default();
            let interrupted = self.exchange(request, NLM_F_DUMP, &mut |message| {
                collect(&mut list, message)
            })?;
            if !interrupted {
                return Ok(list);
            }
        }
        Err(io::Error::from_raw_os_error(libc::EINTR))
    }

    /// Sends a request and passes each message of the reply, or the error of decoding it, to
    /// `each`. An error of `each` ends the request. Returns whether a change interrupted a dump.
    fn exchange<M>(
        &mut self,
        request: &mut NetlinkMessage<M>,
        flags: u16,
        each: &mut impl FnMut(io::Result<M>) -> io::Result<()>,
    ) -> io::Result<bool>
    where
        M: NetlinkSerializable + NetlinkDeserializable<Error = DecodeError>,
    {
        self.sequence = self.sequence.wrapping_add(1);
        request.header.flags = flags | NLM_F_REQUEST;
        request.header.sequence_number = self.sequence;
        request.finalize();
        let mut bytes = Zeroizing::new(vec![0; request.buffer_len()]);
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;

        let mut interrupted = false;
        loop {
            let (bytes, from) = self.socket.recv_from_full()?;
            let bytes = Zeroizing::new(bytes);
            if from.port_number() != 0 {
                continue;
            }
            for message in messages(&bytes) {
                let message: NetlinkMessage<M> = match message {
                    Ok(message) => message,
                    Err(error) => {
                        each(Err(error))?;
                        continue;
                    }
                };
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
                match message.payload {
                    NetlinkPayload::InnerMessage(message) => each(Ok(message))?,
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(refusal::of(&error, message.header.flags));
                    }
                    NetlinkPayload::Done(done) if done.code < 0 => {
                        return Err(io::Error::from_raw_os_error(-done.code));
                    }
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(interrupted),
                    _ => {}
                }
            }
        }
    }
}

fn envelope<M>(message: M) -> NetlinkMessage<M> {
    NetlinkMessage::new(
        NetlinkHeader::default(),
        NetlinkPayload::InnerMessage(message),
    )
}

/// The messages of one datagram. A message that cannot be decoded does not affect the following
/// ones.
fn messages<M>(bytes: &[u8]) -> impl Iterator<Item = io::Result<NetlinkMessage<M>>>
where
    M: NetlinkDeserializable<Error = DecodeError>,
{
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let len = u32::from_ne_bytes(*rest.first_chunk()?) as usize;
        let message = rest.get(..len).filter(|message| !message.is_empty())?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(NetlinkMessage::deserialize(message).map_err(|error| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("unexpected reply: {error}"),
            )
        }))
    })
}

fn family_of(ip: &IpAddr) -> AddressFamily {
    if ip.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    }
}

/// The error for a reply of an unexpected kind.
fn unexpected(action: impl fmt::Display) -> Error {
    let source = io::Error::new(io::ErrorKind::InvalidData, "unexpected reply");
    Error {
        action: action.to_string(),
        source,
    }
}
