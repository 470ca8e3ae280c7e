//! The vault's verbs over the management socket, what they leave in the audit log, and what they mean to those on the mesh.

use bailey_proto::broker::v1::epoch_service_client::EpochServiceClient;
use bailey_proto::broker::v1::presence_service_client::PresenceServiceClient;
use bailey_proto::broker::v1::token_service_client::TokenServiceClient;
use bailey_proto::broker::v1::verify_token_request::Asked;
use bailey_proto::broker::v1::{EpochRequest, ReadAsked, RollRequest, VerifyTokenRequest};
use bailey_proto::management::v1::{
    ImportSecretsRequest, ImportedPrincipal, ImportedSecret, ListRequest, PurgePrincipalRequest,
    Recipe, RegisterPrincipalRequest, RevokePrincipalRequest, RevokeSecretRequest,
    RevokeTokenRequest, RollPrincipalRequest, RollSecretRequest, SecretEntry, SetSecretRequest,
};
use bailey_types::Service;
use serde_json::json;
use tonic::{Code, Status};

use crate::harness::{Broker, logged};
use crate::rollback::restore;

fn set(name: &str, value: &str, grant_to: &[&str]) -> SetSecretRequest {
    SetSecretRequest {
        name: name.into(),
        value: value.as_bytes().to_vec().into(),
        grant_to: grant_to.iter().map(ToString::to_string).collect(),
        ..SetSecretRequest::default()
    }
}

fn generated(name: &str, grant_to: &[&str]) -> SetSecretRequest {
    SetSecretRequest {
        pattern: "auto".into(),
        recipe: Some(Recipe {
            length: 20,
            alphabet: "hex".into(),
        }),
        ..set(name, "", grant_to)
    }
}

fn roll(name: &str, value: &str) -> RollSecretRequest {
    RollSecretRequest {
        name: name.into(),
        value: value.as_bytes().to_vec().into(),
    }
}

async fn entry(broker: &Broker, admin: &str, name: &str) -> SecretEntry {
    let listed = broker.vault(admin).await.list(ListRequest {}).await;
    let mut secrets = listed.unwrap().into_inner().secrets.into_iter();
    secrets.find(|secret| secret.name == name).unwrap()
}

fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, why: &str) {
    let status = answer.unwrap_err();
    assert_eq!(status.code(), code, "{status}");
    assert!(status.message().contains(why), "{status}");
}

#[tokio::test]
async fn the_life_of_a_secret_is_listed_and_recorded_by_name_alone() {
    let broker = Broker::start().await;
    let admin = broker.init().await;
    let (first, second) = ("canary-first-41", "canary-second-42");
    broker.grant_demo_key(&admin, first).await;
    let mut vault = broker.vault(&admin).await;

    let rolled = vault.roll_secret(roll("demo_key", second)).await.unwrap();
    let rolled = rolled.into_inner();
    assert_eq!((rolled.outcome.as_str(), rolled.roll_count), ("rolled", 1));
    assert_eq!(
        broker.audit.entry("secret.rolled").await["secret"],
        "demo_key"
    );
    let unwanted = vault.roll_secret(roll("demo_key", "")).await;
    refused(unwanted, Code::InvalidArgument, "needs a value");
    // What is listed is everything but the value.
    let all = vault.list(ListRequest {}).await.unwrap().into_inner();
    let all = format!("{all:?}");
    assert!(all.contains("demo_key") && !all.contains(first) && !all.contains(second));
    let entry_of = entry(&broker, &admin, "demo_key").await;
    assert_eq!(
        (entry_of.roll_count, entry_of.pattern.as_str()),
        (1, "manual")
    );

    let name = || "demo_key".to_owned();
    let revoked = vault
        .revoke_secret(RevokeSecretRequest { name: name() })
        .await;
    assert_eq!(revoked.unwrap().into_inner().outcome, "revoked");
    assert_eq!(
        broker.audit.entry("secret.revoked").await["secret"],
        "demo_key"
    );
    let late = vault.roll_secret(roll("demo_key", "x")).await;
    refused(late, Code::FailedPrecondition, "cannot be used again");
    let denied = broker.audit.entry("vault.refused").await;
    assert_eq!(
        (&denied["operation"], &denied["secret"]),
        (&json!("roll"), &json!("demo_key"))
    );
    let entry_of = entry(&broker, &admin, "demo_key").await;
    assert!(entry_of.status == "revoked" && entry_of.revoked_at_ms > 0);

    let audit: String = broker.audit.all().iter().map(ToString::to_string).collect();
    for value in [first, second] {
        assert!(!audit.contains(value) && !logged().contains(value));
    }
}

