use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use wg_rs::sys::netlink::{
    Changes, Events, LinkAddress, MulticastGroups, Netlink, NetlinkEvent, NextHop, Route,
    RouteFilter, Rule,
};
use wg_rs::sys::netns::NetNs;
use wg_rs::sys::poll;
use wg_rs::sys::tun::{Tun, TunOffloads};
use wg_rs::sys::udp::Family;

use super::{Cable, ip, netns};

fn alone<T: Send>(work: impl FnOnce(&mut Netlink) -> T + Send) -> T {
    netns().run(|| work(&mut Netlink::open().unwrap())).unwrap()
}

/// The next event that `pick` accepts; earlier events are ignored.
fn next<T>(events: &mut Events, mut pick: impl FnMut(NetlinkEvent) -> Option<T>) -> T {
    loop {
        match events.recv() {
            Ok(event) => {
                if let Some(picked) = pick(event) {
                    return picked;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let wait = Some(Duration::from_secs(5));
                assert!(
                    poll::wait([events.as_fd()], wait).unwrap()[0].readable,
                    "no event in 5 s"
                );
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn links_are_described_and_changed() {
    alone(|netlink| {
        netlink.add_veth("a", "b", None).unwrap();
        assert!(netlink.add_veth("a", "c", None).unwrap_err().is_present());
        let link = netlink.link("a").unwrap();
        assert_eq!(
            (link.name.as_str(), link.kind.as_deref(), link.up),
            ("a", Some("veth"), false)
        );
        netlink.set_up(link.index, true).unwrap();
        netlink.set_mtu("a", 9000).unwrap();
        netlink.set_tx_queue_len("a", 1234).unwrap();
        netlink.set_gso_limits("a", 33_333, 44).unwrap();
        let link = netlink.link(link.index).unwrap();
        assert!(link.up);
        assert_eq!((link.mtu, link.tx_queue_len), (9000, 1234));
        assert_eq!(
            (link.gso_max_size, link.gso_ipv4_max_size),
            (33_333, 33_333)
        );
        assert_eq!(link.gso_max_segs, 44);
        netlink.set_up("a", false).unwrap();
        assert!(!netlink.link("a").unwrap().up);
        let names = |netlink: &mut Netlink| {
            let mut names: Vec<_> = netlink
                .links()
                .unwrap()
                .into_iter()
                .map(|link| link.name)
                .collect();
            names.retain(|name| ["lo", "a", "b"].contains(&name.as_str()));
            names.sort();
            names
        };
        assert_eq!(names(netlink), ["a", "b", "lo"]);
        netlink.delete_link("a").unwrap();
        assert_eq!(names(netlink), ["lo"]);
    });
}

#[test]
fn errors_name_the_action_and_the_object() {
    alone(|netlink| {
        let error = netlink.set_mtu("wg9", 1420).unwrap_err();
        assert!(error.is_absent());
        assert_eq!(error.errno(), Some(libc::ENODEV));
        assert_eq!(
            error.to_string(),
            "cannot set the MTU of wg9 to 1420: No such device"
        );
        let error = netlink.link(77).unwrap_err();
        assert_eq!(error.to_string(), "cannot look up link 77: No such device");
        let error = netlink
            .set_mtu("lo", 1)
            .and(netlink.delete_link("lo"))
            .unwrap_err();
        assert!(
            error.to_string().starts_with("cannot delete lo: "),
            "{error}"
        );
        // The socket still works after errors.
        assert_eq!(netlink.link("lo").unwrap().name, "lo");
    });
}

#[test]
fn addr_gen_mode_none_prevents_link_local_addresses() {
    for told in [false, true] {
        alone(|netlink| {
            let _tun = Tun::create("tun0", TunOffloads::ALL).unwrap();
            if told {
                netlink.set_addr_gen_mode_none("tun0").unwrap();
            }
            netlink.set_up("tun0", true).unwrap();
            let index = netlink.link("tun0").unwrap().index;
            let addresses = netlink.addresses().unwrap();
            assert_eq!(addresses.iter().any(|address| address.link == index), !told);
        });
    }
}

#[test]
fn addresses_are_added_and_removed() {
    alone(|netlink| {
        netlink.add_veth("a", "b", None).unwrap();
        netlink.set_addr_gen_mode_none("a").unwrap();
        netlink.set_up("a", true).unwrap();
        let link = netlink.link("a").unwrap().index;
        let v4 = LinkAddress {
            link,
            ip: ip("10.3.0.1"),
            prefix: 24,
        };
        let v6 = LinkAddress {
            link,
            ip: ip("fd03::1"),
            prefix: 64,
        };
        let of_link = |netlink: &mut Netlink| {
            let mut addresses = netlink.addresses().unwrap();
            addresses.retain(|address| address.link == link);
            addresses
        };
        for address in [v4, v6] {
            netlink.add_address(&address).unwrap();
            assert!(netlink.add_address(&address).unwrap_err().is_present());
        }
        assert_eq!(of_link(netlink), [v4, v6]);
        let checked = LinkAddress {
            ip: ip("fd03::2"),
            ..v6
        };
        netlink.add_address_checked(&checked).unwrap();
        assert!(of_link(netlink).contains(&checked));
        for address in [v4, v6, checked] {
            netlink.delete_address(&address).unwrap();
            assert!(netlink.delete_address(&address).unwrap_err().is_absent());
        }
        assert_eq!(of_link(netlink), []);
    });
}

#[test]
fn routes_are_added_listed_looked_up_and_removed() {
    let cable = Cable::new();
    cable.left(|netlink| {
        let link = netlink.link("eth0").unwrap().index;
        for (to, gateway, source, inside) in [
            (("192.0.2.0", 24), "10.0.0.2", "10.0.0.1", "192.0.2.99"),
            (("2001:db8::", 32), "fd00::2", "fd00::1", "2001:db8::99"),
            (("0.0.0.0", 0), "10.0.0.2", "10.0.0.1", "198.51.100.1"),
            (("::", 0), "fd00::2", "fd00::1", "2001:db9::1"),
        ] {
            let inside = ip(inside);
            let is_unreachable = |result: Result<NextHop, _>| {
                matches!(result, Err(wg_rs::sys::netlink::Error { .. }))
            };
            assert!(is_unreachable(netlink.route_get(inside, None, 0)));
            let route = Route {
                gateway: Some(ip(gateway)),
                source: Some(ip(source)),
                mtu: Some(1333),
                metric: Some(77),
                ..Route::new((ip(to.0), to.1), link)
            };
            netlink.add_route(&route).unwrap();
            assert!(netlink.add_route(&route).unwrap_err().is_present());
            assert!(netlink.routes().unwrap().contains(&route));
            let family = if inside.is_ipv4() {
                Family::V4
            } else {
                Family::V6
            };
            for which in [RouteFilter::Table(254), RouteFilter::Link(link)] {
                let listed = netlink.routes_of(family, which).unwrap();
                assert!(listed.contains(&route), "{listed:?}");
                // Routes that belong to the address of this family.
                assert!(listed.iter().any(|route| route.by_kernel));
            }
            let hop = netlink.route_get(inside, None, 0).unwrap();
            let expected = NextHop {
                link,
                gateway: Some(ip(gateway)),
                source: Some(ip(source)),
                mtu: Some(1333),
                local: false,
            };
            assert_eq!(hop, expected);
            let smaller = Route {
                mtu: Some(1300),
                ..route
            };
            netlink.replace_route(&smaller).unwrap();
            assert_eq!(
                netlink.route_get(inside, Some(ip(source)), 0).unwrap().mtu,
                Some(1300)
            );
            netlink.delete_route(&smaller).unwrap();
            assert!(netlink.delete_route(&smaller).unwrap_err().is_absent());
            assert!(is_unreachable(netlink.route_get(inside, None, 0)));
        }
        // Directly on the link: a prefix and a host.
        let route = Route::new((ip("203.0.113.0"), 25), link);
        netlink.add_route(&route).unwrap();
        let hop = netlink.route_get(ip("203.0.113.5"), None, 0).unwrap();
        assert_eq!(
            (hop.link, hop.gateway, hop.source),
            (link, None, Some(ip("10.0.0.1")))
        );
    });
}

#[test]
fn rules_choose_the_table_by_mark() {
    let cable = Cable::new();
    cable.left(|netlink| {
        let link = netlink.link("eth0").unwrap().index;
        for (family, far, gateway) in [
            (Family::V4, "192.0.2.1", "10.0.0.2"),
            (Family::V6, "2001:db8::1", "fd00::2"),
        ] {
            let far = ip(far);
            let any = if far.is_ipv4() {
                ip("0.0.0.0")
            } else {
                ip("::")
            };
            let default = Route {
                gateway: Some(ip(gateway)),
                table: 51820,
                ..Route::new((any, 0), link)
            };
            assert!(netlink.is_table_empty(51820).unwrap());
            netlink.add_route(&default).unwrap();
            assert!(!netlink.is_table_empty(51820).unwrap());
            let routes = netlink
                .routes_of(family, RouteFilter::Table(51820))
                .unwrap();
            assert_eq!(routes.len(), 1);
            // IPv6 routes without a metric get one.
            let same = |route: &Route| {
                Route {
                    metric: None,
                    ..*route
                } == default
            };
            assert!(netlink.routes().unwrap().iter().any(same));
            // Like wg-quick's rules for a default route.
            let not_ours = Rule {
                fwmark: Some(51820),
                not: true,
                ..Rule::new(family, 51820)
            };
            let no_default = Rule {
                suppress_prefix_length: Some(0),
                ..Rule::new(family, 254)
            };
            netlink.add_rule(&not_ours).unwrap();
            netlink.add_rule(&no_default).unwrap();
            assert_eq!(
                netlink.route_get(far, None, 0).unwrap().gateway,
                Some(ip(gateway))
            );
            assert!(netlink.route_get(far, None, 51820).is_err());
            let listed = netlink.rules(family).unwrap();
            for rule in [not_ours, no_default] {
                assert!(listed.iter().any(|one| Rule {
                    priority: None,
                    ..*one
                } == rule));
                netlink.delete_rule(&rule).unwrap();
                assert!(netlink.delete_rule(&rule).unwrap_err().is_absent());
            }
            assert!(netlink.route_get(far, None, 0).is_err());
            netlink.delete_route(&default).unwrap();
        }
    });
}

#[test]
fn a_link_is_followed_between_namespaces() {
    let home = netns();
    let (first, second) = (netns(), netns());
    home.run(|| {
        let mut events = Events::open(MulticastGroups {
            links: true,
            ..MulticastGroups::default()
        })
        .unwrap();
        let mut netlink = Netlink::open().unwrap();
        let tun = Tun::create("tun0", TunOffloads::ALL).unwrap();
        netlink.set_up("tun0", true).unwrap();
        next(&mut events, |event| match event {
            NetlinkEvent::Link { netns: None, link } if link.name == "tun0" && link.up => Some(()),
            _ => None,
        });

        assert_eq!(
            netlink.link_of(&tun).unwrap(),
            (netlink.link("tun0").unwrap(), None)
        );
        let netns = NetNs::current().unwrap();
        assert_eq!(
            netlink.nsid(netns.as_fd()).unwrap(),
            None,
            "a namespace needs no ID for itself"
        );

        // The move itself gives this namespace an ID in the home namespace.
        netlink.move_link("tun0", first.as_fd()).unwrap();
        let id = next(&mut events, |event| match event {
            NetlinkEvent::LinkGone {
                netns: None,
                name,
                moved_to,
                ..
            } if name == "tun0" => Some(moved_to),
            _ => None,
        });
        let id = id.expect("the link was moved, not deleted");
        assert_eq!(netlink.nsid(first.as_fd()).unwrap(), Some(id));
        first
            .run(|| {
                let mut there = Netlink::open().unwrap();
                there.set_mtu("tun0", 9001).unwrap();
                there.set_up("tun0", true).unwrap();
                there.set_up("tun0", false).unwrap();
            })
            .unwrap();
        let mut seen = |up| {
            next(&mut events, |event| match event {
                NetlinkEvent::Link { netns, link } if link.name == "tun0" && link.up == up => {
                    assert_eq!(netns, Some(id));
                    (link.mtu == 9001).then_some(())
                }
                _ => None,
            });
        };
        seen(true);
        seen(false);

        // The link moves on to a namespace that has no ID in the home namespace, so it must get
        // one.
        first
            .run(|| {
                Netlink::open()
                    .unwrap()
                    .move_link("tun0", second.as_fd())
                    .unwrap()
            })
            .unwrap();
        next(&mut events, |event| match event {
            NetlinkEvent::LinkGone {
                netns,
                moved_to: Some(_),
                ..
            } if netns == Some(id) => Some(()),
            _ => None,
        });
        assert_eq!(netlink.nsid(second.as_fd()).unwrap(), None);
        let (link, created) = netlink.link_of(&tun).unwrap();
        assert!(!link.up);
        let id = netlink
            .nsid(second.as_fd())
            .unwrap()
            .expect("link_of created the ID");
        assert_eq!(created, Some(id));
        second
            .run(|| Netlink::open().unwrap().set_up("tun0", true).unwrap())
            .unwrap();
        next(&mut events, |event| match event {
            NetlinkEvent::Link { netns, link } if netns == Some(id) && link.up => Some(()),
            _ => None,
        });

        // The link is deleted there.
        second
            .run(|| Netlink::open().unwrap().delete_link("tun0").unwrap())
            .unwrap();
        let moved_to = next(&mut events, |event| match event {
            NetlinkEvent::LinkGone {
                netns,
                name,
                moved_to,
                ..
            } if netns == Some(id) => {
                assert_eq!(name, "tun0");
                Some(moved_to)
            }
            _ => None,
        });
        assert_eq!(moved_to, None);
        assert!(netlink.link_of(&tun).unwrap_err().is_absent());
    })
    .unwrap();
}

#[test]
fn address_events_and_route_changes_are_reported() {
    let cable = Cable::new();
    cable.left(|netlink| {
        let groups = MulticastGroups {
            addresses: true,
            ..MulticastGroups::default()
        };
        let mut events = Events::open(groups).unwrap();
        let link = netlink.link("eth0").unwrap().index;
        for (family, address, to, prefix) in [
            (Family::V4, "10.5.0.1", "192.0.2.0", 24),
            (Family::V6, "fd05::1", "2001:db8::", 64),
        ] {
            let address = LinkAddress {
                link,
                ip: ip(address),
                prefix,
            };
            netlink.add_address(&address).unwrap();
            next(&mut events, |event| {
                (event == NetlinkEvent::Address(address)).then_some(())
            });
            let changes = Changes::open().unwrap();
            let route = Route::new((ip(to), prefix), link);
            let rule = Rule {
                fwmark: Some(7),
                ..Rule::new(family, 7)
            };
            let acts: [&dyn Fn(&mut Netlink); 4] = [
                &|netlink| netlink.add_route(&route).unwrap(),
                &|netlink| netlink.add_rule(&rule).unwrap(),
                &|netlink| netlink.delete_rule(&rule).unwrap(),
                &|netlink| netlink.set_tx_queue_len("eth0", u32::from(prefix)).unwrap(),
            ];
            for (n, act) in acts.into_iter().enumerate() {
                while changes.take() {}
                act(netlink);
                assert!(changes.take(), "change {n} of {family:?}");
            }
            netlink.delete_address(&address).unwrap();
            next(&mut events, |event| {
                (event == NetlinkEvent::AddressGone(address)).then_some(())
            });
        }
    });
}

#[test]
fn lost_events_are_reported() {
    alone(|netlink| {
        let mut events = Events::open(MulticastGroups {
            links: true,
            ..MulticastGroups::default()
        })
        .unwrap();
        nix::sys::socket::setsockopt(&events, nix::sys::socket::sockopt::RcvBuf, &1).unwrap();
        for mtu in 1000..1010 {
            netlink.set_mtu_and_up("lo", mtu).unwrap();
        }
        next(&mut events, |event| {
            (event == NetlinkEvent::Lost).then_some(())
        });
        netlink.set_mtu("lo", 2000).unwrap();
        next(&mut events, |event| {
            matches!(event, NetlinkEvent::Link { link, .. } if link.mtu == 2000).then_some(())
        });
    });
}
