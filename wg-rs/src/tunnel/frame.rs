//! Frames: control messages between ends that understand them, inside their session. A frame is the
//! plaintext of a data packet. It is padded like any packet; numbers are little endian.
//!
//! ```text
//! 0  u8   0xF1: no IP version, so other implementations drop it; the low digit is our version
//! 1  u8   type
//! 2  u16  length, including this header
//! 4       the fields of the type
//! ```
//! If a frame is longer than its fields, the rest is ignored; if it is shorter, it is refused.
//! Unknown types are ignored, and so are the reserved bits.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use wg_crypto::PublicKey;

/// The first byte of a frame.
const MARK: u8 = 0xF1;
const HEADER: usize = 4;
/// The highest version that we understand.
const VERSION: u8 = 1;
/// The longest frame that is taken, in bytes. Those defined here are shorter.
pub const MAX_FRAME: usize = 1040;
/// An address takes this many bytes.
const ADDRESS: usize = 20;

/// A control message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// To a hub: are you there, and what is my address?
    Hello {
        /// A number that the answer repeats.
        seq: u32,
    },
    /// The hub's answer.
    You(Answer),
    /// To a hub: relay this session of mine. The hub repeats an accepted one.
    Bind {
        /// The key of the other end.
        key: PublicKey,
        /// Our index, which is in packets to us.
        mine: u32,
        /// The index of the other end.
        theirs: u32,
        /// In the hub's answer: whether the other end understands frames.
        speaks: bool,
    },
    /// To a peer: is this path alive?
    Ping {
        /// A random number that the answer repeats.
        id: u64,
    },
    /// The answer, by the same path.
    Pong {
        /// The number of the PING.
        id: u64,
        /// The address that the PING came from.
        seen: Option<SocketAddr>,
    },
}

/// What a hub answers to a HELLO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The number of the HELLO.
    pub seq: u32,
    /// A random number, which the hub chooses when it starts.
    pub epoch: u32,
    /// Whether the hub relays for the client.
    pub relays: bool,
    /// Seconds until the next HELLO.
    pub next: u16,
    /// The address that the HELLO came from.
    pub seen: Option<SocketAddr>,
}

/// The frame is shorter than its type requires, or longer than its packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadFrame;

/// Whether the content of a data packet is a frame, valid or not.
pub fn is_frame(plaintext: &[u8]) -> bool {
    plaintext.first() == Some(&MARK)
}

impl Frame {
    /// Reads a frame, which may be padded. None if its type is unknown.
    ///
    /// # Errors
    /// [`BadFrame`].
    pub fn parse(plaintext: &[u8]) -> Result<Option<Frame>, BadFrame> {
        let header = plaintext.get(..HEADER).ok_or(BadFrame)?;
        let len = usize::from(u16::from_le_bytes([header[2], header[3]]));
        if header[0] != MARK || len > MAX_FRAME {
            return Err(BadFrame);
        }
        let fields = Fields(plaintext.get(HEADER..len).ok_or(BadFrame)?);
        let frame = match header[1] {
            1 => fields.hello(),
            2 => fields.you(),
            3 => fields.bind(),
            6 => fields.ping(),
            7 => fields.pong(),
            _ => return Ok(None),
        };
        frame.map(Some).ok_or(BadFrame)
    }

    /// The frame as the plaintext of a data packet, without padding.
    pub fn to_bytes(self) -> Vec<u8> {
        let mut out = vec![MARK, 0, 0, 0];
        out[1] = match self {
            Frame::Hello { seq } => {
                out.extend(seq.to_le_bytes());
                out.extend([0, 0, VERSION, 0]);
                out.extend([0; 8]);
                1
            }
            Frame::You(you) => {
                out.extend(you.seq.to_le_bytes());
                out.extend(you.epoch.to_le_bytes());
                out.extend(u16::from(you.relays).to_le_bytes());
                out.extend(you.next.to_le_bytes());
                out.extend([0; 4]);
                put_address(&mut out, you.seen);
                2
            }
            Frame::Bind {
                key,
                mine,
                theirs,
                speaks,
            } => {
                out.extend(key.as_bytes());
                out.extend(mine.to_le_bytes());
                out.extend(theirs.to_le_bytes());
                out.extend([u8::from(speaks) << 1, 0, 0, 0]);
                3
            }
            Frame::Ping { id } => {
                out.extend(id.to_le_bytes());
                out.extend([0; 4]);
                6
            }
            Frame::Pong { id, seen } => {
                out.extend(id.to_le_bytes());
                out.extend([0; 4]);
                put_address(&mut out, seen);
                7
            }
        };
        let len = (out.len() as u16).to_le_bytes();
        out[2..HEADER].copy_from_slice(&len);
        out
    }
}

/// The bytes after the header.
struct Fields<'a>(&'a [u8]);

