//! The clients of a server whose interface is the kernel's, and what `wg-rs` tells of them.

use std::io;

use netns_tests::{Host, Lab, PATIENCE, Paced, SOCKETS, vm};

/// The server's address in the tunnel.
const SERVER: [u8; 4] = [10, 44, 0, 1];

fn run(host: &Host, command: &str) -> io::Result<String> {
    let words: Vec<_> = command.split_whitespace().collect();
    host.sh(words[0], &words[1..])
}

#[test]
fn clients_come_and_go_without_a_lost_packet() {
    vm::inside(|| {
        let lab = Lab::new()?;
        let (server, client) = (lab.host("server")?, lab.host("client")?);
        lab.cable((&server, "eth0"), (&client, "eth0"), 1500)?;
        server.address("eth0", [192, 0, 2, 1], 24)?;
        client.address("eth0", [192, 0, 2, 2], 24)?;
        let file = format!("{SOCKETS}/wg0.conf");
        let quick = |args: &str| run(&server, &format!("wg-quick-rs {args}"));
        quick(&format!(
            "init {file} --address 10.44.0.1/24 --endpoint 192.0.2.1"
        ))?;
        quick(&format!("up {file}"))?;
        let link = run(&server, "ip -d link show wg0")?;
        assert!(link.contains("wireguard"), "{link}");
        quick(&format!("add {file} alice --output {SOCKETS}/alice.conf"))?;
        client.write(&file, &server.read(&format!("{SOCKETS}/alice.conf"))?)?;
        run(&client, &format!("wg-quick-rs up {file}"))?;
        client.reach(SERVER, PATIENCE)?;

        let stream = Paced::start(&client, (&server, SERVER.into()))?;
        stream.go_on(50)?;
        for command in [
            "add FILE bob --output DIR/bob.conf",
            "disable FILE bob",
            "enable FILE bob",
            "add FILE bob --replace --output DIR/bob2.conf",
            "remove FILE bob",
        ] {
            quick(&command.replace("FILE", &file).replace("DIR", SOCKETS))?;
            stream.go_on(20)?;
        }
        let count = stream.finish()?;
        assert_eq!(count.lost(), 0, "{count:?}");

        let list = quick(&format!("list {file}"))?;
        let alice = list.lines().find(|line| line.starts_with("alice "));
        assert!(alice.is_some_and(|line| line.contains(" ago")), "{list}");
        assert!(!list.contains("bob"), "{list}");
        let key = run(&server, "wg show wg0 peers")?;
        let status = run(&server, "wg-rs status wg0")?;
        assert!(
            status.starts_with("wg0: kernel module; port 51820"),
            "{status}"
        );
        assert!(status.contains(key.trim()), "{status}");
        assert!(status.contains("connected, last handshake"), "{status}");
        let metrics = run(&server, "wg-rs metrics")?;
        let received = format!(
            "wireguard_peer_received_bytes_total{{interface=\"wg0\",public_key=\"{}\"",
            key.trim()
        );
        assert!(metrics.contains(&received), "{metrics}");

        quick(&format!("disable {file} alice"))?;
        assert_eq!(run(&server, "wg show wg0 peers")?, "");
        quick(&format!("enable {file} alice"))?;
        assert_eq!(run(&server, "wg show wg0 peers")?, key);
        client.reach(SERVER, PATIENCE)?;
        quick(&format!("remove {file} alice"))?;
        assert_eq!(run(&server, "wg show wg0 peers")?, "");
        quick(&format!("down {file}"))?;
        run(&client, &format!("wg-quick-rs down {file}"))?;
        Ok(())
    });
}
