//! Everything around one runner: a signed lock with one plugin, an engine and a broker that the test plays, the real Docker.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bailey_proto::broker::v1::ticket_service_server::TicketServiceServer;
use bailey_proto::engine::v1::lease_service_server::LeaseServiceServer;
use bailey_proto::engine::v1::report_request::Outcome;
use bailey_proto::engine::v1::{Assignment, Cancel, ReportRequest, lease_response};
use bailey_service::{Context, Settings};
use bailey_trust::{Decision, DecisionOrigin, Lock, SealingKey, SigningKey, TrustFile, sign};
use bailey_types::{AttemptNumber, DecisionId, ImageId, JobId, OriginId, Service, Sha256, StackId};
use bollard::Docker;
use bollard::query_parameters::{ListContainersOptionsBuilder, RemoveContainerOptionsBuilder};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use tonic::Status;

use super::peers::{FakeBroker, FakeEngine, Session, serve};
use super::stand_in::StandIn;
use crate::Args;

const CONFIG: &str = "service: {}\naccounts:\n  default: {}\n";
/// A test that waits longer has failed.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);

pub(super) struct World {
    pub(super) ctx: Context,
    pub(super) proxy: Arc<StandIn>,
    pub(super) tickets: Arc<Mutex<Option<Status>>>,
    stack: StackId,
    image: ImageId,
    policy: SigningKey,
    sessions: mpsc::Receiver<Session>,
    reports: mpsc::Receiver<ReportRequest>,
    session: Option<Session>,
    addresses: (String, String),
    dir: tempfile::TempDir,
    _tasks: TaskTracker,
}

impl World {
    /// A stack whose one plugin, `subject`, is this Python text; its runner is started.
    pub(super) async fn with(script: &str) -> Self {
        let world = Self::unstarted(script).await;
        world.start();
        world
    }

    pub(super) async fn unstarted(script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings::for_test(dir.path());
        for folder in [&settings.config_dir, &settings.secrets_dir] {
            std::fs::create_dir_all(folder).unwrap();
        }
        let stack: StackId = format!("t{:x}", rand::random::<u64>()).parse().unwrap();
        bailey_roots::make(&stack, &settings.config_dir, &settings.secrets_dir).unwrap();
        let trust = TrustFile::read(&settings.config_dir.join("trust.json")).unwrap();
        let key = |name: &str| SigningKey::read(&settings.secret_path(name)).unwrap();
        let image = base_image().await;
        let lock = lock(&stack, image, script);
        let (broker_key, recipient) = (key("signing-broker"), trust.socket_proxy.clone());
        let signed = sign(&lock, &broker_key).unwrap();
        let text = bailey_trust::source::to_file_text(&signed);
        std::fs::write(settings.config_dir.join("bailey.lock"), text).unwrap();
        let policy = key("signing-policy");
        let opener = SealingKey::read(&settings.secret_path("sealing-socket-proxy")).unwrap();
        let socket = settings.run_dir.join("docker").join("docker.sock");
        let proxy = StandIn::start(&socket, opener);
        let ctx = Context::for_test(Service::Runner, settings, trust);
        let tasks = TaskTracker::new();
        let (session_to, sessions) = mpsc::channel(8);
        let (report_to, reports) = mpsc::channel(64);
        let engine = LeaseServiceServer::new(FakeEngine {
            sessions: session_to,
            reports: report_to,
        })
        .max_decoding_message_size(16 << 20);
        let tickets = Arc::new(Mutex::new(None));
        let broker = TicketServiceServer::new(FakeBroker {
            refusal: Arc::clone(&tickets),
            key: broker_key,
            recipient,
        })
        .max_decoding_message_size(16 << 20);
        let engine_at = serve(&tasks, tonic::service::Routes::new(engine)).await;
        let broker_at = serve(&tasks, tonic::service::Routes::new(broker)).await;
        Self {
            ctx,
            proxy,
            tickets,
            stack,
            image,
            policy,
            sessions,
            reports,
            session: None,
            addresses: (engine_at, broker_at),
            dir,
            _tasks: tasks,
        }
    }

