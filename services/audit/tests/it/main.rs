//! The audit service over its wire.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up must fail")]

use std::time::Duration;

use bailey_audit_log::{Checkpoint, check_consistency, cosign, read_checkpoint, verify_dir};
use bailey_mesh::{Mesh, MeshChannel};
use bailey_proto::audit::v1::audit_service_client::AuditServiceClient;
use bailey_proto::audit::v1::{
    AppendRequest, AppendResponse, CheckpointRequest, CosignRequest, EntriesRequest, Entry,
    LatestRequest,
};
use bailey_service::Context;
use bailey_test::TestStack;
use bailey_types::{Clock, Service};
use tokio::task::JoinSet;
use tonic::{Code, Status};

type Client = AuditServiceClient<MeshChannel>;

struct TestAudit {
    stack: TestStack,
    ctx: Context,
    service: JoinSet<anyhow::Result<()>>,
}

impl TestAudit {
    async fn start() -> Self {
        let stack = TestStack::new();
        let (ctx, service) = Self::serve(&stack).await;
        Self {
            stack,
            ctx,
            service,
        }
    }

    async fn serve(stack: &TestStack) -> (Context, JoinSet<anyhow::Result<()>>) {
        let ctx = stack.context(Service::Audit);
        let mesh = stack.join(&ctx);
        let listener = bailey_mesh::bind(ctx.settings.listen).unwrap();
        let mut presence = ctx.presence();
        let serving = ctx.clone();
        let mut service = JoinSet::new();
        service.spawn(audit::serve(serving, mesh, listener));
        presence
            .wait_for(|presence| presence.readiness == bailey_service::Readiness::Ready)
            .await
            .unwrap();
        (ctx, service)
    }

    async fn stop(&mut self) {
        self.ctx.shutdown.cancel();
        self.service.join_next().await.unwrap().unwrap().unwrap();
    }

    async fn restart(&mut self) {
        self.stop().await;
        (self.ctx, self.service) = Self::serve(&self.stack).await;
    }

    fn client(&self, service: Service) -> (Client, Mesh) {
        let mesh = self.stack.mesh(service);
        (Client::new(mesh.channel(Service::Audit)), mesh)
    }

    fn read(&self, note: &[u8]) -> Checkpoint {
        let trust = self.stack.trust();
        read_checkpoint(note, &trust.stack, &trust.signing.audit).unwrap()
    }
}

fn entry(kind: &str, fields: &str) -> Entry {
    Entry {
        kind: kind.into(),
        fields_json: fields.into(),
        refusal: false,
    }
}

async fn append(
    client: &mut Client,
    entry: Entry,
    known_size: u64,
) -> Result<AppendResponse, Status> {
    client
        .append(AppendRequest {
            entries: vec![entry],
            known_size,
        })
        .await
        .map(tonic::Response::into_inner)
}

