//! What is pruned when.

use std::collections::BTreeMap;
use std::time::Duration;

use bailey_proto::engine::v1::retention_service_server::{
    RetentionService, RetentionServiceServer,
};
use bailey_proto::engine::v1::{PruneRequest, PruneResponse};
use bailey_service::{Context, Readiness};
use bailey_test::{Served, TestStack};
use bailey_trust::Lock;
use bailey_types::{Clock, Serial, Service, Timestamp};
use tokio::sync::mpsc;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

/// Keeps what it is asked; has `left` jobs that are old, or facts.
struct Engine {
    asked: mpsc::Sender<PruneRequest>,
    left: std::sync::Mutex<u64>,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Jobs,
    Facts,
}

#[tonic::async_trait]
impl RetentionService for Engine {
    async fn prune(
        &self,
        request: Request<PruneRequest>,
    ) -> Result<Response<PruneResponse>, Status> {
        let request = request.into_inner();
        let gone = {
            let mut left = self.left.lock().unwrap();
            let gone = u64::from(request.limit).min(*left);
            *left -= gone;
            gone
        };
        self.asked.send(request).await.unwrap();
        let (jobs, facts) = match self.kind {
            Kind::Jobs => (gone, 0),
            Kind::Facts => (0, gone),
        };
        Ok(Response::new(PruneResponse {
            jobs,
            facts,
            events: 0,
        }))
    }
}

fn engine(stack: &TestStack, left: u64, kind: Kind) -> (Served, mpsc::Receiver<PruneRequest>) {
    let (asked, requests) = mpsc::channel(100);
    let engine = Engine {
        asked,
        left: left.into(),
        kind,
    };
    (
        stack.serve(
            Service::Engine,
            Routes::new(RetentionServiceServer::new(engine)),
        ),
        requests,
    )
}

fn lock(stack: &TestStack, service: &str) {
    let text = format!("accounts: {{default: {{}}}}\nservice: {service}\n");
    stack.write_config("config.yaml", &text);
    stack.write_lock(&Lock {
        version: 1,
        stack: stack.trust().stack.clone(),
        serial: Serial(1),
        signed_at: Timestamp(0),
        config_files: BTreeMap::from([("config.yaml".to_owned(), text)]),
        plugins: BTreeMap::new(),
        next_uid: 20_000,
    });
}

fn start(stack: &TestStack) -> Context {
    let ctx = stack.context(Service::Worker);
    let (running, mesh) = (ctx.clone(), stack.join(&ctx));
    stack
        .context(Service::Worker)
        .spawn("worker", async move { worker::serve(running, mesh).await });
    ctx
}

#[tokio::test]
async fn what_is_older_than_the_locked_retention_is_pruned_in_batches() {
    let stack = TestStack::new();
    lock(&stack, "{job_log_retention: 10d}");
    let (_served, mut requests) = engine(&stack, 2500, Kind::Jobs);
    let ctx = start(&stack);
    let ten_days_ago = Clock::system().now().minus(10 * Duration::from_hours(24));
    for _ in 0..3 {
        let request = requests.recv().await.unwrap();
        assert_eq!(request.jobs_before_ms, request.events_before_ms);
        assert_eq!(request.jobs_before_ms, request.facts_before_ms);
        assert!((request.jobs_before_ms - ten_days_ago.0).abs() < 10_000);
        assert_eq!(request.limit, 1000);
    }
    // 1000, 1000, 500: that is all.
    let more = tokio::time::timeout(Duration::from_millis(300), requests.recv()).await;
    assert!(more.is_err());
    ctx.shutdown.cancel();
}

#[tokio::test]
async fn many_old_facts_are_pruned_in_one_round_too() {
    let stack = TestStack::new();
    lock(&stack, "{job_log_retention: 10d}");
    let (_served, mut requests) = engine(&stack, 1500, Kind::Facts);
    let ctx = start(&stack);
    for _ in 0..2 {
        requests.recv().await.unwrap();
    }
    ctx.shutdown.cancel();
}

#[tokio::test]
async fn without_a_lock_nothing_is_pruned() {
    let stack = TestStack::new();
    let (_served, mut requests) = engine(&stack, 2500, Kind::Jobs);
    let ctx = start(&stack);
    let mut presence = ctx.presence();
    presence
        .wait_for(|presence| presence.detail.contains("nothing is locked yet"))
        .await
        .unwrap();
    assert!(requests.try_recv().is_err());
    ctx.shutdown.cancel();
}

#[tokio::test]
async fn an_engine_that_is_away_is_asked_again() {
    let stack = TestStack::new();
    lock(&stack, "{}");
    let ctx = start(&stack);
    let mut presence = ctx.presence();
    presence
        .wait_for(|presence| presence.detail.contains("engine cannot be reached"))
        .await
        .unwrap();
    let (_served, mut requests) = engine(&stack, 0, Kind::Jobs);
    requests.recv().await.unwrap();
    presence
        .wait_for(|presence| presence.readiness == Readiness::Ready)
        .await
        .unwrap();
    ctx.shutdown.cancel();
}
