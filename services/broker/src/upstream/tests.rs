use std::collections::BTreeSet;
use std::sync::Arc;

use bailey_trust::Lock;
use bailey_types::{Blake3, Serial, Timestamp};
use zeroize::Zeroizing;

use super::*;
use crate::token::Scope;
use crate::vault::{Nonce, SetSecret};

const CONFIG: &str = "
accounts: {default: {}}
upstreams:
  model: {url: 'https://api.example.com/v1', secret_ref: model-key, clients: [engine]}
  bell: {url: 'https://ntfy.example.com', secret_ref: bell-key, vault_principal: phone}
  open: {url: 'http://open.example.com'}
";
const VALUE: &str = "canary-of-the-model";

/// The lock of these tests, as the one with this serial.
fn lock(serial: u64) -> Loaded<View> {
    let lock = Lock {
        version: 1,
        stack: "test".parse().unwrap(),
        serial: Serial(serial),
        signed_at: Timestamp(0),
        config_files: BTreeMap::from([("config.yaml".into(), CONFIG.into())]),
        plugins: BTreeMap::new(),
        next_uid: 20_000,
    };
    let view = View::of(&lock).unwrap();
    Loaded { lock, view }
}

/// With an API token, the consumers `model` and `phone`, the plugin `greet`, and `model-key`, which is granted to `model`.
fn document() -> Document {
    let nonce = Nonce::generate();
    let mut document = Document::genesis("test".parse().unwrap(), Blake3([0; 32]), nonce);
    let scopes = BTreeSet::from([Scope::SystemRw]);
    document
        .add_token(
            "ops".parse().unwrap(),
            Blake3([1; 32]),
            scopes,
            Timestamp(1),
        )
        .unwrap();
    for (name, kind) in [
        ("model", PrincipalKind::Consumer),
        ("phone", PrincipalKind::Consumer),
        ("greet", PrincipalKind::Plugin),
    ] {
        document.register(name.parse().unwrap(), kind).unwrap();
    }
    set(&mut document, Some(VALUE), "model");
    document
}

fn model() -> PrincipalName {
    "model".parse().unwrap()
}

/// Grants `model-key` to `principal` and nobody else.
fn set(document: &mut Document, value: Option<&str>, principal: &str) {
    let asked = SetSecret {
        name: "model-key".parse().unwrap(),
        value: value.map(|value| Value::from(Zeroizing::new(value.to_owned()))),
        grants: Some(BTreeSet::from([principal.parse().unwrap()])),
        pattern: None,
        recipe: None,
        description: String::new(),
    };
    document.set_secret(asked, Timestamp(1)).unwrap();
}

fn asked(document: Document, upstream: &str, client: Service) -> Result<String, Denied> {
    released(&vault::State::Open(Arc::new(document)), upstream, client)
}

fn released(vault: &vault::State, upstream: &str, client: Service) -> Result<String, Denied> {
    let lock = lock(1);
    let released = release(vault, &lock, &upstream.parse().unwrap(), client, Serial(1))?;
    Ok(released.value.expose().to_owned())
}

#[test]
fn a_key_is_released_for_the_clients_of_its_upstream_only() {
    let model = |client| asked(document(), "model", client);
    assert_eq!(model(Service::Engine).as_deref(), Ok(VALUE));
    for client in Service::ALL.iter().filter(|s| **s != Service::Engine) {
        assert_eq!(model(*client), Err(Denied::WrongClient), "{client}");
    }
    let refused = |upstream: &str| asked(document(), upstream, Service::Worker).unwrap_err();
    assert_eq!(refused("other"), Denied::NoSuchUpstream);
    assert_eq!(refused("open"), Denied::NoKey);
    assert_eq!(
        refused("bell"),
        Denied::Vault(operation::Denied::NoSuchSecret)
    );
}

/// What keeps the key of `model` back, and what is said of it.
type Case = (fn(&mut Document), &'static str, &'static str);

#[test]
fn whatever_is_not_granted_to_an_active_consumer_is_denied_and_told_for_its_reason() {
    let cases: [Case; 6] = [
        (
            |d| d.secrets.clear(),
            "no_such_secret",
            "there is no secret model-key",
        ),
        (
            |d| {
                let key = "model-key".parse().unwrap();
                assert!(d.revoke(&key, Timestamp(2)).unwrap());
            },
            "secret_revoked",
            "the secret model-key was revoked",
        ),
        (
            |d| assert!(d.principals.remove(&model()).is_some()),
            "no_such_principal",
            "the principal model is not registered",
        ),
        (
            |d| assert!(d.revoke_principal(&model()).unwrap()),
            "principal_revoked",
            "the principal model was revoked",
        ),
        (
            |d| d.principals.get_mut(&model()).unwrap().kind = PrincipalKind::Plugin,
            "wrong_principal",
            "the principal model is no consumer",
        ),
        (
            |d| set(d, None, "phone"),
            "not_granted",
            "the secret model-key is not granted to model",
        ),
    ];
    let told_of = |document: &Document| {
        let all = missing(document, &lock(1).view.upstreams);
        all.into_iter().find(|told| told.contains("upstream model"))
    };
    assert_eq!(told_of(&document()), None);
    for (change, token, told) in cases {
        let mut document = document();
        change(&mut document);
        let expected = format!("the upstream model has no key: {told}");
        assert_eq!(told_of(&document), Some(expected));
        let denied = asked(document, "model", Service::Engine).unwrap_err();
        assert_eq!(denied.token(), token);
        assert_eq!(denied.kind(), Kind::FailedPrecondition);
        // Whoever asks does not learn which.
        let said = "the vault does not release the key of the upstream";
        assert_eq!(denied.to_string(), said);
    }
}

#[test]
fn an_upstream_without_a_key_lacks_none() {
    let told = missing(&document(), &lock(1).view.upstreams);
    let bell = "the upstream bell has no key: there is no secret bell-key";
    assert_eq!(told, [bell]);
}

#[test]
fn without_tokens_or_the_vault_nothing_is_released() {
    let refused = |vault: &vault::State| released(vault, "model", Service::Engine).unwrap_err();
    let mut closed = document();
    closed.revoke_token(&"ops".parse().unwrap()).unwrap();
    let closed = vault::State::Open(Arc::new(closed));
    assert_eq!(refused(&closed), Denied::ManagementOnly);
    assert_eq!(refused(&vault::State::NoVault), Denied::ManagementOnly);
    let sealed = refused(&vault::State::Sealed("no key".into()));
    assert_eq!(sealed.kind(), Kind::Unavailable);
}

#[test]
fn a_lock_that_was_put_back_releases_nothing() {
    let mut document = document();
    document.lock.serial = Serial(2);
    let vault = vault::State::Open(Arc::new(document));
    let refused = released(&vault, "model", Service::Engine);
    assert_eq!(refused, Err(Denied::StaleLock));
    let (newer, model) = (lock(2), "model".parse().unwrap());
    assert!(release(&vault, &newer, &model, Service::Engine, Serial(2)).is_ok());
}

#[test]
fn a_key_is_for_the_host_of_one_lock() {
    let vault = vault::State::Open(Arc::new(document()));
    let (lock, model) = (lock(5), "model".parse().unwrap());
    let release = |serial| release(&vault, &lock, &model, Service::Engine, Serial(serial));
    assert!(release(5).is_ok());
    // Of an older lock, of one that the broker has not read yet, of none.
    for serial in [4, 6, 0] {
        let refused = release(serial).unwrap_err();
        assert_eq!(refused, Denied::OtherLock, "{serial}");
        assert_eq!(refused.kind(), Kind::Unavailable);
    }
}
