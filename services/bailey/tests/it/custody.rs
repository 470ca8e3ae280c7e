//! `bailey vault` about who can open it: what is asked of the broker, and what is said of its answers.

use std::os::unix::fs::PermissionsExt as _;

use bailey_proto::management::v1::custody_service_server::CustodyService;
use bailey_proto::management::v1::{
    AddRecipientRequest, AddRecipientResponse, ExportRequest, ExportResponse,
    ListRecipientsRequest, ListRecipientsResponse, RecipientEntry, RemoveRecipientRequest,
    RemoveRecipientResponse, UnsealRequest, UnsealResponse,
};
use bailey_trust::SealingKey;
use serde_json::{Value, json};
use tonic::{Request, Response, Status};

use crate::grants::State;
use crate::stand::Bench;

/// A vault to which only `age1known` was added.
pub(crate) struct Custody {
    pub(crate) state: State,
}

fn admin<T>(request: Request<T>) -> Result<T, Status> {
    let token = request.metadata().get("authorization");
    if token.is_none_or(|token| token != "Bearer admin") {
        return Err(Status::unauthenticated(
            "this needs the vault's admin token",
        ));
    }
    Ok(request.into_inner())
}

#[tonic::async_trait]
impl CustodyService for Custody {
    async fn unseal(&self, _: Request<UnsealRequest>) -> Result<Response<UnsealResponse>, Status> {
        let (state, detail) = *self.state.lock().unwrap();
        Ok(Response::new(UnsealResponse {
            state: state.to_owned(),
            detail: detail.to_owned(),
        }))
    }

    async fn list_recipients(
        &self,
        request: Request<ListRecipientsRequest>,
    ) -> Result<Response<ListRecipientsResponse>, Status> {
        admin(request)?;
        Ok(Response::new(ListRecipientsResponse {
            own: "age1own".to_owned(),
            others: vec![RecipientEntry {
                recipient: "age1known".to_owned(),
                note: "safe".to_owned(),
                added_at_ms: 0,
            }],
        }))
    }

    async fn add_recipient(
        &self,
        request: Request<AddRecipientRequest>,
    ) -> Result<Response<AddRecipientResponse>, Status> {
        let known = admin(request)?.recipient == "age1known";
        let outcome = if known { "exists" } else { "added" }.to_owned();
        Ok(Response::new(AddRecipientResponse { outcome }))
    }

    async fn remove_recipient(
        &self,
        request: Request<RemoveRecipientRequest>,
    ) -> Result<Response<RemoveRecipientResponse>, Status> {
        if admin(request)?.recipient != "age1known" {
            return Err(Status::not_found("it is not a recipient of the vault"));
        }
        Ok(Response::new(RemoveRecipientResponse {}))
    }

    async fn export(
        &self,
        request: Request<ExportRequest>,
    ) -> Result<Response<ExportResponse>, Status> {
        let to = admin(request)?.recipients.join(",");
        let vault = format!("for {to}").into_bytes().into();
        Ok(Response::new(ExportResponse { vault }))
    }
}

#[tokio::test]
async fn who_can_open_the_vault_is_listed_added_and_removed() {
    let bench = Bench::start();
    let recipients = async |args: &[&str]| {
        let all = [&["vault", "recipients"], args].concat();
        bench.bailey(&all).await
    };
    recipients(&["list"])
        .await
        .expect(0)
        .says("age1own")
        .says("safe");
    let added = recipients(&["add", "age1new", "--note", "drawer"]).await;
    added
        .expect(0)
        .says("the vault is encrypted to age1new too");
    let again = recipients(&["add", "age1known"]).await;
    again.expect(0).says("was a recipient already");
    let removed = recipients(&["remove", "age1known"]).await;
    removed.expect(0).says("copies made before still are");
    let unknown = recipients(&["remove", "age1new"]).await;
    unknown.expect(1).complains("it is not a recipient");
    let json = recipients(&["add", "age1new", "--json"]).await.expect(0);
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json, json!({ "outcome": "added", "recipient": "age1new" }));
}

#[tokio::test]
async fn an_export_goes_out_as_it_came() {
    let bench = Bench::start();
    let export = ["vault", "export", "--to", "age1a", "--to", "age1b"];
    let exported = bench.bailey(&export).await.expect(0);
    assert_eq!(exported.stdout, "for age1a,age1b");
    // To somebody it must be.
    bench.bailey(&export[..2]).await.expect(78);
}

#[tokio::test]
async fn what_stays_closed_is_told_with_its_reason_and_is_no_success() {
    let bench = Bench::start();
    let gone = "vault.age is gone, and there was one";
    for (state, detail, code, said) in [
        ("sealed", "age.key is empty", 1, "sealed: age.key is empty"),
        ("no_vault", gone, 1, gone),
        // Before the first one is made, nothing is wrong.
        (
            "no_vault",
            "",
            0,
            "nothing is sealed: there is no vault yet",
        ),
        ("open", "", 0, "the vault is open"),
    ] {
        *bench.state.lock().unwrap() = (state, detail);
        let unsealed = bench.bailey(&["vault", "unseal"]).await.expect(code);
        assert_eq!(unsealed.stdout, format!("{said}\n"));
        let unsealed = bench.bailey(&["vault", "unseal", "--json"]).await;
        let shown: Value = serde_json::from_str(&unsealed.expect(code).stdout).unwrap();
        assert_eq!(shown, json!({ "state": state, "detail": detail }));
    }
}

#[tokio::test]
async fn a_new_age_key_is_one_that_opens_what_is_sealed_to_it() {
    let bench = Bench::start();
    let made = bench.bailey(&["vault", "keygen"]).await.expect(0).stdout;
    let path = bench.stack.dir().join("paper.key");
    std::fs::write(&path, &made).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
    let key = SealingKey::read(&path).unwrap();
    assert!(made.contains(&key.recipient().to_string()));
    let again = bench.bailey(&["vault", "keygen"]).await.expect(0).stdout;
    assert_ne!(made, again);
}

/// They are done where the vault's files are, and never in the container that has the sockets.
#[tokio::test]
async fn what_needs_the_broker_stopped_is_not_done_inside() {
    let bench = Bench::start();
    for verb in [
        &["rotate-key"][..],
        &["rotate-admin-token"],
        &["adopt"],
        &["restore", "/dev/null"],
    ] {
        let refused = bench.bailey(&[&["vault"], verb].concat()).await;
        refused.expect(78).complains("with the broker stopped");
    }
}
