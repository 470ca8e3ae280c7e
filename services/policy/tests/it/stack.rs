//! Policy with its neighbours, a lock, and the requests that an engine makes.

use std::collections::BTreeMap;

use bailey_mesh::{Mesh, MeshChannel};
use bailey_plugin::{Limits, Manifest};
use bailey_proto::policy::v1::decide_request::AskedBy;
use bailey_proto::policy::v1::decide_response::Outcome;
use bailey_proto::policy::v1::decision_service_client::DecisionServiceClient;
use bailey_proto::policy::v1::{Allowed, DecideRequest, PipelineStep};
use bailey_proto::trust::v1::Signed;
use bailey_service::{Context, Presence, Readiness};
use bailey_test::{Served, TestStack};
use bailey_trust::{
    Asked, Decision, Lock, LockedPlugin, Origin, ProposedPlugin, StateKind, sign, verify,
};
use bailey_types::{Blake3, Clock, JobId, OriginId, Serial, Service, Sha256};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::Status;

use crate::peers::{Audit, Epoch};

pub(crate) const CONFIG: &str = "
accounts:
  default: {}
  other: {}
plugin_roots: [/plugins]
plugins:
  echo:
    config: {greeting: hello}
    retry: {max_attempts: 2}
    schedules:
      - {id: hourly, every: 1h, command: poll, payload: {a: 1}}
  greet: {}
  moved: {run_as: other}
pipelines:
  - name: welcome
    on: door.opened
    steps:
      - {id: first, uses: greet}
      - {id: second, uses: echo}
  - name: afterwards
    on: greet.done
    from_plugin: greet
    steps:
      - {id: only, uses: echo}
";

const MANIFEST: &str = "
manifest_spec: ductile.plugin
manifest_version: 1
name: NAME
version: 0.1.0
protocol: 2
entrypoint: run.py
commands:
  - {name: poll, type: read}
  - {name: push, type: write}
  - {name: handle, type: write}
";

pub(crate) fn lock(serial: u64) -> Lock {
    let plugin = |(uid, name): (u32, &str)| {
        let proposed = ProposedPlugin {
            manifest: Manifest::parse(&MANIFEST.replace("NAME", name)).unwrap(),
            manifest_blake3: Blake3([1; 32]),
            tree_blake3: Blake3([2; 32]),
            files: BTreeMap::new(),
            base: None,
            tar_sha256: Sha256([3; 32]),
            image: format!("sha256:{}", "a".repeat(64)).parse().unwrap(),
            entrypoint: vec!["/plugin/run.py".into()],
            source: "tests".into(),
            account: "default".parse().unwrap(),
            limits: Limits::default(),
            state: StateKind::None,
            egress: Vec::new(),
            host_paths: Vec::new(),
            walls: bailey_trust::Walls::default(),
            reset_state: false,
        };
        let locked = LockedPlugin {
            proposed,
            tree_mac: Blake3([4; 32]),
            uid,
            holder_uid: uid + 1,
            state_generation: 0,
        };
        (name.parse().unwrap(), locked)
    };
    Lock {
        version: 1,
        stack: "test".parse().unwrap(),
        serial: Serial(serial),
        signed_at: Clock::system().now(),
        config_files: BTreeMap::from([("config.yaml".into(), CONFIG.into())]),
        plugins: [(20_000, "echo"), (20_002, "greet"), (20_004, "moved")]
            .map(plugin)
            .into(),
        next_uid: 20_006,
    }
}

pub(crate) struct TestPolicy {
    pub(crate) stack: TestStack,
    pub(crate) audit: Audit,
    pub(crate) broker: Epoch,
    pub(crate) engine: DecisionServiceClient<MeshChannel>,
    /// The runner's place: a caller has a few connections only.
    pub(crate) runner: Mesh,
    _mesh: Mesh,
    _peers: [Served; 2],
    ctx: Context,
    service: JoinSet<anyhow::Result<()>>,
}

impl TestPolicy {
    /// Policy with a lock.
    pub(crate) async fn start() -> Self {
        let policy = Self::start_unlocked().await;
        policy.stack.write_lock(&lock(5));
        policy
    }

    pub(crate) async fn start_unlocked() -> Self {
        let stack = TestStack::new();
        stack.write_config("config.yaml", CONFIG);
        let audit = Audit::new(&stack);
        let broker = Epoch::default();
        let peers = [
            stack.serve(Service::Broker, broker.routes()),
            stack.serve(Service::Audit, audit.routes()),
        ];
        let (ctx, service) = serve(&stack, Clock::system()).await;
        let mesh = stack.mesh(Service::Engine);
        let engine = DecisionServiceClient::new(mesh.channel(Service::Policy));
        Self {
            runner: stack.mesh(Service::Runner),
            stack,
            audit,
            broker,
            engine,
            _mesh: mesh,
            _peers: peers,
            ctx,
            service,
        }
    }

    pub(crate) async fn restart(&mut self) {
        self.restart_by(Clock::system()).await;
    }

    /// Starts again, by another clock.
    pub(crate) async fn restart_by(&mut self, clock: Clock) {
        self.ctx.shutdown.cancel();
        self.service.join_next().await.unwrap().unwrap().unwrap();
        (self.ctx, self.service) = serve(&self.stack, clock).await;
    }

    /// How policy says that it is.
    pub(crate) fn presence(&self) -> watch::Receiver<Presence> {
        self.ctx.presence()
    }

