//! An engine of a stack of its own, with a policy that signs for real and a runner that is told what to do.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use bailey_mesh::{Mesh, MeshChannel};
use bailey_plugin::{Limits, Manifest};
use bailey_proto::engine::v1 as wire;
use bailey_proto::engine::v1::intake_service_client::IntakeServiceClient;
use bailey_proto::engine::v1::plugin_service_client::PluginServiceClient;
use bailey_proto::engine::v1::query_service_client::QueryServiceClient;
use bailey_proto::engine::v1::retention_service_client::RetentionServiceClient;
use bailey_proto::engine::v1::schedule_service_client::ScheduleServiceClient;
use bailey_proto::engine::v1::upstream_service_client::UpstreamServiceClient;
use bailey_proto::trust::v1::Signed;
use bailey_service::Context;
use bailey_test::TestStack;
use bailey_trust::{Asked, Lock, LockedPlugin, Origin, ProposedPlugin, StateKind, sign};
use bailey_types::{Blake3, Clock, OriginId, PluginName, Serial, Service, Sha256, Timestamp};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection as _, SqliteConnection};
use tokio::task::JoinHandle;
use tonic::Status;

use crate::broker::{self, Broker};
use crate::policy::{self, Policy};

const CONFIG: &str = "
accounts: {default: {}}
plugins:
  first: {retry: {max_attempts: 2, backoff_base: 1ms}}
  second: {retry: {max_attempts: 2, backoff_base: 1ms}}
  once: {retry: {max_attempts: 1}, requires_vault: true}
  serial: {retry: {max_attempts: 2, backoff_base: 1ms}}
  forbidden:
  off: {enabled: false}
pipelines:
  - {name: chain, on: thing.seen, steps: [{id: one, uses: first}, {id: two, uses: second}]}
  - {name: other, on: first.done, from_plugin: first, steps: [{uses: once}]}
upstreams:
  model: {url: 'https://api.example.com/v1', secret_ref: model-key, check: /models}
  bell: {url: 'https://ntfy.example.com', address: 192.168.1.20, clients: [engine]}
  cut: {url: 'https://api.example.com', check: /cut}
  headless: {url: 'https://api.example.com', check: /headless}
  busy: {url: 'https://api.example.com', check: /busy}
  silent: {url: 'https://api.example.com', check: /silent}
";

fn manifest(name: &str) -> Manifest {
    let safe = name != "serial";
    Manifest::parse(&format!(
        "manifest_spec: ductile.plugin
manifest_version: 1
name: {name}
version: 1.0.0
protocol: 2
entrypoint: run.py
concurrency_safe: {safe}
commands:
  - {{name: poll, type: read}}
  - {{name: handle, type: write}}
  - {{name: snap, type: read}}
fact_outputs:
  - {{when: {{command: snap}}, from: state_updates, fact_type: {name}.snapshot, compatibility_view: mirror_object}}
"
    ))
    .unwrap()
}

fn locked(name: &str, uid: u32) -> LockedPlugin {
    LockedPlugin {
        proposed: ProposedPlugin {
            manifest: manifest(name),
            manifest_blake3: Blake3([1; 32]),
            tree_blake3: Blake3([2; 32]),
            files: BTreeMap::new(),
            base: None,
            tar_sha256: Sha256([3; 32]),
            image: bailey_types::ImageId(Sha256([4; 32])),
            entrypoint: vec!["/plugin/run.py".into()],
            source: "plugins".into(),
            account: "default".parse().unwrap(),
            limits: Limits::default(),
            state: StateKind::None,
            egress: Vec::new(),
            host_paths: Vec::new(),
            walls: bailey_trust::Walls::default(),
            reset_state: false,
        },
        tree_mac: Blake3([5; 32]),
        uid,
        holder_uid: uid + 1,
        state_generation: 0,
    }
}

/// The lock of these tests.
pub fn lock(serial: u64) -> Lock {
    let names = ["first", "second", "once", "serial", "forbidden"];
    let plugin = |(nth, name): (u32, &&str)| {
        (
            name.parse::<PluginName>().unwrap(),
            locked(name, 20_000 + 2 * nth),
        )
    };
    Lock {
        version: 1,
        stack: "test".parse().unwrap(),
        serial: Serial(serial),
        signed_at: Timestamp(0),
        config_files: BTreeMap::from([("config.yaml".to_owned(), CONFIG.to_owned())]),
        plugins: (0..).zip(&names).map(plugin).collect(),
        next_uid: 20_100,
    }
}

/// A running engine.
pub struct TestEngine {
    pub stack: TestStack,
    pub policy: Policy,
    pub broker: Broker,
    options: engine::Options,
    running: Option<(Context, JoinHandle<anyhow::Result<()>>)>,
    gateway: Mesh,
    scheduler: Mesh,
    worker: Mesh,
    pub runner: Mesh,
}

impl TestEngine {
    /// With a lock and a policy that allows everything but the plugin "forbidden".
    pub async fn start() -> Self {
        Self::locked(engine::Options::default()).await
    }

