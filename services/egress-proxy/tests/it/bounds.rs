//! Every bound of an exchange, and its neighbour.

use std::future::poll_fn;
use std::task::Poll;

use bailey_proto::egress::v1::{ExchangeRequest, RequestHead};
use bailey_types::Service;
use tokio::sync::mpsc;
use tonic::Code;

use crate::exchange::{Open, Outside, failed, head, of_body, of_head};
use crate::script::{Heard, Step, answer, chunk};

const STARTED: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

fn say(bytes: &[u8]) -> Step {
    Step::Say(bytes.to_vec())
}

#[tokio::test]
async fn an_exchange_takes_no_longer_than_its_timeout() {
    let outside = Outside::keyed("timeout: 1s", |heard| {
        match heard.line().split(' ').nth(1).unwrap_or_default() {
            "/v1/never" => vec![Step::Wait],
            "/v1/half" => vec![say(STARTED), say(&chunk(b"some")), Step::Wait],
            _ => answer("200 OK", b"all"),
        }
    })
    .await;
    let words = "the exchange took longer than its `timeout` of 1s";
    failed(outside.get("/never").await, Code::DeadlineExceeded, words);
    let half = outside.get("/half").await.unwrap();
    assert_eq!(half.text(), "some");
    failed(half.end, Code::DeadlineExceeded, words);
    // Both connections are gone with their exchanges.
    outside.server.ended(2).await;
    let closed = outside.audited("upstream.closed").await;
    assert!(closed["cut"].as_str().unwrap().contains(words), "{closed}");
    assert_eq!(outside.get("").await.unwrap().text(), "all");
    outside.world.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_listen_does_not_hold_its_place() {
    let outside = Outside::plain("timeout: 1s\nmax_concurrent: 1", |heard| {
        match heard.line().split(' ').nth(1).unwrap_or_default() {
            // More than all windows and buffers in between take.
            "/flood" => vec![
                say(STARTED),
                Step::Repeat(chunk(&[b'x'; 1 << 16]), 800),
                say(&chunk(b"")),
            ],
            _ => answer("200 OK", b""),
        }
    })
    .await;
    let messages = vec![of_head(head("GET", "/flood"))];
    let open = outside.say(Service::Engine, messages).await.unwrap();
    failed(
        outside.get("").await,
        Code::ResourceExhausted,
        "an exchange of engine with it is open",
    );
    let closed = outside.audited("upstream.closed").await;
    assert!(
        closed["cut"].as_str().unwrap().contains("`timeout`"),
        "{closed}"
    );
    assert_eq!(outside.get("").await.unwrap().head.status, 200);
    // What was on its way still arrives, and is not taken for the whole.
    let end = open.whole().await.unwrap().end;
    failed(end, Code::DeadlineExceeded, "`timeout`");
    outside.world.stop().await;
}

#[tokio::test]
async fn a_client_that_goes_away_ends_its_exchange() {
    let outside = Outside::keyed("max_concurrent: 1", |heard| {
        match heard.line().split(' ').nth(1).unwrap_or_default() {
            "/v1/never" => vec![Step::Wait],
            "/v1/half" => vec![say(STARTED), say(&chunk(b"some")), Step::Wait],
            _ => answer("200 OK", b""),
        }
    })
    .await;
    // Before the answer has begun
    let waiting = outside.get("/never");
    tokio::select! {
        _ = waiting => panic!("it was answered"),
        () = outside.server.asked(1) => {}
    }
    outside.server.ended(1).await;
    let closed = outside.audited("upstream.closed").await;
    assert_eq!(closed["cut"], "the client went away");
    // And in the middle of it
    let messages = vec![of_head(head("GET", "/half"))];
    let mut open = outside.say(Service::Engine, messages).await.unwrap();
    assert_eq!(open.part().await.unwrap().as_deref(), Some(&b"some"[..]));
    drop(open);
    outside.server.ended(2).await;
    let entries = outside.world.audited(2).await;
    assert_eq!(entries[1].1["cut"], "the client went away", "{entries:?}");
    assert_eq!(outside.get("").await.unwrap().head.status, 200);
    outside.world.stop().await;
}

#[tokio::test]
async fn an_upstream_has_so_many_exchanges_at_once() {
    let outside = Outside::keyed("max_concurrent: 2\nclients: [engine]", |_| {
        vec![say(STARTED), Step::Wait, say(&chunk(b""))]
    })
    .await;
    let open = async || {
        let messages = vec![of_head(head("GET", ""))];
        outside.say(Service::Engine, messages).await
    };
    let (first, second) = (open().await.unwrap(), open().await.unwrap());
    failed(
        outside.get("").await,
        Code::ResourceExhausted,
        "2 exchanges with it are open",
    );
    outside.server.go_on();
    outside.server.go_on();
    for open in [first, second] {
        open.whole().await.unwrap().end.unwrap();
    }
    outside.server.go_on();
    outside.get("").await.unwrap().end.unwrap();
    outside.world.stop().await;
}

#[tokio::test]
async fn all_upstreams_together_have_so_many() {
    let script = |_: &Heard| vec![say(STARTED), Step::Wait, say(&chunk(b""))];
    let mut outside = Outside::plain("", script).await;
    let bounds = "{url: http://api.example.com, max_concurrent: 64, rate: 100/s}";
    let both = format!("upstreams: {{api: {bounds}, other: {bounds}}}\n");
    outside.world.reconfigure(&both);
    let to = |upstream: &str| RequestHead {
        upstream: upstream.to_owned(),
        ..head("GET", "")
    };
    let mut open: Vec<Open> = Vec::new();
    for nth in 0..64 {
        let upstream = if nth % 2 == 0 { "api" } else { "other" };
        let messages = vec![of_head(to(upstream))];
        // The engine has as many as one client may have.
        let client = if nth < 48 {
            Service::Engine
        } else {
            Service::Worker
        };
        open.push(outside.say(client, messages).await.unwrap());
        if nth == 47 {
            let refused = outside.ask(to("other"), &[]).await;
            let words = "48 exchanges of engine with upstreams are open";
            failed(refused, Code::ResourceExhausted, words);
        }
    }
    let refused = outside.ask(to("other"), &[]).await;
    failed(
        refused,
        Code::ResourceExhausted,
        "64 exchanges with upstreams are open",
    );
    outside.server.go_on();
    // One of them, whichever was let go, makes room.
    outside.audited("upstream.closed").await;
    let messages = vec![of_head(to("other"))];
    outside.say(Service::Worker, messages).await.unwrap();
    outside.world.stop().await;
}

#[tokio::test]
async fn one_client_leaves_a_place_to_the_other() {
    let outside = Outside::plain("max_concurrent: 3", |_| {
        vec![say(STARTED), Step::Wait, say(&chunk(b""))]
    })
    .await;
    let messages = || vec![of_head(head("GET", ""))];
    let mut open = Vec::new();
    for _ in 0..2 {
        open.push(outside.say(Service::Worker, messages()).await.unwrap());
    }
    let refused = outside.ask_as(Service::Worker, head("GET", ""), &[]).await;
    let words = "2 exchanges of worker with it are open";
    failed(refused, Code::ResourceExhausted, words);
    outside.say(Service::Engine, messages()).await.unwrap();
    drop(open);
    outside.world.stop().await;
}

#[tokio::test]
async fn two_clients_of_one_place_take_turns() {
    let outside = Outside::plain("max_concurrent: 1", |_| {
        vec![say(STARTED), Step::Wait, say(&chunk(b""))]
    })
    .await;
    let messages = || vec![of_head(head("GET", ""))];
    let first = outside.say(Service::Engine, messages()).await.unwrap();
    // The worker waits, with one request; the engine may not get in before it.
    let mut waiting = Box::pin(outside.say(Service::Worker, messages()));
    let refused = async {
        // What of the worker comes second is refused: then the first one waits.
        let second = outside.ask_as(Service::Worker, head("GET", ""), &[]);
        failed(second.await, Code::ResourceExhausted, "waits for its turn");
        outside.get("").await
    };
    let refused = tokio::select! {
        biased;
        _ = &mut waiting => panic!("it has had no turn yet"),
        refused = refused => refused,
    };
    let words = "an exchange of engine with it is open";
    failed(refused, Code::ResourceExhausted, words);
    assert_eq!(outside.server.heard.lock().unwrap().len(), 1);
    outside.server.go_on();
    first.whole().await.unwrap().end.unwrap();
    let turn = waiting.await.unwrap();
    outside.server.go_on();
    turn.whole().await.unwrap().end.unwrap();
    outside.world.stop().await;
}

#[tokio::test]
async fn who_waits_for_its_turn_waits_no_longer_than_its_timeout() {
    let outside = Outside::plain("max_concurrent: 1\ntimeout: 1s", |_| vec![Step::Wait]).await;
    let long = outside.get("");
    let waiting = async {
        outside.server.asked(1).await;
        let client = Service::Worker;
        outside.ask_as(client, head("GET", ""), &[]).await
    };
    let (long, waiting) = tokio::join!(long, waiting);
    failed(long, Code::DeadlineExceeded, "`timeout` of 1s");
    // It had its turn at the last moment, or not at all.
    let status = waiting.unwrap_err();
    let codes = [Code::ResourceExhausted, Code::DeadlineExceeded];
    assert!(codes.contains(&status.code()), "{status}");
    outside.world.stop().await;
}

#[tokio::test]
async fn a_client_that_says_nothing_has_so_many_requests_and_takes_none_from_the_other() {
    let outside = Outside::plain("rate: 1000/s", |_| answer("200 OK", b"")).await;
    let (say, silent): (Vec<_>, Vec<_>) = (0..64).map(|_| mpsc::channel(1)).unzip();
    let opening = silent
        .into_iter()
        .map(|said| Box::pin(outside.open(Service::Engine, said)));
    let mut opening: Vec<_> = opening.collect();
    let refused = async {
        // They come one after the other.
        loop {
            if let Err(refused) = outside.get("").await {
                return refused;
            }
        }
    };
    let all = poll_fn(|cx| {
        for one in &mut opening {
            assert!(one.as_mut().poll(cx).is_pending());
        }
        Poll::<()>::Pending
    });
    let refused = tokio::select! {
        refused = refused => refused,
        () = all => unreachable!(),
    };
    let words = "64 requests of engine have not said yet";
    failed::<()>(Err(refused), Code::ResourceExhausted, words);
    let worker = outside.ask_as(Service::Worker, head("GET", ""), &[]).await;
    assert_eq!(worker.unwrap().head.status, 200);
    // One that speaks makes room.
    say[0].send(of_head(head("GET", ""))).await.unwrap();
    assert_eq!(opening.remove(0).await.unwrap().head.status, 200);
    assert_eq!(outside.get("").await.unwrap().head.status, 200);
    drop(opening);
    outside.world.stop().await;
}

#[tokio::test]
async fn what_is_sent_is_what_was_announced() {
    let outside = Outside::keyed("", |heard| answer("200 OK", &heard.body)).await;
    let post = |bytes| RequestHead {
        body_bytes: Some(bytes),
        ..head("POST", "")
    };
    let shorter = outside.ask(post(11), &[b"hello", b"world"]).await;
    failed(shorter, Code::InvalidArgument, "shorter than body_bytes");
    let longer = outside.ask(post(9), &[b"hello", b"world"]).await;
    failed(longer, Code::InvalidArgument, "longer than body_bytes");
    let exact = outside.ask(post(10), &[b"hello", b"world"]).await;
    assert_eq!(exact.unwrap().text(), "helloworld");
    let closed = outside.audited("upstream.closed").await;
    assert!(
        closed["cut"].as_str().unwrap().contains("shorter"),
        "{closed}"
    );
    outside.world.stop().await;
}

#[tokio::test]
async fn messages_come_in_their_order_and_size() {
    let outside = Outside::keyed("", |heard| answer("200 OK", &heard.body)).await;
    let part = |n: usize| of_body(&vec![b'x'; n]);
    let post = || of_head(head("POST", ""));
    let nothing = ExchangeRequest { part: None };
    for (messages, words) in [
        (vec![], "the first message must be the head"),
        (vec![part(1)], "the first message must be the head"),
        (vec![nothing.clone()], "the first message must be the head"),
        (vec![post(), post()], "after the head come parts"),
        (vec![post(), nothing], "after the head come parts"),
        (vec![post(), part(5), post()], "after the head come parts"),
        (vec![post(), part((64 << 10) + 1)], "longer than 64 KiB"),
        (vec![post(), part(128 << 10)], "a message is too large"),
    ] {
        let refused = outside.say(Service::Engine, messages).await;
        failed(refused.map(|open| open.head), Code::InvalidArgument, words);
    }
    let fine = vec![post(), part(64 << 10), part(1)];
    let got = outside.say(Service::Engine, fine).await.unwrap();
    assert_eq!(got.whole().await.unwrap().body.len(), (64 << 10) + 1);
    outside.world.stop().await;
}

#[tokio::test]
async fn bodies_have_a_largest_size() {
    const MIB: u64 = 1 << 20;
    let outside = Outside::plain("", |heard| {
        let length = |n| format!("HTTP/1.1 200 OK\r\nContent-Length: {n}\r\n\r\n").into_bytes();
        match heard.line().split(' ').nth(1).unwrap_or_default() {
            "/announced" => vec![Step::Say(length((64 * MIB) + 1))],
            "/more" => vec![
                say(STARTED),
                Step::Repeat(chunk(&vec![b'x'; 1 << 20]), 64),
                say(&chunk(b"x")),
                say(&chunk(b"")),
            ],
            _ => answer("200 OK", heard.body.len().to_string().as_bytes()),
        }
    })
    .await;
    let words = "its answer is larger than 64 MiB";
    failed(
        outside.get("/announced").await,
        Code::FailedPrecondition,
        words,
    );
    let more = outside.get("/more").await.unwrap();
    assert_eq!(more.body.len(), 64 << 20);
    failed(more.end, Code::FailedPrecondition, words);
    // The other way, where nothing was announced.
    let piece = vec![b'x'; 64 << 10];
    let parts = vec![piece.as_slice(); 256];
    let post = || head("POST", "/count");
    let got = outside.ask(post(), &parts).await.unwrap();
    assert_eq!(got.text(), (16 * MIB).to_string());
    let (say, said) = mpsc::channel(258);
    say.send(of_head(post())).await.unwrap();
    for part in parts.iter().chain([&&b"x"[..]]) {
        say.send(of_body(part)).await.unwrap();
    }
    let refused = outside.open(Service::Engine, said).await;
    failed(
        refused.map(|open| open.head),
        Code::InvalidArgument,
        "longer than 16 MiB",
    );
    outside.world.stop().await;
}

#[tokio::test]
async fn heads_have_a_largest_size() {
    let outside = Outside::keyed("", |heard| {
        let many = |n: usize| "X-A: b\r\n".repeat(n);
        let with = |headers: &str| {
            let text = format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: 0\r\n\r\n");
            vec![Step::Say(text.into_bytes())]
        };
        match heard.line().split(' ').nth(1).unwrap_or_default() {
            "/v1/64" => with(&many(63)),
            "/v1/65" => with(&many(64)),
            "/v1/large" => with(&format!("X-A: {}\r\n", "b".repeat(70 << 10))),
            _ => with(&format!("X-A: {}\r\n", "b".repeat(60 << 10))),
        }
    })
    .await;
    assert_eq!(outside.get("/64").await.unwrap().head.headers.len(), 63);
    let words = "its head is larger than 64 headers or 64 KiB";
    failed(outside.get("/65").await, Code::FailedPrecondition, words);
    failed(outside.get("/large").await, Code::FailedPrecondition, words);
    assert_eq!(
        outside.get("").await.unwrap().head.headers[0].value.len(),
        60 << 10
    );
    outside.world.stop().await;
}