    pub(crate) async fn decide(
        &self,
        request: DecideRequest,
    ) -> Result<Result<Allowed, String>, Status> {
        let answer = self.engine.clone().decide(request).await?.into_inner();
        Ok(match answer.outcome.unwrap() {
            Outcome::Allowed(allowed) => Ok(allowed),
            Outcome::Denied(denied) => {
                assert!(!denied.detail.is_empty());
                Err(denied.reason)
            }
        })
    }

    /// The decision, checked as broker and socket-proxy check it.
    pub(crate) async fn allowed(&self, request: DecideRequest) -> (Decision, Allowed) {
        let allowed = self.decide(request).await.unwrap().unwrap();
        let key = &self.stack.trust().signing.policy;
        let decision = verify::<Decision>(allowed.decision.as_ref().unwrap(), key)
            .unwrap()
            .statement;
        decision.check_time(Clock::system().now()).unwrap();
        assert_eq!(decision.request_sha256, Sha256::of(&allowed.request));
        (decision, allowed)
    }

    pub(crate) async fn denied(&self, request: DecideRequest) -> String {
        self.decide(request).await.unwrap().unwrap_err()
    }

    /// An origin as `signer` states it.
    pub(crate) fn origin(
        &self,
        signer: Service,
        principal: &str,
        scopes: &[&str],
        asked: Asked,
    ) -> Signed {
        let origin = Origin {
            id: OriginId::new(),
            principal: principal.into(),
            asked,
            scopes: scopes.iter().map(|&scope| scope.to_owned()).collect(),
            issued_at: Clock::system().now(),
        };
        sign(&origin, &self.stack.signing_key(signer)).unwrap()
    }

    /// A call of `echo` by the token `ops`.
    pub(crate) fn call(&self, command: &str, payload: &str) -> DecideRequest {
        let origin = self.origin(
            Service::Broker,
            "token:ops",
            &["plugin:rw"],
            asked_call(command, payload),
        );
        request(
            JobId::new(),
            "echo",
            command,
            &format!("\"payload\":{payload}"),
            AskedBy::Origin(origin),
        )
    }

    /// The first step of `welcome`, started by an event from outside.
    pub(crate) fn event(&self) -> DecideRequest {
        let payload_sha256 = Sha256::of(b"{\"who\":\"me\"}");
        let asked = Asked::Event {
            event_type: "door.opened".parse().unwrap(),
            payload_sha256,
        };
        let origin = self.origin(Service::Broker, "token:ops", &["events:rw"], asked);
        let body = event_body("door.opened", "{\"who\":\"me\"}");
        let mut request = request(
            JobId::new(),
            "greet",
            "handle",
            &body,
            AskedBy::Origin(origin),
        );
        request.pipeline_step = Some(step("welcome", "first", "door.opened", 0));
        request
    }

    /// The second step of `welcome`, after the decision `parent`.
    pub(crate) fn second(parent: &Allowed) -> DecideRequest {
        let body = event_body("greet.done", "{}");
        let asked_by = AskedBy::ParentDecision(parent.decision.clone().unwrap());
        let mut request = request(JobId::new(), "echo", "handle", &body, asked_by);
        request.pipeline_step = Some(step("welcome", "second", "greet.done", 0));
        request
    }
}

async fn serve(stack: &TestStack, clock: Clock) -> (Context, JoinSet<anyhow::Result<()>>) {
    let mut ctx = stack.context(Service::Policy);
    ctx.clock = clock;
    let (mesh, mut presence) = (stack.join(&ctx), ctx.presence());
    let listener = bailey_mesh::bind(ctx.settings.listen).unwrap();
    let mut service = JoinSet::new();
    service.spawn(policy::serve(ctx.clone(), mesh, listener));
    let started = |readiness| matches!(readiness, Readiness::Ready | Readiness::Degraded);
    presence
        .wait_for(|presence| started(presence.readiness))
        .await
        .unwrap();
    (ctx, service)
}

pub(crate) fn asked_call(command: &str, payload: &str) -> Asked {
    Asked::Call {
        plugin: "echo".parse().unwrap(),
        command: command.parse().unwrap(),
        payload_sha256: Sha256::of(payload.as_bytes()),
    }
}

pub(crate) fn event_body(event_type: &str, payload: &str) -> String {
    let event = format!("{{\"type\":\"{event_type}\",\"payload\":{payload}}}");
    format!("\"payload\":{event},\"event\":{event}")
}

pub(crate) fn step(pipeline: &str, step: &str, event_type: &str, event_index: u32) -> PipelineStep {
    PipelineStep {
        pipeline: pipeline.into(),
        step: step.into(),
        instance_id: "instance-1".into(),
        event_type: event_type.into(),
        event_index,
    }
}

pub(crate) fn request(
    job: JobId,
    plugin: &str,
    command: &str,
    rest: &str,
    asked_by: AskedBy,
) -> DecideRequest {
    let body = format!(
        "{{\"protocol\":2,\"job_id\":\"{job}\",\"command\":\"{command}\",\"state\":{{}},{rest}}}"
    );
    DecideRequest {
        job_id: job.to_string(),
        attempt: 1,
        plugin: plugin.into(),
        command: command.into(),
        request: body.into_bytes().into(),
        asked_by: Some(asked_by),
        pipeline_step: None,
    }
}