#[tokio::test]
async fn the_broker_makes_values_and_rolls_all_of_a_principal() {
    let broker = Broker::start().await;
    let admin = broker.init().await;
    broker.grant_demo_key(&admin, "hunter2").await;
    let mut vault = broker.vault(&admin).await;
    vault
        .set_secret(generated("made", &["greet"]))
        .await
        .unwrap();
    let with_value = SetSecretRequest {
        value: b"mine".to_vec().into(),
        ..generated("other", &[])
    };
    refused(
        vault.set_secret(with_value).await,
        Code::InvalidArgument,
        "made by the broker",
    );
    let short = SetSecretRequest {
        recipe: Some(Recipe {
            length: 7,
            alphabet: "hex".into(),
        }),
        ..generated("other", &[])
    };
    refused(
        vault.set_secret(short).await,
        Code::InvalidArgument,
        "8 to 1024",
    );
    assert_eq!(
        entry(&broker, &admin, "made").await.recipe.unwrap().length,
        20
    );

    let name = || "greet".to_owned();
    let rolled = vault
        .roll_principal(RollPrincipalRequest { name: name() })
        .await;
    let rolled = rolled.unwrap().into_inner();
    assert_eq!(rolled.rolled, ["made"]);
    assert_eq!(rolled.skipped, ["demo_key"]);
    let recorded = broker.audit.entry("principal.rolled").await;
    assert_eq!(recorded["skipped"], json!(["demo_key"]));
    assert_eq!(entry(&broker, &admin, "made").await.roll_count, 1);

    let revoked = vault
        .revoke_principal(RevokePrincipalRequest { name: name() })
        .await;
    assert_eq!(revoked.unwrap().into_inner().outcome, "principal_revoked");
    let again = RegisterPrincipalRequest {
        name: name(),
        kind: "plugin".into(),
    };
    let registered = vault.register_principal(again.clone()).await;
    refused(registered, Code::AlreadyExists, "revoked");
    let purged = vault
        .purge_principal(PurgePrincipalRequest { name: name() })
        .await;
    let purged = purged.unwrap().into_inner();
    assert_eq!(purged.outcome, "principal_purged");
    assert_eq!(purged.stripped, ["demo_key", "made"]);
    assert!(entry(&broker, &admin, "made").await.granted_to.is_empty());
    let registered = vault.register_principal(again).await.unwrap().into_inner();
    assert_eq!(registered.outcome, "principal_registered");
    for kind in ["principal.revoked", "principal.purged"] {
        assert_eq!(broker.audit.entry(kind).await["principal"], "greet");
    }
}

fn import(apply: bool) -> ImportSecretsRequest {
    let secret = |name: &str, value: &str, grant_to: &str| ImportedSecret {
        name: name.into(),
        value: value.as_bytes().to_vec().into(),
        grant_to: vec![grant_to.into()],
        description: "from elsewhere".into(),
    };
    ImportSecretsRequest {
        secrets: vec![
            secret("demo_key", "canary-other", "greet"),
            secret("fresh", "canary-fresh", "fetch"),
        ],
        principals: vec![principal("fetch", "plugin")],
        apply,
    }
}

fn principal(name: &str, kind: &str) -> ImportedPrincipal {
    ImportedPrincipal {
        name: name.into(),
        kind: kind.into(),
    }
}

