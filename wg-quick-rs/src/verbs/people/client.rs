//! The file of a client. It is printed or written once, and nobody keeps its private key.

use std::net::IpAddr;

use wg_crypto::key::{PresharedKey, PrivateKey, PublicKey};
use wg_rs::config::Endpoint;
use wg_rs::model::AllowedIp;
use zeroize::Zeroizing;

/// In seconds: a NAT in between may forget a client that is silent for longer.
const KEEPALIVE: u16 = 25;

/// What is in it.
pub struct ClientFile<'a> {
    /// The client's own key.
    pub private_key: &'a PrivateKey,
    /// Shared by both ends.
    pub preshared_key: &'a PresharedKey,
    /// The client's addresses.
    pub addresses: &'a [IpAddr],
    /// Name servers, and domains to search.
    pub dns: &'a [String],
    /// The server's key.
    pub server: &'a PublicKey,
    /// Where the server is.
    pub endpoint: &'a Endpoint,
    /// What goes through the tunnel.
    pub allowed_ips: &'a [AllowedIp],
}

impl ClientFile<'_> {
    /// As every WireGuard takes it.
    pub fn text(&self) -> Zeroizing<String> {
        let list = |items: Vec<String>| items.join(", ");
        let addresses = list(self.addresses.iter().map(whole).collect());
        let allowed = list(self.allowed_ips.iter().map(AllowedIp::to_string).collect());
        let dns = match self.dns {
            [] => String::new(),
            dns => format!("DNS = {}\n", dns.join(", ")),
        };
        let (private, shared) = (self.private_key.to_base64(), self.preshared_key.to_base64());
        let (server, endpoint) = (self.server.to_base64(), self.endpoint.to_string());
        // Made in one piece: no copy of a key stays behind.
        let parts: [&str; 16] = [
            "[Interface]\nPrivateKey = ",
            &private,
            "\nAddress = ",
            &addresses,
            "\n",
            &dns,
            "\n[Peer]\nPublicKey = ",
            &server,
            "\nPresharedKey = ",
            &shared,
            "\nEndpoint = ",
            &endpoint,
            "\nAllowedIPs = ",
            &allowed,
            "\nPersistentKeepalive = ",
            &format!("{KEEPALIVE}\n"),
        ];
        Zeroizing::new(parts.concat())
    }
}

/// An address with the prefix of one that is alone.
fn whole(ip: &IpAddr) -> String {
    format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 })
}
