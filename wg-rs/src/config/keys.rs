//! The value of each key in a configuration file, as a setting.

use wg_crypto::{PresharedKey, PrivateKey, PublicKey};

use super::{ConfigEndpoint, PeerSettings, Reason, Settings, value};

/// Sets the value of a key of `[Interface]`: one of [`super::dialect::INTERFACE`].
pub(super) fn set_interface(settings: &mut Settings, key: &str, text: &str) -> Result<(), Reason> {
    match key {
        "PrivateKey" => settings.private_key = Some(Box::new(PrivateKey::from_base64(text)?)),
        "ListenPort" => settings.listen_port = Some(value::port(text)?),
        _ => settings.fwmark = Some(value::fwmark(text)?),
    }
    Ok(())
}

/// Sets the value of a key of `[Peer]`: one of [`super::dialect::PEER`]. The public key goes to
/// `public_key`.
pub(super) fn set_peer(
    peer: &mut PeerSettings,
    public_key: &mut Option<PublicKey>,
    key: &str,
    text: &str,
    line: usize,
) -> Result<(), Reason> {
    match key {
        "PublicKey" => {
            peer.public_key_line = line;
            *public_key = Some(PublicKey::from_base64(text)?);
        }
        "PresharedKey" => peer.preshared_key = Some(Box::new(PresharedKey::from_base64(text)?)),
        "AllowedIPs" => peer.allow(value::allowed_ips(text)?, line),
        "Endpoint" => {
            peer.endpoint = Some(ConfigEndpoint {
                line,
                ..value::endpoint(text)?
            });
        }
        _ => peer.persistent_keepalive = Some(value::persistent_keepalive(text)?),
    }
    Ok(())
}
