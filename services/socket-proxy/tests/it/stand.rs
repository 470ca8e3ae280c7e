//! A proxy of a stack of its own, a runner that speaks to it through bollard, and plugins that were sealed through it.

mod launch;
mod plugin;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bailey_cell::{Cell, Spec, create_body, name};
use bailey_proto::management::v1::SealResponse;
use bailey_proto::management::v1::seal_service_client::SealServiceClient;
use bailey_service::Context;
use bailey_test::TestStack;
use bailey_trust::Lock;
use bailey_types::{AttemptNumber, JobId, Serial, Service, StackId, Timestamp};
use bollard::Docker;
use bollard::container::AttachContainerResults;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder,
    StartContainerOptions, WaitContainerOptions,
};
use futures::StreamExt as _;
use http::Method;
use serde_json::Value;
use socket_proxy::audit::Record;
use socket_proxy::engine::Engine;
use socket_proxy::{Args, serve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

pub use self::launch::{Launch, WaitingCell};
use self::plugin::locked;
pub use self::plugin::{fixture_tar, seal_header, seal_messages};

pub const DOCKER: &str = "/var/run/docker.sock";
pub const PLUGIN: &str = "fixture";

/// What was audited.
#[derive(Default)]
pub struct Recorded(Mutex<Vec<(&'static str, Value)>>);

impl Record for Recorded {
    fn record(&self, kind: &'static str, fields: Value, _: bool) {
        self.0.lock().unwrap().push((kind, fields));
    }
}

impl Recorded {
    /// The fields of the newest entry of that kind.
    pub fn last(&self, kind: &str) -> Option<Value> {
        let entries = self.0.lock().unwrap();
        entries
            .iter()
            .rev()
            .find(|entry| entry.0 == kind)
            .map(|entry| entry.1.clone())
    }
}

pub struct Stand {
    pub stack: TestStack,
    pub id: StackId,
    pub ctx: Context,
    pub docker: Docker,
    pub recorded: Arc<Recorded>,
    pub lock: Option<Lock>,
    tasks: JoinSet<anyhow::Result<()>>,
}

/// What the engine holds of a stand goes with it, whatever became of the test.
impl Drop for Stand {
    fn drop(&mut self) {
        let id = self.id.clone();
        let cleaning = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(clean(&id));
        });
        assert!(cleaning.join().is_ok(), "cleaning up after a test failed");
    }
}

async fn clean(stack: &StackId) {
    let engine = engine();
    let containers: Vec<Value> = engine
        .json(Method::GET, "/containers/json?all=1", None)
        .await
        .unwrap();
    for container in containers {
        if container["Names"]
            .to_string()
            .contains(&format!("bailey-{stack}-"))
        {
            let path = format!(
                "/containers/{}?force=1&v=1",
                container["Id"].as_str().unwrap()
            );
            engine.call(Method::DELETE, &path, None).await.unwrap();
        }
    }
    let images: Vec<Value> = engine
        .json(Method::GET, "/images/json", None)
        .await
        .unwrap();
    for tag in images
        .iter()
        .flat_map(|image| image["RepoTags"].as_array().cloned().unwrap_or_default())
    {
        let tag = tag.as_str().unwrap();
        if tag.contains(stack.as_str()) {
            engine
                .call(Method::DELETE, &format!("/images/{tag}?force=1"), None)
                .await
                .unwrap();
        }
    }
}

/// The engine itself, for what the proxy does not allow.
pub fn engine() -> Engine {
    Engine::new(DOCKER.into(), bailey_service::Process::new())
}

pub fn args() -> Args {
    let uid = rustix::process::geteuid().as_raw();
    Args {
        docker_socket: DOCKER.into(),
        runner_uid: uid,
        cli_uid: uid,
        probe_image: None,
        idle_seconds: 60,
        envelope_seconds: 5,
    }
}

impl Stand {
    /// A proxy with one sealed and locked plugin.
    pub async fn start() -> Self {
        let mut stand = Self::bare(args()).await;
        let base = stand.import_base("base", &[]).await;
        let sealed = stand.seal(&base, PLUGIN).await.unwrap();
        stand.lock_plugin(&sealed.image_id, 1);
        stand
    }

    /// A proxy without a lock.
    pub async fn bare(args: Args) -> Self {
        let id = format!("bd-{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
        let id: StackId = id.parse().unwrap();
        let stack = TestStack::named(&id);
        let reachable = engine().ping().await;
        assert!(
            reachable.is_ok() || args.docker_socket != Path::new(DOCKER),
            "these tests need a Docker Engine behind {DOCKER}, which does not answer; start it (`make up` installs one)"
        );
        let recorded = Arc::new(Recorded::default());
        let (ctx, tasks) = serve_on(&stack, args, &recorded).await;
        let socket = ctx.settings.run_dir.join("docker/docker.sock");
        let docker =
            Docker::connect_with_unix(socket.to_str().unwrap(), 60, bollard::API_DEFAULT_VERSION)
                .unwrap();
        Self {
            stack,
            id,
            ctx,
            docker,
            recorded,
            lock: None,
            tasks,
        }
    }

    /// Ends the proxy and starts another one in its place.
    pub async fn restart(&mut self) {
        self.restart_with(args()).await;
    }

    pub async fn restart_with(&mut self, args: Args) {
        self.ctx.shutdown.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap().unwrap();
        }
        (self.ctx, self.tasks) = serve_on(&self.stack, args, &self.recorded).await;
    }

    pub fn socket(&self) -> PathBuf {
        self.ctx.settings.run_dir.join("docker/docker.sock")
    }

    /// Imports an image with the label of base images and the given files.
    pub async fn import_base(&self, tag: &str, files: &[(&str, &Path)]) -> String {
        self.import(tag, "LABEL%20bailey.image.base%3Dtrue", files)
            .await
    }

    pub async fn import(&self, tag: &str, change: &str, files: &[(&str, &Path)]) -> String {
        let mut tar = tar::Builder::new(Vec::new());
        // The engine does not know GNU's sparse files.
        tar.sparse(false);
        for (name, path) in files {
            tar.append_path_with_name(path, name).unwrap();
        }
        let tar = tar.into_inner().unwrap();
        let path = format!(
            "/images/create?fromSrc=-&repo=bd-test&tag={}-{tag}&changes={change}",
            self.id
        );
        let answer = engine().call(Method::POST, &path, Some(tar)).await.unwrap();
        let body = http_body_util::BodyExt::collect(answer.into_body())
            .await
            .unwrap()
            .to_bytes();
        let said = String::from_utf8(body.to_vec()).unwrap();
        assert!(!said.contains("error"), "{said}");
        format!("bd-test:{}-{tag}", self.id)
    }

    pub async fn seals(&self) -> SealServiceClient<Channel> {
        self.seals_or_error().await.unwrap()
    }

    pub async fn seals_or_error(
        &self,
    ) -> Result<SealServiceClient<Channel>, tonic::transport::Error> {
        let path = self.ctx.settings.management_socket(Service::SocketProxy);
        let connector = tower::service_fn(move |_: http::Uri| {
            let path = path.clone();
            async move {
                UnixStream::connect(path)
                    .await
                    .map(hyper_util::rt::TokioIo::new)
            }
        });
        let endpoint = Endpoint::from_static("http://socket-proxy");
        endpoint
            .connect_with_connector(connector)
            .await
            .map(SealServiceClient::new)
    }

    /// Seals the fixture as `plugin`.
    pub async fn seal(&self, base: &str, plugin: &str) -> Result<SealResponse, tonic::Status> {
        let tar = fixture_tar();
        let header = seal_header(base, plugin, &tar);
        self.seals()
            .await
            .seal(futures::stream::iter(seal_messages(header, &tar)))
            .await
            .map(tonic::Response::into_inner)
    }

    pub fn lock_plugin(&mut self, image: &str, serial: u64) {
        let locked = locked(image.parse().unwrap());
        let lock = Lock {
            version: 1,
            stack: self.id.clone(),
            serial: Serial(serial),
            signed_at: Timestamp(0),
            config_files: BTreeMap::new(),
            plugins: BTreeMap::from([(PLUGIN.parse().unwrap(), locked)]),
            next_uid: 20_002,
        };
        self.stack.write_lock(&lock);
        self.lock = Some(lock);
    }

    /// The name and body of a cell for `job`, as the runner derives them.
    pub fn derived(&self, job: JobId) -> (String, ContainerCreateBody) {
        let lock = self.lock.as_ref().unwrap();
        let (plugin, locked) = lock.plugins.iter().next().unwrap();
        let (serial, attempt) = (lock.serial, AttemptNumber(1));
        let spec = Spec::Cell(Cell {
            stack: &self.id,
            serial,
            plugin,
            locked,
            job,
            attempt,
        });
        (name(&spec), create_body(&spec))
    }

    pub async fn create(
        &self,
        name: &str,
        body: ContainerCreateBody,
    ) -> Result<String, bollard::errors::Error> {
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        self.docker
            .create_container(Some(options), body)
            .await
            .map(|made| made.id)
    }

    /// A cell that waits for its request.
    pub async fn cell(&self) -> WaitingCell {
        let job = JobId::new();
        let (name, body) = self.derived(job);
        let id = self.create(&name, body).await.unwrap();
        let attached = self.attach(&id).await.unwrap();
        self.docker
            .start_container(&id, None::<StartContainerOptions>)
            .await
            .unwrap();
        WaitingCell { id, job, attached }
    }

    pub async fn attach(&self, id: &str) -> Result<AttachContainerResults, bollard::errors::Error> {
        let options = AttachContainerOptionsBuilder::new()
            .stream(true)
            .stdin(true)
            .stdout(true)
            .stderr(true);
        self.docker
            .attach_container(id, Some(options.build()))
            .await
    }

    pub async fn remove(&self, id: &str) -> Result<(), bollard::errors::Error> {
        let options = RemoveContainerOptionsBuilder::new()
            .force(true)
            .v(true)
            .build();
        self.docker.remove_container(id, Some(options)).await
    }

    pub async fn exit_code(&self, id: &str) -> i64 {
        let mut waiting = self.docker.wait_container(
            id,
            Some(WaitContainerOptions {
                condition: "not-running".into(),
            }),
        );
        match waiting.next().await.unwrap() {
            Ok(ended) => ended.status_code,
            Err(bollard::errors::Error::DockerContainerWaitError { code, .. }) => code,
            Err(error) => panic!("{error}"),
        }
    }

    /// Writes bytes to the socket as they are, and reads the answer's head and body.
    pub async fn raw(&self, request: &str) -> String {
        let mut stream = UnixStream::connect(self.socket()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // The proxy closes: every raw request says so, or breaks the connection.
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    }
}

async fn serve_on(
    stack: &TestStack,
    args: Args,
    recorded: &Arc<Recorded>,
) -> (Context, JoinSet<anyhow::Result<()>>) {
    let ctx = stack.context(Service::SocketProxy);
    let manage = ctx.settings.management_socket(Service::SocketProxy);
    std::fs::create_dir_all(manage.parent().unwrap()).unwrap();
    std::fs::create_dir_all(ctx.settings.run_dir.join("docker")).unwrap();
    let mut presence = ctx.process.presence();
    let mut tasks = JoinSet::new();
    let audit: Arc<dyn Record> = Arc::clone(recorded) as _;
    tasks.spawn(serve(ctx.clone(), args, audit));
    let ready = presence.wait_for(|p| p.readiness != bailey_service::Readiness::Starting);
    ready.await.unwrap();
    (ctx, tasks)
}
