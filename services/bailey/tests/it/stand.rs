//! A stack for `plugin lock` and `config lock`, over real sockets. The signing is real; in the places of broker and socket-proxy stand small
//! servers that keep to the contract, because those services need a vault and a Docker engine (the stack's own tests have both).

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use bailey_proto::management::v1::custody_service_server::CustodyServiceServer;
use bailey_proto::management::v1::engine_service_server::{EngineService, EngineServiceServer};
use bailey_proto::management::v1::lock_service_server::{LockService, LockServiceServer};
use bailey_proto::management::v1::seal_request::Message;
use bailey_proto::management::v1::seal_service_server::{SealService, SealServiceServer};
use bailey_proto::management::v1::vault_service_server::VaultServiceServer;
use bailey_proto::management::v1::{
    AwaitLockRequest, AwaitLockResponse, CollectRequest, CollectResponse, DescribeEngineRequest,
    DescribeEngineResponse, InspectImageRequest, InspectImageResponse, ProposeRequest,
    ProposeResponse, SealHeader, SealRequest, SealResponse, SignRequest, SignResponse,
};
use bailey_test::TestStack;
use bailey_trust::{Lock, LockProposal, LockSource, LockedPlugin, ProposedPlugin, SigningKey};
use bailey_types::{Blake3, ImageId, Serial, Service, Sha256, StackId, Timestamp};
use tokio::net::UnixListener;
use tokio::task::JoinSet;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status, Streaming};

use crate::custody::Custody;
use crate::grants::{Asked, Grants, State};
use crate::{Ran, bailey_from, bailey_with, ran, text};

pub(crate) const CONFIG: &str = "accounts: {default: {}}\nplugin_roots: [ROOT]\nplugins:\n  greet: {}\n  other: {uses: greet}\n";
const MANIFEST: &str = "manifest_spec: ductile.plugin\nmanifest_version: 1\nname: greet\nversion: 1.0.0\nprotocol: 2\nentrypoint: run.py\ncommands: [{name: poll, type: read}]\n";

/// Uid and gid of the container `cli`.
pub(crate) const CLI: u32 = 10_012;

struct Notary {
    key: SigningKey,
    stack: StackId,
    serial: Arc<Mutex<u64>>,
    pending: Mutex<BTreeMap<String, Lock>>,
    taking: Arc<Mutex<Taking>>,
    in_the_way: Arc<Mutex<Option<PathBuf>>>,
}

/// Who is slow to take a lock.
#[derive(Default)]
pub(crate) struct Taking {
    /// Its name.
    pub(crate) slow: Option<&'static str>,
    /// Who does not say anything.
    pub(crate) unheard: Option<&'static str>,
    /// How many times it is waited for in vain.
    pub(crate) times: usize,
    /// The serials that were waited for.
    pub(crate) awaited: Vec<u64>,
}

#[tonic::async_trait]
impl LockService for Notary {
    async fn propose(
        &self,
        request: Request<ProposeRequest>,
    ) -> Result<Response<ProposeResponse>, Status> {
        assert_eq!(
            request.metadata().get("authorization").unwrap(),
            "Bearer admin"
        );
        let proposal: LockProposal =
            serde_json::from_slice(&request.into_inner().proposal).unwrap();
        let serial = Serial(*self.serial.lock().unwrap() + 1);
        let locked = |proposed: ProposedPlugin| LockedPlugin {
            tree_mac: Blake3([0; 32]),
            uid: 20_000,
            holder_uid: 20_001,
            state_generation: u32::from(proposed.reset_state),
            proposed: ProposedPlugin {
                reset_state: false,
                ..proposed
            },
        };
        let plugins = proposal
            .plugins
            .into_iter()
            .map(|(name, proposed)| (name, locked(proposed)))
            .collect();
        let config_files = proposal.config_files;
        let lock = Lock {
            version: 1,
            stack: self.stack.clone(),
            serial,
            signed_at: Timestamp(1),
            config_files,
            plugins,
            next_uid: 20_002,
        };
        let code = format!("CODE{serial}");
        let text = serde_json::to_vec(&lock).unwrap();
        self.pending.lock().unwrap().insert(code.clone(), lock);
        Ok(Response::new(ProposeResponse {
            code,
            lock: text.into(),
            missing: vec!["the upstream model has no key: there is no secret model-key".into()],
            known_serial: serial.0 - 1,
        }))
    }

