//! Who gets a lease, and how long it lasts.

use std::time::Duration;

use bailey_lease::{Kind, Token};
use bailey_trust::{EgressLimits, UNTRUSTED};
use bailey_types::{ImageId, Serial, Service, Sha256};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;

use crate::server::{Echo, with_an_echo};
use crate::world::{PUBLIC, World};

async fn with_a_server(egress: &[&str]) -> (World, Echo) {
    with_an_echo(egress, EgressLimits::default()).await
}

async fn at_its_end(mut stream: UnixStream) -> Vec<u8> {
    let mut rest = Vec::new();
    // A cut can be an error as well as an end.
    drop(stream.read_to_end(&mut rest).await);
    rest
}

#[tokio::test]
async fn a_decision_opens_one_lease_and_no_second() {
    let (world, _echo) = with_a_server(&["api.example.com:8080"]).await;
    let line = world.signed(&world.decision(), Service::Policy);
    let (control, token) = world.lease(line.clone()).await.unwrap();
    assert!(world.connect(&token, "api.example.com", 8080).await.is_ok());

    let again = world.lease(line.clone()).await.unwrap_err();
    assert!(again.reason.contains("had its lease"), "{again}");
    // Not after its end either
    drop(control);
    assert!(world.lease(line).await.is_err());
    // While the next decision is as good as the first
    let (_control, token) = world.leased().await;
    assert!(world.connect(&token, "api.example.com", 8080).await.is_ok());
    world.stop().await;
}

#[tokio::test]
async fn only_the_decision_that_policy_signed_for_this_lock_opens_a_lease() {
    let (mut world, _echo) = with_a_server(&["api.example.com:8080"]).await;
    let good = world.decision();
    let now = good.issued_at;
    let mut wrong = vec![("by the key", world.signed(&good, Service::Broker))];
    let mut with = |why, change: &dyn Fn(&mut bailey_trust::Decision)| {
        let mut decision = world.decision();
        change(&mut decision);
        wrong.push((why, world.signed(&decision, Service::Policy)));
    };
    with("valid from", &|d| {
        d.expires_at = now.minus(Duration::from_secs(9));
    });
    with("valid from", &|d| {
        d.expires_at = now.plus(Duration::from_mins(9));
    });
    with("older than this process", &|d| {
        d.issued_at = now.minus(Duration::from_secs(20));
        d.expires_at = now.plus(Duration::from_secs(20));
    });
    with("another lock", &|d| d.lock_serial = Serial(2));
    with("another image", &|d| d.image = ImageId(Sha256([9; 32])));
    with("no plugin of the lock", &|d| {
        d.plugin = "other".parse().unwrap();
    });
    with("untrusted", &|d| d.account = UNTRUSTED.parse().unwrap());
    with("grants no egress", &|d| d.egress.clear());
    with("not the locked one", &|d| {
        d.egress.push("evil.example.com:443".into());
    });
    for (why, line) in wrong {
        let refusal = world.lease(line).await.unwrap_err();
        assert_eq!(refusal.kind, Kind::NoLease);
        assert!(refusal.reason.contains(why), "{why}: {refusal}");
    }
    for garbage in [
        &b""[..],
        b"{}",
        b"{\"payload\":\"e30=\",\"signature\":\"\",\"x\":1}",
    ] {
        assert!(world.lease(garbage.to_vec()).await.is_err());
    }
    assert!(
        world
            .lease(world.signed(&good, Service::Policy))
            .await
            .is_ok()
    );

    // A holder of another uid is not this plugin's, whatever it shows
    world.relock(|locked| locked.holder_uid += 1);
    let line = world.signed(&world.decision(), Service::Policy);
    let refusal = world.lease(line).await.unwrap_err();
    assert!(
        refusal.reason.contains("no plugin of the lock"),
        "{refusal}"
    );
    let entries = world.audited(14).await;
    assert!(entries.iter().all(|(kind, _)| kind == "egress.refused"));
    world.stop().await;
}

#[tokio::test]
async fn a_token_that_nobody_was_given_opens_nothing() {
    let (world, _echo) = with_a_server(&["api.example.com:8080"]).await;
    let (_control, token) = world.leased().await;
    let mut other = token.clone();
    other.0[31] ^= 1;
    for token in [other, Token([0; 32])] {
        let refused = world.connect(&token, "api.example.com", 8080).await;
        assert_eq!(refused.unwrap_err().kind, Kind::NoLease);
    }
    assert!(world.connect(&token, "api.example.com", 8080).await.is_ok());
    world.stop().await;
}

