//! Nothing is given without a record, and nothing keeps from taking away: every deed on the management socket, with the audit log there, away,
//! and refusing.

use bailey_proto::management::v1::{
    AddRecipientRequest, CreateTokenRequest, ExportRequest, ImportSecretsRequest, ImportedSecret,
    ProposeRequest, PurgePrincipalRequest, RegisterPrincipalRequest, RemoveRecipientRequest,
    RevokePrincipalRequest, RevokeSecretRequest, RevokeTokenRequest, RollPrincipalRequest,
    RollSecretRequest, RotateIntermediateRequest, SetSecretRequest, SignRequest, StatusRequest,
};
use bailey_trust::SealingKey;
use bailey_types::Service;
use serde_json::json;
use tokio::task::JoinSet;
use tonic::{Code, Status};

use crate::audit::Mode;
use crate::harness::{Broker, proposal};
use crate::management::methods;

/// What changes nothing, or is recorded when it can be: of the last two there are tests of their own.
const NO_DEEDS: [&str; 8] = [
    "VaultService/Status",
    "VaultService/List",
    "LockService/Propose",
    "LockService/AwaitLock",
    "PkiService/PkiStatus",
    "CustodyService/ListRecipients",
    "VaultService/Init",
    "CustodyService/Unseal",
];

/// What only takes away: it waits for nobody.
const TAKING: [&str; 5] = [
    "VaultService/RevokeSecret",
    "VaultService/RevokePrincipal",
    "VaultService/PurgePrincipal",
    "VaultService/RevokeToken",
    "CustodyService/RemoveRecipient",
];

/// Somebody and something for each deed.
struct World {
    broker: Broker,
    admin: String,
    paper: String,
}

impl World {
    async fn new() -> Self {
        let broker = Broker::start().await;
        let admin = broker.init().await;
        let paper = SealingKey::generate().recipient().to_string();
        let mut vault = broker.vault(&admin).await;
        for name in ["to-revoke", "to-purge", "to-roll"] {
            vault.register_principal(register(name)).await.unwrap();
        }
        for name in ["to-roll", "to-revoke"] {
            vault.set_secret(set(name)).await.unwrap();
        }
        broker.create_token(&admin, "to-revoke", &["*"]).await;
        let mut custody = broker.custody(&admin).await;
        custody.add_recipient(add(&paper)).await.unwrap();
        // Nothing is on its way to the log any more.
        let status = broker.vault("").await.status(StatusRequest {}).await;
        let revision = status.unwrap().into_inner().revision;
        let is_it = |fields: &serde_json::Value| fields["revision"] == revision;
        broker.audit.entry_that("vault.kept", is_it).await;
        Self {
            broker,
            admin,
            paper,
        }
    }

    /// Does what `method` does. Answers the kind of record that must be there then; `None`: it is no deed that is known here.
    async fn does(&self, method: &str) -> Option<(&'static str, Result<(), Status>)> {
        let (broker, admin) = (&self.broker, self.admin.as_str());
        let mut vault = broker.vault(admin).await;
        let mut custody = broker.custody(admin).await;
        let name = || "to-revoke".to_owned();
        let token = CreateTokenRequest {
            name: "new".into(),
            scopes: vec!["jobs:ro".into()],
        };
        let other = SealingKey::generate().recipient().to_string();
        let (kind, done) = match method {
            "VaultService/SetSecret" => {
                let done = vault.set_secret(set("new")).await;
                ("secret.set", done.map(drop))
            }
            "VaultService/RollSecret" => {
                let done = vault.roll_secret(roll("to-roll")).await;
                ("secret.rolled", done.map(drop))
            }
            "VaultService/RevokeSecret" => {
                let done = vault.revoke_secret(RevokeSecretRequest { name: name() });
                ("secret.revoked", done.await.map(drop))
            }
            "VaultService/ImportSecrets" => {
                let done = vault.import_secrets(import()).await;
                ("secret.set", done.map(drop))
            }
            "VaultService/RegisterPrincipal" => {
                let done = vault.register_principal(register("new")).await;
                ("principal.registered", done.map(drop))
            }
            "VaultService/RevokePrincipal" => {
                let done = vault.revoke_principal(RevokePrincipalRequest { name: name() });
                ("principal.revoked", done.await.map(drop))
            }
            "VaultService/PurgePrincipal" => {
                let name = "to-purge".into();
                let done = vault.purge_principal(PurgePrincipalRequest { name });
                ("principal.purged", done.await.map(drop))
            }
            "VaultService/RollPrincipal" => {
                let name = "to-roll".into();
                let done = vault.roll_principal(RollPrincipalRequest { name });
                ("principal.rolled", done.await.map(drop))
            }
            "VaultService/CreateToken" => {
                let done = vault.create_token(token).await;
                ("token.created", done.map(drop))
            }
            "VaultService/RevokeToken" => {
                let done = vault.revoke_token(RevokeTokenRequest { name: name() });
                ("token.revoked", done.await.map(drop))
            }
            "LockService/Sign" => ("lock.signed", self.sign().await),
            "CustodyService/AddRecipient" => {
                let done = custody.add_recipient(add(&other)).await;
                ("vault.recipient_added", done.map(drop))
            }
            "CustodyService/RemoveRecipient" => {
                let recipient = self.paper.clone();
                let done = custody.remove_recipient(RemoveRecipientRequest { recipient });
                ("vault.recipient_removed", done.await.map(drop))
            }
            "CustodyService/Export" => {
                let recipients = vec![other];
                let done = custody.export(ExportRequest { recipients }).await;
                ("vault.exported", done.map(drop))
            }
            "PkiService/RotateIntermediate" => {
                let mut pki = broker.pki(admin).await;
                let done = pki.rotate_intermediate(RotateIntermediateRequest {});
                ("pki.rotated", done.await.map(drop))
            }
            _ => return None,
        };
        Some((kind, done))
    }

