use bailey_error::{Classify as _, Kind};
use bailey_test::TestStack;

use super::*;
use crate::reserve::Room;

async fn start(stack: &TestStack, room: Room) -> Writer {
    let ctx = stack.context(Service::Audit);
    let key = stack.signing_key(Service::Audit);
    let (log, recovered) = Log::open(
        &ctx.settings.data_dir.join("log"),
        &stack.trust().stack,
        key,
    )
    .unwrap();
    super::start(&ctx, log, Volume::fixed(room), recovered)
        .await
        .unwrap()
}

fn entry(kind: &str, refusal: bool) -> Vec<Received> {
    let fields = RawValue::from_string("{\"job\":\"x\"}".into()).unwrap();
    vec![Received {
        kind: kind.into(),
        fields,
        refusal,
    }]
}

#[tokio::test]
async fn the_last_tenth_of_the_volume_is_kept_for_allows() {
    let stack = TestStack::new();
    let writer = start(
        &stack,
        Room {
            free_bytes: 9,
            all_bytes: 100,
        },
    )
    .await;
    let refused = writer
        .append(Service::Engine, entry("job.succeeded", false), 0)
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), Kind::ResourceExhausted);
    let refused = writer
        .append(Service::Policy, entry("decision.denied", true), 0)
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), Kind::ResourceExhausted);
    let done = writer
        .append(Service::Policy, entry("decision.allowed", false), 0)
        .await
        .unwrap();
    assert_eq!(done.first_index, 0, "not even the opening was recorded");
}

#[tokio::test]
async fn a_folded_refusal_takes_no_room_and_is_counted() {
    let stack = TestStack::new();
    let writer = start(
        &stack,
        Room {
            free_bytes: 50,
            all_bytes: 100,
        },
    )
    .await;
    for _ in 0..50 {
        writer
            .append(Service::Engine, entry("rpc.refused", true), 0)
            .await
            .unwrap();
    }
    let read = writer.entries(0, 100).await.unwrap();
    assert_eq!(read.size, 2, "audit.opened, and the first refusal");
    writer.0.send(Order::Stop).await.unwrap();
    writer.0.closed().await;

    // The count is recorded at the latest when audit stops.
    let (dir, key) = (
        stack.context(Service::Audit).settings.data_dir.join("log"),
        stack.signing_key(Service::Audit),
    );
    let (log, _) = Log::open(&dir, &stack.trust().stack, key).unwrap();
    let last = String::from_utf8(log.entries(2, 1).unwrap().remove(0)).unwrap();
    assert!(
        last.contains("\"kind\":\"refusals.folded\"") && last.contains("\"count\":49"),
        "{last}"
    );
    assert!(
        last.contains("\"first_index\":1") && last.contains("\"caller\":\"engine\""),
        "{last}"
    );
}

#[tokio::test]
async fn appends_that_wait_are_written_together_and_each_gets_its_own_index() {
    let stack = TestStack::new();
    let writer = start(
        &stack,
        Room {
            free_bytes: 50,
            all_bytes: 100,
        },
    )
    .await;
    let appends = (0..300).map(|_| {
        let writer = writer.clone();
        async move {
            writer
                .append(Service::Engine, entry("job.dead", false), 0)
                .await
                .unwrap()
                .first_index
        }
    });
    let mut indexes = futures::future::join_all(appends).await;
    indexes.sort_unstable();
    assert_eq!(indexes, (1..=300).collect::<Vec<_>>());
    let read = writer.entries(1, 300).await.unwrap();
    assert_eq!((read.entries.len(), read.size), (300, 301));
}