    async fn sign(&self, request: Request<SignRequest>) -> Result<Response<SignResponse>, Status> {
        let lock = self
            .pending
            .lock()
            .unwrap()
            .remove(&request.into_inner().code);
        let lock = lock.ok_or_else(|| Status::failed_precondition("no proposal has this code"))?;
        *self.serial.lock().unwrap() = lock.serial.0;
        if let Some(path) = self.in_the_way.lock().unwrap().take() {
            fs::remove_file(&path).unwrap();
            fs::create_dir(&path).unwrap();
        }
        Ok(Response::new(SignResponse {
            lock: Some(bailey_trust::sign(&lock, &self.key).unwrap()),
        }))
    }

    async fn await_lock(
        &self,
        request: Request<AwaitLockRequest>,
    ) -> Result<Response<AwaitLockResponse>, Status> {
        let mut taking = self.taking.lock().unwrap();
        taking.awaited.push(request.into_inner().serial);
        let slow = taking.slow.filter(|_| taking.awaited.len() <= taking.times);
        let list = |of: Option<&'static str>| of.map(str::to_owned).into_iter().collect();
        Ok(Response::new(AwaitLockResponse {
            behind: list(slow),
            unheard: list(taking.unheard),
        }))
    }
}

/// An engine that has `runc`, and counts how often it was tidied up.
struct Engine(Arc<Mutex<u32>>);

#[tonic::async_trait]
impl EngineService for Engine {
    async fn describe_engine(
        &self,
        _: Request<DescribeEngineRequest>,
    ) -> Result<Response<DescribeEngineResponse>, Status> {
        Ok(Response::new(DescribeEngineResponse {
            runtimes: vec!["runc".to_owned()],
            ..DescribeEngineResponse::default()
        }))
    }

    async fn collect(
        &self,
        _: Request<CollectRequest>,
    ) -> Result<Response<CollectResponse>, Status> {
        *self.0.lock().unwrap() += 1;
        Ok(Response::new(CollectResponse::default()))
    }
}

pub(crate) type Seals = Arc<Mutex<Vec<(SealHeader, Vec<u8>)>>>;

struct Sealing(Seals);

#[tonic::async_trait]
impl SealService for Sealing {
    async fn seal(
        &self,
        request: Request<Streaming<SealRequest>>,
    ) -> Result<Response<SealResponse>, Status> {
        let mut stream = request.into_inner();
        let Some(Message::Header(header)) = stream.message().await?.unwrap().message else {
            panic!("no header")
        };
        let mut tar = Vec::new();
        while let Some(SealRequest {
            message: Some(Message::Chunk(chunk)),
        }) = stream.message().await?
        {
            tar.extend_from_slice(&chunk);
        }
        let tar_sha256 = Sha256::of(&tar);
        self.0.lock().unwrap().push((header, tar));
        Ok(Response::new(SealResponse {
            image_id: ImageId(tar_sha256).to_string(),
            tar_sha256: tar_sha256.0.to_vec().into(),
        }))
    }

    async fn inspect_image(
        &self,
        request: Request<InspectImageRequest>,
    ) -> Result<Response<InspectImageResponse>, Status> {
        let image = request.into_inner().image;
        let base = ImageId(Sha256::of(b"base")).to_string();
        let image_id = match image.as_str() {
            "bailey/base-python:current" => base,
            id if id.starts_with("sha256:") => id.to_owned(),
            _ => return Err(Status::not_found("no such image")),
        };
        Ok(Response::new(InspectImageResponse { image_id }))
    }
}

pub(crate) struct Bench {
    pub(crate) stack: TestStack,
    root: PathBuf,
    pub(crate) seals: Seals,
    pub(crate) tidied: Arc<Mutex<u32>>,
    /// What the vault was asked to do.
    pub(crate) asked: Asked,
    pub(crate) state: State,
    pub(crate) taking: Arc<Mutex<Taking>>,
    /// Serial of the last lock that was signed.
    pub(crate) signed: Arc<Mutex<u64>>,
    /// A file in whose place a folder stands as soon as the next lock is signed.
    pub(crate) in_the_way: Arc<Mutex<Option<PathBuf>>>,
    /// How often somebody connected to the broker.
    pub(crate) connections: Arc<Mutex<u32>>,
    _tasks: JoinSet<()>,
}

