//! The real program, killed between a record and what it is of.

use bailey_proto::management::v1::vault_service_client::VaultServiceClient;
use bailey_proto::management::v1::{InitRequest, StatusRequest, StatusResponse};
use bailey_test::TestStack;
use bailey_types::Service;
use tokio::process::Child;
use tokio::task::JoinSet;
use tonic::Code;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

use crate::audit::{Audit, Mode};
use crate::binary::{read_until, spawn};
use crate::harness::{Bearer, CONFIG, channel_to};
use crate::record::{roll, set};

/// The real program, which can be killed.
struct Program {
    stack: TestStack,
    child: Child,
}

impl Program {
    async fn start(stack: TestStack) -> Self {
        let mut child = spawn(&stack);
        read_until(&mut child, "nothing is locked yet").await;
        Self { stack, child }
    }

    async fn killed(mut self) -> TestStack {
        self.child.kill().await.unwrap();
        self.stack
    }

    async fn vault(&self, admin: &str) -> Client {
        let settings = self.stack.context(Service::Broker).settings;
        let channel = channel_to(settings.management_socket(Service::Broker)).await;
        VaultServiceClient::with_interceptor(channel, Bearer(admin.to_owned()))
    }

    async fn status(&self) -> StatusResponse {
        let status = self.vault("").await.status(StatusRequest {}).await;
        status.unwrap().into_inner()
    }
}

type Client = VaultServiceClient<InterceptedService<Channel, Bearer>>;

#[tokio::test]
async fn killed_between_the_record_and_the_change_the_vault_is_as_it_was() {
    let stack = TestStack::new();
    stack.write_config("config.yaml", CONFIG);
    let audit = Audit::new(&stack);
    let _served = audit.serve(&stack);
    let program = Program::start(stack).await;
    let made = program.vault("").await.init(InitRequest {}).await;
    let admin = made.unwrap().into_inner().admin_token;
    audit.entry("vault.made").await;
    let before = program.status().await;
    // Given a change whose record is on disk, of which the broker did not hear yet,
    audit.behave(Mode::Hold);
    let mut client = program.vault(&admin).await;
    let mut asked = JoinSet::new();
    asked.spawn(async move { client.set_secret(set("new")).await.map(drop) });
    let recorded = audit.entry("secret.set").await;
    assert_eq!(recorded["revision"], before.revision + 1);
    // when it is killed,
    let stack = program.killed().await;
    assert!(asked.join_next().await.unwrap().unwrap().is_err());
    audit.behave(Mode::Take);
    // then nothing was changed, and the change can be made.
    let program = Program::start(stack).await;
    let after = program.status().await;
    assert_eq!((after.state.as_str(), after.secrets), ("open", 0));
    assert_eq!(after.revision, before.revision);
    let mut vault = program.vault(&admin).await;
    vault.set_secret(set("new")).await.unwrap();
    assert_eq!(program.status().await.secrets, 1);
}

#[tokio::test]
async fn a_vault_that_is_made_before_there_is_a_log_is_told_to_it_once() {
    // Given a vault that was made while audit was away, and a broker that was killed before it could tell,
    let stack = TestStack::new();
    stack.write_config("config.yaml", CONFIG);
    let program = Program::start(stack).await;
    let made = program.vault("").await.init(InitRequest {}).await;
    let admin = made.unwrap().into_inner().admin_token;
    assert_eq!(program.status().await.unrecorded, 1);
    let refused = program.vault(&admin).await.set_secret(set("new")).await;
    assert_eq!(refused.unwrap_err().code(), Code::Unavailable);
    let stack = program.killed().await;
    // when there is a log,
    let audit = Audit::new(&stack);
    let _served = audit.serve(&stack);
    let program = Program::start(stack).await;
    // then it is told, before anything that is done later, and not again.
    let mut vault = program.vault(&admin).await;
    audit.entry("vault.made").await;
    vault.set_secret(set("new")).await.unwrap();
    assert_eq!(program.status().await.unrecorded, 0);
    let program = Program::start(program.killed().await).await;
    let mut vault = program.vault(&admin).await;
    vault.roll_secret(roll("new")).await.unwrap();
    assert_eq!(audit.count("vault.made"), 1);
    let all = audit.all();
    let changes = all.iter().filter(|it| it["kind"] != "vault.kept");
    let revisions = changes.filter_map(|it| it["fields"]["revision"].as_u64());
    assert_eq!(revisions.collect::<Vec<_>>(), [1, 2, 3]);
}
