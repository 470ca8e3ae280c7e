//! The bounds of one call.

use bailey_lease::Kind;
use bailey_trust::EgressLimits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::server::{Echo, with_an_echo};
use crate::world::World;

async fn world(limits: EgressLimits) -> (World, Echo) {
    with_an_echo(&["api.example.com:8080"], limits).await
}

#[tokio::test]
async fn a_call_has_so_many_connections_at_once() {
    let limits = EgressLimits {
        connections: 2,
        ..EgressLimits::default()
    };
    let (world, _echo) = world(limits).await;
    let (_control, token) = world.leased().await;
    let first = world
        .connect(&token, "api.example.com", 8080)
        .await
        .unwrap();
    let _second = world
        .connect(&token, "api.example.com", 8080)
        .await
        .unwrap();
    let third = world.connect(&token, "api.example.com", 8080).await;
    assert_eq!(third.unwrap_err().kind, Kind::Limit);
    // Each call has its own
    let (_other_control, other) = world.leased().await;
    assert!(world.connect(&other, "api.example.com", 8080).await.is_ok());
    // And one that has ended makes room
    drop(first);
    world.audited(3).await;
    assert!(world.connect(&token, "api.example.com", 8080).await.is_ok());
    world.stop().await;
}

#[tokio::test]
async fn a_call_has_so_many_bytes_in_both_directions_together() {
    let limits = EgressLimits {
        total_bytes: 100,
        ..EgressLimits::default()
    };
    let (world, echo) = world(limits).await;
    let (_control, token) = world.leased().await;
    let mut stream = world
        .connect(&token, "api.example.com", 8080)
        .await
        .unwrap();
    stream.write_all(&[b'x'; 50]).await.unwrap();
    let mut back = [0; 50];
    stream.read_exact(&mut back).await.unwrap();
    // The hundred are spent: nothing more passes, on this connection or another.
    stream.write_all(b"y").await.unwrap();
    assert!(!matches!(stream.read(&mut back).await, Ok(1..)));
    let refused = world.connect(&token, "api.example.com", 8080).await;
    assert_eq!(refused.unwrap_err().kind, Kind::Limit);
    assert_eq!(echo.heard(), [b'x'; 50]);
    let entries = world.audited(1).await;
    let fields = &entries[0].1;
    assert_eq!(
        (&fields["sent_bytes"], &fields["received_bytes"]),
        (&50.into(), &50.into())
    );
    assert!(
        fields["cut"].as_str().unwrap().contains("as many bytes"),
        "{fields}"
    );
    world.stop().await;
}

#[tokio::test]
async fn a_connection_lasts_so_long() {
    let limits = EgressLimits {
        connection_seconds: 1,
        ..EgressLimits::default()
    };
    let (world, _echo) = world(limits).await;
    let (_control, token) = world.leased().await;
    let mut stream = world
        .connect(&token, "api.example.com", 8080)
        .await
        .unwrap();
    assert!(!matches!(stream.read(&mut [0; 1]).await, Ok(1..)));
    let entries = world.audited(1).await;
    assert_eq!(entries[0].1["cut"], "it has lasted as long as it may");
    world.stop().await;
}

#[tokio::test]
async fn refusals_beyond_a_budget_are_counted_and_what_has_passed_is_recorded_all_the_same() {
    let (world, _echo) = world(EgressLimits::default()).await;
    let (control, token) = world.leased().await;
    for _ in 0..40 {
        let refused = world.connect(&token, "other.example.com", 8080).await;
        assert_eq!(refused.unwrap_err().kind, Kind::NotAllowed);
    }
    // The same without a lease, where the uid counts.
    let nobodys = bailey_lease::Token([0; 32]);
    for _ in 0..40 {
        let refused = world.connect(&nobodys, "api.example.com", 8080).await;
        assert_eq!(refused.unwrap_err().kind, Kind::NoLease);
    }
    drop(
        world
            .connect(&token, "api.example.com", 8080)
            .await
            .unwrap(),
    );
    let entries = world.audited(65).await;
    let kinds = |kind: &str| entries.iter().filter(|(k, _)| k == kind).count();
    assert_eq!((kinds("egress.refused"), kinds("egress.closed")), (64, 1));

    drop(control);
    let entries = world.audited(66).await;
    let (kind, fields) = &entries[65];
    assert_eq!(kind, "egress.refused");
    assert_eq!(fields["count"], 8);
    assert_eq!(fields["plugin"], crate::world::PLUGIN);
    world.stop().await;
}
