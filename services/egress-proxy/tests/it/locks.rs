//! Where an upstream is, by the lock: its address, its certificate, its changes.

use std::fs;

use bailey_types::Service;
use tonic::Code;

use crate::exchange::{HOST, Outside, failed, head, of_head};
use crate::script::{Scripted, Step, answer, chunk};
use crate::world::PUBLIC;

#[tokio::test]
async fn an_upstream_is_where_the_rules_of_egress_let_it_be() {
    let mut outside = Outside::plain("", |_| answer("200 OK", b"")).await;
    let server = outside.server.address;
    for address in ["10.0.0.5", "172.18.0.9", "192.168.1.20"] {
        outside.world.beyond.stand(address, 80, server);
    }
    let at = |address: &str| {
        format!("upstreams:\n  api:\n    url: http://{HOST}\n    address: {address}\n")
    };
    // A name that anybody may own leads to public addresses only, and to none of the stack's own.
    for address in [
        "10.0.0.5",
        "172.18.0.9",
        "127.0.0.1",
        "169.254.169.254",
        "::1",
    ] {
        outside.world.beyond.name(HOST, &[address]);
        failed(
            outside.get("").await,
            Code::FailedPrecondition,
            "write `address:`",
        );
    }
    outside.world.beyond.name(HOST, &["10.0.0.5", PUBLIC]);
    assert_eq!(outside.get("").await.unwrap().head.status, 200);
    assert_eq!(outside.world.beyond.dialled(), [format!("{PUBLIC}:80")]);
    // With its address it is not even looked up.
    let asked = outside.world.beyond.asked.lock().unwrap().len();
    for address in ["192.168.1.20", "172.18.0.9"] {
        outside.world.reconfigure(&at(address));
        assert_eq!(outside.get("").await.unwrap().head.status, 200);
        let dialled = outside.world.beyond.dialled();
        assert_eq!(dialled.last(), Some(&format!("{address}:80")));
    }
    assert_eq!(outside.world.beyond.asked.lock().unwrap().len(), asked);
    outside.world.reconfigure(&at("127.0.0.1"));
    failed(
        outside.get("").await,
        Code::FailedPrecondition,
        "nothing is ever sent to 127.0.0.1",
    );
    outside.world.stop().await;
}

#[tokio::test]
async fn a_name_that_only_a_local_resolver_knows_may_be_private_but_not_of_the_stack() {
    let mut outside = Outside::plain("", |_| answer("200 OK", b"")).await;
    let server = outside.server.address;
    outside.world.beyond.stand("10.0.0.5", 80, server);
    outside.world.beyond.stand("172.18.0.9", 80, server);
    let url = |url: &str| format!("upstreams:\n  api:\n    url: {url}\n");
    outside.world.reconfigure(&url("http://nas.lan"));
    outside.world.beyond.name("nas.lan", &["10.0.0.5"]);
    assert_eq!(outside.get("").await.unwrap().head.status, 200);
    outside.world.reconfigure(&url("http://broker"));
    outside.world.beyond.name("broker", &["172.18.0.9"]);
    failed(
        outside.get("").await,
        Code::FailedPrecondition,
        "a network of the stack itself",
    );
    // And who is not there is said to be away.
    outside.world.reconfigure(&url("http://gone.example.com"));
    failed(
        outside.get("").await,
        Code::Unavailable,
        "its name leads nowhere",
    );
    outside
        .world
        .beyond
        .name("gone.example.com", &["93.184.216.35"]);
    failed(
        outside.get("").await,
        Code::Unavailable,
        "it cannot be reached",
    );
    outside.world.stop().await;
}