#[tokio::test]
async fn the_actor_of_an_entry_is_the_subject_of_the_certificate() {
    let mut audit = TestAudit::start().await;
    let (mut engine, _mesh) = audit.client(Service::Engine);
    let done = append(
        &mut engine,
        entry("job.succeeded", r#"{"actor":"broker"}"#),
        0,
    )
    .await
    .unwrap();
    assert_eq!(audit.read(&done.checkpoint).size, done.first_index + 1);
    audit.stop().await;

    let bundle =
        std::fs::read(audit.ctx.settings.data_dir.join("log/tile/entries/000.p/2")).unwrap();
    let text = String::from_utf8_lossy(&bundle);
    assert!(
        text.contains(r#""actor":"engine","kind":"job.succeeded","fields":{"actor":"broker"}"#),
        "{text}"
    );
}

#[tokio::test]
async fn every_answer_continues_what_the_caller_knew_also_after_a_restart() {
    let mut audit = TestAudit::start().await;
    let (mut policy, _mesh) = audit.client(Service::Policy);
    let mut known = Checkpoint {
        size: 0,
        root: bailey_types::Sha256([0; 32]),
    };
    for round in 0..3 {
        for _ in 0..5 {
            let done = append(&mut policy, entry("decision.allowed", "{}"), known.size)
                .await
                .unwrap();
            let found = audit.read(&done.checkpoint);
            check_consistency(known, found, &done.consistency_proof).unwrap();
            known = found;
        }
        audit.restart().await;
        let newest = policy
            .checkpoint(CheckpointRequest {
                known_size: known.size,
            })
            .await
            .unwrap()
            .into_inner();
        let found = audit.read(&newest.checkpoint);
        check_consistency(known, found, &newest.consistency_proof).unwrap();
        // Each start is recorded.
        assert_eq!(found.size, (round + 1) * 6 + 1);
    }
}

#[tokio::test]
async fn who_knows_more_than_there_is_gets_no_answer_to_continue_from() {
    let audit = TestAudit::start().await;
    let (mut policy, _mesh) = audit.client(Service::Policy);
    let refused = append(&mut policy, entry("decision.allowed", "{}"), 1000)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let size = audit.read(
        &policy
            .checkpoint(CheckpointRequest { known_size: 0 })
            .await
            .unwrap()
            .into_inner()
            .checkpoint,
    );
    assert_eq!(size.size, 1, "nothing was appended");
}

#[tokio::test]
async fn malformed_entries_are_refused_as_a_whole() {
    let audit = TestAudit::start().await;
    let (mut engine, _mesh) = audit.client(Service::Engine);
    let entries = vec![
        entry("job.dead", "{}"),
        entry("job.dead", "{\"a\":1,\"a\":2}"),
    ];
    let refused = engine
        .append(AppendRequest {
            entries,
            known_size: 0,
        })
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("entry 1"), "{refused}");
    let newest = engine
        .checkpoint(CheckpointRequest { known_size: 0 })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(audit.read(&newest.checkpoint).size, 1);
}

#[tokio::test]
async fn a_cosigned_log_verifies_offline_while_it_is_in_use() {
    let audit = TestAudit::start().await;
    let (stack, now) = (audit.stack.trust().stack.clone(), Clock::system().now());
    for service in [Service::Policy, Service::Broker] {
        let (mut client, _mesh) = audit.client(service);
        let newest = client
            .checkpoint(CheckpointRequest { known_size: 0 })
            .await
            .unwrap()
            .into_inner();
        let note = cosign(
            &newest.checkpoint,
            &stack,
            service,
            &audit.stack.signing_key(service),
            now,
        )
        .unwrap();
        client
            .cosign(CosignRequest {
                note: note.clone().into(),
            })
            .await
            .unwrap();
        // Its own key, and not a peer's.
        let other = if service == Service::Policy {
            Service::Broker
        } else {
            Service::Policy
        };
        let (mut other, _mesh) = audit.client(other);
        let refused = other
            .cosign(CosignRequest { note: note.into() })
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        append(&mut client, entry("ticket.made", "{}"), 0)
            .await
            .unwrap();
    }
    let dir = audit.ctx.settings.data_dir.join("log");
    let report = verify_dir(&dir, audit.stack.trust(), now, Duration::from_hours(24)).unwrap();
    assert_eq!(report.checkpoint.size, 3);
}

#[tokio::test]
async fn nobody_else_may_cosign_and_nobody_may_read_entries_over_the_mesh() {
    let audit = TestAudit::start().await;
    let (mut engine, _mesh) = audit.client(Service::Engine);
    let refused = engine.cosign(CosignRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let refused = engine
        .entries(EntriesRequest {
            first_index: 0,
            limit: 1,
        })
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn the_broker_is_told_the_latest_of_its_own_entries_and_nobody_else_of_any() {
    let audit = TestAudit::start().await;
    let (mut broker, _mesh) = audit.client(Service::Broker);
    let (mut engine, _other) = audit.client(Service::Engine);
    let latest = |before: u64| LatestRequest {
        kinds: vec!["vault.kept".into()],
        before,
    };
    let kept = |revision: u64| entry("vault.kept", &format!("{{\"revision\":{revision}}}"));
    let none = broker.latest(latest(0)).await.unwrap().into_inner();
    assert!(none.entry.is_empty());
    assert_eq!(none.looked_from, 0);
    append(&mut broker, kept(1), 0).await.unwrap();
    append(&mut broker, kept(2), 0).await.unwrap();
    // What somebody else calls so is not the broker's.
    append(&mut engine, kept(9), 0).await.unwrap();
    append(&mut broker, entry("secret.set", "{}"), 0)
        .await
        .unwrap();
    let found = broker.latest(latest(0)).await.unwrap().into_inner();
    let read: serde_json::Value = serde_json::from_slice(&found.entry).unwrap();
    assert_eq!(read["fields"]["revision"], 2);
    assert_eq!(read["seq"], found.looked_from);
    let before = broker.latest(latest(found.looked_from)).await.unwrap();
    let read: serde_json::Value = serde_json::from_slice(&before.into_inner().entry).unwrap();
    assert_eq!(read["fields"]["revision"], 1);
    let refused = broker.latest(LatestRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let refused = engine.latest(latest(0)).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}
