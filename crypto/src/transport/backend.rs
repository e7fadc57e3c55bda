//! The implementation of ChaCha20-Poly1305 that seals and opens data messages. The caller chooses
//! it.

use std::fmt::{self, Display};

#[cfg(target_arch = "x86_64")]
use super::avx512::{self, Avx512};
use super::{Packet, TAG};
use crate::aead;

/// An implementation of the transport's AEAD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AeadBackend {
    /// The implementation of AWS-LC, for every CPU.
    Library,
    /// Our own implementation, for CPUs with AVX-512.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
}

impl AeadBackend {
    /// The fastest implementation that this CPU can run.
    pub fn fastest() -> Self {
        Self::avx512().unwrap_or(Self::Library)
    }

    /// Our own implementation, if this CPU can run it.
    pub fn avx512() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        return Avx512::detect().map(Self::Avx512);
        #[cfg(not(target_arch = "x86_64"))]
        return None;
    }
}

impl Display for AeadBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Library => "ChaCha20-Poly1305 by AWS-LC",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "ChaCha20-Poly1305 on AVX-512",
        })
    }
}

/// A key of either implementation.
pub(super) enum Key {
    Library(aead::Key),
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Key),
}

impl Key {
    pub(super) fn new(backend: AeadBackend, key: &[u8; 32]) -> Self {
        match backend {
            AeadBackend::Library => Self::Library(aead::Key::new(key)),
            #[cfg(target_arch = "x86_64")]
            AeadBackend::Avx512(cpu) => Self::Avx512(avx512::Key::new(cpu, key)),
        }
    }

    #[inline]
    pub(super) fn seal(&self, counter: u64, body: &mut [u8], tag: &mut [u8; TAG]) {
        match self {
            Self::Library(key) => key.seal(nonce(counter), &[], body, tag),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(key) => key.seal(counter, body, tag),
        }
    }

    #[inline]
    pub(super) fn open(&self, counter: u64, body: &mut [u8], tag: &[u8; TAG]) -> bool {
        match self {
            Self::Library(key) => key.open(nonce(counter), &[], body, tag),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(key) => key.open(counter, body, tag),
        }
    }

    /// Seals up to [`super::GROUP`] packets.
    #[inline]
    pub(super) fn seal_group(&self, packets: &mut [Packet]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(key) if avx512::Key::prefers_burst(packets) => key.seal_burst(packets),
            _ => {
                for Packet { counter, body, tag } in packets {
                    let tag = (&mut **tag).try_into().expect("16 bytes");
                    self.seal(*counter, body, tag);
                }
            }
        }
    }

    /// Opens up to [`super::GROUP`] packets. Returns one bit for each packet: whether it is
    /// authentic.
    #[inline]
    #[must_use]
    pub(super) fn open_group(&self, packets: &mut [Packet]) -> u16 {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(key) if avx512::Key::prefers_burst(packets) => key.open_burst(packets),
            _ => {
                let mut authentic = 0;
                for (i, Packet { counter, body, tag }) in packets.iter_mut().enumerate() {
                    let tag = (&**tag).try_into().expect("16 bytes");
                    authentic |= u16::from(self.open(*counter, body, tag)) << i;
                }
                authentic
            }
        }
    }
}

#[inline]
fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}