#[tokio::test]
async fn only_the_host_of_the_url_is_believed() {
    let mut outside = Outside::keyed("", |_| answer("200 OK", b"")).await;
    assert_eq!(outside.get("").await.unwrap().head.status, 200);
    let url = |host: &str| outside.reconfigured("").replace(HOST, host);
    let (other, unknown) = (
        url("other.example.com"),
        "upstreams:\n  api:\n    url: https://api.example.com\n    secret_ref: the-key\n",
    );
    let plain = Scripted::start(None, |_| vec![Step::Close]).await;
    outside.world.beyond.name("other.example.com", &[PUBLIC]);
    let asked = outside.vault.asked.lock().unwrap().len();
    outside.world.reconfigure(&other);
    failed(
        outside.get("").await,
        Code::FailedPrecondition,
        "TLS: its certificate is for other names",
    );
    // The web's roots do not know the authority of this test.
    outside.world.reconfigure(unknown);
    failed(
        outside.get("").await,
        Code::FailedPrecondition,
        "not trusted here: if it is your own, write it into `ca:`",
    );
    outside.world.beyond.stand(PUBLIC, 443, plain.address);
    failed(outside.get("").await, Code::Unavailable, "TLS failed");
    // Each was asked with a key, and nobody heard it.
    assert_eq!(outside.vault.asked.lock().unwrap().len(), asked + 3);
    assert_eq!(outside.server.heard.lock().unwrap().len(), 1);
    outside.world.stop().await;
}

#[tokio::test]
async fn a_lock_ends_what_it_changes_and_lets_the_rest_be() {
    let mut outside = Outside::keyed("", |_| {
        vec![
            Step::Say(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec()),
            Step::Wait,
            Step::Say(chunk(b"end")),
            Step::Say(chunk(b"")),
        ]
    })
    .await;
    let messages = || vec![of_head(head("GET", ""))];
    // Another lock with the same upstream: what is open goes on, and no connection is kept for what comes.
    let open = outside.say(Service::Engine, messages()).await.unwrap();
    let same = outside.reconfigured("");
    outside.world.reconfigure(&same);
    let next = outside.say(Service::Engine, messages()).await.unwrap();
    outside.server.go_on();
    outside.server.go_on();
    for open in [open, next] {
        let got = open.whole().await.unwrap();
        got.end.clone().unwrap();
        assert_eq!(got.text(), "end");
    }
    outside.server.ended(1).await;
    assert_eq!(outside.server.opened(), 2);
    // A lock that changes it: whatever is open ends by itself, and so does the connection that was kept.
    let open = outside.say(Service::Engine, messages()).await.unwrap();
    let changed = outside.reconfigured("timeout: 5m");
    outside.world.reconfigure(&changed);
    let end = open.whole().await.unwrap().end;
    failed(end, Code::Unavailable, "a new lock changed or removed it");
    outside.server.ended(2).await;
    // And one that takes it away.
    let open = outside.say(Service::Engine, messages()).await.unwrap();
    outside.world.reconfigure("");
    let end = open.whole().await.unwrap().end;
    failed(end, Code::Unavailable, "a new lock changed or removed it");
    failed(
        outside.get("").await,
        Code::NotFound,
        "no such upstream is locked",
    );
    outside.server.ended(3).await;
    // A connection that nobody uses does not outlive its lock either, though the upstream stays as it is.
    outside.world.reconfigure(&same);
    outside.server.go_on();
    assert_eq!(outside.get("").await.unwrap().text(), "end");
    outside.world.reconfigure(&same);
    outside.server.ended(4).await;
    outside.world.stop().await;
}

#[tokio::test]
async fn the_key_is_asked_for_under_the_lock_that_says_where_it_goes() {
    let mut outside = Outside::keyed("", |_| answer("200 OK", b"")).await;
    assert_eq!(outside.get("").await.unwrap().head.status, 200);
    let before = outside.world.lock.serial.0;
    let same = outside.reconfigured("");
    outside.world.reconfigure(&same);
    assert_eq!(outside.get("").await.unwrap().head.status, 200);
    let serials = outside.vault.serials.lock().unwrap().clone();
    assert_eq!(serials, [before, before + 1]);
    outside.world.stop().await;
}

#[tokio::test]
async fn without_a_usable_lock_nothing_is_sent() {
    let outside = Outside::keyed("", |_| answer("200 OK", b"")).await;
    let path = outside.world.stack.config_dir().join("bailey.lock");
    let lock = fs::read(&path).unwrap();
    fs::write(&path, "no lock").unwrap();
    failed(
        outside.get("").await,
        Code::FailedPrecondition,
        "without a usable lock",
    );
    fs::remove_file(&path).unwrap();
    failed(
        outside.get("").await,
        Code::FailedPrecondition,
        "nothing is locked yet",
    );
    fs::write(&path, lock).unwrap();
    assert_eq!(outside.get("").await.unwrap().head.status, 200);
    outside.world.stop().await;
}