#[tokio::test]
async fn the_lease_and_all_that_rests_on_it_end_with_the_holder() {
    let (world, echo) = with_a_server(&["api.example.com:8080"]).await;
    let (control, token) = world.leased().await;
    let (_other_control, other) = world.leased().await;
    let mut open = world
        .connect(&token, "api.example.com", 8080)
        .await
        .unwrap();
    let mut others = world
        .connect(&other, "api.example.com", 8080)
        .await
        .unwrap();
    for stream in [&mut open, &mut others] {
        tokio::io::AsyncWriteExt::write_all(stream, b"ping")
            .await
            .unwrap();
        let mut back = [0; 4];
        stream.read_exact(&mut back).await.unwrap();
    }
    drop(control);
    assert_eq!(at_its_end(open).await, b"");
    let entries = world.audited(1).await;
    assert_eq!(entries[0].0, "egress.closed");
    assert_eq!(entries[0].1["cut"], "the lease ended");
    let refused = world.connect(&token, "api.example.com", 8080).await;
    assert_eq!(refused.unwrap_err().kind, Kind::NoLease);
    // Another job's goes on.
    tokio::io::AsyncWriteExt::write_all(&mut others, b"pong")
        .await
        .unwrap();
    let mut back = [0; 4];
    others.read_exact(&mut back).await.unwrap();
    assert_eq!(echo.heard(), b"pingpingpong");
    world.stop().await;
}

#[tokio::test]
async fn what_a_new_lock_takes_away_is_gone_and_what_it_adds_needs_a_new_decision() {
    let (mut world, _echo) = with_a_server(&["api.example.com:8080", "old.example.com:8080"]).await;
    for name in ["old.example.com", "new.example.com"] {
        world.beyond.name(name, &[PUBLIC]);
    }
    let (control, token) = world.leased().await;
    let open = world
        .connect(&token, "api.example.com", 8080)
        .await
        .unwrap();
    world.relock(|locked| {
        locked.proposed.egress = vec!["api.example.com:8080".into(), "new.example.com:8080".into()];
    });
    // At once for what is asked now
    for gone in ["old.example.com", "new.example.com"] {
        assert!(world.connect(&token, gone, 8080).await.is_err(), "{gone}");
    }
    // And soon for what is open, with the lease itself
    for ended in [open, control] {
        let rest = tokio::time::timeout(Duration::from_secs(20), at_its_end(ended)).await;
        assert_eq!(rest.unwrap(), b"");
    }
    let refused = world.connect(&token, "api.example.com", 8080).await;
    assert_eq!(refused.unwrap_err().kind, Kind::NoLease);
    let (_control, token) = world.leased().await;
    assert!(world.connect(&token, "new.example.com", 8080).await.is_ok());
    world.stop().await;
}

#[tokio::test]
async fn a_new_lock_that_takes_nothing_from_a_plugin_leaves_its_leases() {
    let (mut world, _echo) = with_a_server(&["api.example.com:8080"]).await;
    let (mut control, token) = world.leased().await;
    let mut open = world
        .connect(&token, "api.example.com", 8080)
        .await
        .unwrap();
    world.relock(|locked| locked.proposed.egress.push("new.example.com:8080".into()));
    // A second lease, from which the third lock takes its host away, shows when both locks were looked at.
    let (other, _token) = world.leased().await;
    world.relock(|locked| locked.proposed.egress = vec!["api.example.com:8080".into()]);
    let ended = tokio::time::timeout(Duration::from_secs(20), at_its_end(other)).await;
    assert_eq!(ended.unwrap(), b"");
    tokio::io::AsyncWriteExt::write_all(&mut open, b"ping")
        .await
        .unwrap();
    let mut back = [0; 4];
    open.read_exact(&mut back).await.unwrap();
    let silent = tokio::time::timeout(Duration::from_millis(50), control.read(&mut back)).await;
    assert!(silent.is_err(), "{silent:?}");
    world.stop().await;
}

#[tokio::test]
async fn a_plugin_that_is_not_locked_any_more_keeps_no_lease() {
    let (mut world, _echo) = with_a_server(&["api.example.com:8080"]).await;
    let (control, token) = world.leased().await;
    let open = world
        .connect(&token, "api.example.com", 8080)
        .await
        .unwrap();
    world.relock(|locked| locked.holder_uid += 1);
    for ended in [open, control] {
        let rest = tokio::time::timeout(Duration::from_secs(20), at_its_end(ended)).await;
        assert_eq!(rest.unwrap(), b"");
    }
    world.stop().await;
}
