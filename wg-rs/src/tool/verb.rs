//! The names and descriptions of all commands, and the usage that lists them.

use std::fmt::Write;

/// A command and its description.
pub(crate) struct Verb {
    /// The name of the command.
    pub name: &'static str,
    /// One line, without a full stop. For the commands of `wg` it equals wg's text.
    pub about: &'static str,
    /// The arguments, as the usage shows them. For the commands of `wg` they equal wg's text.
    pub synopsis: &'static str,
    /// The options that `wg` lacks, for `--help`: one line each.
    pub options: &'static str,
    /// What else `--help` says, with line ends.
    pub notes: &'static str,
    /// An example for `--help`.
    pub example: &'static str,
    /// Whether `wg` has the command.
    pub of_wg: bool,
}

/// All commands: first those of `wg`, in wg's order.
pub(crate) const VERBS: &[Verb] = &[
    Verb {
        name: "show",
        about: "Shows the current configuration and device information",
        synopsis: "{ <interface> | all | interfaces } [public-key | private-key | listen-port | fwmark | \
                   peers | preshared-keys | endpoints | allowed-ips | latest-handshakes | transfer | \
                   persistent-keepalive | dump]",
        options: "\
--json        print JSON (secret keys are hidden unless WG_HIDE_KEYS=never)
--watch       refresh every second and show transfer rates
--netns <ns>  show the interfaces of this network namespace",
        notes: "",
        example: "show wg0 latest-handshakes",
        of_wg: true,
    },
    Verb {
        name: "showconf",
        about: "Shows the current configuration of a given WireGuard interface, for use with `setconf'",
        synopsis: "<interface>",
        options: "",
        notes: "",
        example: "showconf wg0 > wg0.conf",
        of_wg: true,
    },
    Verb {
        name: "set",
        about: "Change the current configuration, add peers, remove peers, or change peers",
        synopsis: "<interface> [listen-port <port>] [fwmark <mark>] [private-key <file path>] \
                   [peer <base64 public key> [remove] [preshared-key <file path>] \
                   [endpoint <ip>:<port>] [persistent-keepalive <interval seconds>] \
                   [allowed-ips [+|-]<ip1>/<cidr1>[,[+|-]<ip2>/<cidr2>]...] ]...",
        options: "\
peer <key> name <label>    name by which status and metrics show the peer
peer <key> relay <groups>  relay between peers that share a group: on, off, or names
peer <key> hub <switch>    reach peers without an endpoint through this one: on or off",
        notes: "",
        example: "set wg0 peer xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg= allowed-ips +10.192.122.3/32",
        of_wg: true,
    },
    Verb {
        name: "setconf",
        about: "Applies a configuration file to a WireGuard interface",
        synopsis: "<interface> <configuration filename>",
        options: "",
        notes: "",
        example: "setconf wg0 wg0.conf",
        of_wg: true,
    },
    Verb {
        name: "addconf",
        about: "Appends a configuration file to a WireGuard interface",
        synopsis: "<interface> <configuration filename>",
        options: "",
        notes: "",
        example: "addconf wg0 peers.conf",
        of_wg: true,
    },
    Verb {
        name: "syncconf",
        about: "Synchronizes a configuration file to a WireGuard interface",
        synopsis: "<interface> <configuration filename>",
        options: "",
        notes: "",
        example: "syncconf wg0 wg0.conf",
        of_wg: true,
    },
    Verb {
        name: "genkey",
        about: "Generates a new private key and writes it to stdout",
        synopsis: "",
        options: "",
        notes: "",
        example: "genkey > private-key",
        of_wg: true,
    },
    Verb {
        name: "genpsk",
        about: "Generates a new preshared key and writes it to stdout",
        synopsis: "",
        options: "",
        notes: "",
        example: "genpsk > preshared-key",
        of_wg: true,
    },
    Verb {
        name: "pubkey",
        about: "Reads a private key from stdin and writes a public key to stdout",
        synopsis: "",
        options: "",
        notes: "",
        example: "pubkey < private-key",
        of_wg: true,
    },
    Verb {
        name: "status",
        about: "Shows whether peers are connected, and if not, why",
        synopsis: "[<interface>] [--json] [--watch]",
        options: "\
--json   print JSON
--watch  refresh every second",
        notes: "",
        example: "status wg0",
        of_wg: false,
    },
    Verb {
        name: "metrics",
        about: "Prints the state of all interfaces for Prometheus, or serves it over HTTP",
        synopsis: "[--listen [<address>:<port>]]",
        options: "\
--listen  serve it over HTTP at this address [default: 127.0.0.1:9586]",
        notes: "",
        example: "metrics --listen 127.0.0.1:9586",
        of_wg: false,
    },
    Verb {
        name: "log",
        about: "Sets how much a running wireguard-rs logs",
        synopsis: "<interface> { silent | error | verbose }",
        options: "",
        notes: "",
        example: "log wg0 verbose",
        of_wg: false,
    },
    Verb {
        name: "link",
        about: "Creates, deletes, lists and moves interfaces, in namespaces and containers",
        synopsis: "{ add | del | list | move } [<args>]",
        options: "\
add   create an interface, and place it in a namespace or a container
del   delete an interface
list  list all interfaces, and the namespaces they are in
move  move an interface to a namespace or a container; its sessions and addresses are kept",
        notes: "",
        example: "link add wg0 --netns docker:web --config wg0.conf --address 10.0.0.2/24 --up",
        of_wg: false,
    },
    #[cfg(feature = "stack")]
    Verb {
        name: "forward",
        about: "Forwards ports through a tunnel that needs no root and no network interface",
        synopsis: "<configuration filename> [[udp/][<address>:]<port>:<host>:<port>]... \
                   [-R [udp/][<address>:]<port>:<host>:<port>]...",
        options: "\
-L, --local <..>   listen on a port here and forward into the tunnel, as without -L
-R, --remote <..>  listen on a port inside the tunnel and forward to a host outside
--address <ip>     address of this end of the tunnel, if the file has none
--dns <ip>         DNS server to ask through the tunnel, besides those of the file
--mtu <bytes>      size of the largest packet in the tunnel
--allow-remote     also listen on addresses that other machines can reach",
        notes: "\
<port> may be 0 for any that is free. <host> is a name or an address; an IPv6 address stands in brackets.
The names of hosts in the tunnel are resolved in the tunnel, by the servers of `DNS' in the file.
After SIGUSR1 the state of the tunnel is printed, as by `status'.
",
        example: "forward wg0.conf 8080:10.9.0.3:80 udp/5353:10.9.0.1:53 -R 22:127.0.0.1:22",
        of_wg: false,
    },
    #[cfg(feature = "stack")]
    Verb {
        name: "socks",
        about: "Runs a SOCKS5 and HTTP proxy into a tunnel that needs no root and no network interface",
        synopsis: "<configuration filename> [<address>:<port>]",
        options: "\
--address <ip>     address of this end of the tunnel, if the file has none
--dns <ip>         DNS server to ask through the tunnel, besides those of the file
--mtu <bytes>      size of the largest packet in the tunnel
--allow-remote     also listen on addresses that other machines can reach",
        notes: "\
Names are resolved in the tunnel, by the servers of `DNS' in the file, or refused; they are never asked for
outside. After SIGUSR1 the state of the tunnel is printed, as by `status'.
",
        example: "socks wg0.conf 127.0.0.1:1080",
        of_wg: false,
    },
    #[cfg(feature = "stack")]
    Verb {
        name: "relay",
        about: "Relays between the peers of a file that have `#@ Relay', without root and a network interface",
        synopsis: "<configuration filename>",
        options: "",
        notes: "\
It listens on the ListenPort of the file. It passes on what the peers send to each other, and cannot read it;
it has no address in the tunnel. After SIGUSR1 the state is printed, as by `status'.
",
        example: "relay relay0.conf",
        of_wg: false,
    },
    Verb {
        name: "completions",
        about: "Prints a shell completion script",
        synopsis: "{ bash | zsh | fish }",
        options: "",
        notes: "",
        example: "completions bash > /usr/share/bash-completion/completions/wg-rs",
        of_wg: false,
    },
];

/// The text of `help`.
pub(crate) fn usage(program: &str, as_wg: bool) -> String {
    let mut text = if as_wg {
        format!("Usage: {program} <cmd> [<args>]\n\nAvailable subcommands:\n")
    } else {
        format!("Usage: {program} [--netns <namespace>] <cmd> [<args>]\n\nAvailable subcommands:\n")
    };
    for verb in VERBS.iter().filter(|verb| verb.of_wg || !as_wg) {
        let Verb { name, about, .. } = verb;
        let _ = writeln!(text, "  {name}: {about}");
    }
    text.push_str("You may pass `--help' to any of these subcommands to view usage.\n");
    text
}
