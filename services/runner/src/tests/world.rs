//! Everything around one runner: a signed lock with one plugin, an engine that the test plays, with policy's and the broker's signatures, the real
//! Docker.

mod asking;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bailey_proto::engine::v1::lease_service_server::LeaseServiceServer;
use bailey_proto::engine::v1::report_request::Outcome;
use bailey_proto::engine::v1::{AmendRequest, ReportRequest, TakeLineRequest};
use bailey_proto::policy::v1::pool_service_server::PoolServiceServer;
use bailey_service::{Context, Readiness, Settings};
use bailey_trust::{SealingKey, SealingSession, SigningKey, TrustFile, sign};
use bailey_types::{AttemptNumber, ImageId, JobId, Serial, Service, StackId};
use bollard::Docker;
use bollard::query_parameters::{
    ListContainersOptionsBuilder, RemoveContainerOptionsBuilder, RemoveVolumeOptionsBuilder,
};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use tonic::Status;

use super::peers::{FakeEngine, FakePolicy, PoolRules, Session, serve};
use super::stand_in::StandIn;
use super::subject::{HOLDER_IMAGE, Unrecorded, holder_image, lock};
use crate::audit::Recorded;
use crate::kept::Stalls;
use crate::{Args, Peers};

/// A test that waits longer has failed.
pub(super) const PATIENCE: Duration = Duration::from_secs(25);
/// How often a test looks whether what it waits for is there.
pub(super) const LOOK: Duration = Duration::from_millis(20);

pub(super) struct World {
    pub(super) ctx: Context,
    pub(super) proxy: Arc<StandIn>,
    pub(super) audit: Arc<Recorded>,
    pub(super) pools: Arc<PoolRules>,
    pub(super) stalls: std::sync::OnceLock<Arc<Stalls>>,
    stack: StackId,
    image: ImageId,
    policy: SigningKey,
    broker: SigningKey,
    /// The broker's, to socket-proxy.
    sealing: SealingSession,
    script: String,
    change: fn(&mut Value),
    /// Of the lock, as policy sees it.
    serial: Arc<Mutex<Serial>>,
    sessions: mpsc::Receiver<Session>,
    reports: mpsc::Receiver<ReportRequest>,
    pub(super) amendments: mpsc::Receiver<AmendRequest>,
    pub(super) lines: mpsc::Receiver<TakeLineRequest>,
    /// What the engine says to a line.
    pub(super) hears: Arc<Mutex<Option<Status>>>,
    /// The engine takes no report while somebody has it.
    pub(super) busy: Arc<tokio::sync::Mutex<()>>,
    session: Option<Session>,
    addresses: [String; 2],
    dir: tempfile::TempDir,
    tasks: TaskTracker,
}

impl World {
    /// A stack whose one plugin, `subject`, is this Python text; its runner is started.
    pub(super) async fn with(script: &str) -> Self {
        let world = Self::unstarted(script).await;
        world.start();
        world
    }

    /// The same, with something else about what is locked.
    pub(super) async fn that(script: &str, change: fn(&mut Value)) -> Self {
        let world = Self::unstarted_that(script, change).await;
        world.start();
        world
    }

    pub(super) async fn unstarted(script: &str) -> Self {
        Self::unstarted_that(script, |_| {}).await
    }

    pub(super) async fn unstarted_that(script: &str, change: fn(&mut Value)) -> Self {
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
        let (broker_key, recipient) = (key("signing-broker"), trust.socket_proxy.clone());
        let policy = key("signing-policy");
        let opener = SealingKey::read(&settings.secret_path("sealing-socket-proxy")).unwrap();
        let socket = settings.run_dir.join("docker").join("docker.sock");
        let proxy = StandIn::start(&socket, opener, holder_image().await);
        let ctx = Context::for_test(Service::Runner, settings, trust);
        let tasks = TaskTracker::new();
        let (session_to, sessions) = mpsc::channel(8);
        let (report_to, reports) = mpsc::channel(64);
        let (amend_to, amendments) = mpsc::channel(64);
        let (line_to, lines) = mpsc::channel(64);
        let hears = Arc::new(Mutex::new(None));
        let busy = Arc::<tokio::sync::Mutex<()>>::default();
        let engine = LeaseServiceServer::new(FakeEngine {
            sessions: session_to,
            reports: report_to,
            amendments: amend_to,
            lines: line_to,
            hears: Arc::clone(&hears),
            busy: Arc::clone(&busy),
        })
        .max_decoding_message_size(16 << 20);
        let (pools, serial) = (Arc::default(), Arc::new(Mutex::new(Serial(0))));
        let granting = PoolServiceServer::new(FakePolicy {
            rules: Arc::clone(&pools),
            key: SigningKey::read(&ctx.settings.secret_path("signing-policy")).unwrap(),
            image,
            serial: Arc::clone(&serial),
        });
        let addresses = [
            serve(&tasks, tonic::service::Routes::new(engine)).await,
            serve(&tasks, tonic::service::Routes::new(granting)).await,
        ];
        let world = Self {
            ctx,
            proxy,
            audit: Arc::default(),
            pools,
            stalls: std::sync::OnceLock::new(),
            stack,
            image,
            policy,
            broker: broker_key,
            sealing: SealingSession::new(recipient),
            script: script.to_owned(),
            change,
            serial,
            sessions,
            reports,
            amendments,
            lines,
            hears,
            busy,
            session: None,
            addresses,
            dir,
            tasks,
        };
        world.write_lock(Serial(3));
        world
    }

