//! Each key with what it may be and, beside it, what it may not.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{Config, Errors, ROOT, parse};

fn config(upstreams: &str) -> Result<Config, Errors> {
    let text = format!("accounts: {{default: {{}}}}\nupstreams:\n{upstreams}");
    parse(&BTreeMap::from([(ROOT.to_owned(), text)]))
}

/// The upstream `u` with these lines beside its name.
fn one(lines: &str) -> Result<Upstream, String> {
    let lines: Vec<_> = lines.lines().map(|l| format!("    {l}\n")).collect();
    let lines = lines.concat();
    let config = config(&format!("  u:\n{lines}")).map_err(|e| e.to_string())?;
    Ok(config.upstreams[&"u".parse().unwrap()].clone())
}

fn refused(lines: &str, place: &str, reason: &str) {
    let said = one(lines).expect_err(lines);
    assert!(
        said.starts_with(&format!("config.yaml:{place}: ")) && said.contains(reason),
        "{lines}\n{said}"
    );
}

fn authority() -> rcgen::Certificate {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    params.self_signed(&key).unwrap()
}

#[test]
fn defaults_are_those_of_the_reference() {
    let plain = one("url: https://api.example.com").unwrap();
    assert_eq!(plain.url.to_string(), "https://api.example.com");
    assert_eq!(
        (plain.url.port(), plain.url.target("")),
        (443, "/".to_owned())
    );
    assert_eq!((plain.key, plain.ca, plain.address), (None, None, None));
    assert_eq!(plain.reach, Reach::PublicName);
    assert_eq!(plain.clients, Client::ALL.into());
    assert_eq!((plain.timeout.as_secs(), plain.max_concurrent), (120, 8));
    assert_eq!(plain.rate.to_string(), "60/min");
    assert_eq!((plain.check.as_str(), plain.headers.len()), ("", 0));

    let keyed = one("url: https://api.example.com/v1/\nsecret_ref: api-key").unwrap();
    let key = keyed.key.unwrap();
    assert_eq!(
        (key.secret.as_str(), key.principal.as_str()),
        ("api-key", "u")
    );
    assert_eq!(key.header, http::header::AUTHORIZATION);
    assert_eq!(key.scheme.as_deref(), Some("Bearer"));
    assert_eq!(keyed.url.target("/models?limit=3"), "/v1/models?limit=3");
    assert_eq!(keyed.url.target(""), "/v1");
}

#[test]
fn every_key_counts() {
    let ca = authority().pem().trim().replace('\n', "\n  ");
    let all = one(&format!(
        "url: https://nas.example.com:8443/api\nsecret_ref: k\nvault_principal: shop\nheader: X-Api-Key\nheaders: {{anthropic-version: \"2023-06-01\"}}\naddress: 192.168.1.20\nca: |\n  {ca}\nclients: [worker]\ntimeout: 10m\nmax_concurrent: 64\nrate: 10000/h\ncheck: /models?limit=1"
    ))
    .unwrap();
    let key = all.key.clone().unwrap();
    assert_eq!(
        (key.principal.as_str(), key.header.as_str()),
        ("shop", "x-api-key")
    );
    // Only `authorization` has a word before the key unless one is given.
    assert_eq!(key.scheme, None);
    assert_eq!(all.headers["anthropic-version"], "2023-06-01");
    assert_eq!(all.reach, Reach::At("192.168.1.20".parse().unwrap()));
    assert_eq!(all.ca.as_ref().unwrap().certificates().len(), 1);
    assert!(all.serves(Service::Worker) && !all.serves(Service::Engine));
    assert_eq!((all.timeout.as_secs(), all.max_concurrent), (600, 64));
    assert_eq!(all.check, "/models?limit=1");
    assert_eq!(all.url.authority(), "nas.example.com:8443");
    let shown = serde_json::to_value(&all).unwrap();
    assert_eq!(shown["url"], "https://nas.example.com:8443/api");
    assert_eq!(shown["ca"], "1 certificate");
    assert_eq!(shown["rate"], "10000/h");
    assert_eq!(shown["headers"]["anthropic-version"], "2023-06-01");
    let scheme = |text: &str| one(text).unwrap().key.unwrap().scheme;
    let url = "url: https://a.example.com\nsecret_ref: k";
    assert_eq!(scheme(&format!("{url}\nscheme: \"\"")), None);
    let named = format!("{url}\nheader: x-key\nscheme: Token");
    assert_eq!(scheme(&named).as_deref(), Some("Token"));
}

