//! An earlier genuine vault in the place of the vault of now: what was revoked since would be good again.

use std::path::PathBuf;
use std::process::{Command, Output};

use bailey_proto::broker::v1::token_service_client::TokenServiceClient;
use bailey_proto::broker::v1::verify_token_request::Asked;
use bailey_proto::broker::v1::{ReadAsked, VerifyTokenRequest};
use bailey_proto::management::v1::{
    ExportRequest, RevokeTokenRequest, StatusRequest, StatusResponse, UnsealRequest,
};
use bailey_trust::SealingKey;
use bailey_types::Service;
use tonic::{Code, Status};

use crate::audit::Audit;
use crate::harness::Broker;
use crate::record::{register, set};

/// A stack with one token, and files of it as they were.
pub struct World {
    pub broker: Broker,
    pub admin: String,
    stolen: String,
}

impl World {
    pub async fn new() -> Self {
        let broker = Broker::start().await;
        let admin = broker.init().await;
        let stolen = broker.create_token(&admin, "stolen", &["*"]).await;
        broker.create_token(&admin, "other", &["*"]).await;
        let world = Self {
            broker,
            admin,
            stolen,
        };
        world.kept().await;
        world
    }

    fn path(&self) -> PathBuf {
        self.broker.stack.dir().join("data/broker/vault.age")
    }

    pub fn file(&self) -> Vec<u8> {
        std::fs::read(self.path()).unwrap()
    }

    pub fn put(&self, file: &[u8]) {
        std::fs::write(self.path(), file).unwrap();
    }

    pub async fn status(&self) -> StatusResponse {
        let status = self.broker.vault("").await.status(StatusRequest {}).await;
        status.unwrap().into_inner()
    }

    /// Waits until the log has it that the vault of now is kept.
    pub async fn kept(&self) {
        let revision = self.status().await.revision;
        let is_it = |fields: &serde_json::Value| fields["revision"] == revision;
        self.broker.audit.entry_that("vault.kept", is_it).await;
    }

    pub async fn revoke(&self) {
        let name = "stolen".into();
        let mut vault = self.broker.vault(&self.admin).await;
        vault
            .revoke_token(RevokeTokenRequest { name })
            .await
            .unwrap();
    }

    /// What the gateway hears of the stolen token.
    pub async fn shown(&self) -> Result<(), Status> {
        let mesh = self.broker.mesh(Service::Gateway);
        let mut tokens = TokenServiceClient::new(mesh.channel(Service::Broker));
        let asked = VerifyTokenRequest {
            token: self.stolen.clone(),
            any_of_scopes: Vec::new(),
            asked: Some(Asked::Read(ReadAsked {})),
        };
        tokens.verify_token(asked).await.map(drop)
    }

    pub async fn refuses_it(&self) {
        self.broker.says("it is earlier than the audit log").await;
        assert_eq!(self.shown().await.unwrap_err().code(), Code::Unavailable);
        let mut vault = self.broker.vault(&self.admin).await;
        let refused = vault.set_secret(set("new")).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable);
        assert!(
            refused.message().contains("bailey vault adopt"),
            "{refused}"
        );
        let recipients = vec![SealingKey::generate().recipient().to_string()];
        let mut custody = self.broker.custody(&self.admin).await;
        let refused = custody.export(ExportRequest { recipients }).await;
        assert_eq!(refused.unwrap_err().code(), Code::Unavailable);
        assert_eq!(self.status().await.state, "sealed");
    }

    /// Waits until the log answered that it is the vault of now.
    pub async fn opens(&self) {
        self.broker.no_longer_says("nothing is given").await;
        let mut vault = self.broker.vault(&self.admin).await;
        vault.register_principal(register("after")).await.unwrap();
        assert_eq!(self.status().await.detail, "");
        self.kept().await;
    }

    /// A verb of `custody`, while the broker does not run.
    fn custody(&self, verb: &[&str]) -> Output {
        let token = self.broker.stack.secrets_dir().join("cli/admin.token");
        std::fs::create_dir_all(token.parent().unwrap()).unwrap();
        std::fs::write(token, &self.admin).unwrap();
        custody(&self.broker, verb).output().unwrap()
    }
}

