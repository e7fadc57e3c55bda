//! A message of the generic netlink family `wireguard`.

use std::fmt;

use netlink_packet_core::{DecodeError, Emitable, ParseableParametrized};
use netlink_packet_generic::{GenlFamily, GenlHeader};
use netlink_packet_wireguard::{
    WireguardAttribute, WireguardCmd, WireguardMessage, WireguardPeer, WireguardPeerAttribute,
};
use zeroize::Zeroize;

/// A message. Its keys are wiped when it is dropped.
pub(super) struct KernelMessage(pub(super) WireguardMessage);

impl fmt::Debug for KernelMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WireguardMessage { cmd, attributes } = &self.0;
        write!(f, "Message({cmd:?}, {} attributes)", attributes.len())
    }
}

impl KernelMessage {
    pub(super) fn new(cmd: WireguardCmd, attributes: Vec<WireguardAttribute>) -> Self {
        KernelMessage(WireguardMessage { cmd, attributes })
    }
}

impl Drop for KernelMessage {
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

impl GenlFamily for KernelMessage {
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

impl Emitable for KernelMessage {
    fn buffer_len(&self) -> usize {
        self.0.buffer_len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        self.0.emit(buffer);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for KernelMessage {
    fn parse_with_param(bytes: &[u8], header: GenlHeader) -> Result<Self, DecodeError> {
        WireguardMessage::parse_with_param(bytes, header).map(KernelMessage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_left_out_of_debug_output() {
        let attributes = vec![WireguardAttribute::PrivateKey([77; 32])];
        let message = KernelMessage::new(WireguardCmd::SetDevice, attributes);
        assert_eq!(format!("{message:?}"), "Message(SetDevice, 1 attributes)");
    }
}