#[test]
fn a_host_is_reached_as_an_entry_of_egress_says() {
    let reach = |text: &str| one(text).unwrap().reach;
    assert_eq!(reach("url: http://nas.lan"), Reach::LocalName);
    assert_eq!(reach("url: http://ollama:11434"), Reach::LocalName);
    let five = "fd00::5".parse().unwrap();
    assert_eq!(reach("url: https://[fd00::5]:8443"), Reach::At(five));
    refused(
        "url: https://10.0.0.1\naddress: 10.0.0.2",
        "5:14",
        "an address has no other address",
    );
    refused(
        "url: https://a.example\naddress: '::ffff:10.0.0.2'",
        "5:14",
        "an IPv4 address is written as one",
    );
    refused("url: https://a.example\naddress: nas", "5:14", "IP address");
    // What is wrong with the url is not said of an address that nobody wrote.
    refused("url: 'https://[::ffff:10.0.0.1]'", "4:10", "url: ");
}

#[test]
fn a_url_is_a_base_and_nothing_more() {
    for (url, reason) in [
        ("api.example.com", "must begin with https://"),
        ("HTTPS://api.example.com", "must begin with https://"),
        ("ftp://api.example.com", "must begin with https://"),
        ("https://user:pw@api.example.com", "belongs into the vault"),
        ("https://api.example.com/v1?key=1", "no query"),
        ("https://api.example.com/#a", "no query and no fragment"),
        ("https://", "neither a name nor an address"),
        ("https://a_b.example.com", "neither a name nor an address"),
        ("https://127.1", "neither a name nor an address"),
        ("https://api.example.com:0", "port"),
        ("https://api.example.com:", "port"),
        ("https://api.example.com:+443", "port"),
        ("https://[::1", "neither a name nor an address"),
        ("https://api.example.com/a/../b", "segment"),
        ("https://api.example.com//a", "two slashes"),
        ("https://api.example.com//", "two slashes"),
        ("https://api.example.com/v1//", "two slashes"),
        ("https://api.example.com/%2e%2e", "escape"),
        (
            "https://api.example.com/a b",
            "must be written as an escape",
        ),
    ] {
        refused(&format!("url: \"{url}\""), "4:10", reason);
    }
    refused("secret_ref: k", "4:5", "\"url\" is missing");
}

#[test]
fn a_key_goes_over_tls_only() {
    assert!(one("url: http://nas.lan").is_ok());
    refused(
        "url: http://nas.lan\nsecret_ref: k",
        "4:10",
        "over TLS only",
    );
    refused("url: http://nas.lan\nca: x", "5:9", "no certificate");
    let ca = authority().pem().replace('\n', "\n  ");
    refused(
        &format!("url: http://nas.lan\nca: |\n  {ca}"),
        "4:10",
        "ca has no effect on http://",
    );
}

#[test]
fn what_goes_with_a_key_needs_one() {
    let url = "url: https://a.example.com";
    for key in ["vault_principal: x", "header: x-key", "scheme: Token"] {
        let column = key.find(": ").unwrap() + 7;
        let place = format!("5:{column}");
        refused(
            &format!("{url}\n{key}"),
            &place,
            "no effect without secret_ref",
        );
        assert!(
            one(&format!("{url}\nsecret_ref: k\n{key}")).is_ok(),
            "{key}"
        );
    }
}

