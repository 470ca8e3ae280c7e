//! Tokens, the epoch and the roll, over the mesh.

use bailey_proto::broker::v1::epoch_service_client::EpochServiceClient;
use bailey_proto::broker::v1::presence_service_client::PresenceServiceClient;
use bailey_proto::broker::v1::token_service_client::TokenServiceClient;
use bailey_proto::broker::v1::verify_token_request::Asked as WireAsked;
use bailey_proto::broker::v1::{
    BeatRequest, CallAsked, CheckAsked, EpochRequest, EventAsked, ReadAsked, Readiness,
    RollRequest, VerifyTokenRequest,
};
use bailey_trust::{Asked, Origin};
use bailey_types::{Service, Sha256};
use tonic::Code;

use crate::harness::Broker;

fn asked(token: &str, scopes: &[&str], asked: WireAsked) -> VerifyTokenRequest {
    VerifyTokenRequest {
        token: token.into(),
        any_of_scopes: scopes.iter().map(ToString::to_string).collect(),
        asked: Some(asked),
    }
}

fn read() -> WireAsked {
    WireAsked::Read(ReadAsked {})
}

fn call(hash: &[u8]) -> WireAsked {
    WireAsked::Call(CallAsked {
        plugin: "greet".into(),
        command: "handle".into(),
        payload_sha256: hash.to_vec().into(),
    })
}

#[tokio::test]
async fn a_token_is_verified_and_its_origin_signed() {
    let broker = Broker::start().await;
    let admin = broker.init().await;
    let token = broker.create_token(&admin, "ops", &["plugin:rw"]).await;
    let mut tokens =
        TokenServiceClient::new(broker.mesh(Service::Gateway).channel(Service::Broker));
    let known = tokens
        .verify_token(asked(&token, &[], read()))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((known.token_name.as_str(), known.origin), ("ops", None));
    assert!(known.scopes.contains(&"plugin:invoke:ro".to_owned()));
    let hash = Sha256::of(b"{}");
    let request = asked(&token, &["plugin:rw"], call(&hash.0));
    let signed = tokens
        .verify_token(request)
        .await
        .unwrap()
        .into_inner()
        .origin
        .unwrap();
    let key = broker.stack.trust().signing.broker;
    let origin = bailey_trust::verify::<Origin>(&signed, &key)
        .unwrap()
        .statement;
    let (plugin, command) = ("greet".parse().unwrap(), "handle".parse().unwrap());
    assert_eq!(
        origin.asked,
        Asked::Call {
            plugin,
            command,
            payload_sha256: hash
        }
    );
    assert_eq!(origin.principal, "token:ops");
    let check = CheckAsked {
        upstream: "model".into(),
    };
    let request = asked(&token, &["plugin:rw"], WireAsked::Check(check));
    let checked = tokens.verify_token(request).await.unwrap().into_inner();
    let origin = bailey_trust::verify::<Origin>(&checked.origin.unwrap(), &key).unwrap();
    let upstream = "model".parse().unwrap();
    assert_eq!(origin.statement.asked, Asked::Check { upstream });
    assert_eq!(origin.statement.principal, "token:ops");
    let event = EventAsked {
        event_type: "a.b".into(),
        payload_sha256: hash.0.to_vec().into(),
    };
    let request = asked(&token, &["events:rw"], WireAsked::Event(event));
    let refused = tokens.verify_token(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("events:rw"), "{refused}");
    let recorded = broker.audit.entry("token.refused").await;
    assert_eq!(
        (recorded["token"].as_str(), recorded["reason"].as_str()),
        (Some("ops"), Some("missing_scope"))
    );
}

#[tokio::test]
async fn unknown_tokens_are_unauthenticated_and_malformed_questions_invalid() {
    let broker = Broker::start().await;
    let mut tokens =
        TokenServiceClient::new(broker.mesh(Service::Gateway).channel(Service::Broker));
    let without = tokens
        .verify_token(asked("bly_x", &[], read()))
        .await
        .unwrap_err();
    assert_eq!(
        without.code(),
        Code::Unauthenticated,
        "there is no vault yet"
    );
    let admin = broker.init().await;
    let token = broker.create_token(&admin, "ops", &["*"]).await;
    let long = "x".repeat(257);
    for wrong in ["", "bly_x", admin.as_str(), long.as_str(), &token[1..]] {
        let refused = tokens
            .verify_token(asked(wrong, &[], read()))
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated);
    }
    let stranger = tokens.verify_token(asked("bly_x", &[], call(b"short")));
    assert_eq!(stranger.await.unwrap_err().code(), Code::Unauthenticated);
    for bad in [
        asked(&token, &["plugin:all"], read()),
        asked(&token, &[], call(b"short")),
        VerifyTokenRequest {
            asked: None,
            ..asked(&token, &[], read())
        },
    ] {
        let refused = tokens.verify_token(bad).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
    assert!(
        tokens
            .verify_token(asked(&token, &["system:rw"], read()))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn each_life_has_an_epoch_of_its_own() {
    let mut broker = Broker::start().await;
    let mut epochs = Vec::new();
    for _ in 0..2 {
        let mesh = broker.mesh(Service::Policy);
        let mut client = EpochServiceClient::new(mesh.channel(Service::Broker));
        for _ in 0..2 {
            epochs.push(
                client
                    .epoch(EpochRequest {})
                    .await
                    .unwrap()
                    .into_inner()
                    .epoch,
            );
        }
        broker.restart().await;
    }
    assert_eq!((&epochs[0], &epochs[2]), (&epochs[1], &epochs[3]));
    assert_ne!(epochs[0], epochs[2]);
    assert!(epochs[0].len() >= 22);
}

#[tokio::test]
async fn the_roll_has_everybody_under_the_name_of_its_certificate() {
    let broker = Broker::start().await;
    let mesh = broker.mesh(Service::Runner);
    let mut runner = PresenceServiceClient::new(mesh.channel(Service::Broker));
    let beat = BeatRequest {
        readiness: Readiness::Degraded.into(),
        detail: "docker: connection refused".into(),
        version: "0.1.0".into(),
        ..BeatRequest::default()
    };
    runner.beat(beat).await.unwrap();
    assert_eq!(
        runner
            .beat(BeatRequest::default())
            .await
            .unwrap_err()
            .code(),
        Code::InvalidArgument
    );
    let mesh = broker.mesh(Service::Gateway);
    let mut gateway = PresenceServiceClient::new(mesh.channel(Service::Broker));
    let roll = gateway
        .roll(RollRequest {})
        .await
        .unwrap()
        .into_inner()
        .services;
    assert_eq!(roll.len(), Service::ALL.len());
    let of = |name: &str| {
        roll.iter()
            .find(|presence| presence.service == name)
            .unwrap()
    };
    assert_eq!(of("runner").detail, "docker: connection refused");
    assert_eq!(of("engine").readiness(), Readiness::Unspecified);
    assert!(of("broker").detail.contains("nothing is locked yet"));
    assert!(of("broker").rss_bytes > 0);
}