    /// The same, behind the real socket-proxy.
    pub(super) async fn walled(script: &str, change: fn(&mut Value)) -> Self {
        let mut world = Self::unstarted_that(script, change).await;
        world.wall().await;
        world.start();
        world
    }

    /// Puts the real socket-proxy where the stand-in was.
    async fn wall(&mut self) {
        let (settings, trust) = (&self.ctx.settings, &self.ctx.trust);
        std::fs::remove_file(self.socket()).unwrap();
        let manage = settings.management_socket(Service::SocketProxy);
        std::fs::create_dir_all(manage.parent().unwrap()).unwrap();
        std::fs::create_dir_all(&settings.data_dir).unwrap();
        let uid = rustix::process::geteuid().as_raw();
        let args = socket_proxy::Args {
            docker_socket: "/var/run/docker.sock".into(),
            runner_uid: uid,
            cli_uid: uid,
            probe_image: Some(holder_image().await),
            holder_image: Some(HOLDER_IMAGE.into()),
            idle_seconds: 600,
            envelope_seconds: 5,
            keep_images_seconds: 3600,
        };
        let (settings, trust) = (Settings::clone(settings), TrustFile::clone(trust));
        let ctx = Context::for_test(Service::SocketProxy, settings, trust);
        let mut presence = ctx.presence();
        let serving = socket_proxy::serve(ctx, args, Arc::new(Unrecorded));
        self.tasks.spawn(serving);
        let ready = presence.wait_for(|now| now.readiness != Readiness::Starting);
        let ready = tokio::time::timeout(PATIENCE, ready).await;
        drop(ready.unwrap().unwrap());
    }

    /// Locks the plugin as it is, under this serial.
    pub(super) fn write_lock(&self, serial: Serial) {
        let lock = lock(&self.stack, self.image, &self.script, serial, self.change);
        let signed = sign(&lock, &self.broker).unwrap();
        let text = bailey_trust::source::to_file_text(&signed);
        let path = self.ctx.settings.config_dir.join("bailey.lock");
        let beside = path.with_extension("new");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(&beside, &path).unwrap();
        *self.serial.lock().unwrap() = serial;
    }

