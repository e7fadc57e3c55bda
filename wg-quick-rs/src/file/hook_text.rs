//! What the hooks of a file set, judged by their text. It is used if `up` recorded nothing.

use std::net::IpAddr;

use crate::file::File;

/// Whether a hook sets the mark of the tunnel's packets.
pub fn set_mark(file: &File) -> bool {
    says(file, |words| words.contains(&"fwmark"))
}

/// Whether a hook sets an MTU.
pub fn set_mtu(file: &File) -> bool {
    says(file, |words| words.contains(&"mtu"))
}

/// Whether a hook adds or changes peers.
pub fn set_peers(file: &File) -> bool {
    let verbs = ["peer", "addconf", "setconf", "syncconf"];
    says(file, |words| words.iter().any(|word| verbs.contains(word)))
}

/// Whether a hook sets the preshared key of this peer, or of a peer that its text does not name.
pub fn set_preshared_key(file: &File, peer: &str) -> bool {
    says(file, |words| {
        let mut named = words
            .iter()
            .skip_while(|word| **word != "peer")
            .skip(1)
            .filter(|word| word.len() == 44 && word.ends_with('='));
        words.contains(&"preshared-key") && (words.contains(&peer) || named.next().is_none())
    })
}

/// Whether a hook names this address.
pub fn set_address(file: &File, ip: IpAddr) -> bool {
    says(file, |words| {
        words.iter().any(|word| {
            let address = word.split_once('/').map_or(*word, |(address, _)| address);
            address.parse() == Ok(ip)
        })
    })
}

fn says(file: &File, test: impl Fn(&[&str]) -> bool) -> bool {
    let hooks = file.hooks.pre_up.iter().chain(&file.hooks.post_up);
    hooks
        .into_iter()
        .any(|hook| test(&words(&hook.value.text())))
}

/// The words of a line of shell, without its comment.
fn words(line: &str) -> Vec<&str> {
    let words = line.split(|c: char| c.is_whitespace() || "\"'`;&|()<>{}$,".contains(c));
    let words = words.filter(|word| !word.is_empty());
    words.take_while(|word| !word.starts_with('#')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::parse;

    const PEER: &str = "eJ1VQnYKSOvMXnYwTsdSNuQAB3e9fW8WDhrDsBnBCTw=";
    const OTHER: &str = "Hf4iFwCZpxMqHkRCCSxXC4nYVCOAxIlKe5IIQKuMUSw=";

    fn with(hook: &str) -> File {
        let text = format!("[Interface]\nPostUp = {hook}\n");
        parse("wg0.conf", "wg0", text.as_bytes()).0
    }

    #[test]
    fn only_whole_words_count() {
        let clamp = with("iptables -A FORWARD -j TCPMSS --clamp-mss-to-pmtu");
        assert!(!set_mtu(&clamp));
        assert!(set_mtu(&with("ip link set dev wg0 mtu 1300")));
        let ip = "10.0.0.1".parse().unwrap();
        assert!(!set_address(&with("ip addr add 10.0.0.11/24 dev wg0"), ip));
        assert!(!set_address(&with("true # 10.0.0.1"), ip));
        assert!(set_address(&with("ip addr add '10.0.0.1/24' dev wg0"), ip));
    }

    #[test]
    fn a_preshared_key_belongs_to_one_peer() {
        let one = with(&format!("wg set %i peer {OTHER} preshared-key /run/key"));
        assert!(!set_preshared_key(&one, PEER));
        assert!(set_preshared_key(&one, OTHER));
        let any = with("for p in $PEERS; do wg set %i peer $p preshared-key /run/key; done");
        assert!(set_preshared_key(&any, PEER));
        assert!(set_peers(&any));
        assert!(!set_peers(&clamp()));
    }

    fn clamp() -> File {
        with("iptables -A FORWARD -j TCPMSS --clamp-mss-to-pmtu")
    }
}
