//! What Tailscale would make of tailscale/serve.json and tailscale/policy.hujson: it ignores unknown keys in the one, and nobody runs
//! the tests of the other before it is pasted into a console.

mod policy;

use std::collections::BTreeMap;

use serde::Deserialize;
use stack_tests::checkout;

use crate::policy::Policy;

/// `ipn.ServeConfig` of Tailscale. Its own reader ignores what it does not know; this one does not.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct ServeConfig {
    #[serde(rename = "TCP", default)]
    tcp: BTreeMap<u16, TcpPortHandler>,
    #[serde(default)]
    web: BTreeMap<String, WebServer>,
    #[serde(default)]
    allow_funnel: BTreeMap<String, bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TcpPortHandler {
    #[serde(rename = "HTTPS", default)]
    https: bool,
    #[serde(rename = "HTTP", default)]
    http: bool,
    #[serde(rename = "TCPForward")]
    tcp_forward: Option<String>,
    #[serde(rename = "TerminateTLS")]
    terminate_tls: Option<String>,
    #[serde(rename = "ProxyProtocol")]
    proxy_protocol: Option<u8>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct WebServer {
    handlers: BTreeMap<String, HttpHandler>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct HttpHandler {
    path: Option<String>,
    proxy: Option<String>,
    text: Option<String>,
    redirect: Option<String>,
    #[serde(default)]
    accept_app_caps: Vec<String>,
}

fn serve_config() -> ServeConfig {
    let text = std::fs::read_to_string(checkout().join("tailscale/serve.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn every_https_port_has_a_web_server_and_every_web_server_a_port() {
    let config = serve_config();
    let mut served: Vec<u16> = Vec::new();
    for name in config.web.keys() {
        let (host, port) = name.rsplit_once(':').unwrap();
        // The only name that is known before the node has joined; containerboot replaces it.
        assert_eq!(host, "${TS_CERT_DOMAIN}");
        served.push(port.parse().unwrap());
    }
    let terminating: Vec<u16> = config
        .tcp
        .iter()
        .filter(|(_, handler)| handler.https)
        .map(|(port, _)| *port)
        .collect();
    assert_eq!(
        terminating, served,
        "a handshake on a port without a web server fails"
    );
}

#[test]
fn it_serves_https_on_443_and_nothing_else() {
    let config = serve_config();
    assert_eq!(config.tcp.keys().copied().collect::<Vec<_>>(), [443]);
    for handler in config.tcp.values() {
        assert!(
            handler.https && !handler.http,
            "identity headers exist on HTTP handlers only, and in clear they are worth nothing"
        );
        assert!(
            handler.tcp_forward.is_none()
                && handler.terminate_tls.is_none()
                && handler.proxy_protocol.is_none()
        );
    }
}

#[test]
fn it_proxies_everything_to_the_gateways_tailnet_address() {
    for server in serve_config().web.values() {
        assert_eq!(
            server.handlers.keys().collect::<Vec<_>>(),
            ["/"],
            "a longer mount would be stripped from the path"
        );
        for handler in server.handlers.values() {
            assert_eq!(
                handler.proxy.as_deref(),
                Some("http://gateway-tailnet:8080")
            );
            assert!(
                handler.path.is_none() && handler.text.is_none() && handler.redirect.is_none(),
                "exactly one of them"
            );
            assert!(handler.accept_app_caps.is_empty());
        }
    }
}

#[test]
fn the_public_internet_is_never_let_in() {
    let config = serve_config();
    assert!(
        config
            .web
            .keys()
            .all(|name| config.allow_funnel.get(name) == Some(&false))
    );
    assert!(config.allow_funnel.values().all(|allowed| !allowed));
}

#[test]
fn an_unknown_key_is_an_error() {
    let handler_in_tcp = r#"{"TCP": {"443": {"HTTPS": true, "Handler": {}}}}"#;
    assert!(serde_json::from_str::<ServeConfig>(handler_in_tcp).is_err());
}

#[test]
fn the_policys_own_tests_pass() {
    let policy = Policy::read(&checkout().join("tailscale/policy.hujson"));
    assert!(
        policy.tests.iter().any(|test| !test.accept.is_empty())
            && policy.tests.iter().any(|test| !test.deny.is_empty())
    );
    let failures = policy.failures();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn the_policy_opens_one_port_of_one_tag() {
    let policy = Policy::read(&checkout().join("tailscale/policy.hujson"));
    for grant in &policy.grants {
        assert_eq!(
            (grant.dst.as_slice(), grant.ip.as_slice()),
            (&["tag:bailey".to_owned()][..], &["tcp:443".to_owned()][..])
        );
    }
    for port in 1..=u16::MAX {
        assert_eq!(
            policy.allows("alice@example.com", "tag:bailey", port),
            port == 443,
            "{port}"
        );
    }
}

#[test]
fn a_policy_whose_tests_fail_is_noticed() {
    let mut policy = Policy::read(&checkout().join("tailscale/policy.hujson"));
    policy.grants.clear();
    assert_eq!(
        policy.failures(),
        ["alice@example.com must reach tag:bailey:443 and does not"]
    );
}