    pub(super) fn start(&self) {
        let connect = |address: &str| {
            let endpoint = tonic::transport::Endpoint::from_shared(address.to_owned()).unwrap();
            crate::rpc::channel(endpoint.connect_lazy())
        };
        let [engine, policy] = self.addresses.each_ref().map(|at| connect(at));
        let peers = Peers {
            engine,
            policy,
            audit: Arc::clone(&self.audit) as _,
        };
        let args = Args {
            slots: 2,
            ready: None,
        };
        let stalls = crate::start(&self.ctx, peers, args);
        self.stalls.set(stalls).ok().unwrap();
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

    pub(super) async fn report(&mut self) -> ReportRequest {
        tokio::time::timeout(PATIENCE, self.reports.recv())
            .await
            .unwrap()
            .unwrap()
    }

    /// Runs one job to its report, and waits until nothing of it is left.
    pub(super) async fn outcome_within(&mut self, time: Duration) -> Outcome {
        let job = JobId::new();
        self.assign(job, time).await;
        let report = self.report().await;
        assert_eq!(report.job_id, job.to_string());
        self.until_none_is_left().await;
        report.outcome.unwrap()
    }

    pub(super) async fn outcome(&mut self) -> Outcome {
        self.outcome_within(PATIENCE).await
    }

    /// Every container of this stack, as the engine itself sees it.
    pub(super) async fn containers(&self) -> Vec<String> {
        self.listed(&[]).await
    }

    /// Those that were made for a job.
    pub(super) async fn cells(&self) -> Vec<String> {
        self.listed(&["bailey.kind=cell", "bailey.job"]).await
    }

    /// Those that wait for one, or did.
    pub(super) async fn pooled(&self) -> Vec<String> {
        self.listed(&["bailey.kind=cell", "bailey.pool"]).await
    }

    pub(super) async fn holders(&self) -> Vec<String> {
        self.listed(&["bailey.kind=holder"]).await
    }

    async fn listed(&self, labels: &[&str]) -> Vec<String> {
        let ours = format!("bailey.stack={}", self.stack);
        let labels = labels.iter().map(|&label| label.to_owned()).chain([ours]);
        let filters = HashMap::from([("label", labels.collect())]);
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

    /// Waits until a cell that was made for a job runs; answers its id.
    pub(super) async fn until_one_runs(&self) -> String {
        let waiting = async {
            loop {
                if let Some(id) = self.cells().await.pop()
                    && let Ok(found) = docker().inspect_container(&id, None).await
                    && found.state.unwrap().running == Some(true)
                {
                    return id;
                }
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap()
    }

    /// Waits until this stack has no cell that was made for a job.
    pub(super) async fn until_none_is_left(&self) {
        let waiting = async {
            while !self.cells().await.is_empty() {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap();
    }

    /// Waits until so many cells and holders are ready for the next call; answers the pooled cells there are.
    pub(super) async fn until_ready(&self, cells: usize, holders: usize) -> Vec<String> {
        self.until_ready_is(|ready| ready == (cells, holders)).await
    }

    /// Waits until so many cells are ready for the next call; answers the pooled cells there are. Whether the holder of the cell before stands
    /// ready beside them depends on which was first: its removal, or the making of the next cell, which then takes that holder.
    pub(super) async fn until_cells_are_ready(&self, cells: usize) -> Vec<String> {
        self.until_ready_is(|(ready, _)| ready == cells).await
    }

    async fn until_ready_is(&self, is_so: impl Fn((usize, usize)) -> bool) -> Vec<String> {
        let ready = || self.stalls.get().unwrap().ready();
        let waiting = async {
            while !is_so(ready()) {
                tokio::time::sleep(LOOK).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        waited.unwrap_or_else(|_| panic!("not ready: {:?} cells and holders are", ready()));
        self.pooled().await
    }

    /// Waits until so many pooled cells and holders exist.
    pub(super) async fn until_there_are(&self, cells: usize, holders: usize) {
        let waiting = async {
            while (self.pooled().await.len(), self.holders().await.len()) != (cells, holders) {
                tokio::time::sleep(LOOK).await;
            }
        };
        let there = tokio::time::timeout(PATIENCE, waiting).await;
        there.unwrap_or_else(|_| panic!("not {cells} cells and {holders} holders"));
    }

    /// Waits until an entry of that kind was audited.
    pub(super) async fn until_audited(&self, kind: &str) -> Value {
        let waiting = async {
            loop {
                if let Some(fields) = self.audit.last(kind) {
                    return fields;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        let found = tokio::time::timeout(PATIENCE, waiting).await;
        found.unwrap_or_else(|_| panic!("no {kind}"))
    }

    /// A container as an earlier life of the runner would have left it.
    pub(super) async fn leave_behind(&self) -> String {
        let spec_lock = lock(
            &self.stack,
            self.image,
            "import time; time.sleep(600)",
            Serial(3),
            |_| {},
        );
        let plugin = "subject".parse().unwrap();
        let spec = bailey_cell::Spec::Cell(bailey_cell::Cell {
            stack: &self.stack,
            serial: spec_lock.serial,
            plugin: &plugin,
            locked: &spec_lock.plugins[&plugin],
            seat: bailey_cell::Seat::Job {
                job: JobId::new(),
                attempt: AttemptNumber(1),
            },
            untrusted: false,
            holder: None,
        });
        let engine = crate::docker::Engine::new(self.socket());
        let id = engine.create(&spec).await.unwrap();
        docker().start_container(&id, None).await.unwrap();
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
            let volume = bailey_cell::egress_volume(&self.stack);
            let force = RemoveVolumeOptionsBuilder::new().force(true).build();
            docker().remove_volume(&volume, Some(force)).await.ok();
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

pub(super) async fn base_image() -> ImageId {
    let found = docker().inspect_image("bailey/base-python:current").await;
    let image = found.expect("these tests need the base images: deploy/base-images.sh makes them");
    image.id.unwrap().parse().unwrap()
}