    async fn sign(&self) -> Result<(), Status> {
        let mut lock = self.broker.lock(&self.admin).await;
        let text = serde_json::to_vec(&proposal()).unwrap();
        let proposed = lock.propose(ProposeRequest {
            proposal: text.into(),
        });
        let code = proposed.await?.into_inner().code;
        lock.sign(SignRequest { code }).await.map(drop)
    }

    /// Every file of the broker that a deed changes.
    fn files(&self) -> Vec<Option<Vec<u8>>> {
        let ctx = self.broker.stack.context(Service::Broker);
        let read = |name: &str| std::fs::read(ctx.settings.data_dir.join(name)).ok();
        ["vault.age", "intermediate.age"].map(read).into()
    }
}

pub fn register(name: &str) -> RegisterPrincipalRequest {
    RegisterPrincipalRequest {
        name: name.into(),
        kind: "plugin".into(),
    }
}

pub fn set(name: &str) -> SetSecretRequest {
    SetSecretRequest {
        name: name.into(),
        value: b"hunter2".to_vec().into(),
        ..SetSecretRequest::default()
    }
}

pub fn roll(name: &str) -> RollSecretRequest {
    RollSecretRequest {
        name: name.into(),
        value: b"hunter3".to_vec().into(),
    }
}

fn add(recipient: &str) -> AddRecipientRequest {
    AddRecipientRequest {
        recipient: recipient.into(),
        note: String::new(),
    }
}

fn import() -> ImportSecretsRequest {
    let one = |name: &str| ImportedSecret {
        name: name.into(),
        value: b"imported".to_vec().into(),
        grant_to: vec!["to-roll".into()],
        description: String::new(),
    };
    ImportSecretsRequest {
        secrets: vec![one("imported"), one("to-roll")],
        principals: Vec::new(),
        apply: true,
    }
}

/// The deeds, from the definitions: a method that is none of them must be known to be none.
fn deeds() -> Vec<String> {
    let short = |method: &String| method.rsplit('.').next().unwrap().to_owned();
    let methods = methods().0;
    let methods = methods.iter().map(short);
    let deeds: Vec<_> = methods
        .filter(|method| !NO_DEEDS.contains(&method.as_str()))
        .collect();
    assert!(deeds.len() >= 15, "{deeds:?}");
    deeds
}

fn giving() -> Vec<String> {
    let mut deeds = deeds();
    deeds.retain(|deed| !TAKING.contains(&deed.as_str()));
    deeds
}

#[tokio::test]
async fn whatever_changes_something_is_on_the_logs_disk_before_it_is_answered() {
    let world = World::new().await;
    for deed in deeds() {
        let kinds = |world: &World| {
            let all = world.broker.audit.all();
            let kinds = all.iter().map(|entry| entry["kind"].to_string());
            kinds.collect::<Vec<_>>()
        };
        let before = kinds(&world).len();
        let Some((kind, done)) = world.does(&deed).await else {
            panic!("{deed} is not known here: does it change something?");
        };
        done.unwrap_or_else(|e| panic!("{deed}: {e}"));
        // Not a moment later.
        let new = kinds(&world).split_off(before);
        assert!(new.contains(&format!("{kind:?}")), "{deed}: {new:?}");
    }
    // What an import leaves out is a denial, and to whom it grants is told.
    let refused = world.broker.audit.entry("vault.refused").await;
    assert_eq!(
        refused,
        json!({ "secret": "to-roll", "operation": "import", "reason": "value_exists" })
    );
    let all = world.broker.audit.all();
    let imported = all.iter().find(|it| it["fields"]["outcome"] == "imported");
    let granted = &imported.unwrap()["fields"]["granted_to"];
    assert_eq!(*granted, json!(["to-roll"]));
}

