use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use wg_rs::sys::netlink::Netlink;
use wg_rs::sys::netns::NetNs;

use super::netns;

fn links() -> Vec<String> {
    let links = Netlink::open().unwrap().links().unwrap();
    links.into_iter().map(|link| link.name).collect()
}

#[test]
fn a_new_namespace_does_not_move_the_caller() {
    let here = NetNs::current().unwrap();
    let there = netns();
    assert!(!there.is(&here).unwrap());
    there
        .run(|| {
            assert!(NetNs::current().unwrap().is(&there).unwrap());
            Netlink::open()
                .unwrap()
                .add_veth("only-there", "peer", None)
                .unwrap();
            assert!(links().contains(&"only-there".into()));
        })
        .unwrap();
    assert!(NetNs::current().unwrap().is(&here).unwrap());
    assert!(!links().contains(&"only-there".into()));
    assert!(there.run(links).unwrap().contains(&"only-there".into()));
}

#[test]
fn sockets_and_netlink_stay_in_their_namespace() {
    let there = netns();
    let mut netlink = there.run(|| Netlink::open().unwrap()).unwrap();
    netlink.add_veth("far", "peer", None).unwrap();
    assert!(there.run(links).unwrap().contains(&"far".into()));
}

#[test]
fn a_namespace_is_found_by_name_process_and_path() {
    let here = NetNs::current().unwrap();
    assert!(
        NetNs::of_pid(std::process::id())
            .unwrap()
            .is(&here)
            .unwrap()
    );
    assert!(
        NetNs::of_path(Path::new("/proc/self/ns/net"))
            .unwrap()
            .is(&here)
            .unwrap()
    );
    assert_eq!(NetNs::of_pid(0).unwrap_err().kind(), ErrorKind::NotFound);

    let name = format!("wg-rs-sys-{}", std::process::id());
    assert_eq!(
        NetNs::of_name(&name).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    for bad in ["", ".", "..", "../../proc/self/ns/net", "/proc/self/ns/net"] {
        assert_eq!(
            NetNs::of_name(bad).unwrap_err().kind(),
            ErrorKind::InvalidInput,
            "{bad:?}"
        );
    }
    // `ip netns add` does the same, inside the namespace that gets the name.
    fs::create_dir_all("/run/netns").unwrap();
    let path = Path::new("/run/netns").join(&name);
    File::create(&path).unwrap();
    let there = netns();
    let bind = || {
        let source = Some("/proc/thread-self/ns/net");
        mount(source, &path, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    };
    there.run(bind).unwrap();
    let found = NetNs::of_name(&name);
    umount2(&path, MntFlags::MNT_DETACH).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(found.unwrap().is(&there).unwrap());
}

#[test]
fn other_files_are_refused_and_nothing_runs() {
    for path in ["/proc/self/ns/mnt", "/dev/null"] {
        let not_one = NetNs::of_path(Path::new(path)).unwrap();
        let error = not_one.run(|| panic!("ran")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    }
}
