//! A broker whose age key or vault cannot be used.

use std::os::unix::fs::PermissionsExt as _;

use bailey_proto::broker::v1::epoch_service_client::EpochServiceClient;
use bailey_proto::broker::v1::token_service_client::TokenServiceClient;
use bailey_proto::broker::v1::verify_token_request::Asked;
use bailey_proto::broker::v1::{EpochRequest, ReadAsked, VerifyTokenRequest};
use bailey_proto::management::v1::{InitRequest, ListRequest, StatusRequest};
use bailey_trust::SealingKey;
use bailey_types::Service;
use tokio::net::TcpStream;
use tonic::Code;

use crate::harness::Broker;

fn replace_key(broker: &Broker, text: &str) {
    let path = broker.stack.secrets_dir().join("age.key");
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o400)).unwrap();
    std::fs::rename(new, path).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_wrong_age_key_seals_everything_until_the_right_one_is_there() {
    let mut right = None;
    let broker = Broker::start_with(|broker| {
        right = Some(broker.stack.vault_key());
        replace_key(broker, &SealingKey::generate().to_file_text());
    })
    .await;
    broker.says("sealed, no certificates are issued").await;
    let mut vault = broker.vault("").await;
    let status = vault.status(StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.state, "sealed");
    assert!(status.detail.contains("another key"), "{}", status.detail);
    let init = vault.init(InitRequest {}).await.unwrap_err();
    assert_eq!(init.code(), Code::Unavailable);
    assert!(init.message().contains("another key"), "{init}");
    for address in [
        broker.stack.address(Service::Broker),
        broker.stack.enrolment_address(),
    ] {
        let refused = TcpStream::connect(address).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    }
    replace_key(&broker, &right.unwrap().to_file_text());
    broker.no_longer_says("sealed").await;
    broker.init().await;
    let mesh = broker.mesh(Service::Policy);
    let mut epochs = EpochServiceClient::new(mesh.channel(Service::Broker));
    assert!(epochs.epoch(EpochRequest {}).await.is_ok());
}

#[tokio::test]
async fn a_vault_that_the_broker_unseals_by_itself_is_in_the_audit_log_too() {
    let mut broker = Broker::start().await;
    broker.init().await;
    broker.stop().await;
    let right = broker.stack.vault_key();
    replace_key(&broker, &SealingKey::generate().to_file_text());
    broker.start_again().await;
    broker.says("sealed, no certificates are issued").await;
    replace_key(&broker, &right.to_file_text());
    broker.audit.entry("vault.unsealed").await;
    assert!(
        broker
            .vault("")
            .await
            .status(StatusRequest {})
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_vault_that_cannot_be_opened_is_not_taken_for_none() {
    let mut broker = Broker::start().await;
    let admin = broker.init().await;
    let token = broker.create_token(&admin, "ops", &["*"]).await;
    broker.stop().await;
    let path = broker.stack.dir().join("data/broker/vault.age");
    let good = std::fs::read(&path).unwrap();
    let (half, _) = good.split_at(good.len() / 2);
    std::fs::write(&path, half).unwrap();
    broker.start_again().await;
    broker
        .says("the vault is sealed: vault.age cannot be used")
        .await;
    let list = broker
        .vault(&admin)
        .await
        .list(ListRequest {})
        .await
        .unwrap_err();
    assert_eq!(list.code(), Code::Unavailable);
    let mesh = broker.mesh(Service::Gateway);
    let mut tokens = TokenServiceClient::new(mesh.channel(Service::Broker));
    let read = VerifyTokenRequest {
        token,
        any_of_scopes: Vec::new(),
        asked: Some(Asked::Read(ReadAsked {})),
    };
    let refused = tokens.verify_token(read.clone()).await.unwrap_err();
    assert_eq!(
        refused.code(),
        Code::Unavailable,
        "certificates are issued, tokens are not known"
    );
    assert_eq!(std::fs::read(&path).unwrap(), half);
    std::fs::write(&path, good).unwrap();
    broker.restart().await;
    assert!(tokens.verify_token(read).await.is_ok());
}