#[tokio::test]
async fn without_the_audit_log_nothing_is_given_and_that_is_said() {
    let mut world = World::new().await;
    let before = world.files();
    world.broker.served.take().unwrap().stop().await;
    for deed in giving() {
        let (_, done) = world.does(&deed).await.unwrap();
        let refused = done.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{deed}: {refused}");
        let said = refused.message();
        assert!(
            said.contains("the audit log did not take the record")
                && said.ends_with("nothing was changed: try again"),
            "{deed}: {said}"
        );
        assert!(world.files() == before, "{deed}");
    }
    // The log hears of each that was tried; and with it back everything is done as if nothing had been.
    world.broker.served = Some(world.broker.audit.serve(&world.broker.stack));
    let tried = world.broker.audit.entry("vault.not_changed").await;
    assert!(tried["not_done"].is_array(), "{tried}");
    for deed in deeds() {
        let (_, done) = world.does(&deed).await.unwrap();
        done.unwrap_or_else(|e| panic!("{deed}: {e}"));
    }
}

#[tokio::test]
async fn whoever_keeps_the_audit_log_away_prevents_no_revocation() {
    let mut world = World::new().await;
    let narrowed = |grants: Vec<String>| SetSecretRequest {
        name: "to-roll".into(),
        grant_to: grants,
        replace_grants: true,
        ..SetSecretRequest::default()
    };
    let mut vault = world.broker.vault(&world.admin).await;
    let granted = vec!["to-roll".to_owned(), "to-purge".to_owned()];
    vault.set_secret(narrowed(granted)).await.unwrap();
    let status = async |world: &World| {
        let mut vault = world.broker.vault("").await;
        vault.status(StatusRequest {}).await.unwrap().into_inner()
    };
    let told = world.broker.audit.all().len();
    world.broker.served.take().unwrap().stop().await;
    let mut kinds = Vec::new();
    for deed in TAKING {
        let (before, files) = (status(&world).await, world.files());
        let (kind, done) = world.does(deed).await.unwrap();
        done.unwrap_or_else(|e| panic!("{deed}: {e}"));
        assert!(world.files() != files, "{deed}");
        let after = status(&world).await;
        assert_eq!(after.revision, before.revision + 1, "{deed}");
        assert_eq!(after.unrecorded, before.unrecorded + 1, "{deed}");
        kinds.push(kind);
    }
    // What a grant loses is taken away, too; with another that it gets, it is not.
    let wider = vec!["to-roll".to_owned(), "to-revoke".to_owned()];
    assert!(vault.set_secret(narrowed(wider)).await.is_err());
    vault.set_secret(narrowed(Vec::new())).await.unwrap();
    kinds.push("secret.narrowed");
    let refused = vault.register_principal(register("new")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    // It is in force at once, and after a restart: and told, in order, before anything else is done.
    world.broker.stop().await;
    world.broker.start_again().await;
    assert_eq!(status(&world).await.unrecorded, 6);
    world.broker.served = Some(world.broker.audit.serve(&world.broker.stack));
    let mut vault = world.broker.vault(&world.admin).await;
    loop {
        // The restarted broker's way to the log may still be on its way.
        match vault.register_principal(register("new")).await {
            Ok(_) => break,
            Err(e) => assert_eq!(e.code(), Code::Unavailable, "{e}"),
        }
    }
    kinds.push("principal.registered");
    let all = world.broker.audit.all().split_off(told);
    let no_changes = ["vault.not_changed", "vault.kept"];
    let changes = all.iter().filter(|it| {
        it["fields"]["revision"].is_u64() && !no_changes.map(Some).contains(&it["kind"].as_str())
    });
    let changes: Vec<_> = changes.collect();
    let names: Vec<_> = changes
        .iter()
        .map(|it| it["kind"].as_str().unwrap())
        .collect();
    assert_eq!(names, kinds);
    let revisions = changes.iter().map(|it| it["fields"]["revision"].as_u64());
    assert!(revisions.is_sorted());
    assert_eq!(changes[0]["fields"]["secret"], "to-revoke");
    assert!(changes[0]["fields"]["at"].is_string());
    assert_eq!(status(&world).await.unrecorded, 0);
}

/// A log that takes its time is as good as one that is away: whoever revokes may hang up, and it is revoked.
#[tokio::test]
async fn a_revocation_waits_for_no_answer_of_the_audit_log() {
    let world = World::new().await;
    world.broker.audit.behave(Mode::Hold);
    let mut vault = world.broker.vault(&world.admin).await;
    let mut asked = JoinSet::new();
    let name = "to-revoke".to_owned();
    asked.spawn(async move {
        vault
            .revoke_token(RevokeTokenRequest { name })
            .await
            .map(drop)
    });
    let is_it = |fields: &serde_json::Value| fields["token"] == "to-revoke";
    let audit = &world.broker.audit;
    audit.entry_that("token.revoked", is_it).await;
    asked.abort_all();
    let status = world.broker.vault("").await.status(StatusRequest {}).await;
    assert_eq!(status.unwrap().into_inner().tokens, 0);
    audit.behave(Mode::Take);
    let mut vault = world.broker.vault(&world.admin).await;
    vault.register_principal(register("new")).await.unwrap();
    assert_eq!(audit.count("vault.not_changed"), 0);
}

#[tokio::test]
async fn what_the_audit_log_refuses_is_not_done() {
    let world = World::new().await;
    let before = world.files();
    world.broker.audit.behave(Mode::Refuse);
    for deed in giving() {
        let (_, done) = world.does(&deed).await.unwrap();
        let refused = done.unwrap_err();
        assert!(refused.message().contains("it is refused"), "{refused}");
        assert!(world.files() == before, "{deed}");
    }
}

#[tokio::test]
async fn whoever_hangs_up_while_his_change_is_recorded_changes_nothing_and_the_log_says_so() {
    let world = World::new().await;
    let before = world.files();
    let audit = &world.broker.audit;
    audit.behave(Mode::Hold);
    let mut client = world.broker.vault(&world.admin).await;
    let mut asked = JoinSet::new();
    asked.spawn(async move { client.set_secret(set("new")).await.map(drop) });
    let is_new = |fields: &serde_json::Value| fields["secret"] == "new";
    let recorded = audit.entry_that("secret.set", is_new).await;
    asked.abort_all();
    let undone = audit.entry("vault.not_changed").await;
    assert_eq!(undone["revision"], recorded["revision"]);
    assert_eq!(undone["not_done"], json!(["secret.set"]));
    assert!(world.files() == before);
    audit.behave(Mode::Take);
    let mut client = world.broker.vault(&world.admin).await;
    client.set_secret(set("new")).await.unwrap();
}

#[tokio::test]
async fn denials_are_recorded_with_what_was_asked_and_never_a_value() {
    let world = World::new().await;
    let mut vault = world.broker.vault(&world.admin).await;
    let large = SetSecretRequest {
        value: vec![b'x'; (64 << 10) + 1].into(),
        ..set("other")
    };
    let named = SetSecretRequest {
        name: "canary-Name".into(),
        ..set("x")
    };
    let ghost = RegisterPrincipalRequest {
        kind: "ghost".into(),
        ..register("who")
    };
    assert!(vault.set_secret(set("to-roll")).await.is_err());
    assert!(vault.set_secret(large).await.is_err());
    assert!(vault.set_secret(named).await.is_err());
    assert!(vault.register_principal(ghost).await.is_err());
    // The last of the queue.
    let purge = PurgePrincipalRequest { name: "who".into() };
    assert!(vault.purge_principal(purge).await.is_err());
    let denied = |reason: &str, operation: &str| {
        let all = world.broker.audit.all();
        all.iter().any(|entry| {
            let fields = &entry["fields"];
            fields["reason"] == reason && fields["operation"] == operation
        })
    };
    let last = |fields: &serde_json::Value| fields["reason"] == "no_such_principal";
    world.broker.audit.entry_that("vault.refused", last).await;
    for (reason, operation) in [
        ("value_exists", "set"),
        ("value_too_large", "set"),
        ("malformed", "set"),
        ("no_such_kind", "register"),
        ("no_such_principal", "purge_principal"),
    ] {
        assert!(denied(reason, operation), "{reason} {operation}");
    }
    let audit: String = world
        .broker
        .audit
        .all()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(!audit.contains("canary-Name") && !audit.contains("hunter"));
}
