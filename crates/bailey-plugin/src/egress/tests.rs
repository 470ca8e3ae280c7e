use proptest::prelude::*;

use super::*;

fn entry(text: &str) -> Entry {
    text.parse().unwrap_or_else(|e| panic!("{e}"))
}

fn reach(entry_text: &str, host: &str, port: u16) -> Option<Reach> {
    entry(entry_text).reach(&Host::parse(host)?, port)
}

#[test]
fn entries_are_written_in_one_way() {
    let cases = [
        ("Example.com", "example.com:443"),
        ("nas.lan:8443", "nas.lan:8443"),
        ("nas", "nas:443"),
        ("*.Example.com", "*.example.com:443"),
        ("*.a.example.com:80", "*.a.example.com:80"),
        ("192.168.1.5", "192.168.1.5:443"),
        ("[FD00::5]:80", "[fd00::5]:80"),
        ("[fd00::5]", "[fd00::5]:443"),
        (
            "nas.example.com@192.168.1.5",
            "nas.example.com:443@192.168.1.5",
        ),
        ("nas.example.com:80@fd00::5", "nas.example.com:80@fd00::5"),
    ];
    for (text, written) in cases {
        assert_eq!(entry(text).to_string(), written);
        assert_eq!(entry(written), entry(text), "{written} reads as itself");
    }
}

#[test]
fn what_is_no_entry_is_refused() {
    for text in [
        "",
        ":443",
        "https://x",
        "example.com/path",
        "z:0",
        "z:65536",
        "z:+1",
        "z:",
        "a.example.com.",
        "-a.example.com",
        "a_b.example.com",
        "*",
        "*.",
        "*.com",
        "*:443",
        "a.*.example.com",
        "*.1.2",
        "*.example.com:443@10.0.0.1",
        "me@example.com",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.0x1",
        "1.2.3.4.5",
        "10.0.0.1@10.0.0.2",
        "fd00::5",
        "[fd00::5",
        "[fd00::5]80",
        "[10.0.0.1]:80",
        "[::ffff:10.0.0.1]:80",
        "nas.lan@::ffff:10.0.0.1",
        "nas.lan@",
        "nas.lan@nas.lan",
    ] {
        assert!(text.parse::<Entry>().is_err(), "{text:?} was taken");
    }
}

#[test]
fn an_exact_entry_grants_that_host_and_port_and_nothing_beside() {
    let granted = "api.example.com:443";
    assert_eq!(
        reach(granted, "API.example.com", 443),
        Some(Reach::PublicName)
    );
    for (host, port) in [
        ("api.example.com", 80),
        ("example.com", 443),
        ("x.api.example.com", 443),
        ("api.example.com.evil.org", 443),
        ("evilapi.example.com", 443),
    ] {
        assert_eq!(reach(granted, host, port), None, "{host}:{port}");
    }
}

#[test]
fn a_wildcard_grants_what_is_below_and_not_the_suffix_itself() {
    let granted = "*.example.com:443";
    for host in ["a.example.com", "a.b.example.com"] {
        assert_eq!(reach(granted, host, 443), Some(Reach::PublicName), "{host}");
    }
    for host in [
        "example.com",
        "evilexample.com",
        "a.example.org",
        "93.184.216.34",
    ] {
        assert_eq!(reach(granted, host, 443), None, "{host}");
    }
    // A wildcard is never the very host, local or not.
    assert_eq!(
        reach("*.nas.lan:443", "a.nas.lan", 443),
        Some(Reach::PublicName)
    );
}

#[test]
fn only_what_the_operator_wrote_down_may_be_private() {
    let five = "192.168.1.5".parse().unwrap();
    assert_eq!(
        reach("192.168.1.5:80", "192.168.1.5", 80),
        Some(Reach::At(five))
    );
    assert_eq!(
        reach("nas.example.com:443@192.168.1.5", "nas.example.com", 443),
        Some(Reach::At(five))
    );
    for local in ["nas.lan", "nas", "nas.home.arpa", "a.internal"] {
        assert_eq!(reach(local, local, 443), Some(Reach::LocalName), "{local}");
    }
    for public in ["nas.example.com", "lan.example.com", "plan.dev", "a.arpa"] {
        assert_eq!(
            reach(public, public, 443),
            Some(Reach::PublicName),
            "{public}"
        );
    }
    // The address was listed, not the name, and the other way round.
    assert_eq!(reach("nas.lan:443", "192.168.1.5", 443), None);
    assert_eq!(
        reach("nas.example.com:443@192.168.1.5", "192.168.1.5", 443),
        None
    );
}

#[test]
fn what_a_resolver_would_take_for_an_address_is_no_name() {
    for text in [
        "127.1",
        "0x7f.1",
        "2130706433",
        "1.2.3.4.5",
        "a.0",
        "0x1",
        "017700000001",
    ] {
        assert_eq!(Host::parse(text), None, "{text}");
    }
    for text in ["1and1.com", "0xcafe.dev", "a.b0", "3com"] {
        assert!(matches!(Host::parse(text), Some(Host::Name(_))), "{text}");
    }
    assert_eq!(Host::parse("[127.0.0.1]"), None);
    assert_eq!(Host::parse("a..b"), None);
    assert_eq!(Host::parse("a b"), None);
}

proptest! {
    #[test]
    fn nothing_makes_it_panic(text in ".{0,80}", host in ".{0,40}", port: u16) {
        if let (Ok(entry), Some(host)) = (text.parse::<Entry>(), Host::parse(&host)) {
            let _ = entry.reach(&host, port);
        }
    }

    #[test]
    fn what_is_written_reads_as_itself(
        labels in proptest::collection::vec("[a-z]([a-z0-9-]{0,8}[a-z0-9])?", 2..5),
        port in 1..=u16::MAX, wild: bool, address in proptest::option::of(any::<[u8; 4]>()),
    ) {
        let star = if wild { "*." } else { "" };
        let at = address.filter(|_| !wild).map(|a| format!("@{}", IpAddr::from(a))).unwrap_or_default();
        let text = format!("{star}{}:{port}{at}", labels.join("."));
        let entry = entry(&text);
        prop_assert_eq!(entry.to_string(), text);
    }

    #[test]
    fn a_wildcard_matches_exactly_the_names_that_end_in_dot_suffix(
        name in "[a-c]{1,2}(\\.[a-c]{1,2}){0,3}", suffix in "[a-c]{1,2}\\.[a-c]{1,2}",
    ) {
        let entry = entry(&format!("*.{suffix}:443"));
        let matched = entry.reach(&Host::Name(name.clone()), 443).is_some();
        prop_assert_eq!(matched, name.ends_with(&format!(".{suffix}")));
    }

    #[test]
    fn no_name_is_an_address_to_the_resolver(name in "[0-9a-fx.]{1,16}") {
        if let Some(Host::Name(name)) = Host::parse(&name) {
            // glibc's rule (inet_aton): what does not end in a number is no address.
            let last = name.rsplit('.').next().unwrap();
            prop_assert!(last.parse::<u64>().is_err());
            prop_assert!(!last.starts_with("0x") || u64::from_str_radix(&last[2..], 16).is_err());
        }
    }
}