fn custody(broker: &Broker, verb: &[&str]) -> Command {
    let (stack, data) = (&broker.stack, broker.stack.dir().join("data/broker"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_broker"));
    command
        .arg("custody")
        .args(["--config-dir".as_ref(), stack.config_dir().as_os_str()])
        .args(["--secrets-dir".as_ref(), stack.secrets_dir().as_os_str()])
        .args(["--vault-dir".as_ref(), data.as_os_str()])
        .args(verb);
    command
}

/// Restores a copy of the vault, where there is none.
pub fn restore(broker: &Broker, copy: &[u8]) {
    let input = broker.stack.dir().join("input");
    std::fs::write(&input, [b"\n", copy].concat()).unwrap();
    let mut command = custody(broker, &["restore", "--yes"]);
    let input = std::fs::File::open(input).unwrap();
    let restored = command.stdin(input).output().unwrap();
    assert!(restored.status.success(), "{restored:?}");
}

#[tokio::test]
async fn an_earlier_vault_gives_nothing_and_the_right_one_in_its_place_does() {
    let mut world = World::new().await;
    let earlier = world.file();
    world.revoke().await;
    world.kept().await;
    world.broker.stop().await;
    // Even if exactly the last change was taken back.
    let now = world.file();
    world.put(&earlier);
    world.broker.start_again().await;
    world.refuses_it().await;
    world.broker.audit.entry("vault.earlier_refused").await;
    // Looking again changes nothing, and nothing was written.
    let mut anybody = world.broker.custody("").await;
    let looked = anybody.unseal(UnsealRequest {}).await.unwrap().into_inner();
    assert_eq!(looked.state, "sealed");
    assert_eq!(world.file(), earlier);
    world.refuses_it().await;
    // The permitted neighbour.
    world.put(&now);
    let looked = anybody.unseal(UnsealRequest {}).await.unwrap().into_inner();
    assert_eq!(
        (looked.state.as_str(), looked.detail.as_str()),
        ("open", "")
    );
    world.opens().await;
    assert_eq!(
        world.shown().await.unwrap_err().code(),
        Code::Unauthenticated
    );
}

#[tokio::test]
async fn before_the_log_answers_nothing_is_given_and_what_takes_away_is_done() {
    let mut world = World::new().await;
    let earlier = world.file();
    for name in ["one", "two", "three"] {
        let mut vault = world.broker.vault(&world.admin).await;
        vault.register_principal(register(name)).await.unwrap();
    }
    world.kept().await;
    let known = world.status().await.revision;
    world.broker.stop().await;
    world.broker.served.take().unwrap().stop().await;
    // Given an earlier vault, of which changes made now have the numbers that the log knows,
    world.put(&earlier);
    world.broker.start_again().await;
    world
        .broker
        .says("nothing is given from the vault yet")
        .await;
    assert_eq!(world.shown().await.unwrap_err().code(), Code::Unavailable);
    world.revoke().await;
    let mut vault = world.broker.vault(&world.admin).await;
    for name in ["other", "one"] {
        let name = name.into();
        // The last is not there, and that is answered.
        let asked = RevokeTokenRequest { name };
        let _ = vault.revoke_token(asked).await;
    }
    let status = world.status().await;
    assert_eq!((status.state.as_str(), status.unrecorded), ("open", 2));
    assert!(
        status.detail.contains("did not answer yet"),
        "{}",
        status.detail
    );
    assert!(status.revision < known);
    world.broker.restart().await;
    // when the log answers, it is refused all the same.
    world.broker.served = Some(world.broker.audit.serve(&world.broker.stack));
    world.refuses_it().await;
    assert_eq!(world.broker.audit.count("token.revoked"), 0);
}

#[tokio::test]
async fn a_log_that_comes_later_than_the_broker_alarms_nobody() {
    let mut world = World::new().await;
    world.broker.stop().await;
    world.broker.served.take().unwrap().stop().await;
    world.broker.start_again().await;
    world
        .broker
        .says("nothing is given from the vault yet")
        .await;
    world.revoke().await;
    world.broker.restart().await;
    world.broker.served = Some(world.broker.audit.serve(&world.broker.stack));
    world.opens().await;
    assert_eq!(
        world.shown().await.unwrap_err().code(),
        Code::Unauthenticated
    );
    assert_eq!(world.broker.audit.count("vault.earlier_refused"), 0);
}

#[tokio::test]
async fn an_earlier_vault_that_the_operator_takes_over_counts_and_the_later_one_does_not_any_more()
{
    let mut world = World::new().await;
    let earlier = world.file();
    world.revoke().await;
    for name in ["one", "two"] {
        let mut vault = world.broker.vault(&world.admin).await;
        vault.register_principal(register(name)).await.unwrap();
    }
    world.kept().await;
    world.broker.stop().await;
    let later = world.file();
    world.put(&earlier);
    world.broker.start_again().await;
    world.refuses_it().await;
    world.broker.stop().await;
    let shown = world.custody(&["adopt"]);
    let said = String::from_utf8(shown.stdout).unwrap();
    assert!(said.contains("good: the API token stolen"), "{said}");
    let done = world.custody(&["adopt", "--yes"]);
    assert!(done.status.success(), "{done:?}");
    let adopted = world.file();
    world.broker.start_again().await;
    world.opens().await;
    world.shown().await.unwrap();
    world.broker.stop().await;
    // What it replaced is now an earlier one itself; so is a copy of the time when the deed waited.
    let now = world.file();
    for file in [later, adopted] {
        world.put(&file);
        world.broker.start_again().await;
        world.refuses_it().await;
        world.broker.stop().await;
    }
    world.put(&now);
    world.broker.start_again().await;
    world.opens().await;
}

#[tokio::test]
async fn a_vault_restored_where_there_was_none_counts() {
    let mut world = World::new().await;
    let copy = world.file();
    world.revoke().await;
    world.kept().await;
    world.broker.stop().await;
    std::fs::remove_file(world.path()).unwrap();
    restore(&world.broker, &copy);
    world.broker.start_again().await;
    world.opens().await;
    world.shown().await.unwrap();
    world.broker.audit.entry("vault.restored").await;
}

#[tokio::test]
async fn a_new_vault_where_one_was_lost_counts_and_the_lost_one_does_not_any_more() {
    let mut world = World::new().await;
    world.broker.stop().await;
    let lost = world.file();
    std::fs::remove_file(world.path()).unwrap();
    world.broker.start_again().await;
    world.admin = world.broker.init().await;
    world.opens().await;
    world.broker.stop().await;
    world.put(&lost);
    world.broker.start_again().await;
    world.broker.says("it is earlier than the audit log").await;
}

#[tokio::test]
async fn all_volumes_brought_back_together_alarm_nobody() {
    let mut world = World::new().await;
    let log = world.broker.stack.dir().join("log");
    let saved = world.broker.stack.dir().join("saved");
    let copy = |from: &PathBuf, to: &PathBuf| {
        let done = Command::new("cp").arg("-a").args([from, to]).status();
        assert!(done.unwrap().success());
    };
    world.broker.stop().await;
    let vault = world.file();
    copy(&log, &saved);
    world.broker.start_again().await;
    world.revoke().await;
    world.kept().await;
    world.broker.stop().await;
    world.broker.served.take().unwrap().stop().await;
    // The log is opened again by another once its only owner is gone.
    let other = bailey_test::TestStack::new();
    world.broker.audit = Audit::new(&other);
    std::fs::remove_dir_all(&log).unwrap();
    copy(&saved, &log);
    std::fs::remove_file(world.path().with_file_name("witness.json")).unwrap();
    world.put(&vault);
    world.broker.audit = Audit::new(&world.broker.stack);
    world.broker.served = Some(world.broker.audit.serve(&world.broker.stack));
    world.broker.start_again().await;
    world.opens().await;
    world.shown().await.unwrap();
}
