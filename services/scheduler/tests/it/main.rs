//! The scheduler over its wire: a real lock, real signatures, real mTLS, and an engine that keeps what it is sent.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests are not in test functions"
)]

mod service;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bailey_mesh::Caller;
use bailey_proto::engine::v1::intake_service_server::{IntakeService, IntakeServiceServer};
use bailey_proto::engine::v1::schedule_service_server::{ScheduleService, ScheduleServiceServer};
use bailey_proto::engine::v1::{
    EmitEventRequest, EmitEventResponse, OutstandingJobsRequest, OutstandingJobsResponse,
    SubmitJobRequest, SubmitJobResponse,
};
use bailey_service::{Context, Presence, Readiness};
use bailey_test::{Served, TestStack};
use bailey_trust::{Asked, Lock, Origin, verify};
use bailey_types::{Clock, Serial, Service, Sha256, Timestamp};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

/// Keeps what it is sent. Answers as often as `failures` says that it is away.
#[derive(Clone)]
struct Engine {
    sent: mpsc::Sender<(Timestamp, SubmitJobRequest)>,
    outstanding: Arc<AtomicU32>,
    answer: Arc<Mutex<Result<(), Status>>>,
}

#[tonic::async_trait]
impl IntakeService for Engine {
    async fn submit_job(
        &self,
        request: Request<SubmitJobRequest>,
    ) -> Result<Response<SubmitJobResponse>, Status> {
        assert_eq!(Caller::of(&request)?.service(), Service::Scheduler);
        self.sent.send((now(), request.into_inner())).await.unwrap();
        self.answer.lock().unwrap().clone()?;
        Ok(Response::new(SubmitJobResponse {
            job_id: "job".into(),
            deduplicated: false,
            job: None,
        }))
    }

    async fn emit_event(
        &self,
        _: Request<EmitEventRequest>,
    ) -> Result<Response<EmitEventResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

#[tonic::async_trait]
impl ScheduleService for Engine {
    async fn outstanding_jobs(
        &self,
        _: Request<OutstandingJobsRequest>,
    ) -> Result<Response<OutstandingJobsResponse>, Status> {
        Ok(Response::new(OutstandingJobsResponse {
            count: self.outstanding.load(Ordering::SeqCst),
        }))
    }
}

struct Recorded {
    engine: Engine,
    sent: mpsc::Receiver<(Timestamp, SubmitJobRequest)>,
    _served: Served,
}

impl Recorded {
    fn serve(stack: &TestStack) -> Self {
        let (sender, sent) = mpsc::channel(1000);
        let engine = Engine {
            sent: sender,
            outstanding: Arc::default(),
            answer: Arc::new(Mutex::new(Ok(()))),
        };
        let routes = Routes::new(IntakeServiceServer::new(engine.clone()))
            .add_service(ScheduleServiceServer::new(engine.clone()));
        Self {
            _served: stack.serve(Service::Engine, routes),
            engine,
            sent,
        }
    }

    async fn next(&mut self) -> (Timestamp, SubmitJobRequest) {
        tokio::time::timeout(Duration::from_secs(10), self.sent.recv())
            .await
            .unwrap()
            .unwrap()
    }

    /// Nothing is sent, though the scheduler has looked meanwhile.
    async fn silent(&mut self) {
        let quiet = tokio::time::timeout(Duration::from_millis(1500), self.sent.recv()).await;
        assert!(quiet.is_err(), "{quiet:?}");
    }
}

fn now() -> Timestamp {
    Clock::system().now()
}

fn lock(stack: &TestStack, serial: u64, schedules: &str) {
    let text = format!(
        "accounts: {{default: {{}}}}\nplugins:\n  watch:\n    enabled: true\n    schedules: {schedules}\n"
    );
    stack.write_config("config.yaml", &text);
    stack.write_lock(&Lock {
        version: 1,
        stack: stack.trust().stack.clone(),
        serial: Serial(serial),
        signed_at: now(),
        config_files: BTreeMap::from([("config.yaml".to_owned(), text)]),
        plugins: BTreeMap::new(),
        next_uid: 20_000,
    });
}

/// A scheduler at work.
struct Running {
    ctx: Context,
    serving: JoinSet<anyhow::Result<()>>,
}

fn start(stack: &TestStack) -> Running {
    start_at(stack, Clock::system())
}

fn start_at(stack: &TestStack, clock: Clock) -> Running {
    let mut ctx = stack.context(Service::Scheduler);
    ctx.clock = clock;
    let mut serving = JoinSet::new();
    serving.spawn(scheduler::serve(ctx.clone(), stack.join(&ctx)));
    Running { ctx, serving }
}

impl Running {
    fn presence(&self) -> watch::Receiver<Presence> {
        self.ctx.presence()
    }

