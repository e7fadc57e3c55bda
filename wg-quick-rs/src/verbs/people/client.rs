//! The file of a client. It is printed or written once, and its private key is not kept.

use std::net::IpAddr;

use wg_crypto::key::{PresharedKey, PrivateKey, PublicKey};
use wg_rs::config::ConfigEndpoint;
use wg_rs::model::AllowedIp;
use zeroize::Zeroizing;

/// Persistent keepalive in seconds: a NAT may forget a client that is silent for longer.
const KEEPALIVE: u16 = 25;

/// The contents of the file.
pub struct ClientFile<'a> {
    /// The client's private key.
    pub private_key: &'a PrivateKey,
    /// The preshared key.
    pub preshared_key: &'a PresharedKey,
    /// The client's addresses.
    pub addresses: &'a [IpAddr],
    /// Name servers and search domains.
    pub dns: &'a [String],
    /// The server's public key.
    pub server: &'a PublicKey,
    /// The server's endpoint.
    pub endpoint: &'a ConfigEndpoint,
    /// The networks that the client reaches through the tunnel.
    pub allowed_ips: &'a [AllowedIp],
}

impl ClientFile<'_> {
    /// The file, in the format of every WireGuard implementation.
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
        // Allocated once, so that no copy of a key stays in memory.
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

/// A single address with its prefix length.
fn whole(ip: &IpAddr) -> String {
    format!("{ip}/{}", AllowedIp::host(*ip).cidr)
}