#[test]
fn headers_are_nobody_elses() {
    let keyed = "url: https://a.example.com\nsecret_ref: k";
    for name in [
        "host",
        "Content-Length",
        "proxy-anything",
        "cookie",
        "te",
        "not a name",
    ] {
        assert!(one(&format!("{keyed}\nheader: {name}")).is_err(), "{name}");
    }
    for (name, reason) in [
        ("Host", "egress-proxy alone"),
        ("accept-encoding", "egress-proxy alone"),
        ("transfer-encoding", "egress-proxy alone"),
        ("proxy-x", "egress-proxy alone"),
        ("authorization", "belongs into the vault"),
        ("x-goog-api-key", "belongs into the vault"),
        ("x-auth-token", "belongs into the vault"),
        ("cookie", "belongs into the vault"),
        ("x key", "not the name of a header"),
    ] {
        refused(
            &format!("{keyed}\nheaders: {{\"{name}\": x}}"),
            "6:15",
            reason,
        );
    }
    let carried = format!("{keyed}\nheader: x-let-me-in\nheaders: {{X-Let-Me-In: x}}");
    refused(&carried, "7:15", "carries the key");
    refused(
        &format!("{keyed}\nheaders: {{a: x, A: y}}"),
        "6:21",
        "twice",
    );
    refused(
        &format!("{keyed}\nheaders: {{a: \"x\\ny\"}}"),
        "6:15",
        "printable ASCII",
    );
    refused(
        &format!("{keyed}\nheaders: {{a: \" x\"}}"),
        "6:15",
        "without spaces",
    );
    assert!(
        one(&format!(
            "{keyed}\nheaders: {{a: x y, openai-organization: o}}"
        ))
        .is_ok()
    );
    // Some servers make one name of these two.
    let alike = format!("{keyed}\nheader: x-let-me-in\nheaders: {{x_let_me_in: x}}");
    refused(&alike, "7:15", "carries the key");
    let many = |n: u32| {
        (0..n)
            .map(|i| format!("h{i}: x"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    assert!(one(&format!("{keyed}\nheaders: {{{}}}", many(16))).is_ok());
    assert!(one(&format!("{keyed}\nheaders: {{{}}}", many(17))).is_err());
}

#[test]
fn what_is_out_of_range_is_said_at_its_place() {
    let url = "url: https://a.example.com";
    for (line, place, reason) in [
        ("timeout: 10m1s", "5:14", "it must be 1s to 10m"),
        ("timeout: 500ms", "5:14", "it must be 1s to 10m"),
        ("max_concurrent: 65", "5:21", "it must be 1 to 64"),
        ("max_concurrent: 0", "5:21", "it must be 1 to 64"),
        ("rate: 10001/h", "5:11", "it must be 1 to 10000"),
        ("rate: 0/min", "5:11", "like 60/min"),
        ("rate: 60", "5:11", "like 60/min"),
        ("clients: []", "5:14", "nobody could call it"),
        ("clients: [engine, engine]", "5:23", "twice"),
        ("clients: [gateway]", "5:15", "gateway"),
        ("check: models", "5:12", "starts with a slash"),
        ("check: /a/../b", "5:12", "segment"),
        ("ca: nothing", "5:9", "no certificate"),
        (
            "ca: |\n  -----BEGIN CERTIFICATE-----\n  AAAA\n  -----END CERTIFICATE-----",
            "6:7",
            "cannot be a root",
        ),
        (
            "ca: |\n  -----BEGIN PRIVATE KEY-----\n  AAAA\n  -----END PRIVATE KEY-----",
            "6:7",
            "private key",
        ),
        ("key: x", "5:5", "unknown key"),
        ("secret_ref: A B", "5:17", "not a valid secret name"),
        ("secret_ref: k\nscheme: a b", "6:13", "one word"),
    ] {
        refused(&format!("{url}\n{line}"), place, reason);
    }
    let said = config("  U:\n    url: https://a.example.com\n")
        .unwrap_err()
        .to_string();
    assert!(
        said.contains("config.yaml:3:3") && said.contains("upstream name"),
        "{said}"
    );
}

#[test]
fn so_many_and_no_more() {
    let many = |n: usize| {
        let one = |i| format!("  u{i}: {{url: https://a.example.com}}\n");
        (0..n).map(one).collect::<Vec<_>>().concat()
    };
    assert_eq!(config(&many(64)).unwrap().upstreams.len(), 64);
    let said = config(&many(65)).unwrap_err().to_string();
    assert!(
        said.contains("config.yaml:67:3: there are more than 64 upstreams"),
        "{said}"
    );
}

#[test]
fn a_path_stays_below_its_base() {
    for fine in [
        "",
        "/",
        "/models",
        "/a/b/",
        "/a;v=1/b",
        "/a.b/.c/c../a...b",
        "/a%20b",
        "/%c3%a4/%e2%82%ac",
        "/a?b=%2e%2e/..%5c&c=//",
        "/a?b?c",
        "/~u/@x:y",
    ] {
        assert_eq!(path::problem(fine), None, "{fine}");
    }
    for bad in [
        "models",
        "?a",
        "//",
        "//host/a",
        "/a//b",
        "/a//",
        "/.",
        "/..",
        "/a/..",
        "/../a",
        "/./a",
        "/..;/a",
        "/.;x/a",
        "/..%3b/admin",
        "/..%3B/admin",
        "/%c0%ae%c0%ae/admin",
        "/%e0%80%ae/a",
        "/%ff",
        "/%ef%bc%8e%ef%bc%8e/x",
        "/a%ef%bc%8fb",
        "/%e2%80%a5/x",
        "/..%20/x",
        "/%20../x",
        "/.%20/x",
        "/.../x",
        "/..c/x",
        "/%2e%2e/a",
        "/%2E./a",
        "/a%2fb",
        "/a%2F..",
        "/a%5cb",
        "/a\\b",
        "/a?b\\c",
        "/%252e",
        "/a%00",
        "/a%0d%0ab",
        "/a%",
        "/a%2",
        "/a%zz",
        "/a?%g1",
        "/a b",
        "/a?b c",
        "/a\r\nb",
        "/a\u{7f}",
        "/ä",
        "/a#b",
        "/a?b#c",
        "https://other/",
        "http:/x",
    ] {
        assert!(path::problem(bad).is_some(), "{bad}");
    }
    let long = |n: usize| format!("/{}", "a".repeat(n - 1));
    assert_eq!(path::problem(&long(path::LIMIT_BYTES)), None);
    assert!(path::problem(&long(path::LIMIT_BYTES + 1)).is_some());
}

proptest! {
    #[test]
    fn no_text_makes_a_parser_panic(text in "\\PC{0,40}") {
        let _ = (text.parse::<Url>(), path::problem(&text), Authorities::parse(&text));
    }

    /// However a server reads what is sent, nothing of it climbs.
    #[test]
    fn nothing_that_passes_climbs(text in "(/(\\.|\\.\\.|%2e|%2E|%252e|a|;|%5c|%2f|\\\\|\\?){0,4}){0,5}") {
        if path::problem(&text).is_none() {
            let path = text.split('?').next().unwrap_or_default();
            let decoded = path.replace("%2e", ".").replace("%2E", ".").replace("%2f", "/").replace("%5c", "/");
            let climbs = decoded.split('/').any(|s| s.split(';').next() == Some(".."));
            prop_assert!(!climbs && !decoded.contains("//"), "{}", text);
        }
    }

    #[test]
    fn a_printed_url_reads_back(host in "[a-z]{1,5}\\.[a-z]{2,4}", port in 1..=u16::MAX, path in "(/[a-z]{1,4}){0,3}/?", tls: bool) {
        let scheme = if tls { "https" } else { "http" };
        let url: Url = format!("{scheme}://{host}:{port}{path}").parse().unwrap();
        prop_assert_eq!(url.to_string().parse::<Url>().unwrap(), url);
    }
}

#[test]
fn the_upstreams_of_the_how_to_are_valid() {
    let how_to = include_str!("../../../../docs/how-to/upstreams.md");
    let blocks = how_to.split("```yaml\nupstreams:\n").skip(1);
    let blocks = blocks.map(|part| part.split("```").next().unwrap());
    let certificate = authority().pem();
    let certificate: Vec<_> = certificate
        .lines()
        .map(|line| format!("      {line}"))
        .collect();
    let shown = "      -----BEGIN CERTIFICATE-----\n      …\n      -----END CERTIFICATE-----";
    let names = blocks.map(|block| {
        let block = block.replace(shown, &certificate.join("\n"));
        let config = config(&block).unwrap_or_else(|e| panic!("{e}"));
        let names = config.upstreams.keys();
        names.map(ToString::to_string).collect()
    });
    let names: Vec<Vec<String>> = names.collect();
    assert_eq!(names, [["openai"], ["bell"]]);
}