    pub(super) fn start(&self) {
        let connect = |address: &str| {
            let endpoint = tonic::transport::Endpoint::from_shared(address.to_owned()).unwrap();
            crate::rpc::channel(endpoint.connect_lazy())
        };
        let (engine, broker) = (connect(&self.addresses.0), connect(&self.addresses.1));
        crate::start(&self.ctx, engine, broker, Args { slots: Some(2) });
    }

    /// The next lease stream of the runner.
    pub(super) async fn session(&mut self) -> &mut Session {
        let session = tokio::time::timeout(PATIENCE, self.sessions.recv())
            .await
            .unwrap()
            .unwrap();
        self.session.insert(session)
    }

    /// The stream, once the runner says that it can work.
    pub(super) async fn ready(&mut self) -> &mut Session {
        let session = self.session().await;
        session
            .heartbeat_where(|heartbeat| heartbeat.trouble.is_empty())
            .await;
        session
    }

    /// The stream that is open.
    pub(super) fn session_now(&mut self) -> &mut Session {
        self.session.as_mut().unwrap()
    }

    /// Ends the stream from the engine's side.
    pub(super) fn hang_up(&mut self) {
        self.session = None;
    }

    pub(super) async fn assign(&self, job: JobId, time: Duration) {
        self.assign_with(job, time, |_| {}).await;
    }

    pub(super) async fn assign_with(
        &self,
        job: JobId,
        time: Duration,
        change: impl FnOnce(&mut Decision),
    ) {
        let request = br#"{"protocol":2,"command":"poll"}"#;
        let now = self.ctx.clock.now();
        let mut decision = Decision {
            id: DecisionId::new(),
            nonce: "00".repeat(16),
            job,
            attempt: AttemptNumber(1),
            principal: "token:test".into(),
            origin: DecisionOrigin::Root {
                origin: OriginId::new(),
                step: None,
            },
            plugin: "subject".parse().unwrap(),
            command: "poll".parse().unwrap(),
            request_sha256: Sha256::of(request),
            lock_serial: bailey_types::Serial(3),
            image: self.image,
            account: "default".parse().unwrap(),
            egress: Vec::new(),
            contract: "token:test".into(),
            broker_epoch: "1".into(),
            audit_index: 1,
            issued_at: now,
            expires_at: now.plus(Duration::from_mins(1)),
        };
        change(&mut decision);
        let assignment = Assignment {
            job_id: job.to_string(),
            attempt: 1,
            plugin: "subject".into(),
            command: "poll".into(),
            decision: Some(sign(&decision, &self.policy).unwrap()),
            request: request[..].into(),
            timeout_ms: time.as_millis().try_into().unwrap(),
        };
        self.session
            .as_ref()
            .unwrap()
            .say(lease_response::Message::Assignment(assignment))
            .await;
    }

    pub(super) async fn cancel(&self, job: JobId) {
        let cancel = Cancel {
            job_id: job.to_string(),
            attempt: 1,
        };
        self.session
            .as_ref()
            .unwrap()
            .say(lease_response::Message::Cancel(cancel))
            .await;
    }

    pub(super) async fn report(&mut self) -> ReportRequest {
        tokio::time::timeout(PATIENCE, self.reports.recv())
            .await
            .unwrap()
            .unwrap()
    }

    /// Runs one job to its report, and makes sure that nothing of it is left.
    pub(super) async fn outcome_within(&mut self, time: Duration) -> Outcome {
        let job = JobId::new();
        self.assign(job, time).await;
        let report = self.report().await;
        assert_eq!(report.job_id, job.to_string());
        assert_eq!(
            self.containers().await,
            Vec::<String>::new(),
            "a container is left"
        );
        report.outcome.unwrap()
    }

    pub(super) async fn outcome(&mut self) -> Outcome {
        self.outcome_within(PATIENCE).await
    }

    /// Every container of this stack, as the engine itself sees it.
    pub(super) async fn containers(&self) -> Vec<String> {
        self.containers_where(HashMap::new()).await
    }