impl Bench {
    pub(crate) fn start() -> Self {
        let stack = TestStack::new();
        let seals = Seals::default();
        let root = stack.dir().join("plugins");
        let taking = Arc::<Mutex<Taking>>::default();
        let (signed, in_the_way) = (Arc::<Mutex<u64>>::default(), Arc::default());
        let notary = Notary {
            key: stack.signing_key(Service::Broker),
            stack: stack.trust().stack.clone(),
            serial: Arc::clone(&signed),
            pending: Mutex::default(),
            taking: Arc::clone(&taking),
            in_the_way: Arc::clone(&in_the_way),
        };
        let tidied = Arc::<Mutex<u32>>::default();
        let engine = Engine(Arc::clone(&tidied));
        let mut tasks = JoinSet::new();
        let socket = |service: &str| {
            let dir = stack.dir().join("manage").join(service);
            fs::create_dir_all(&dir).unwrap();
            UnixListenerStream::new(UnixListener::bind(dir.join("manage.sock")).unwrap())
        };
        let (asked, connections) = (Asked::default(), Arc::<Mutex<u32>>::default());
        let state = State::new(Mutex::new(("open", "")));
        let grants = Grants {
            asked: Arc::clone(&asked),
            state: Arc::clone(&state),
        };
        let custody = Custody {
            state: Arc::clone(&state),
        };
        let counted = Arc::clone(&connections);
        let (broker, proxy, sealing) = (
            socket("broker"),
            socket("socket-proxy"),
            Sealing(Arc::clone(&seals)),
        );
        tasks.spawn(async move {
            tonic::transport::Server::builder()
                .add_service(LockServiceServer::new(notary))
                .add_service(VaultServiceServer::new(grants))
                .add_service(CustodyServiceServer::new(custody))
                .serve_with_incoming(broker.map(move |connection| {
                    *counted.lock().unwrap() += 1;
                    connection
                }))
                .await
                .unwrap();
        });
        tasks.spawn(async move {
            tonic::transport::Server::builder()
                .add_service(SealServiceServer::new(sealing))
                .add_service(EngineServiceServer::new(engine))
                .serve_with_incoming(proxy)
                .await
                .unwrap();
        });
        fs::write(stack.dir().join("admin.token"), "admin\n").unwrap();
        let bench = Self {
            stack,
            root,
            seals,
            tidied,
            asked,
            state,
            taking,
            signed,
            in_the_way,
            connections,
            _tasks: tasks,
        };
        bench.configure(CONFIG);
        bench.put("greet/manifest.yaml", MANIFEST, 0o644);
        bench.put("greet/run.py", "#!/usr/bin/env python3\n", 0o755);
        bench
    }

    pub(crate) fn configure(&self, config: &str) {
        fs::write(
            self.stack.config_dir().join("config.yaml"),
            config.replace("ROOT", text(&self.root)),
        )
        .unwrap();
    }

    pub(crate) fn put(&self, name: &str, contents: &str, mode: u32) {
        let path = self.root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, contents).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    pub(crate) async fn bailey(&self, args: &[&str]) -> Ran {
        self.bailey_with(args, "").await
    }

    /// As [`Bench::bailey`], with `input` as its standard input.
    pub(crate) async fn bailey_with(&self, args: &[&str], input: &str) -> Ran {
        bailey_with(
            self.places()
                .iter()
                .map(String::as_str)
                .chain(args.iter().copied()),
            input,
        )
        .await
    }

    /// As [`Bench::bailey`], with what is given as its standard input.
    pub(crate) async fn bailey_from(&self, args: &[&str], stdin: Stdio) -> Ran {
        bailey_from(
            self.places()
                .iter()
                .map(String::as_str)
                .chain(args.iter().copied()),
            stdin,
        )
        .await
    }

    /// As [`Bench::bailey`] in the container: uid 10012, that the configuration's folder lets make files and replace its own. `None`: only root
    /// can be another.
    pub(crate) async fn bailey_as_cli(&self, args: &[&str]) -> Option<Ran> {
        let config = self.stack.config_dir();
        if fs::metadata(&config).unwrap().uid() != 0 {
            return None;
        }
        chown(&config, Some(0), Some(CLI)).unwrap();
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(&config, 0o1775);
        mode(self.stack.dir(), 0o755);
        for service in ["broker", "socket-proxy"] {
            let socket = format!("manage/{service}/manage.sock");
            mode(&self.stack.dir().join(socket), 0o777);
        }
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_bailey"));
        command.args(self.places()).args(args).uid(CLI).gid(CLI);
        command.stdin(Stdio::null());
        Some(ran(command.output().await.unwrap()))
    }

    fn places(&self) -> [String; 3] {
        let place = |flag: &str, path: PathBuf| format!("{flag}={}", text(&path));
        [
            place("--config-dir", self.stack.config_dir()),
            place("--manage-dir", self.stack.dir().join("manage")),
            place("--admin-token-file", self.stack.dir().join("admin.token")),
        ]
    }

    pub(crate) fn lock(&self) -> Lock {
        let trust = self.stack.trust();
        let path = self.stack.config_dir().join("bailey.lock");
        let source = LockSource::new(
            &path,
            trust.signing.broker,
            trust.stack.clone(),
            Serial(0),
            |_| Ok(()),
        );
        source.current().unwrap().lock.clone()
    }

    pub(crate) fn sealed(&self) -> usize {
        self.seals.lock().unwrap().len()
    }
}