    /// One that soon gives up a runner, or an upstream, that says nothing.
    pub async fn impatient() -> Self {
        let options = engine::Options {
            lease_expiry: Duration::from_millis(300),
            check_timeout: Duration::from_millis(300),
            ..engine::Options::default()
        };
        Self::locked(options).await
    }

    /// One that waits so long for policy and the broker, and so long before it asks them again.
    pub async fn waits(decision_timeout: Duration, backoff: Duration) -> Self {
        let options = engine::Options {
            decision_timeout,
            policy_backoff: (backoff, backoff),
            ..engine::Options::default()
        };
        Self::as_told(options).await
    }

    /// Without a lock.
    pub async fn unlocked() -> Self {
        Self::with(engine::Options::default()).await
    }

    async fn locked(options: engine::Options) -> Self {
        let engine = Self::with(options).await;
        engine.stack.write_lock(&lock(1));
        engine
    }

    async fn with(options: engine::Options) -> Self {
        let options = engine::Options {
            policy_backoff: (Duration::from_millis(5), Duration::from_millis(20)),
            ..options
        };
        Self::begun(options).await
    }

    async fn as_told(options: engine::Options) -> Self {
        let engine = Self::begun(options).await;
        engine.stack.write_lock(&lock(1));
        engine
    }

    async fn begun(options: engine::Options) -> Self {
        let stack = TestStack::new();
        let (policy, broker) = (policy::start(&stack), broker::start(&stack));
        let mut engine = Self {
            gateway: stack.mesh(Service::Gateway),
            scheduler: stack.mesh(Service::Scheduler),
            worker: stack.mesh(Service::Worker),
            runner: stack.mesh(Service::Runner),
            stack,
            policy,
            broker,
            options,
            running: None,
        };
        engine.launch().await;
        engine
    }

    /// Starts the engine on the data that is there.
    pub async fn launch(&mut self) {
        let ctx = self.stack.context(Service::Engine);
        let mut presence = ctx.presence();
        let mesh = self.stack.join(&ctx);
        #[expect(clippy::disallowed_methods, reason = "the test awaits it in `stop`")]
        let task = tokio::spawn(engine::serve(ctx.clone(), mesh, self.options));
        presence
            .wait_for(|presence| presence.readiness != bailey_service::Readiness::Starting)
            .await
            .unwrap();
        self.running = Some((ctx, task));
    }

    /// Ends the engine in the middle of whatever it does.
    pub async fn stop(&mut self) {
        let (ctx, task) = self.running.take().unwrap();
        ctx.shutdown.cancel();
        task.await.unwrap().unwrap();
    }

    /// Changes what is stored, behind the back of the engine.
    pub async fn alter(&self, statement: &'static str) {
        let path = self.stack.dir().join("data/engine/engine.db");
        let options = SqliteConnectOptions::new().filename(path);
        let mut db = SqliteConnection::connect_with(&options).await.unwrap();
        sqlx::query(statement).execute(&mut db).await.unwrap();
        db.close().await.unwrap();
    }

    pub fn query(&self) -> QueryServiceClient<MeshChannel> {
        QueryServiceClient::new(self.gateway.channel(Service::Engine))
    }

    pub fn intake(&self) -> IntakeServiceClient<MeshChannel> {
        IntakeServiceClient::new(self.gateway.channel(Service::Engine))
    }

    pub fn scheduled_intake(&self) -> IntakeServiceClient<MeshChannel> {
        IntakeServiceClient::new(self.scheduler.channel(Service::Engine))
    }

    pub fn plugins(&self) -> PluginServiceClient<MeshChannel> {
        PluginServiceClient::new(self.gateway.channel(Service::Engine))
    }

    pub fn upstreams(&self) -> UpstreamServiceClient<MeshChannel> {
        UpstreamServiceClient::new(self.gateway.channel(Service::Engine))
    }

    pub fn schedule(&self) -> ScheduleServiceClient<MeshChannel> {
        ScheduleServiceClient::new(self.scheduler.channel(Service::Engine))
    }

    pub fn retention(&self) -> RetentionServiceClient<MeshChannel> {
        RetentionServiceClient::new(self.worker.channel(Service::Engine))
    }

    /// An origin as `service` signs it.
    pub fn origin(&self, service: Service, asked: Asked) -> Signed {
        let principal = if service == Service::Scheduler {
            "schedule:first:default"
        } else {
            "token:ops"
        };
        self.origin_of(service, principal, &["*"], asked)
    }

    /// The same, for a principal of these scopes.
    fn origin_of(
        &self,
        service: Service,
        principal: &str,
        scopes: &[&str],
        asked: Asked,
    ) -> Signed {
        let origin = Origin {
            id: OriginId::new(),
            principal: principal.to_owned(),
            asked,
            scopes: scopes.iter().map(|&scope| scope.to_owned()).collect(),
            issued_at: Clock::system().now(),
        };
        sign(&origin, &self.stack.signing_key(service)).unwrap()
    }

