//! A proxy of a stack of its own, a runner that speaks to it through bollard, and plugins that were sealed through it.

mod launch;
mod locked;
mod plugin;
mod pool;
mod relay;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bailey_cell::{Cell, Holder, Seat, Spec, create_body, name};
use bailey_proto::management::v1::engine_service_client::EngineServiceClient;
use bailey_proto::management::v1::seal_service_client::SealServiceClient;
use bailey_proto::management::v1::{DescribeEngineRequest, DescribeEngineResponse, SealResponse};
use bailey_service::Context;
use bailey_test::TestStack;
use bailey_trust::{Lock, LockedPlugin};
use bailey_types::{AttemptNumber, ImageId, JobId, Serial, Service, StackId, Timestamp};
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
pub use self::locked::locked;
pub use self::plugin::{fixture_path, fixture_tar, seal_header, seal_messages};
pub use self::relay::Relay;

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
    let volumes: Value = engine.json(Method::GET, "/volumes", None).await.unwrap();
    for volume in volumes["Volumes"].as_array().unwrap() {
        let volume = volume["Name"].as_str().unwrap();
        if volume.contains(stack.as_str()) {
            let path = format!("/volumes/{volume}");
            engine.call(Method::DELETE, &path, None).await.unwrap();
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
        holder_image: None,
        idle_seconds: 60,
        envelope_seconds: 5,
        keep_images_seconds: 3600,
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
        self.import_with(tag, change, files, &["state", "home/plugin"])
            .await
    }

    /// Imports an image with files, and folders that anybody may write to.
    pub async fn import_with(
        &self,
        tag: &str,
        change: &str,
        files: &[(&str, &Path)],
        folders: &[&str],
    ) -> String {
        let mut tar = tar::Builder::new(Vec::new());
        // The engine does not know GNU's sparse files.
        tar.sparse(false);
        for place in folders {
            let mut folder = tar::Header::new_gnu();
            folder.set_entry_type(tar::EntryType::Directory);
            folder.set_mode(0o777);
            folder.set_size(0);
            tar.append_data(&mut folder, place, std::io::empty())
                .unwrap();
        }
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
        self.manage().await.map(SealServiceClient::new)
    }

    async fn manage(&self) -> Result<Channel, tonic::transport::Error> {
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
        endpoint.connect_with_connector(connector).await
    }

    pub async fn engine_client(&self) -> EngineServiceClient<Channel> {
        EngineServiceClient::new(self.manage().await.unwrap())
    }

    pub async fn engine_rpc(&self) -> DescribeEngineResponse {
        let mut client = self.engine_client().await;
        let described = client.describe_engine(DescribeEngineRequest {}).await;
        described.unwrap().into_inner()
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
        self.lock_changed(image.parse().unwrap(), serial, |_| ());
    }

    /// Locks the plugin's image again, with something about the plugin changed.
    pub fn change_lock(&mut self, change: impl FnOnce(&mut LockedPlugin)) {
        let lock = self.lock.as_ref().unwrap();
        let (serial, image) = (lock.serial.0 + 1, self.image());
        self.lock_changed(image, serial, change);
    }

    pub fn image(&self) -> ImageId {
        let lock = self.lock.as_ref().unwrap();
        lock.plugins.values().next().unwrap().proposed.image
    }

    fn lock_changed(
        &mut self,
        image: ImageId,
        serial: u64,
        change: impl FnOnce(&mut LockedPlugin),
    ) {
        let mut locked = locked(image);
        change(&mut locked);
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
        self.derived_as(seat(job), false, None)
    }

    pub fn derived_as(
        &self,
        seat: Seat,
        untrusted: bool,
        holder: Option<&str>,
    ) -> (String, ContainerCreateBody) {
        let lock = self.lock.as_ref().unwrap();
        let (plugin, locked) = lock.plugins.iter().next().unwrap();
        let spec = Spec::Cell(Cell {
            stack: &self.id,
            serial: lock.serial,
            plugin,
            locked,
            seat,
            untrusted,
            holder,
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

    /// The name and body of a holder made from `image`.
    pub fn derived_holder(&self, image: ImageId) -> (String, ContainerCreateBody) {
        let lock = self.lock.as_ref().unwrap();
        let (plugin, locked) = lock.plugins.iter().next().unwrap();
        let spec = Spec::Holder(Holder {
            stack: &self.id,
            serial: lock.serial,
            plugin,
            locked,
            image: &image,
            id: JobId::new(),
        });
        (name(&spec), create_body(&spec))
    }

    /// A cell that waits for its request, and is started with it.
    pub async fn cell(&self) -> WaitingCell {
        let job = JobId::new();
        self.cell_as(job, self.derived(job)).await
    }

    pub async fn cell_as(
        &self,
        job: JobId,
        (name, body): (String, ContainerCreateBody),
    ) -> WaitingCell {
        let id = self.create(&name, body).await.unwrap();
        let attached = self.attach(&id).await.unwrap();
        WaitingCell {
            id,
            job,
            attached,
            docker: self.docker.clone(),
        }
    }

    pub async fn start_container(&self, id: &str) -> Result<(), bollard::errors::Error> {
        start(&self.docker, id).await
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

pub fn seat(job: JobId) -> Seat {
    let attempt = AttemptNumber(1);
    Seat::Job { job, attempt }
}

async fn start(docker: &Docker, id: &str) -> Result<(), bollard::errors::Error> {
    let options = None::<StartContainerOptions>;
    docker.start_container(id, options).await
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
