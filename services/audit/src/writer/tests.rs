use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bailey_error::{Classify as _, Kind};
use bailey_test::TestStack;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;
use crate::reserve::Room;

async fn start(stack: &TestStack, room: Room) -> Writer {
    start_on(&stack.context(Service::Audit), stack, Volume::fixed(room)).await
}

async fn start_on(ctx: &Context, stack: &TestStack, volume: Volume) -> Writer {
    let key = stack.signing_key(Service::Audit);
    let (log, recovered) = Log::open(
        &ctx.settings.data_dir.join("log"),
        &stack.trust().stack,
        key,
    )
    .unwrap();
    super::start(ctx, log, volume, recovered).await.unwrap()
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

/// What the health port answers.
async fn health(address: std::net::SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let question = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(question).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn while_the_disk_hangs_the_service_lives_and_the_append_waits() {
    let stack = TestStack::new();
    let ctx = stack.context(Service::Audit);
    let any = ([127, 0, 0, 1], 0).into();
    let address = ctx.process.serve_health(any).await.unwrap();
    let volume = Volume::fixed(Room {
        free_bytes: 50,
        all_bytes: 100,
    });
    let hangs = Arc::clone(&volume.hangs);
    let writer = start_on(&ctx, &stack, volume).await;
    // Held by another thread, and not for ever, so that a service that waits for it fails the test and does not hang.
    let (held, has_it) = oneshot::channel();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let disk = std::thread::spawn(move || {
        let _hangs = hangs.lock();
        held.send(()).unwrap();
        released.recv_timeout(Duration::from_secs(10)).is_ok()
    });
    has_it.await.unwrap();
    let mut append = pin!(writer.append(Service::Engine, entry("job.dead", false), 0));
    assert!(futures::poll!(&mut append).is_pending());
    for _ in 0..3 {
        assert!(health(address).await.starts_with("HTTP/1.1 200 "));
        assert!(futures::poll!(&mut append).is_pending());
    }
    let waits = release.send(()).is_ok();
    assert!(
        waits && disk.join().unwrap(),
        "the service waited for the disk"
    );
    assert_eq!(append.await.unwrap().first_index, 1);
}
