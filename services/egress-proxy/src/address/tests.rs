use proptest::prelude::*;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The first and the last address of each range, and its neighbours outside.
#[test]
fn each_range_ends_where_its_registry_says() {
    let cases = [
        ("0.0.0.0", "0.255.255.255", Class::Never),
        ("1.0.0.0", "9.255.255.255", Class::Public),
        ("10.0.0.0", "10.255.255.255", Class::Own),
        ("11.0.0.0", "100.63.255.255", Class::Public),
        ("100.64.0.0", "100.127.255.255", Class::Own),
        ("100.128.0.0", "126.255.255.255", Class::Public),
        ("127.0.0.0", "127.255.255.255", Class::Never),
        ("128.0.0.0", "169.253.255.255", Class::Public),
        ("169.254.0.0", "169.254.255.255", Class::Own),
        ("169.255.0.0", "172.15.255.255", Class::Public),
        ("172.16.0.0", "172.31.255.255", Class::Own),
        ("172.32.0.0", "191.255.255.255", Class::Public),
        ("192.0.0.0", "192.0.0.255", Class::Own),
        ("192.0.1.0", "192.0.1.255", Class::Public),
        ("192.0.2.0", "192.0.2.255", Class::Own),
        ("192.88.99.0", "192.88.99.255", Class::Never),
        ("192.168.0.0", "192.168.255.255", Class::Own),
        ("192.169.0.0", "198.17.255.255", Class::Public),
        ("198.18.0.0", "198.19.255.255", Class::Own),
        ("198.51.100.0", "198.51.100.255", Class::Own),
        ("203.0.113.0", "203.0.113.255", Class::Own),
        ("203.0.114.0", "223.255.255.255", Class::Public),
        ("224.0.0.0", "239.255.255.255", Class::Never),
        ("240.0.0.0", "255.255.255.255", Class::Never),
        ("::", "::1", Class::Never),
        ("::ffff:0.0.0.0", "::ffff:255.255.255.255", Class::Never),
        ("::2", "::ffff:ffff", Class::Never),
        ("64:ff9b::", "64:ff9b::ffff:ffff", Class::Never),
        (
            "64:ff9b:1::",
            "64:ff9b:1:ffff:ffff:ffff:ffff:ffff",
            Class::Never,
        ),
        ("100::", "100::ffff", Class::Never),
        (
            "2001::",
            "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff",
            Class::Never,
        ),
        (
            "2001:200::",
            "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff",
            Class::Public,
        ),
        (
            "2001:db8::",
            "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
            Class::Own,
        ),
        (
            "2001:db9::",
            "2001:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            Class::Public,
        ),
        (
            "2002::",
            "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            Class::Never,
        ),
        (
            "2003::",
            "3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            Class::Public,
        ),
        (
            "3fff::",
            "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff",
            Class::Own,
        ),
        (
            "4000::",
            "fbff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            Class::Never,
        ),
        (
            "fc00::",
            "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            Class::Own,
        ),
        (
            "fe80::",
            "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            Class::Own,
        ),
        (
            "ff00::",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            Class::Never,
        ),
    ];
    for (first, last, expected) in cases {
        for address in [first, last] {
            assert_eq!(class(ip(address)), expected, "{address}");
        }
    }
}

