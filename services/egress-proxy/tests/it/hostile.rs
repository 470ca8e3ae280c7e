//! An upstream that gives the key away, or does not keep to HTTP.

use std::io;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tonic::Code;

use crate::exchange::{KEY, Outside, failed, head};
use crate::script::{Step, answer, chunk};

/// Everything that is logged, whatever its level.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const STARTED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

#[tokio::test]
async fn a_key_that_comes_back_is_taken_out_audited_and_never_logged() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone());
    // While there is one subscriber only, tests on other threads, which have none, switch off for this one what they are the first to reach.
    let _another = tracing::Dispatch::new(tracing_subscriber::registry());
    let logging = tracing::subscriber::set_default(subscriber.finish());
    let outside = Outside::keyed("", |heard| {
        let sent = heard.header("authorization").unwrap().to_owned();
        let whole = chunk(format!("you sent {sent}!").as_bytes());
        // In pieces of two bytes, each a chunk and a record of TLS of its own.
        let pieces = format!("and {sent} again").into_bytes();
        let pieces = pieces.chunks(2).map(|piece| Step::Say(chunk(piece)));
        let json = serde_json::to_vec(&serde_json::json!({ "key": KEY })).unwrap();
        let encoded = STANDARD.encode(format!("a:{KEY}:b"));
        let head = STARTED.replace("\r\n\r\n", &format!("\r\nx-echo: {sent}\r\n\r\n"));
        let mut steps = vec![Step::Say(head.into_bytes()), Step::Say(whole)];
        steps.extend(pieces);
        steps.push(Step::Say(chunk(&json)));
        steps.push(Step::Say(chunk(encoded.as_bytes())));
        steps.push(Step::Say(chunk(b"")));
        steps
    })
    .await;
    let got = outside.get("").await.unwrap();
    got.end.clone().unwrap();
    let text = got.text();
    assert!(
        text.starts_with("you sent Bearer [secret:the-key]!and Bearer [secret:the-key] again"),
        "{text}"
    );
    assert!(text.contains("{\"key\":\"[secret:the-key]\"}"), "{text}");
    assert_eq!(text.matches("[secret:the-key]").count(), 4, "{text}");
    assert_eq!(
        got.header("x-echo").as_deref(),
        Some("Bearer [secret:the-key]")
    );
    let alert = outside.audited("upstream.key_returned").await;
    assert_eq!(
        (&alert["upstream"], &alert["secret"], &alert["part"]),
        (&"api".into(), &"the-key".into(), &"head".into())
    );
    let closed = outside.audited("upstream.closed").await;
    assert_eq!(
        (&closed["key_returned"], &closed["cut"]),
        (&5.into(), &serde_json::Value::Null)
    );
    // Said once, however often it came.
    let entries = outside.world.audited(2).await;
    let alerts = entries
        .iter()
        .filter(|(kind, _)| kind == "upstream.key_returned");
    assert_eq!(alerts.count(), 1);
    outside.world.stop().await;
    drop(logging);
    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(
        logged.contains("sent its key the-key back in the head"),
        "{logged}"
    );
    // What libraries say when they are asked to say all is among it.
    assert!(
        logged.contains("TRACE") && logged.contains("h2::"),
        "{logged}"
    );
    let encoded = STANDARD.encode(KEY);
    for spelling in [KEY, "sk-live", "89=AbCd", &encoded, "/v1"] {
        assert!(!logged.contains(spelling), "{spelling}");
    }
}

#[tokio::test]
async fn a_header_that_is_named_by_the_key_is_left_out() {
    let outside = Outside::keyed("header: x-key", |heard| {
        let key = heard.header("x-key").unwrap();
        answer(&format!("200 OK\r\nX-{key}: a\r\nX-Other: b"), b"")
    })
    .await;
    // Names come in lower case, so the spelling that was sent is not in them any more.
    *outside.vault.value.lock().unwrap() = Ok("SECRET-in-Mixed-Case".to_owned());
    let got = outside.get("").await.unwrap();
    assert_eq!(got.header("x-other").as_deref(), Some("b"));
    assert_eq!(got.head.headers.len(), 1, "{:?}", got.head);
    let alert = outside.audited("upstream.key_returned").await;
    assert_eq!(
        (&alert["secret"], &alert["part"]),
        (&"the-key".into(), &"head".into())
    );
    let closed = outside.audited("upstream.closed").await;
    assert_eq!(closed["key_returned"], 1);
    outside.world.stop().await;
}

#[tokio::test]
async fn what_comes_in_parts_or_in_other_characters_is_not_handed_on_with_a_key() {
    let script = |heard: &crate::script::Heard| match heard.line().split(' ').nth(1) {
        Some(path) if path.ends_with("/part") => answer("206 Partial Content", b"a part"),
        Some(path) if path.ends_with("/utf16") => answer(
            "200 OK\r\nContent-Type: text/plain; Charset=\"UTF-16le\"",
            b"x\0",
        ),
        _ => answer(
            "200 OK\r\nContent-Type: text/plain; charset=utf-8; format=flowed",
            b"text",
        ),
    };
    let outside = Outside::keyed("", script).await;
    let refused = outside.get("/part").await;
    failed(refused, Code::FailedPrecondition, "a part (206)");
    let refused = outside.get("/utf16").await;
    failed(refused, Code::FailedPrecondition, "another charset");
    assert_eq!(outside.get("/text").await.unwrap().text(), "text");
    outside.world.stop().await;
    // Without a key there is nothing to look for.
    let outside = Outside::plain("", script).await;
    assert_eq!(outside.get("/part").await.unwrap().head.status, 206);
    assert_eq!(outside.get("/utf16").await.unwrap().text(), "x\0");
    outside.world.stop().await;
}