    /// Stops it and waits until it has let go of its database.
    async fn stop(mut self) {
        let mut presence = self.presence();
        presence
            .wait_for(|presence| presence.readiness != Readiness::Starting)
            .await
            .unwrap();
        self.ctx.shutdown.cancel();
        self.serving.join_next().await.unwrap().unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_start_is_signed_and_asks_for_what_is_locked() {
    let stack = TestStack::new();
    lock(
        &stack,
        1,
        "[{id: often, every: 1h, command: scan, payload: {path: /srv, n: 3}}]",
    );
    let mut engine = Recorded::serve(&stack);
    let running = start(&stack);

    let (_, job) = engine.next().await;
    assert_eq!(
        (
            job.plugin.as_str(),
            job.command.as_str(),
            job.submitted_by.as_str()
        ),
        ("watch", "scan", "schedule:often")
    );
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(&job.payload).unwrap(),
        serde_json::json!({"path": "/srv", "n": 3})
    );
    let origin = verify::<Origin>(&job.origin.unwrap(), &stack.trust().signing.scheduler)
        .unwrap()
        .statement;
    assert_eq!(origin.principal, "schedule:watch:often");
    let asked = Asked::Call {
        plugin: "watch".parse().unwrap(),
        command: "scan".parse().unwrap(),
        payload_sha256: Sha256::of(&job.payload),
    };
    assert_eq!((origin.asked, origin.scopes), (asked, Vec::new()));
    running.stop().await;
}

#[tokio::test]
async fn intervals_below_a_second_neither_drift_nor_bunch() {
    let stack = TestStack::new();
    lock(&stack, 1, "[{every: 250ms}]");
    let mut engine = Recorded::serve(&stack);
    let running = start(&stack);

    let (first, _) = engine.next().await;
    let mut origins = BTreeSet::new();
    for n in 1..=12 {
        let (at, job) = engine.next().await;
        origins.insert(job.origin.unwrap().payload);
        let late = at.0 - (first.0 + n * 250);
        assert!((-100..100).contains(&late), "start {n} is {late} ms late");
    }
    assert_eq!(origins.len(), 12);
    running.stop().await;
}

#[tokio::test]
async fn an_overlapping_start_is_left_out_until_the_earlier_one_is_done() {
    let stack = TestStack::new();
    lock(&stack, 1, "[{every: 100ms}]");
    let mut engine = Recorded::serve(&stack);
    engine.engine.outstanding.store(1, Ordering::SeqCst);
    let running = start(&stack);
    let quiet = tokio::time::timeout(Duration::from_millis(600), engine.sent.recv()).await;
    assert!(quiet.is_err());

    engine.engine.outstanding.store(0, Ordering::SeqCst);
    engine.next().await;
    running.stop().await;
}

#[tokio::test]
async fn queue_lets_as_many_overlap_as_the_plugin_allows() {
    let stack = TestStack::new();
    lock(
        &stack,
        1,
        "[{every: 100ms, if_running: queue}]\n    max_outstanding_polls: 3",
    );
    let mut engine = Recorded::serve(&stack);
    engine.engine.outstanding.store(2, Ordering::SeqCst);
    let running = start(&stack);
    engine.next().await;
    running.stop().await;
}

#[tokio::test]
async fn a_start_waits_for_an_engine_that_is_away() {
    let stack = TestStack::new();
    lock(&stack, 1, "[{every: 1h}]");
    let running = start(&stack);
    let mut presence = running.presence();
    presence
        .wait_for(|presence| presence.detail.contains("starts wait for the engine"))
        .await
        .unwrap();
    let mut engine = Recorded::serve(&stack);
    engine.next().await;
    presence
        .wait_for(|presence| presence.readiness == Readiness::Ready)
        .await
        .unwrap();
    running.stop().await;
}

#[tokio::test]
async fn a_start_that_was_not_acknowledged_is_sent_again_as_the_same_origin() {
    let stack = TestStack::new();
    lock(&stack, 1, "[{every: 1h}]");
    let mut engine = Recorded::serve(&stack);
    *engine.engine.answer.lock().unwrap() = Err(Status::unavailable("restarting"));
    let running = start(&stack);
    let (_, first) = engine.next().await;
    // The next life knows of it from the database.
    running.stop().await;
    *engine.engine.answer.lock().unwrap() = Ok(());
    let running = start(&stack);
    loop {
        let (_, again) = engine.next().await;
        assert_eq!(again.origin, first.origin);
        if engine.sent.is_empty() {
            break;
        }
    }
    running.stop().await;
}

#[tokio::test]
async fn what_the_engine_refuses_is_not_sent_again() {
    let stack = TestStack::new();
    lock(&stack, 1, "[{every: 300ms}]");
    let mut engine = Recorded::serve(&stack);
    *engine.engine.answer.lock().unwrap() = Err(Status::invalid_argument("no such command"));
    let running = start(&stack);
    let (_, first) = engine.next().await;
    let (_, second) = engine.next().await;
    assert_ne!(first.origin, second.origin);
    running.stop().await;
}

#[tokio::test]
async fn a_new_lock_is_in_force_within_two_seconds_and_an_older_one_never() {
    let stack = TestStack::new();
    let mut engine = Recorded::serve(&stack);
    let running = start(&stack);
    let mut presence = running.presence();
    presence
        .wait_for(|presence| presence.detail.contains("nothing is locked yet"))
        .await
        .unwrap();

    lock(&stack, 5, "[{every: 1h, command: five}]");
    assert_eq!(engine.next().await.1.command, "five");
    presence
        .wait_for(|presence| presence.readiness == Readiness::Ready)
        .await
        .unwrap();
    lock(&stack, 4, "[{id: other, every: 1h, command: four}]");
    presence
        .wait_for(|presence| presence.detail.contains("older than"))
        .await
        .unwrap();
    running.stop().await;

    // Not after a restart either.
    let running = start(&stack);
    running
        .presence()
        .wait_for(|presence| presence.detail.contains("older than"))
        .await
        .unwrap();
    running.stop().await;
    assert!(engine.sent.try_recv().is_err());
}

#[tokio::test]
async fn missed_starts_are_caught_up_with_after_a_pause() {
    let stack = TestStack::new();
    lock(&stack, 1, "[{every: 200ms, catch_up: run_all}]");
    let mut engine = Recorded::serve(&stack);
    let running = start(&stack);
    engine.next().await;
    running.stop().await;
    while engine.sent.try_recv().is_ok() {}

    tokio::time::sleep(Duration::from_millis(1100)).await;
    let before = now();
    let running = start(&stack);
    // Five were missed; regular ones come 200 ms apart.
    for _ in 0..5 {
        engine.next().await;
    }
    assert!(now().since(before) < Duration::from_millis(600));
    running.stop().await;
}

#[tokio::test]
async fn an_edited_file_changes_nothing() {
    let stack = TestStack::new();
    lock(&stack, 1, "[{every: 1h}]");
    stack.write_config("config.yaml", "accounts: {default: {}}\n");
    let mut engine = Recorded::serve(&stack);
    let running = start(&stack);
    engine.next().await;
    running.stop().await;
}