    async fn containers_where(&self, mut filters: HashMap<&str, Vec<String>>) -> Vec<String> {
        filters.insert("label", vec![format!("bailey.stack={}", self.stack)]);
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&filters)
            .build();
        let listed = docker().list_containers(Some(options)).await.unwrap();
        listed
            .into_iter()
            .filter_map(|container| container.id)
            .collect()
    }

    /// Waits until a container of this stack runs; answers its id.
    pub(super) async fn until_one_runs(&self) -> String {
        let running = || HashMap::from([("status", vec!["running".to_owned()])]);
        let waiting = async {
            loop {
                if let Some(id) = self.containers_where(running()).await.pop() {
                    return id;
                }
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap()
    }

    /// Waits until this stack has no container.
    pub(super) async fn until_none_is_left(&self) {
        let waiting = async { while !self.containers().await.is_empty() {} };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap();
    }

    /// A container as an earlier life of the runner would have left it.
    pub(super) async fn leave_behind(&self) -> String {
        let spec_lock = lock(&self.stack, self.image, "import time; time.sleep(600)");
        let plugin = "subject".parse().unwrap();
        let spec = bailey_cell::Spec::Cell(bailey_cell::Cell {
            stack: &self.stack,
            serial: spec_lock.serial,
            plugin: &plugin,
            locked: &spec_lock.plugins[&plugin],
            job: JobId::new(),
            attempt: AttemptNumber(1),
        });
        let engine = crate::docker::Engine::new(self.socket());
        let id = engine.create(&spec).await.unwrap();
        engine.start(&id).await.unwrap();
        id
    }

    fn socket(&self) -> PathBuf {
        self.dir
            .path()
            .join("run")
            .join("docker")
            .join("docker.sock")
    }
}

impl Drop for World {
    /// A failed test leaves no container either.
    fn drop(&mut self) {
        self.ctx.shutdown.cancel();
        let clean_up = async {
            for id in self.containers().await {
                let force = RemoveContainerOptionsBuilder::new().force(true).build();
                // The runner may be removing it too.
                docker().remove_container(&id, Some(force)).await.ok();
            }
        };
        // A runtime of its own: the test's is blocked while it drops.
        let run = || {
            let builder = &mut tokio::runtime::Builder::new_current_thread();
            builder.enable_all().build().unwrap().block_on(clean_up);
        };
        std::thread::scope(|scope| scope.spawn(run).join()).ok();
    }
}

pub(super) fn docker() -> Docker {
    Docker::connect_with_unix("/var/run/docker.sock", 30, bollard::API_DEFAULT_VERSION)
        .expect("these tests need a running Docker Engine")
}

async fn base_image() -> ImageId {
    let found = docker().inspect_image("bailey/base-python:current").await;
    let image = found.expect("these tests need the base images: deploy/base-images.sh makes them");
    image.id.unwrap().parse().unwrap()
}

fn lock(stack: &StackId, image: ImageId, script: &str) -> Lock {
    let zeros = "0".repeat(64);
    let manifest = json!({
        "name": "subject", "version": "1", "description": "", "entrypoint": "run.py", "concurrency_safe": true,
        "commands": [], "fact_outputs": [], "config_keys": {"required": [], "optional": []},
        "container": {"image": null, "entrypoint": null, "memory_bytes": null, "millicpus": null, "pids": null, "tmp_bytes": null, "egress": []},
    });
    let proposed = json!({
        "manifest": manifest, "manifest_blake3": zeros, "tree_blake3": zeros, "tar_sha256": zeros, "image": image,
        "entrypoint": ["/usr/bin/python3", "-c", script], "source": "test", "account": "default",
        "limits": {"memory_bytes": 64 << 20, "millicpus": 1000, "pids": 32, "tmp_bytes": 1 << 20},
        "state": "none", "egress": [], "host_paths": [],
    });
    let subject =
        json!({"proposed": proposed, "tree_mac": zeros, "uid": 20000, "holder_uid": 20001});
    let text = json!({
        "version": 1, "stack": stack, "serial": 3, "signed_at": bailey_types::Timestamp(0),
        "config_files": {bailey_config::ROOT: CONFIG}, "plugins": {"subject": subject}, "next_uid": 20002,
    });
    serde_json::from_value(text).unwrap()
}
