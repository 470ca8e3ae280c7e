use std::collections::BTreeMap;

use super::*;

fn upstream(lines: &str) -> Upstream {
    let text = format!("upstreams:\n  u:\n    url: https://api.example.com/v1\n{lines}");
    let files = BTreeMap::from([(bailey_config::ROOT.to_owned(), text)]);
    let config = bailey_config::parse(&files).unwrap();
    config.upstreams[&"u".parse().unwrap()].clone()
}

fn keyed() -> Upstream {
    upstream("    secret_ref: k\n    header: x-let-me-in\n    headers: {version: \"2\"}\n")
}

fn head(method: &str, path: &str, headers: &[(&str, &str)]) -> RequestHead {
    let header = |(name, value): &(&str, &str)| Header {
        name: (*name).to_owned(),
        value: value.as_bytes().to_vec().into(),
    };
    RequestHead {
        upstream: "u".to_owned(),
        method: method.to_owned(),
        path: path.to_owned(),
        headers: headers.iter().map(header).collect(),
        body_bytes: None,
        origin: None,
    }
}

fn refused(head: &RequestHead) -> String {
    match Asked::parse(head, &keyed()) {
        Err(why @ Why::Asked(_)) => why.to_string(),
        Err(other) => panic!("{other}"),
        Ok(asked) => panic!("{} passes", asked.uri),
    }
}

#[test]
fn what_is_sent_is_below_the_base_with_the_configurations_headers() {
    let asked = head(
        "POST",
        "/chat?stream=1",
        &[("Accept", "text/plain"), ("accept", "b")],
    );
    let asked = Asked::parse(&asked, &keyed()).unwrap_or_else(|why| panic!("{why}"));
    assert_eq!(asked.uri, "https://api.example.com/v1/chat?stream=1");
    assert_eq!((asked.method, asked.body_bytes), (Method::POST, None));
    let sent: Vec<_> = asked
        .headers
        .iter()
        .map(|(n, v)| format!("{n}: {}", v.to_str().unwrap()))
        .collect();
    assert_eq!(
        sent,
        [
            "accept: text/plain",
            "accept: b",
            "version: 2",
            "accept-encoding: identity"
        ]
    );
    let base = Asked::parse(&head("GET", "", &[]), &keyed()).unwrap_or_else(|why| panic!("{why}"));
    assert_eq!((base.uri.path(), base.body_bytes), ("/v1", Some(0)));
}

#[test]
fn only_these_methods() {
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] {
        assert!(
            Asked::parse(&head(method, "", &[]), &keyed()).is_ok(),
            "{method}"
        );
    }
    for method in [
        "CONNECT",
        "OPTIONS",
        "TRACE",
        "get",
        "",
        "GET ",
        "POST /x HTTP/1.1\r\n",
    ] {
        assert!(
            refused(&head(method, "", &[])).contains("method"),
            "{method}"
        );
    }
}

#[test]
fn nothing_leads_out_of_the_base() {
    for path in [
        "/..",
        "/%2e%2e/admin",
        "//evil",
        "https://evil.example.com/",
        "@evil.example.com/",
        ".evil.example.com/",
        ":444/",
        "/a\\..\\b",
        "/a\r\nx: y",
    ] {
        refused(&head("GET", path, &[]));
    }
}

#[test]
fn some_headers_are_not_the_clients() {
    for (name, wanted) in [
        ("host", "egress-proxy alone"),
        ("Content-Length", "egress-proxy alone"),
        ("transfer-encoding", "egress-proxy alone"),
        ("accept-encoding", "egress-proxy alone"),
        ("expect", "egress-proxy alone"),
        ("connection", "egress-proxy alone"),
        ("proxy-authorization", "egress-proxy alone"),
        ("te", "egress-proxy alone"),
        ("upgrade", "egress-proxy alone"),
        ("Authorization", "comes from the vault"),
        ("cookie", "cookies"),
        ("X-Let-Me-In", "carries the key"),
        ("version", "set by the configuration"),
        ("x-http-method-override", "another path, method or host"),
        ("x-original-url", "another path, method or host"),
        ("x-forwarded-host", "another path, method or host"),
        ("forwarded", "another path, method or host"),
        ("x_http_method_override", "a name with `_`"),
        ("x_let_me_in", "a name with `_`"),
        ("X-Host", "another path, method or host"),
        ("x-forwarded", "another path, method or host"),
        ("x-http-host-override", "another path, method or host"),
        ("x-url", "another path, method or host"),
        ("x-method", "another path, method or host"),
        ("range", "not sent with a key"),
        ("if-range", "not sent with a key"),
        ("accept-charset", "not sent with a key"),
        ("a b", "not the name of a header"),
        ("a:", "not the name of a header"),
        ("", "not the name of a header"),
    ] {
        let said = refused(&head("GET", "", &[(name, "x")]));
        assert!(said.contains(wanted), "{name}: {said}");
    }
    assert!(refused(&head("GET", "", &[("a", "x\r\nhost: y")])).contains("control characters"));
    // Its neighbours pass.
    for name in [
        "content-type",
        "x-request-id",
        "x-api-key",
        "authorization-info",
        "user-agent",
    ] {
        assert!(
            Asked::parse(&head("GET", "", &[(name, "x")]), &keyed()).is_ok(),
            "{name}"
        );
    }
    // Without a key of its own the header is free, but for authorization.
    let plain = upstream("");
    assert!(Asked::parse(&head("GET", "", &[("x-let-me-in", "x")]), &plain).is_ok());
    assert!(Asked::parse(&head("GET", "", &[("range", "bytes=0-4")]), &plain).is_ok());
    assert!(Asked::parse(&head("GET", "", &[("authorization", "x")]), &plain).is_err());
    // Whichever of the two spellings the configuration has.
    let folded = upstream("    secret_ref: k\n    header: x_key\n    headers: {a_b: x}\n");
    for name in ["x-key", "a-b"] {
        assert!(
            Asked::parse(&head("GET", "", &[(name, "x")]), &folded).is_err(),
            "{name}"
        );
    }
}

#[test]
fn bounds_hold_to_the_byte() {
    let many = |n: usize| vec![("a", "x"); n];
    assert!(Asked::parse(&head("GET", "", &many(64)), &keyed()).is_ok());
    refused(&head("GET", "", &many(65)));
    let long = |n: usize| "x".repeat(n - 1);
    assert!(Asked::parse(&head("GET", "", &[("a", &long(16 << 10))]), &keyed()).is_ok());
    refused(&head("GET", "", &[("a", &long((16 << 10) + 1))]));
    let with = |method: &str, bytes: u64| RequestHead {
        body_bytes: Some(bytes),
        ..head(method, "", &[])
    };
    assert!(Asked::parse(&with("POST", BODY_LIMIT_BYTES), &keyed()).is_ok());
    refused(&with("POST", BODY_LIMIT_BYTES + 1));
    assert!(Asked::parse(&with("GET", 0), &keyed()).is_ok());
    refused(&with("GET", 1));
}
