//! What engine and worker can do with an upstream, and what they cannot.

use bailey_proto::egress::v1::RequestHead;
use bailey_types::Service;
use tonic::Code;

use crate::exchange::{KEY, Outside, SECRET, failed, head, header};
use crate::script::answer;
use crate::world::PUBLIC;

#[tokio::test]
async fn a_client_gets_an_answer_with_a_key_that_it_never_has() {
    let more = "headers: {api-version: \"2\"}";
    let outside = Outside::keyed(more, |_| {
        answer("200 OK\r\nContent-Type: text/plain\r\nX-Id: 7", b"hello")
    })
    .await;
    let asked = RequestHead {
        headers: vec![header("Accept", "text/plain")],
        ..head("GET", "/models?limit=1")
    };
    let got = outside.ask(asked, &[]).await.unwrap();
    got.end.clone().unwrap();
    assert_eq!((got.head.status, got.text()), (200, "hello"));
    assert!(got.head.key_sent);
    assert_eq!(got.header("content-type").as_deref(), Some("text/plain"));
    assert_eq!(got.header("x-id").as_deref(), Some("7"));
    let heard = outside.server.request(0);
    assert_eq!(heard.line(), "GET /v1/models?limit=1 HTTP/1.1");
    let bearer = format!("Bearer {KEY}");
    for (name, value) in [
        ("host", "api.example.com"),
        ("authorization", bearer.as_str()),
        ("accept", "text/plain"),
        ("accept-encoding", "identity"),
        ("api-version", "2"),
    ] {
        assert_eq!(heard.header(name), Some(value), "{}", heard.head);
    }
    assert_eq!(heard.head.lines().count(), 6, "{}", heard.head);
    let asked = outside.vault.asked.lock().unwrap().clone();
    assert_eq!(asked, [("api".to_owned(), "engine".to_owned())]);
    // Recorded with everything but what was said.
    let closed = outside.audited("upstream.closed").await;
    for (name, value) in [
        ("upstream", "api".into()),
        ("client", "engine".into()),
        ("host", "api.example.com:443".into()),
        ("address", PUBLIC.into()),
        ("method", "GET".into()),
        ("status", 200.into()),
        ("sent_bytes", 0.into()),
        ("received_bytes", 5.into()),
        ("key_sent", true.into()),
        ("key_returned", 0.into()),
        ("cut", serde_json::Value::Null),
    ] {
        assert_eq!(closed[name], value, "{name} in {closed}");
    }
    assert!(!closed.to_string().contains("models"), "{closed}");
    outside.world.stop().await;
}

#[tokio::test]
async fn an_upstream_without_a_key_gets_none() {
    let outside = Outside::plain("", |_| answer("204 No Content", b"")).await;
    let got = outside.get("").await.unwrap();
    assert_eq!((got.head.status, got.head.key_sent), (204, false));
    let heard = outside.server.request(0);
    assert_eq!(
        (heard.line(), heard.header("authorization")),
        ("GET / HTTP/1.1", None)
    );
    assert_eq!(outside.vault.asked.lock().unwrap().len(), 0);
    assert_eq!(outside.world.beyond.dialled(), [format!("{PUBLIC}:80")]);
    outside.world.stop().await;
}

#[tokio::test]
async fn bodies_pass_with_and_without_a_length_known_before() {
    let outside = Outside::keyed("", |heard| answer("200 OK", &heard.body)).await;
    let post = |bytes| RequestHead {
        body_bytes: bytes,
        ..head("POST", "/echo")
    };
    for (length, parts, wanted) in [
        (
            Some(10),
            &[&b"hello"[..], b"", b"world"][..],
            ("content-length", "10"),
        ),
        (
            None,
            &[b"hello", b"world"],
            ("transfer-encoding", "chunked"),
        ),
        (None, &[], ("content-length", "0")),
        (Some(0), &[], ("content-length", "0")),
    ] {
        let got = outside.ask(post(length), parts).await.unwrap();
        assert_eq!(got.body, parts.concat());
        let heard = outside.server.heard.lock().unwrap().pop().unwrap();
        let other = ["content-length", "transfer-encoding"].map(|name| heard.header(name));
        assert_eq!(
            heard.header(wanted.0),
            Some(wanted.1),
            "{length:?} {parts:?}"
        );
        assert_eq!(other.iter().flatten().count(), 1, "{}", heard.head);
    }
    let large = vec![b'x'; 64 << 10];
    let parts = [large.as_slice(); 5];
    let got = outside.ask(post(Some(5 << 16)), &parts).await.unwrap();
    assert_eq!(got.body.len(), 5 << 16);
    outside.world.stop().await;
}

#[tokio::test]
async fn only_its_clients_reach_an_upstream() {
    let outside = Outside::keyed("clients: [worker]", |_| answer("200 OK", b"")).await;
    let words = "engine is not among its clients";
    failed(outside.get("").await, Code::PermissionDenied, words);
    for other in [Service::Gateway, Service::Runner, Service::Broker] {
        let refused = outside.ask_as(other, head("GET", ""), &[]).await;
        failed(refused, Code::PermissionDenied, "may not call");
    }
    let unknown = RequestHead {
        upstream: "other".to_owned(),
        ..head("GET", "")
    };
    let refused = outside.ask_as(Service::Worker, unknown, &[]).await;
    failed(
        refused,
        Code::NotFound,
        "the upstream other: no such upstream is locked",
    );
    assert_eq!(outside.world.beyond.dialled(), [""; 0]);
    let refused = outside.audited("upstream.refused").await;
    assert_eq!(
        (&refused["client"], &refused["upstream"]),
        (&"engine".into(), &"api".into())
    );
    let got = outside.ask_as(Service::Worker, head("GET", ""), &[]).await;
    assert_eq!(got.unwrap().head.status, 200);
    assert_eq!(outside.vault.asked.lock().unwrap()[0].1, "worker");
    outside.world.stop().await;
}

