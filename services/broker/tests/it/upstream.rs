//! Keys of upstreams over the mesh.

use bailey_proto::broker::v1::presence_service_client::PresenceServiceClient;
use bailey_proto::broker::v1::upstream_key_service_client::UpstreamKeyServiceClient;
use bailey_proto::broker::v1::{ReleaseKeyRequest, ReleaseKeyResponse, RollRequest};
use bailey_proto::management::v1::{
    ProposeRequest, RegisterPrincipalRequest, RevokeSecretRequest, RollSecretRequest,
    SetSecretRequest,
};
use bailey_trust::Lock;
use bailey_types::Service;
use serde_json::{Value as Json, json};
use tonic::{Code, Response, Status};

use crate::harness::{Broker, logged, proposal};

const VALUE: &str = "canary-31f07c-for-the-model";

async fn release(
    broker: &Broker,
    caller: Service,
    upstream: &str,
) -> Result<ReleaseKeyResponse, Status> {
    release_under(broker, caller, upstream, locked(broker)).await
}

/// The serial of the lock that is there; 0: there is none.
fn locked(broker: &Broker) -> u64 {
    let path = broker.stack.config_dir().join("bailey.lock");
    let Ok(text) = std::fs::read(path) else {
        return 0;
    };
    let signed = bailey_trust::source::from_file_text(&text).unwrap();
    let key = broker.stack.trust().signing.broker;
    let lock = bailey_trust::verify::<Lock>(&signed, &key).unwrap();
    lock.statement.serial.0
}

async fn release_under(
    broker: &Broker,
    caller: Service,
    upstream: &str,
    lock_serial: u64,
) -> Result<ReleaseKeyResponse, Status> {
    let channel = broker.mesh(caller).channel(Service::Broker);
    let request = ReleaseKeyRequest {
        upstream: upstream.into(),
        client: "engine".into(),
        lock_serial,
    };
    let mut keys = UpstreamKeyServiceClient::new(channel);
    let released = keys.release_key(request).await;
    released.map(Response::into_inner)
}

async fn released(broker: &Broker) -> Result<ReleaseKeyResponse, Status> {
    release(broker, Service::EgressProxy, "model").await
}

/// The consumer `model` with its key.
async fn grant(broker: &Broker, admin: &str) {
    let mut vault = broker.vault(admin).await;
    let (name, kind) = ("model".into(), "consumer".into());
    let registered = RegisterPrincipalRequest { name, kind };
    vault.register_principal(registered).await.unwrap();
    let set = SetSecretRequest {
        name: "model-key".into(),
        value: VALUE.as_bytes().to_vec().into(),
        grant_to: vec!["model".into()],
        ..SetSecretRequest::default()
    };
    vault.set_secret(set).await.unwrap();
}

/// A broker with a token, a lock with the upstream `model`, and its key.
async fn ready() -> (Broker, String) {
    let broker = Broker::start().await;
    let admin = broker.init().await;
    broker.create_token(&admin, "ops", &["system:rw"]).await;
    grant(&broker, &admin).await;
    broker.lock_greet(&admin).await;
    (broker, admin)
}

/// The fields of the newest entry of a kind.
fn newest(broker: &Broker, kind: &str) -> Json {
    let all = broker.audit.all();
    let newest = all.iter().rfind(|entry| entry["kind"] == kind);
    newest.unwrap()["fields"].clone()
}

#[tokio::test]
async fn a_key_is_on_record_before_it_goes_to_egress_proxy() {
    // Given an upstream with a key, when egress-proxy asks for it
    let (broker, _admin) = ready().await;
    let answer = released(&broker).await.unwrap();
    // Then it has it, and the audit log has who for, by name only
    assert_eq!(answer.secret, "model-key");
    assert_eq!(answer.value, VALUE.as_bytes());
    let expected = json!({"upstream": "model", "client": "engine", "secret": "model-key", "principal": "model"});
    assert_eq!(newest(&broker, "upstream.key_released"), expected);
    let audit: String = broker.audit.all().iter().map(ToString::to_string).collect();
    assert!(!audit.contains(VALUE) && !logged().contains(VALUE));
}