/// Each returns None if the frame is too short. Some fields are reserved.
impl Fields<'_> {
    fn hello(&self) -> Option<Frame> {
        self.array::<16>(0)?;
        Some(Frame::Hello { seq: self.u32(0)? })
    }

    fn you(&self) -> Option<Frame> {
        Some(Frame::You(Answer {
            seq: self.u32(0)?,
            epoch: self.u32(4)?,
            relays: self.u16(8)? & 1 != 0,
            next: self.u16(10)?,
            seen: self.address(16)?,
        }))
    }

    fn bind(&self) -> Option<Frame> {
        self.array::<44>(0)?;
        Some(Frame::Bind {
            key: PublicKey::from_bytes(self.array(0)?),
            mine: self.u32(32)?,
            theirs: self.u32(36)?,
            speaks: self.u16(40)? & 2 != 0,
        })
    }

    fn ping(&self) -> Option<Frame> {
        self.array::<12>(0)?;
        Some(Frame::Ping { id: self.u64(0)? })
    }

    fn pong(&self) -> Option<Frame> {
        Some(Frame::Pong {
            id: self.u64(0)?,
            seen: self.address(12)?,
        })
    }

    fn array<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.0.get(at..at + N)?.try_into().ok()
    }

    fn u16(&self, at: usize) -> Option<u16> {
        self.array(at).map(u16::from_le_bytes)
    }

    fn u32(&self, at: usize) -> Option<u32> {
        self.array(at).map(u32::from_le_bytes)
    }

    fn u64(&self, at: usize) -> Option<u64> {
        self.array(at).map(u64::from_le_bytes)
    }

    /// `Some(None)` if there is no address in the field.
    fn address(&self, at: usize) -> Option<Option<SocketAddr>> {
        let bytes: [u8; ADDRESS] = self.array(at)?;
        let ip: IpAddr = match bytes[0] {
            4 => Ipv4Addr::new(bytes[4], bytes[5], bytes[6], bytes[7]).into(),
            6 => Ipv6Addr::from(self.array::<16>(at + 4)?).into(),
            _ => return Some(None),
        };
        let port = u16::from_le_bytes([bytes[2], bytes[3]]);
        Some(Some(SocketAddr::new(ip, port)))
    }
}

/// Family, a reserved byte, port, and 16 bytes of which IPv4 uses the first four.
fn put_address(out: &mut Vec<u8>, addr: Option<SocketAddr>) {
    let start = out.len();
    match addr {
        None => {}
        Some(SocketAddr::V4(addr)) => {
            out.extend([4, 0]);
            out.extend(addr.port().to_le_bytes());
            out.extend(addr.ip().octets());
        }
        Some(SocketAddr::V6(addr)) => {
            out.extend([6, 0]);
            out.extend(addr.port().to_le_bytes());
            out.extend(addr.ip().octets());
        }
    }
    out.resize(start + ADDRESS, 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all() -> Vec<(Frame, usize)> {
        let addr = |text: &str| text.parse::<SocketAddr>().ok();
        let you = |seen| {
            Frame::You(Answer {
                seq: 7,
                epoch: 0xdead_beef,
                relays: true,
                next: 25,
                seen,
            })
        };
        let bind = |speaks| Frame::Bind {
            key: PublicKey::from_bytes([9; 32]),
            mine: 1,
            theirs: u32::MAX,
            speaks,
        };
        vec![
            (Frame::Hello { seq: 7 }, 20),
            (you(addr("192.0.2.1:51820")), 40),
            (you(addr("[2001:db8::1]:9")), 40),
            (you(None), 40),
            (bind(false), 48),
            (bind(true), 48),
            (Frame::Ping { id: u64::MAX }, 16),
            (
                Frame::Pong {
                    id: 5,
                    seen: addr("192.0.2.1:5"),
                },
                36,
            ),
        ]
    }

    #[test]
    fn frames_have_their_length_and_read_back() {
        for (frame, len) in all() {
            let mut bytes = frame.to_bytes();
            assert!(is_frame(&bytes));
            assert_eq!(bytes.len(), len, "{frame:?}");
            assert_eq!(Frame::parse(&bytes), Ok(Some(frame)));
            for short in 0..len {
                assert_eq!(Frame::parse(&bytes[..short]), Err(BadFrame), "{frame:?}");
                // Also if the length says so.
                if short >= HEADER {
                    let mut bytes = bytes.clone();
                    bytes[2..4].copy_from_slice(&(short as u16).to_le_bytes());
                    assert_eq!(Frame::parse(&bytes), Err(BadFrame), "{frame:?}");
                }
            }
            // Padding, and fields of a later version.
            bytes.extend([0; 16]);
            assert_eq!(Frame::parse(&bytes), Ok(Some(frame)));
            bytes[2..4].copy_from_slice(&(len as u16 + 16).to_le_bytes());
            assert_eq!(Frame::parse(&bytes), Ok(Some(frame)));
        }
    }

    #[test]
    fn unknown_types_are_ignored_and_other_packets_refused() {
        assert_eq!(Frame::parse(&[MARK, 99, 4, 0]), Ok(None));
        assert_eq!(Frame::parse(&[MARK, 99, 3, 0]), Err(BadFrame));
        let mut long = vec![0; 4096];
        long[..4].copy_from_slice(&[MARK, 99, 0, 16]);
        assert_eq!(Frame::parse(&long), Err(BadFrame));
        for packet in [&[][..], &[0x45; 40], &[0xF2, 1, 20, 0]] {
            assert!(!is_frame(packet));
            assert_eq!(Frame::parse(packet), Err(BadFrame));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(kind: u8, bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let mut packet = vec![MARK, kind, bytes.len() as u8 + 4, 0];
            packet.extend(&bytes);
            if let Ok(Some(frame)) = Frame::parse(&packet) {
                prop_assert_eq!(Frame::parse(&frame.to_bytes()), Ok(Some(frame)));
            }
        }
    }
}
