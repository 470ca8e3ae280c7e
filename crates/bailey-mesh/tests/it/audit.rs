//! Entries reach the audit log, late rather than never.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bailey_mesh::Caller;
use bailey_proto::audit::v1::audit_service_server::{AuditService, AuditServiceServer};
use bailey_proto::audit::v1::{
    AppendRequest, AppendResponse, CheckpointRequest, CheckpointResponse, CosignRequest,
    CosignResponse, EntriesRequest, EntriesResponse, Entry, LatestRequest, LatestResponse,
};
use bailey_proto::broker::v1::EpochRequest;
use bailey_proto::broker::v1::epoch_service_client::EpochServiceClient;
use bailey_test::{Served, TestStack};
use bailey_types::Service;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status};

struct Recorder {
    entries: mpsc::Sender<(Service, Entry)>,
    calls: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl AuditService for Recorder {
    async fn append(
        &self,
        request: Request<AppendRequest>,
    ) -> Result<Response<AppendResponse>, Status> {
        let caller = Caller::of(&request)?.service();
        self.calls.fetch_add(1, Ordering::Relaxed);
        for entry in request.into_inner().entries {
            self.entries.send((caller, entry)).await.unwrap();
        }
        Ok(Response::new(AppendResponse {
            first_index: 7,
            ..AppendResponse::default()
        }))
    }

    async fn checkpoint(
        &self,
        _: Request<CheckpointRequest>,
    ) -> Result<Response<CheckpointResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn cosign(&self, _: Request<CosignRequest>) -> Result<Response<CosignResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn entries(
        &self,
        _: Request<EntriesRequest>,
    ) -> Result<Response<EntriesResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn latest(&self, _: Request<LatestRequest>) -> Result<Response<LatestResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

fn recording(stack: &TestStack) -> (Served, mpsc::Receiver<(Service, Entry)>) {
    counting(stack, &Arc::default())
}

fn counting(
    stack: &TestStack,
    calls: &Arc<AtomicUsize>,
) -> (Served, mpsc::Receiver<(Service, Entry)>) {
    let (sender, entries) = mpsc::channel(5000);
    let recorder = Recorder {
        entries: sender,
        calls: Arc::clone(calls),
    };
    let routes = Routes::new(AuditServiceServer::new(recorder));
    (stack.serve(Service::Audit, routes), entries)
}

#[tokio::test]
async fn entries_that_nobody_waits_for_go_together_and_one_that_is_waited_for_goes_at_once() {
    let stack = TestStack::new();
    let calls = Arc::default();
    let (_served, mut entries) = counting(&stack, &calls);
    let auditor = stack.mesh(Service::Policy).auditor();
    let fields = json!({});
    // The connection stands.
    auditor.append_now("lock.signed", &fields).await.unwrap();
    for kind in ["ticket.made", "job.ended"] {
        auditor.append(kind, &fields);
        tokio::task::yield_now().await;
    }
    auditor.append_now("lock.signed", &fields).await.unwrap();
    let mut kinds = Vec::new();
    for _ in 0..4 {
        kinds.push(entries.recv().await.unwrap().1.kind);
    }
    assert_eq!(
        kinds,
        ["lock.signed", "lock.signed", "ticket.made", "job.ended"]
    );
    assert_eq!(calls.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn what_was_queued_while_audit_was_away_arrives_in_order() {
    let stack = TestStack::new();
    let ctx = stack.context(Service::Policy);
    let mesh = stack.join(&ctx);
    let auditor = mesh.auditor();
    let mut presence = ctx.presence();
    for n in 0..300 {
        auditor.append("lock.signed", &json!({"n": n}));
    }
    presence
        .wait_for(|presence| presence.detail.contains("audit"))
        .await
        .unwrap();

    let (_served, mut entries) = recording(&stack);
    for n in 0..300 {
        let (caller, entry) = entries.recv().await.unwrap();
        assert_eq!(
            (caller, entry.kind.as_str(), entry.refusal),
            (Service::Policy, "lock.signed", false)
        );
        assert_eq!(
            serde_json::from_str::<Value>(&entry.fields_json).unwrap(),
            json!({"n": n})
        );
    }
    presence
        .wait_for(|presence| presence.detail.is_empty())
        .await
        .unwrap();
}

#[tokio::test]
async fn an_entry_that_does_not_fit_is_counted() {
    let stack = TestStack::new();
    let auditor = stack.mesh(Service::Policy).auditor();
    for n in 0..1500 {
        auditor.append("lock.signed", &json!({"n": n}));
    }
    let (_served, mut entries) = recording(&stack);
    let mut arrived = 0;
    loop {
        let (_, entry) = entries.recv().await.unwrap();
        if entry.kind == "audit.lost" {
            let lost = serde_json::from_str::<Value>(&entry.fields_json).unwrap()["entries"]
                .as_u64()
                .unwrap();
            // The count may come before the last of what did arrive.
            assert!(lost >= 200, "{lost} lost, {arrived} arrived");
            break;
        }
        arrived += 1;
    }
}

#[tokio::test]
async fn append_now_answers_when_the_entry_is_kept_and_fails_when_it_is_not() {
    let stack = TestStack::new();
    let auditor = stack.mesh(Service::Policy).auditor();
    let away = auditor
        .append_now("decision.allowed", &json!({}))
        .await
        .unwrap_err();
    assert_eq!(away.code(), Code::Unavailable);
    let (_served, mut entries) = recording(&stack);
    assert_eq!(
        auditor
            .append_now("decision.allowed", &json!({}))
            .await
            .unwrap()
            .first_index,
        7
    );
    assert_eq!(entries.recv().await.unwrap().1.kind, "decision.allowed");
}

#[tokio::test]
async fn a_refused_call_is_audited_by_the_one_who_was_called() {
    let stack = TestStack::new();
    let (_served, mut entries) = recording(&stack);
    let _broker = stack.serve(Service::Broker, Routes::default());
    let mut client = EpochServiceClient::new(stack.mesh(Service::Worker).channel(Service::Broker));
    assert_eq!(
        client.epoch(EpochRequest {}).await.unwrap_err().code(),
        Code::PermissionDenied
    );

    let (caller, entry) = entries.recv().await.unwrap();
    assert_eq!(
        (caller, entry.kind.as_str(), entry.refusal),
        (Service::Broker, "rpc.refused", true)
    );
    let fields: Value = serde_json::from_str(&entry.fields_json).unwrap();
    assert_eq!(
        fields,
        json!({"caller": "worker", "method": "/bailey.broker.v1.EpochService/Epoch"})
    );
}

/// As SIGTERM does it: a task that ends its work takes a way over the mesh before it appends what it did.
async fn stopped_while_a_task_appends(stack: &TestStack) {
    let ctx = stack.context(Service::Policy);
    let auditor = stack.join(&ctx).auditor();
    let shutdown = ctx.shutdown.clone();
    ctx.spawn("last work", async move {
        shutdown.cancelled().await;
        // It fails where audit is away, and takes its time in either case.
        let _ = auditor.append_now("lock.signed", &json!({})).await;
        for n in 0..3 {
            auditor.append("job.ended", &json!({"n": n}));
        }
        auditor.append("ticket.made", &json!({}));
        Ok(())
    });
    ctx.shutdown.cancel();
    ctx.stopped().await.unwrap();
}

#[tokio::test]
async fn what_tasks_append_while_the_service_stops_arrives() {
    let stack = TestStack::new();
    let (_served, mut entries) = recording(&stack);
    stopped_while_a_task_appends(&stack).await;
    let mut kinds = Vec::new();
    while let Ok((_, entry)) = entries.try_recv() {
        kinds.push(entry.kind);
    }
    let expected = [
        "lock.signed",
        "job.ended",
        "job.ended",
        "job.ended",
        "ticket.made",
    ];
    assert_eq!(kinds, expected);
}

#[tokio::test]
async fn a_stop_waits_for_no_audit_that_is_away_or_says_nothing() {
    // Nobody listens there; and then somebody does who never answers.
    let stack = TestStack::new();
    stopped_while_a_task_appends(&stack).await;
    let listener = bailey_mesh::bind(stack.address(Service::Audit)).unwrap();
    let started = std::time::Instant::now();
    stopped_while_a_task_appends(&stack).await;
    assert!(started.elapsed() < std::time::Duration::from_secs(5));
    drop(listener);
}