#[tokio::test]
async fn an_import_is_previewed_and_then_does_what_it_said() {
    let broker = Broker::start().await;
    let admin = broker.init().await;
    broker.grant_demo_key(&admin, "hunter2").await;
    broker.lock_greet(&admin).await;
    let mut vault = broker.vault(&admin).await;
    let preview = vault
        .import_secrets(import(false))
        .await
        .unwrap()
        .into_inner();
    let listed = vault.list(ListRequest {}).await.unwrap().into_inner();
    assert_eq!((listed.secrets.len(), listed.principals.len()), (1, 2));

    let done = vault
        .import_secrets(import(true))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(done, preview);
    let skipped: Vec<_> = done
        .secrets
        .iter()
        .map(|secret| secret.skipped.as_str())
        .collect();
    assert!(skipped[0].contains("changed by `roll`"), "{skipped:?}");
    assert_eq!(skipped[1], "");
    assert_eq!(done.registered, ["fetch"]);
    // Of the plugins nothing is missing; the upstream of the configuration has no key yet.
    let [missing] = done.missing.as_slice() else {
        panic!("{:?}", done.missing);
    };
    assert!(
        missing.contains("the upstream model has no key"),
        "{missing}"
    );
    assert_eq!(entry(&broker, &admin, "fresh").await.granted_to, ["fetch"]);
    assert!(
        broker
            .audit
            .all()
            .iter()
            .any(|entry| entry.to_string().contains("imported"))
    );
    assert!(!logged().contains("canary-fresh"));
}

#[tokio::test]
async fn an_import_for_somebody_who_cannot_be_a_principal_does_nothing_and_names_each() {
    let broker = Broker::start().await;
    let admin = broker.init().await;
    broker.grant_demo_key(&admin, "hunter2").await;
    broker.lock_greet(&admin).await;
    let mut vault = broker.vault(&admin).await;
    let before = vault.list(ListRequest {}).await.unwrap().into_inner();
    let wrong = |apply| {
        let mut asked = import(apply);
        let orphan = ImportedSecret {
            name: "orphan".into(),
            value: b"canary-orphan".to_vec().into(),
            grant_to: vec!["nobody".into()],
            description: String::new(),
        };
        asked.secrets.push(orphan);
        asked.principals.push(principal("greet", "consumer"));
        asked
    };
    let preview = vault.import_secrets(wrong(false)).await;
    let preview = preview.unwrap().into_inner();
    assert!(preview.secrets[2].skipped.contains("not registered"));
    let said = preview.missing[0].clone();
    for refused in [
        said,
        vault
            .import_secrets(wrong(true))
            .await
            .unwrap_err()
            .message()
            .to_owned(),
    ] {
        for part in [
            "nothing is imported",
            "the principal greet is registered already, as a plugin (active)",
            "orphan: the principal nobody is not registered",
        ] {
            assert!(refused.contains(part), "{part}: {refused}");
        }
    }
    let after = vault.list(ListRequest {}).await.unwrap().into_inner();
    assert_eq!(after, before);
    let denied = broker.audit.entry("vault.refused").await;
    assert_eq!(
        (&denied["operation"], &denied["reason"]),
        (&"import".into(), &"not_admitted".into())
    );
}

fn verify(token: &str) -> VerifyTokenRequest {
    VerifyTokenRequest {
        token: token.into(),
        any_of_scopes: Vec::new(),
        asked: Some(Asked::Read(ReadAsked {})),
    }
}

#[tokio::test]
async fn the_first_token_opens_the_gateway_and_the_last_one_closes_it() {
    let broker = Broker::start().await;
    let channel = |service| broker.mesh(service).channel(Service::Broker);
    let mut roll = PresenceServiceClient::new(channel(Service::Gateway));
    let mut epochs = EpochServiceClient::new(channel(Service::Policy));
    let mut tokens = TokenServiceClient::new(channel(Service::Gateway));
    macro_rules! posture {
        () => {{
            let roll = roll.roll(RollRequest {}).await.unwrap().into_inner();
            let epoch = epochs.epoch(EpochRequest {}).await.unwrap().into_inner();
            assert!(!epoch.epoch.is_empty());
            (roll.posture, epoch.hold.is_empty())
        }};
    }
    assert_eq!(posture!(), ("management-only".to_owned(), false));
    let admin = broker.init().await;
    assert_eq!(posture!(), ("management-only".to_owned(), false));
    let first = broker.create_token(&admin, "first", &["*"]).await;
    let second = broker.create_token(&admin, "second", &["*"]).await;
    assert_eq!(posture!(), ("gateway".to_owned(), true));

    let mut vault = broker.vault(&admin).await;
    let named = |name: &str| RevokeTokenRequest { name: name.into() };
    assert!(tokens.verify_token(verify(&first)).await.is_ok());
    vault.revoke_token(named("first")).await.unwrap();
    refused(
        tokens.verify_token(verify(&first)).await,
        Code::Unauthenticated,
        "not known",
    );
    assert!(tokens.verify_token(verify(&second)).await.is_ok());
    refused(
        vault.revoke_token(named("first")).await,
        Code::NotFound,
        "no token first",
    );
    assert_eq!(broker.audit.entry("token.revoked").await["token"], "first");
    assert_eq!(posture!(), ("gateway".to_owned(), true));
    vault.revoke_token(named("second")).await.unwrap();
    assert_eq!(posture!(), ("management-only".to_owned(), false));
}