#[test]
fn only_what_was_written_down_may_be_of_the_operators_own_world() {
    let own = [
        Prefix::new(ip("93.184.216.0"), 24),
        Prefix::new(ip("172.18.0.0"), 16),
        Prefix::new(ip("fd00:1::"), 64),
    ];
    let at = Reach::At(ip("10.0.0.1"));
    for (reach, address, expected) in [
        (Reach::PublicName, "1.1.1.1", true),
        (Reach::PublicName, "192.168.1.5", false),
        (Reach::PublicName, "169.254.169.254", false),
        (Reach::PublicName, "100.100.100.100", false),
        (Reach::LocalName, "192.168.1.5", true),
        (Reach::LocalName, "127.0.0.1", false),
        (at, "10.0.0.1", true),
        (at, "169.254.169.254", true),
        (at, "::ffff:10.0.0.1", false),
        (at, "255.255.255.255", false),
        // Networks that the stack itself is on.
        (Reach::PublicName, "93.184.216.34", false),
        (Reach::LocalName, "93.184.216.34", false),
        (at, "93.184.216.34", true),
        (Reach::LocalName, "172.18.0.5", false),
        (Reach::LocalName, "172.19.0.5", true),
        (at, "172.18.0.5", true),
        (Reach::LocalName, "fd00:1::5", false),
        (Reach::LocalName, "fd00:2::5", true),
    ] {
        assert_eq!(
            may_be_at(reach, ip(address), &own),
            expected,
            "{reach:?} {address}"
        );
    }
}

#[test]
fn the_kernels_tables_are_read() {
    let routes = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
        eth0\t00000000\t010013AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
        eth0\t000013AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
        eth1\t00000A0A\t010013AC\t0003\t0\t0\t0\t0000FFFF\t0\t0\t0\n";
    if cfg!(target_endian = "little") {
        assert_eq!(of_routes(routes), [Prefix::new(ip("172.19.0.0"), 16)]);
    }
    let addresses = "fd00000000000000000000000000a001 02 40 00 80     eth0\n\
        00000000000000000000000000000001 01 80 10 80       lo\n";
    let expected = [
        Prefix::new(ip("fd00::a001"), 64),
        Prefix::new(ip("::1"), 128),
    ];
    assert_eq!(of_addresses(addresses), expected);
    assert!(own_networks().is_ok());
}

proptest! {
    #[test]
    fn the_standard_library_agrees_on_ipv4(octets: [u8; 4]) {
        let address = Ipv4Addr::from(octets);
        let known = address.is_private() || address.is_loopback() || address.is_link_local()
            || address.is_multicast() || address.is_broadcast() || address.is_documentation()
            || address.is_unspecified();
        if known {
            prop_assert_ne!(class(address.into()), Class::Public);
        }
    }

    #[test]
    fn the_standard_library_agrees_on_ipv6(bits: u128, head in prop::sample::select(vec![0_u16, 0xfc00, 0xfe80, 0xff02, 0x2001, 0x2002])) {
        let address = Ipv6Addr::from_bits(bits >> 16 | u128::from(head) << 112);
        let known = address.is_loopback() || address.is_unspecified() || address.is_multicast()
            || address.is_unique_local() || address.is_unicast_link_local()
            || address.to_ipv4().is_some();
        if known {
            prop_assert_ne!(class(address.into()), Class::Public);
        }
    }

    #[test]
    fn no_disguise_of_an_ipv4_address_passes(octets: [u8; 4]) {
        let four = Ipv4Addr::from(octets);
        let low = u128::from(four.to_bits());
        let high = u128::from(four.to_bits());
        for disguise in [
            low | 0xffff << 32,
            low,
            low | 0x64_ff9b << 96,
            low | 0x0064_ff9b_0001 << 80,
            0x2002 << 112 | high << 80,
            0x2001_0000 << 96 | low,
        ] {
            let address = IpAddr::from(Ipv6Addr::from_bits(disguise));
            prop_assert_eq!(class(address), Class::Never);
            for reach in [Reach::PublicName, Reach::LocalName, Reach::At(address)] {
                prop_assert!(!may_be_at(reach, address, &[]));
            }
        }
    }

    #[test]
    fn a_prefix_holds_what_shares_its_bits(a: u32, b: u32, bits in 0..=32_u32) {
        let prefix = Prefix::new(Ipv4Addr::from_bits(a).into(), bits);
        let shared = (a ^ b).leading_zeros() >= bits;
        prop_assert_eq!(prefix.holds(Ipv4Addr::from_bits(b).into()), shared);
    }
}