#[tokio::test]
async fn what_is_asked_keeps_to_the_rules() {
    let outside = Outside::keyed("", |_| answer("200 OK", b"")).await;
    let with = |name: &str| RequestHead {
        headers: vec![header(name, "x")],
        ..head("GET", "")
    };
    for (asked, words) in [
        (head("CONNECT", ""), "the method must be"),
        (head("GET", "/../admin"), "segment"),
        (head("GET", "/%2e%2e/admin"), "escape"),
        (head("GET", "//evil.example.com/"), "two slashes"),
        (
            head("GET", "https://evil.example.com/"),
            "starts with a slash",
        ),
        (with("authorization"), "comes from the vault"),
        (with("host"), "egress-proxy alone"),
        (with("transfer-encoding"), "egress-proxy alone"),
        (with("x-host"), "another path, method or host"),
        (with("x_forwarded_host"), "a name with `_`"),
        (with("range"), "not sent with a key"),
        (head("GET", "/..%3b/admin"), "escape"),
    ] {
        let refused = outside.ask(asked, &[]).await;
        failed(refused, Code::InvalidArgument, words);
    }
    assert_eq!(outside.server.opened(), 0);
    assert_eq!(outside.vault.asked.lock().unwrap().len(), 0);
    // Their neighbours.
    for asked in [
        head("DELETE", "/a..b"),
        head("GET", "/a%20b?c=%2e%2e"),
        with("x-request-id"),
    ] {
        assert_eq!(outside.ask(asked, &[]).await.unwrap().head.status, 200);
    }
    outside.world.stop().await;
}

#[tokio::test]
async fn a_redirect_is_handed_back_and_not_followed() {
    let outside = Outside::keyed("", |_| {
        answer(
            "302 Found\r\nLocation: https://evil.example.com/?key=1",
            b"there",
        )
    })
    .await;
    let got = outside.get("/old").await.unwrap();
    assert_eq!((got.head.status, got.text()), (302, "there"));
    let location = got.header("location");
    assert_eq!(location.as_deref(), Some("https://evil.example.com/?key=1"));
    assert_eq!(outside.server.opened(), 1);
    assert_eq!(
        *outside.world.beyond.asked.lock().unwrap(),
        ["api.example.com."]
    );
    outside.world.stop().await;
}

#[tokio::test]
async fn a_revoked_key_is_not_sent_on_a_connection_that_was_kept() {
    let outside = Outside::keyed("", |_| answer("200 OK", b"")).await;
    assert_eq!(outside.get("").await.unwrap().head.status, 200);
    let words =
        "does not release the secret the-key for it (the broker's own words): `bailey status`";
    *outside.vault.value.lock().unwrap() = Err(Code::FailedPrecondition);
    failed(outside.get("").await, Code::FailedPrecondition, words);
    // An upstream that the broker does not know is one of another lock.
    *outside.vault.value.lock().unwrap() = Err(Code::NotFound);
    failed(outside.get("").await, Code::Unavailable, "different locks");
    *outside.vault.value.lock().unwrap() = Err(Code::Unavailable);
    failed(
        outside.get("").await,
        Code::Unavailable,
        "the broker's own words",
    );
    assert_eq!(outside.server.heard.lock().unwrap().len(), 1);
    // The next key goes over the same connection.
    *outside.vault.value.lock().unwrap() = Ok("another-key\n".to_owned());
    assert_eq!(outside.get("").await.unwrap().head.status, 200);
    assert_eq!(
        outside.server.request(1).header("authorization"),
        Some("Bearer another-key")
    );
    assert_eq!(outside.server.opened(), 1);
    outside.world.stop().await;
}

#[tokio::test]
async fn a_key_that_cannot_be_sent_is_named_and_not_shown() {
    let outside = Outside::keyed("", |_| answer("200 OK", b"")).await;
    for value in ["two\nlines-of-it", "tiny5", "", "schlüssel-bund"] {
        *outside.vault.value.lock().unwrap() = Ok(value.to_owned());
        let refused = outside.get("").await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(refused.message().contains(SECRET), "{refused}");
        let shown = !value.is_empty() && refused.message().contains(value);
        assert!(!shown, "{refused}");
    }
    assert_eq!(outside.server.opened(), 0);
    outside.world.stop().await;
}

#[tokio::test]
async fn a_key_of_another_lock_is_not_sent() {
    let outside = Outside::keyed("", |_| answer("200 OK", b"")).await;
    "another-secret".clone_into(&mut outside.vault.secret.lock().unwrap());
    failed(outside.get("").await, Code::Unavailable, "different locks");
    assert_eq!(outside.server.opened(), 0);
    SECRET.clone_into(&mut outside.vault.secret.lock().unwrap());
    assert_eq!(outside.get("").await.unwrap().head.status, 200);
    outside.world.stop().await;
}

#[tokio::test]
async fn refusals_beyond_a_budget_are_only_counted() {
    let outside = Outside::keyed("clients: [worker]", |_| answer("200 OK", b"")).await;
    for _ in 0..40 {
        let words = "not among its clients";
        failed(outside.get("").await, Code::PermissionDenied, words);
    }
    // What has passed is recorded all the same.
    let got = outside.ask_as(Service::Worker, head("GET", ""), &[]).await;
    assert_eq!(got.unwrap().head.status, 200);
    let entries = outside.world.audited(33).await;
    let kinds = |kind: &str| entries.iter().filter(|(found, _)| found == kind).count();
    assert_eq!(
        (kinds("upstream.refused"), kinds("upstream.closed")),
        (32, 1)
    );
    outside.world.stop().await;
}
