//! An exchange is over when it is: nothing is sent after it, with or without a key, and each has its record.

use std::net::SocketAddr;
use std::time::Duration;

use bailey_proto::egress::v1::RequestHead;
use bailey_types::Service;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::Code;

use crate::exchange::{HOST, Outside, failed, head, of_body, of_head};
use crate::script::{Scripted, Step, answer};
use crate::server::Authority;
use crate::world::PUBLIC;

/// What takes longer than this will not happen.
const LIMIT: Duration = Duration::from_secs(30);

/// A server that answers when it has heard `first` of the body, and then listens to the end; what it heard of the body in all.
async fn early(first: &'static [u8]) -> (SocketAddr, JoinSet<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut heard = JoinSet::new();
    heard.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
        let mut body = vec![0; first.len()];
        stream.read_exact(&mut body).await.unwrap();
        assert_eq!(body, first);
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        stream.write_all(answer).await.unwrap();
        // A connection that is cut may be reset.
        drop(stream.read_to_end(&mut body).await);
        body
    });
    (address, heard)
}

#[tokio::test]
async fn nothing_is_sent_after_an_answer_that_came_early() {
    let outside = Outside::plain("max_concurrent: 1", |_| answer("200 OK", b"")).await;
    let first = b"5\r\nhello\r\n";
    let (address, mut heard) = early(first).await;
    outside.world.beyond.stand(PUBLIC, 80, address);
    let (say, said) = mpsc::channel(64);
    say.send(of_head(head("POST", "/"))).await.unwrap();
    say.send(of_body(b"hello")).await.unwrap();
    let open = outside.open(Service::Engine, said).await.unwrap();
    let got = open.whole().await.unwrap();
    got.end.clone().unwrap();
    assert_eq!(got.text(), "ok");
    // Whether or not anybody still takes it.
    let part = vec![b'x'; 64 << 10];
    for _ in 0..32 {
        drop(say.try_send(of_body(&part)));
    }
    let closed = outside.audited("upstream.closed").await;
    assert_eq!(
        (&closed["sent_bytes"], &closed["cut"]),
        (&5.into(), &serde_json::Value::Null)
    );
    let heard = timeout(LIMIT, heard.join_next()).await.unwrap();
    let heard = heard.unwrap().unwrap();
    assert_eq!(heard, first, "{} bytes", heard.len());
    drop(say);
    outside.world.stop().await;
}

#[tokio::test]
async fn a_connection_is_kept_where_both_have_said_all() {
    let outside = Outside::plain("", |heard| answer("200 OK", &heard.body)).await;
    let post = |bytes| RequestHead {
        body_bytes: bytes,
        ..head("POST", "/")
    };
    for length in [Some(5), None, Some(5)] {
        let got = outside.ask(post(length), &[b"hello"]).await.unwrap();
        assert_eq!(got.text(), "hello");
    }
    assert_eq!(outside.server.opened(), 1);
    outside.world.stop().await;
}

#[tokio::test]
async fn a_key_that_was_revoked_before_the_body_came_is_not_sent() {
    let outside = Outside::keyed("max_concurrent: 1", |_| answer("200 OK", b"")).await;
    let (say, said) = mpsc::channel(2);
    say.send(of_head(head("POST", "/"))).await.unwrap();
    let revoked = async {
        // Its place is taken: it waits for the body.
        while outside.get("").await.is_ok() {}
        *outside.vault.value.lock().unwrap() = Err(Code::FailedPrecondition);
        say.send(of_body(b"late")).await.unwrap();
    };
    let (open, ()) = tokio::join!(outside.open(Service::Engine, said), revoked);
    let words = "does not release the secret";
    failed(open.map(|open| open.head), Code::FailedPrecondition, words);
    assert!(
        outside
            .server
            .heard
            .lock()
            .unwrap()
            .iter()
            .all(|heard| heard.line().starts_with("GET"))
    );
    outside.world.stop().await;
}

#[tokio::test]
async fn what_ends_before_it_is_sent_is_on_record_too() {
    let outside = Outside::keyed("", |_| answer("200 OK", b"")).await;
    // The first message is no head
    let refused = outside.say(Service::Engine, vec![of_body(b"x")]).await;
    failed(
        refused.map(|open| open.head),
        Code::InvalidArgument,
        "must be the head",
    );
    let refused = outside.audited("upstream.refused").await;
    assert_eq!(
        (&refused["client"], &refused["upstream"]),
        (&"engine".into(), &"?".into())
    );
    // The broker is away
    *outside.vault.value.lock().unwrap() = Err(Code::Unavailable);
    failed(
        outside.get("").await,
        Code::Unavailable,
        "the broker's own words",
    );
    let closed = outside.audited("upstream.closed").await;
    assert_eq!(
        (&closed["key_sent"], &closed["status"]),
        (&false.into(), &serde_json::Value::Null)
    );
    let cut = closed["cut"].as_str().unwrap();
    assert!(cut.contains("its key cannot be had now"), "{closed}");
    // The vault refuses it: one record, as a refusal.
    *outside.vault.value.lock().unwrap() = Err(Code::FailedPrecondition);
    let words = "does not release the secret";
    failed(outside.get("").await, Code::FailedPrecondition, words);
    let entries = outside.world.audited(3).await;
    let kinds: Vec<_> = entries.iter().map(|(kind, _)| kind.as_str()).collect();
    let expected = ["upstream.refused", "upstream.closed", "upstream.refused"];
    assert_eq!(kinds, expected);
    outside.world.stop().await;
}

#[tokio::test]
async fn a_key_counts_as_sent_once_a_connection_took_something_of_the_request() {
    let outside = Outside::keyed("", |_| vec![Step::Close]).await;
    let beyond = &outside.world.beyond;
    let trusted = outside.server.address;
    // Its name is not found
    beyond.name(HOST, &[]);
    assert!(outside.get("").await.is_err());
    // Nobody listens
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    beyond.serve(HOST, 443, gone.local_addr().unwrap());
    drop(gone);
    assert!(outside.get("").await.is_err());
    // Somebody else does
    let other = Authority::new();
    let other = Scripted::start(Some(other.acceptor(&[HOST])), |_| answer("200 OK", b"")).await;
    beyond.stand(PUBLIC, 443, other.address);
    assert!(outside.get("").await.is_err());
    // The upstream itself, which hangs up without an answer
    beyond.stand(PUBLIC, 443, trusted);
    assert!(outside.get("").await.is_err());
    assert_eq!(outside.vault.asked.lock().unwrap().len(), 4);
    assert_eq!(outside.server.heard.lock().unwrap().len(), 1);
    let entries = outside.world.audited(4).await;
    let sent: Vec<_> = entries
        .iter()
        .map(|(kind, fields)| (kind.as_str(), &fields["status"], &fields["key_sent"]))
        .collect();
    let closed = |sent: &'static Value| ("upstream.closed", &Value::Null, sent);
    let (no, yes) = (&Value::Bool(false), &Value::Bool(true));
    assert_eq!(sent, [no, no, no, yes].map(closed), "{entries:?}");
    outside.world.stop().await;
}