#[tokio::test]
async fn nobody_but_egress_proxy_has_a_key() {
    let (broker, _admin) = ready().await;
    let others = Service::ALL.iter();
    for other in others.filter(|s| !matches!(s, Service::EgressProxy | Service::Broker)) {
        let refused = release(&broker, *other, "model").await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{other}");
    }
    assert!(released(&broker).await.is_ok());
}

#[tokio::test]
async fn a_key_goes_only_to_where_the_brokers_own_lock_says() {
    let (broker, _admin) = ready().await;
    let serial = locked(&broker);
    let release = |serial| release_under(&broker, Service::EgressProxy, "model", serial);
    for other in [serial - 1, serial + 1] {
        let refused = release(other).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{other}");
        assert!(refused.message().contains("different locks"), "{refused}");
    }
    assert_eq!(release(serial).await.unwrap().value, VALUE.as_bytes());
}

#[tokio::test]
async fn a_roll_and_a_revocation_count_at_once() {
    let (broker, admin) = ready().await;
    let mut vault = broker.vault(&admin).await;
    let roll = RollSecretRequest {
        name: "model-key".into(),
        value: "rolled".as_bytes().into(),
    };
    vault.roll_secret(roll).await.unwrap();
    assert_eq!(released(&broker).await.unwrap().value, "rolled");
    let revoke = RevokeSecretRequest {
        name: "model-key".into(),
    };
    vault.revoke_secret(revoke).await.unwrap();
    let refused = released(&broker).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    // Whoever asks does not learn what the vault has.
    let said = "the vault does not release the key of the upstream";
    assert_eq!(refused.message(), said);
    let recorded = broker.audit.entry("upstream.key_refused").await;
    let expected = json!({"upstream": "model", "client": "engine", "secret": "model-key", "principal": "model", "reason": "secret_revoked"});
    assert_eq!(recorded, expected);
    let absent = release(&broker, Service::EgressProxy, "other").await;
    assert_eq!(absent.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn without_a_record_no_key_leaves() {
    let (mut broker, _admin) = ready().await;
    broker.served.take().unwrap().stop().await;
    let refused = released(&broker).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    broker.served = Some(broker.audit.serve(&broker.stack));
    assert_eq!(released(&broker).await.unwrap().value, VALUE.as_bytes());
}

#[tokio::test]
async fn without_lock_or_token_nothing_is_released() {
    let broker = Broker::start().await;
    let admin = broker.init().await;
    let unlocked = released(&broker).await.unwrap_err();
    assert_eq!(unlocked.code(), Code::Unavailable);
    assert!(unlocked.message().contains("lock"), "{unlocked}");
    grant(&broker, &admin).await;
    broker.lock_greet(&admin).await;
    let tokenless = released(&broker).await.unwrap_err();
    assert_eq!(tokenless.code(), Code::FailedPrecondition);
    assert!(tokenless.message().contains("management-only"));
    let recorded = broker.audit.entry("upstream.key_refused").await;
    assert_eq!(recorded["reason"], "management_only");
    broker.create_token(&admin, "ops", &["system:rw"]).await;
    assert!(released(&broker).await.is_ok());
}

#[tokio::test]
async fn an_upstream_without_its_key_is_told_before_it_is_locked_and_while_it_is() {
    let broker = Broker::start().await;
    let admin = broker.init().await;
    let told = "the upstream model has no key: there is no secret model-key";
    let proposed = || async {
        let text = serde_json::to_vec(&proposal()).unwrap();
        let proposal = ProposeRequest {
            proposal: text.into(),
        };
        let mut lock = broker.lock(&admin).await;
        lock.propose(proposal).await.unwrap().into_inner().missing
    };
    assert_eq!(proposed().await, [told]);
    broker.lock_greet(&admin).await;
    let channel = broker.mesh(Service::Gateway).channel(Service::Broker);
    let mut presence = PresenceServiceClient::new(channel);
    let roll = presence.roll(RollRequest {}).await.unwrap();
    assert_eq!(roll.into_inner().missing, [told]);
    grant(&broker, &admin).await;
    let roll = presence.roll(RollRequest {}).await.unwrap();
    assert_eq!(roll.into_inner().missing, Vec::<String>::new());
    assert_eq!(proposed().await, Vec::<String>::new());
}
