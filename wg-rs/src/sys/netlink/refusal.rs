//! The kernel's reason for refusing a request: an errno, and since Linux 4.12 a text (the "extended
//! acknowledgement", NLMSGERR_ATTR_MSG in linux/netlink.h).

use std::fmt;
use std::io;

use netlink_packet_core::ErrorMessage;
use netlink_sys::Socket;

/// Flag: the reply has attributes after the header of the request (linux/netlink.h).
const NLM_F_ACK_TLVS: u16 = 0x200;
/// Length of a message's header, and of an attribute's.
const MESSAGE: usize = 16;
const ATTRIBUTE: usize = 4;
/// The attribute with the text, a string that ends with a zero byte.
const NLMSGERR_ATTR_MSG: u16 = 1;

/// An errno, and the kernel's text for it.
#[derive(Debug)]
pub(super) struct KernelError {
    errno: i32,
    words: String,
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl std::error::Error for KernelError {}

impl KernelError {
    /// The errno of an error, with or without a text.
    pub(super) fn errno(error: &io::Error) -> Option<i32> {
        let refusal = error.get_ref().and_then(|inner| inner.downcast_ref());
        error
            .raw_os_error()
            .or_else(|| refusal.map(|refusal: &KernelError| refusal.errno))
    }
}

/// Asks the kernel for texts of refusals, and to leave the request out of its replies. Older
/// kernels ignore this.
pub(super) fn ask_for_words(socket: &Socket) {
    let _ = socket
        .set_cap_ack(true)
        .and_then(|()| socket.set_ext_ack(true));
}

/// The error in a reply with these flags.
pub(super) fn of(answer: &ErrorMessage, flags: u16) -> io::Error {
    let errno = answer.raw_code().saturating_neg();
    let error = io::Error::from_raw_os_error(errno);
    let attributes = answer.header.get(MESSAGE..).unwrap_or_default();
    match words(attributes).filter(|_| flags & NLM_F_ACK_TLVS != 0) {
        Some(words) => io::Error::new(error.kind(), KernelError { errno, words }),
        None => error,
    }
}

fn words(mut attributes: &[u8]) -> Option<String> {
    loop {
        let (len, rest) = attributes.split_first_chunk()?;
        let (kind, _) = rest.split_first_chunk()?;
        let len = usize::from(u16::from_ne_bytes(*len));
        let value = attributes.get(ATTRIBUTE..len)?;
        if u16::from_ne_bytes(*kind) == NLMSGERR_ATTR_MSG {
            let words = value.split(|b| *b == 0).next()?;
            let words = String::from_utf8_lossy(words)
                .trim_end_matches('.')
                .to_owned();
            return Some(words).filter(|words| !words.is_empty());
        }
        attributes = attributes.get(len.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroI32;

    fn answer(attributes: &[u8]) -> ErrorMessage {
        let mut answer = ErrorMessage::default();
        answer.code = NonZeroI32::new(-libc::EACCES);
        answer.header = [&[0; MESSAGE], attributes].concat();
        answer
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let len = (ATTRIBUTE + value.len()) as u16;
        let mut bytes = [&len.to_ne_bytes(), &kind.to_ne_bytes(), value].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn the_kernels_text_is_found() {
        let offset = attribute(2, &[7; 4]);
        let text = attribute(NLMSGERR_ATTR_MSG, b"IPv6 is disabled on this device.\0");
        for attributes in [text.clone(), [offset.clone(), text].concat()] {
            let error = of(&answer(&attributes), NLM_F_ACK_TLVS);
            assert_eq!(error.to_string(), "IPv6 is disabled on this device");
            assert_eq!(KernelError::errno(&error), Some(libc::EACCES));
            // Attributes are only present if the flag is set.
            assert_eq!(
                of(&answer(&attributes), 0).raw_os_error(),
                Some(libc::EACCES)
            );
        }
        for none in [
            &[][..],
            &offset,
            &attribute(NLMSGERR_ATTR_MSG, b"\0"),
            &[8, 0, 1],
        ] {
            let error = of(&answer(none), NLM_F_ACK_TLVS);
            assert_eq!(error.raw_os_error(), Some(libc::EACCES));
            assert_eq!(KernelError::errno(&error), Some(libc::EACCES));
        }
    }
}