#[tokio::test]
async fn what_stands_for_a_key_does_not_make_an_answer_larger_than_it_may_be() {
    // Each key of 6 bytes becomes 16.
    const KEYS: usize = 10_000;
    let outside = Outside::keyed("", |heard| {
        let times = if heard.line().contains("/all") {
            500
        } else {
            3
        };
        vec![
            Step::Say(STARTED.as_bytes().to_vec()),
            Step::Repeat(chunk("k3y-ab".repeat(KEYS).as_bytes()), times),
            Step::Say(chunk(b"")),
        ]
    })
    .await;
    *outside.vault.value.lock().unwrap() = Ok("k3y-ab".to_owned());
    let whole = outside.get("").await.unwrap();
    whole.end.clone().unwrap();
    assert_eq!(whole.body.len(), 3 * KEYS * "[secret:the-key]".len());
    // 29 MiB would become 76.
    let all = outside.get("/all").await.unwrap();
    assert!(all.body.len() <= 64 << 20, "{}", all.body.len());
    let words = "its answer is larger than 64 MiB";
    failed(all.end, Code::FailedPrecondition, words);
    outside.world.stop().await;
}

#[tokio::test]
async fn what_is_encoded_is_not_handed_on() {
    let outside = Outside::keyed("", |heard| match heard.line().split(' ').nth(1) {
        Some("/v1/gzip") => answer("200 OK\r\nContent-Encoding: gzip", b"\x1f\x8b"),
        Some("/v1/coding") => vec![Step::Say(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n".to_vec(),
        )],
        _ => answer("200 OK\r\nContent-Encoding: identity", b"plain"),
    })
    .await;
    let refused = outside.get("/gzip").await;
    failed(refused, Code::FailedPrecondition, "an encoding (gzip)");
    let refused = outside.get("/coding").await;
    failed(
        refused,
        Code::FailedPrecondition,
        "an encoding (another one)",
    );
    assert_eq!(outside.get("/plain").await.unwrap().text(), "plain");
    outside.world.stop().await;
}

#[tokio::test]
async fn what_belongs_to_the_connection_and_cookies_stay_behind() {
    let outside = Outside::keyed("", |_| {
        answer(
            "200 OK\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nSet-Cookie: a=b\r\nX-End: 1",
            b"x",
        )
    })
    .await;
    let got = outside.get("").await.unwrap();
    let names: Vec<_> = got.head.headers.iter().map(|h| h.name.as_str()).collect();
    assert_eq!(names, ["x-end"]);
    outside.world.stop().await;
}

#[tokio::test]
async fn what_is_no_answer_is_said_to_be_none() {
    let said = |text: &str| vec![Step::Say(text.as_bytes().to_vec()), Step::Close];
    let outside = Outside::keyed("", move |heard| {
        match heard.line().split(' ').nth(1).unwrap_or_default() {
            "/v1/garbage" => said(&format!("{KEY}\r\n\r\n")),
            "/v1/upgrade" => said(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            ),
            "/v1/status" => said("HTTP/1.1 999 Strange\r\nContent-Length: 0\r\n\r\n"),
            "/v1/silence" => said(""),
            "/v1/half" => said("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfive!"),
            "/v1/two" => {
                said("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab")
            }
            "/v1/close" => said("HTTP/1.1 200 OK\r\n\r\nuntil it hangs up"),
            "/v1/early" => {
                said("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            }
            _ => said("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        }
    })
    .await;
    for (path, code, words) in [
        ("/garbage", Code::Unavailable, "not HTTP/1.1"),
        ("/upgrade", Code::Unavailable, "a status that"),
        ("/status", Code::Unavailable, "a status that"),
        ("/silence", Code::Unavailable, "broke off"),
        ("/two", Code::Unavailable, "not HTTP/1.1"),
    ] {
        failed(outside.get(path).await, code, words);
    }
    let half = outside.get("/half").await.unwrap();
    assert_eq!(half.text(), "five!");
    failed(half.end, Code::Unavailable, "broke off");
    let whole = outside.get("/close").await.unwrap();
    whole.end.clone().unwrap();
    assert_eq!(whole.text(), "until it hangs up");
    assert_eq!(outside.get("/early").await.unwrap().head.status, 200);
    outside.world.stop().await;
}

#[tokio::test]
async fn a_head_request_has_headers_and_no_body() {
    let outside = Outside::keyed("", |_| {
        vec![Step::Say(
            b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\nX-Id: 7\r\n\r\n".to_vec(),
        )]
    })
    .await;
    let got = outside.ask(head("HEAD", ""), &[]).await.unwrap();
    got.end.clone().unwrap();
    assert_eq!(
        (got.body.len(), got.header("x-id").as_deref()),
        (0, Some("7"))
    );
    outside.world.stop().await;
}