    /// A service as the scheduler puts it in.
    pub fn service(&self, plugin: &str) -> wire::SubmitJobRequest {
        self.service_as(plugin, &format!("service:{plugin}"))
    }

    /// The same, by somebody else for whom the scheduler signs.
    pub fn service_as(&self, plugin: &str, principal: &str) -> wire::SubmitJobRequest {
        let asked = Asked::Call {
            plugin: plugin.parse().unwrap(),
            command: "serve".parse().unwrap(),
            payload_sha256: Sha256::of(b"{}"),
        };
        wire::SubmitJobRequest {
            origin: Some(self.origin_of(Service::Scheduler, principal, &[], asked)),
            plugin: plugin.to_owned(),
            command: "serve".to_owned(),
            payload: "{}".into(),
            submitted_by: "service".to_owned(),
            ..wire::SubmitJobRequest::default()
        }
    }

    /// A call by an API token.
    pub fn call(&self, plugin: &str, command: &str, payload: &str) -> wire::SubmitJobRequest {
        let asked = Asked::Call {
            plugin: plugin.parse().unwrap(),
            command: command.parse().unwrap(),
            payload_sha256: Sha256::of(if payload.is_empty() {
                b"{}"
            } else {
                payload.as_bytes()
            }),
        };
        wire::SubmitJobRequest {
            origin: Some(self.origin(Service::Broker, asked)),
            plugin: plugin.to_owned(),
            command: command.to_owned(),
            payload: payload.to_owned().into(),
            submitted_by: "api".to_owned(),
            ..wire::SubmitJobRequest::default()
        }
    }

    /// An event by an API token.
    pub fn event(&self, kind: &str, payload: &str) -> wire::EmitEventRequest {
        let payload_sha256 = Sha256::of(payload.as_bytes());
        let asked = Asked::Event {
            event_type: kind.parse().unwrap(),
            payload_sha256,
        };
        wire::EmitEventRequest {
            origin: Some(self.origin(Service::Broker, asked)),
            r#type: kind.to_owned(),
            payload: payload.to_owned().into(),
            source: "api".to_owned(),
            ..wire::EmitEventRequest::default()
        }
    }

    /// The request in an assignment.
    pub fn request(&self, assignment: &wire::Assignment) -> serde_json::Value {
        serde_json::from_slice(&self.broker.opened(assignment)).unwrap()
    }

    /// Puts a job in and answers its id.
    pub async fn submit(&self, plugin: &str, command: &str, payload: &str) -> String {
        let request = self.call(plugin, command, payload);
        self.intake()
            .submit_job(request)
            .await
            .unwrap()
            .into_inner()
            .job_id
    }

    pub async fn job(&self, id: &str) -> wire::Job {
        self.try_job(id).await.unwrap()
    }

    pub async fn try_job(&self, id: &str) -> Result<wire::Job, Status> {
        let request = wire::ReadJobRequest {
            job_id: id.to_owned(),
        };
        Ok(self
            .query()
            .read_job(request)
            .await?
            .into_inner()
            .job
            .unwrap())
    }

    /// The job once it is terminal.
    pub async fn ended(&self, id: &str) -> wire::Job {
        let request = wire::WaitForJobRequest {
            job_id: id.to_owned(),
            timeout_ms: 20_000,
        };
        let job = self
            .query()
            .wait_for_job(request)
            .await
            .unwrap()
            .into_inner()
            .job
            .unwrap();
        assert!(job.completed_at_ms > 0, "{job:?}");
        job
    }

    pub async fn tree(&self, root: &str) -> Vec<wire::Job> {
        let request = wire::ReadTreeRequest {
            root_id: root.to_owned(),
        };
        self.query()
            .read_tree(request)
            .await
            .unwrap()
            .into_inner()
            .jobs
    }

    pub async fn status(&self) -> wire::StatusResponse {
        self.query()
            .status(wire::StatusRequest {})
            .await
            .unwrap()
            .into_inner()
    }

    /// Every event that matches from `cursor` on.
    pub async fn events(&self, pattern: &str, cursor: i64) -> Events {
        let request = wire::SubscribeRequest {
            patterns: vec![pattern.to_owned()],
            cursor,
        };
        Events(self.query().subscribe(request).await.unwrap().into_inner())
    }
}

/// A subscription.
pub struct Events(tonic::Streaming<wire::SubscribeResponse>);

impl Events {
    pub async fn next(&mut self) -> wire::Event {
        let next = tokio::time::timeout(Duration::from_secs(20), self.0.message()).await;
        next.expect("an event comes")
            .unwrap()
            .unwrap()
            .event
            .unwrap()
    }

    /// The next event of this type that tells of this job.
    pub async fn about(&mut self, kind: &str, job: &str) -> serde_json::Value {
        loop {
            let event = self.next().await;
            if event.r#type == kind && event.job_id == job {
                return serde_json::from_str(&event.payload_json).unwrap();
            }
        }
    }
}

/// No two of them are the same.
pub fn all_different(ids: &[String]) -> bool {
    ids.iter().collect::<HashSet<_>>().len() == ids.len()
}
