//! Events of the machine on which a tunnel runs.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use netns_tests::{Daemon, Family, Host, PATIENCE, Ping, Plan, Tunnel, until};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, sendto, socket,
};

const NLMSG_MIN_TYPE: u16 = 16;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_HDRLEN: usize = 16;

/// Makes the kernel send this uevent to all listeners in the host's network namespace, as if it came
/// from a device. The kernel removes the header of the netlink message.
fn uevent(host: &Host, variables: &[&str]) -> io::Result<()> {
    let mut event = b"change@/devices/platform/vmgenid\0".to_vec();
    for variable in [&["ACTION=change", "SUBSYSTEM=platform"], variables].concat() {
        event.extend_from_slice(variable.as_bytes());
        event.push(0);
    }
    let mut request = Vec::with_capacity(NLMSG_HDRLEN + event.len());
    request.extend(((NLMSG_HDRLEN + event.len()) as u32).to_ne_bytes());
    request.extend(NLMSG_MIN_TYPE.to_ne_bytes());
    request.extend(NLM_F_REQUEST.to_ne_bytes());
    // No sequence number and no sender.
    request.extend([0; 8]);
    request.extend(event);
    host.run(|| {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkKObjectUEvent,
        )?;
        let kernel = NetlinkAddr::new(0, 0);
        sendto(socket.as_raw_fd(), &request, &kernel, MsgFlags::empty())?;
        Ok(())
    })
}

/// Two copies of a virtual machine must not use the same counter: the next packet begins a new
/// session, and is not lost.
#[test]
fn a_new_generation_of_the_machine_ends_sessions() -> io::Result<()> {
    let daemon = Daemon::ours()?;
    let tunnel = Tunnel::established(&Plan::new(&daemon, &daemon))?;
    let (a, b) = (&tunnel.a, &tunnel.b);
    let handshake = || Ok::<_, io::Error>(a.wg.peer(b.keys.public)?.last_handshake);
    let ping = || -> io::Result<()> {
        let ping = Ping {
            timeout: Duration::from_secs(4),
            ..Ping::to(b.inner(Family::V4))
        };
        assert_eq!(a.host.ping(&ping)?.lost(), 0);
        Ok(())
    };
    // A peer ignores a second initiation within 20 ms, and one with the same timestamp (17 ms).
    let before = until(PATIENCE, "a session that is not new", || {
        let handshake = handshake()?;
        let age = handshake.and_then(|at| at.elapsed().ok());
        Ok(age
            .filter(|age| *age > Duration::from_millis(100))
            .map(|_| handshake))
    })?;
    // Another uevent, which has no effect.
    uevent(&a.wg.host, &["NEW_VMGENID=10"])?;
    ping()?;
    assert_eq!(handshake()?, before);

    uevent(&a.wg.host, &["NEW_VMGENID=1"])?;
    until(PATIENCE, "a new session", || {
        ping()?;
        Ok((handshake()? != before).then_some(()))
    })
}
