//! A message of the generic netlink family `wireguard`.

use std::fmt;

use netlink_packet_core::{DecodeError, Emitable, ParseableParametrized};
use netlink_packet_generic::{GenlFamily, GenlHeader};
use netlink_packet_wireguard::{
    WireguardAttribute, WireguardCmd, WireguardMessage, WireguardPeer, WireguardPeerAttribute,
};
use zeroize::Zeroize;

/// A message. Its keys are wiped when it is dropped.
pub(super) struct Message(pub(super) WireguardMessage);

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WireguardMessage { cmd, attributes } = &self.0;
        write!(f, "Message({cmd:?}, {} attributes)", attributes.len())
    }
}

impl Message {
    pub(super) fn new(cmd: WireguardCmd, attributes: Vec<WireguardAttribute>) -> Self {
        Message(WireguardMessage { cmd, attributes })
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        for attribute in &mut self.0.attributes {
            match attribute {
                WireguardAttribute::PrivateKey(key) => key.zeroize(),
                WireguardAttribute::Peers(peers) => {
                    for attribute in peers.iter_mut().flat_map(|WireguardPeer(peer)| peer) {
                        if let WireguardPeerAttribute::PresharedKey(key) = attribute {
                            key.zeroize();
                        }
                    }
                }
                _ => {}
            }
        }
    }
}

impl GenlFamily for Message {
    fn family_name() -> &'static str {
        WireguardMessage::family_name()
    }

    fn command(&self) -> u8 {
        self.0.command()
    }

    fn version(&self) -> u8 {
        self.0.version()
    }
}

impl Emitable for Message {
    fn buffer_len(&self) -> usize {
        self.0.buffer_len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        self.0.emit(buffer);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for Message {
    fn parse_with_param(bytes: &[u8], header: GenlHeader) -> Result<Self, DecodeError> {
        WireguardMessage::parse_with_param(bytes, header).map(Message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_left_out_of_debug_output() {
        let attributes = vec![WireguardAttribute::PrivateKey([77; 32])];
        let message = Message::new(WireguardCmd::SetDevice, attributes);
        assert_eq!(format!("{message:?}"), "Message(SetDevice, 1 attributes)");
    }
}
