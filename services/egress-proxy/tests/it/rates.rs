//! How often exchanges begin, and who is not kept from them by others.

use bailey_proto::egress::v1::RequestHead;
use bailey_types::Service;
use tonic::Code;

use crate::checks::{check, origin, signed};
use crate::exchange::{Outside, failed, head};
use crate::script::answer;

fn other() -> RequestHead {
    RequestHead {
        upstream: "other".to_owned(),
        ..head("GET", "")
    }
}

#[tokio::test]
async fn a_client_begins_so_many_and_takes_none_from_others() {
    let mut outside = Outside::plain("", |_| answer("200 OK", b"")).await;
    let bounds = "{url: http://api.example.com, check: /models, rate: 2/h}";
    let both = format!("upstreams: {{api: {bounds}, other: {bounds}}}\n");
    outside.world.reconfigure(&both);
    for _ in 0..2 {
        assert_eq!(outside.get("").await.unwrap().head.status, 200);
    }
    // The third is refused, and told when to come again.
    let status = outside.get("").await.unwrap_err();
    let after = status.metadata().get("retry-after").unwrap();
    let after: u64 = after.to_str().unwrap().parse().unwrap();
    assert!((1790..=1800).contains(&after), "{after}");
    let words = format!(
        "engine begins more exchanges with it than its `rate` of 2/h allows: try again in {after} s"
    );
    failed::<()>(Err(status), Code::ResourceExhausted, &words);
    assert_eq!(outside.server.heard.lock().unwrap().len(), 2);
    // The other client has its own, and so has the other upstream.
    let worker = outside.ask_as(Service::Worker, head("GET", ""), &[]).await;
    assert_eq!(worker.unwrap().head.status, 200);
    assert_eq!(outside.ask(other(), &[]).await.unwrap().head.status, 200);
    // And so has whoever has it checked.
    let asked = check(signed(&outside, &origin("api"), Service::Broker));
    assert_eq!(outside.ask(asked, &[]).await.unwrap().head.status, 200);
    // A lock that leaves the upstream as it is gives nothing back; one that changes its rate does.
    let more = format!("{both}  # nothing else\n");
    outside.world.reconfigure(&more);
    let words = "`rate` of 2/h";
    failed(outside.get("").await, Code::ResourceExhausted, words);
    outside.world.reconfigure(&both.replace("2/h", "3/h"));
    assert_eq!(outside.get("").await.unwrap().head.status, 200);
    outside.world.stop().await;
}

#[tokio::test]
async fn an_upstream_is_checked_so_often_and_used_all_the_same() {
    let outside = Outside::plain("check: /models", |_| answer("200 OK", b"")).await;
    let asked = || check(signed(&outside, &origin("api"), Service::Broker));
    for nth in 0..30 {
        let checked = outside.ask(asked(), &[]).await;
        assert_eq!(checked.unwrap().head.status, 200, "{nth}");
    }
    // More come back with time; a test that is slow sees some of them.
    let mut more = 0;
    let status = loop {
        match outside.ask(asked(), &[]).await {
            Ok(_) => more += 1,
            Err(status) => break status,
        }
        assert!(more < 30);
    };
    assert!(status.metadata().get("retry-after").is_some());
    let words = "it is checked more often than 30/min allows: try again in 2 s";
    failed::<()>(Err(status), Code::ResourceExhausted, words);
    assert_eq!(outside.get("/models").await.unwrap().head.status, 200);
    outside.world.stop().await;
}