#[tokio::test]
async fn a_vault_that_is_earlier_than_the_lock_in_force_is_told() {
    let mut broker = Broker::start().await;
    let admin = broker.init().await;
    let ctx = broker.stack.context(Service::Broker);
    let path = ctx.settings.data_dir.join("vault.age");
    broker.lock_greet(&admin).await;
    broker.no_longer_says("earlier").await;
    let earlier = std::fs::read(&path).unwrap();
    broker.lock_greet(&admin).await;
    broker.stop().await;
    // By the operator: another's would not be opened.
    std::fs::remove_file(&path).unwrap();
    restore(&broker, &earlier);
    broker.start_again().await;
    broker.says("the vault is earlier than bailey.lock").await;
    // Locked again, the vault has caught up.
    broker.lock_greet(&admin).await;
    broker.no_longer_says("earlier").await;
}

/// One that was signed and not written, or an earlier one that somebody put back: no job runs, and that must be said.
#[tokio::test]
async fn a_lock_that_is_earlier_than_the_last_signed_one_is_told() {
    let mut broker = Broker::start().await;
    let admin = broker.init().await;
    let path = broker.stack.config_dir().join("bailey.lock");
    broker.lock_greet(&admin).await;
    broker.no_longer_says("every job waits").await;
    let first = std::fs::read(&path).unwrap();
    let last = broker.lock_greet(&admin).await.serial;
    broker.no_longer_says("every job waits").await;
    std::fs::write(&path, &first).unwrap();
    broker.restart().await;
    let told = format!("bailey.lock has serial 1, but {last} was signed, so every job waits");
    broker.says(&told).await;
    broker.says("`bailey plugin lock --all`").await;
    // Signed and in no file is no better.
    broker.signed_only(&admin).await;
    broker.says("but 3 was signed, so every job waits").await;
    broker.lock_greet(&admin).await;
    broker.no_longer_says("every job waits").await;
}

#[tokio::test]
async fn whom_the_lock_names_is_registered_by_his_first_grant_and_a_slip_of_the_pen_is_not() {
    let broker = Broker::start().await;
    let admin = broker.init().await;
    let mut vault = broker.vault(&admin).await;
    let asked = |name: &str, to: &str| SetSecretRequest {
        name: name.into(),
        value: b"a value".to_vec().into(),
        grant_to: vec![to.into()],
        ..SetSecretRequest::default()
    };
    // Nothing is locked yet: then nobody knows what it is.
    let refused = vault.set_secret(asked("one", "greet")).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    broker.lock_greet(&admin).await;
    for (secret, principal, kind) in [("one", "greet", "plugin"), ("two", "model", "consumer")] {
        let set = vault.set_secret(asked(secret, principal)).await.unwrap();
        let [registered] = set.into_inner().registered.try_into().unwrap();
        assert_eq!(
            (registered.name.as_str(), registered.kind.as_str()),
            (principal, kind)
        );
        let is_it = |fields: &serde_json::Value| fields["principal"] == principal;
        let told = broker.audit.entry_that("principal.registered", is_it).await;
        assert_eq!(told["kind"], kind);
    }
    let again = vault.set_secret(asked("three", "greet")).await.unwrap();
    assert!(again.into_inner().registered.is_empty());
    let refused = vault.set_secret(asked("four", "gret")).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(
        refused.message().contains("(did you mean greet?)")
            && refused
                .message()
                .contains("bailey vault register-principal gret"),
        "{refused}"
    );
    let listed = vault.list(ListRequest {}).await.unwrap().into_inner();
    assert_eq!((listed.secrets.len(), listed.principals.len()), (3, 3));
}
