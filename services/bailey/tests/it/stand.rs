//! A stack for `plugin lock` and `config lock`, over real sockets. The signing is real; in the places of broker and socket-proxy stand small
//! servers that keep to the contract, because those services need a vault and a Docker engine (the stack's own tests have both).

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bailey_proto::management::v1::custody_service_server::CustodyServiceServer;
use bailey_proto::management::v1::engine_service_server::{EngineService, EngineServiceServer};
use bailey_proto::management::v1::lock_service_server::{LockService, LockServiceServer};
use bailey_proto::management::v1::seal_request::Message;
use bailey_proto::management::v1::seal_service_server::{SealService, SealServiceServer};
use bailey_proto::management::v1::vault_service_server::{VaultService, VaultServiceServer};
use bailey_proto::management::v1::{
    CollectRequest, CollectResponse, CreateTokenRequest, CreateTokenResponse,
    DescribeEngineRequest, DescribeEngineResponse, ImportSecretsRequest, ImportSecretsResponse,
    InitRequest, InitResponse, InspectImageRequest, InspectImageResponse, ListRequest,
    ListResponse, PrincipalEntry, ProposeRequest, ProposeResponse, PurgePrincipalRequest,
    PurgePrincipalResponse, Recipe, RegisterPrincipalRequest, RegisterPrincipalResponse,
    RevokePrincipalRequest, RevokePrincipalResponse, RevokeSecretRequest, RevokeSecretResponse,
    RevokeTokenRequest, RevokeTokenResponse, RollPrincipalRequest, RollPrincipalResponse,
    RollSecretRequest, RollSecretResponse, SealHeader, SealRequest, SealResponse, SecretEntry,
    SetSecretRequest, SetSecretResponse, SignRequest, SignResponse, StatusRequest, StatusResponse,
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
use crate::{Ran, bailey_with, text};

pub(crate) const CONFIG: &str = "accounts: {default: {}}\nplugin_roots: [ROOT]\nplugins:\n  greet: {}\n  other: {uses: greet}\n";
const MANIFEST: &str = "manifest_spec: ductile.plugin\nmanifest_version: 1\nname: greet\nversion: 1.0.0\nprotocol: 2\nentrypoint: run.py\ncommands: [{name: poll, type: read}]\n";

/// Whom the vault knows: name, kind, status.
const PRINCIPALS: [(&str, &str, &str); 3] = [
    ("core", "gateway", "active"),
    ("shop", "consumer", "active"),
    ("gone", "plugin", "revoked"),
];

struct Notary {
    key: SigningKey,
    stack: StackId,
    serial: Mutex<u64>,
    pending: Mutex<BTreeMap<String, Lock>>,
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
        Ok(Response::new(SignResponse {
            lock: Some(bailey_trust::sign(&lock, &self.key).unwrap()),
        }))
    }
}

/// A vault in which `greet` may have one secret, and had another one. It notes what it is asked to do.
struct Grants(Asked);

pub(crate) type Asked = Arc<Mutex<Vec<String>>>;

impl Grants {
    fn asked(&self, what: String) {
        self.0.lock().unwrap().push(what);
    }
}

#[tonic::async_trait]
impl VaultService for Grants {
    async fn list(&self, _: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let secret = |name: &str, status: &str| SecretEntry {
            name: name.to_owned(),
            status: status.to_owned(),
            pattern: "auto".to_owned(),
            recipe: Some(Recipe {
                length: 48,
                alphabet: "base64url".to_owned(),
            }),
            granted_to: vec!["greet".to_owned()],
            ..SecretEntry::default()
        };
        Ok(Response::new(ListResponse {
            secrets: vec![secret("one", "active"), secret("two", "revoked")],
            principals: PRINCIPALS
                .map(|(name, kind, status)| PrincipalEntry {
                    name: name.to_owned(),
                    kind: kind.to_owned(),
                    status: status.to_owned(),
                })
                .into(),
            ..ListResponse::default()
        }))
    }

    async fn init(&self, _: Request<InitRequest>) -> Result<Response<InitResponse>, Status> {
        Err(Status::unimplemented("init"))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Ok(Response::new(StatusResponse {
            state: "open".to_owned(),
            unrecorded: 1,
            ..StatusResponse::default()
        }))
    }

    async fn set_secret(
        &self,
        request: Request<SetSecretRequest>,
    ) -> Result<Response<SetSecretResponse>, Status> {
        let asked = request.into_inner();
        let recipe = asked
            .recipe
            .map(|it| format!(" {}:{}", it.length, it.alphabet));
        let (name, grants) = (asked.name, asked.grant_to.join(","));
        self.asked(format!(
            "set {name} for {grants}{}",
            recipe.unwrap_or_default()
        ));
        if name == "one" && !asked.value.is_empty() {
            return Err(Status::failed_precondition("the secret one exists"));
        }
        // As the broker does: it knows from the lock what it registers.
        let strangers = asked.grant_to.iter().filter(|name| *name == "new");
        let registered = strangers.map(|name| PrincipalEntry {
            name: name.clone(),
            kind: "consumer".to_owned(),
            status: "active".to_owned(),
        });
        Ok(Response::new(SetSecretResponse {
            outcome: "set".to_owned(),
            registered: registered.collect(),
        }))
    }

    async fn register_principal(
        &self,
        request: Request<RegisterPrincipalRequest>,
    ) -> Result<Response<RegisterPrincipalResponse>, Status> {
        let asked = request.into_inner();
        // As the broker does: whoever is there is not registered as something else, nor is whoever was revoked.
        if PRINCIPALS.iter().any(|(name, ..)| *name == asked.name) {
            return Err(Status::already_exists("registered already"));
        }
        self.asked(format!("register {} {}", asked.name, asked.kind));
        let outcome = "principal_registered".to_owned();
        Ok(Response::new(RegisterPrincipalResponse { outcome }))
    }

    async fn create_token(
        &self,
        _: Request<CreateTokenRequest>,
    ) -> Result<Response<CreateTokenResponse>, Status> {
        Err(Status::unimplemented("create_token"))
    }

    async fn roll_secret(
        &self,
        _: Request<RollSecretRequest>,
    ) -> Result<Response<RollSecretResponse>, Status> {
        Ok(Response::new(RollSecretResponse {
            outcome: "rolled".to_owned(),
            roll_count: 1,
        }))
    }

    async fn revoke_secret(
        &self,
        _: Request<RevokeSecretRequest>,
    ) -> Result<Response<RevokeSecretResponse>, Status> {
        let outcome = "revoked".to_owned();
        Ok(Response::new(RevokeSecretResponse { outcome }))
    }

    async fn import_secrets(
        &self,
        _: Request<ImportSecretsRequest>,
    ) -> Result<Response<ImportSecretsResponse>, Status> {
        Ok(Response::new(ImportSecretsResponse::default()))
    }

    async fn revoke_principal(
        &self,
        _: Request<RevokePrincipalRequest>,
    ) -> Result<Response<RevokePrincipalResponse>, Status> {
        let outcome = "principal_revoked".to_owned();
        Ok(Response::new(RevokePrincipalResponse { outcome }))
    }

    async fn purge_principal(
        &self,
        _: Request<PurgePrincipalRequest>,
    ) -> Result<Response<PurgePrincipalResponse>, Status> {
        Ok(Response::new(PurgePrincipalResponse {
            outcome: "principal_purged".to_owned(),
            stripped: vec!["one".to_owned()],
        }))
    }

    async fn roll_principal(
        &self,
        _: Request<RollPrincipalRequest>,
    ) -> Result<Response<RollPrincipalResponse>, Status> {
        Ok(Response::new(RollPrincipalResponse {
            name: "one".to_owned(),
            rolled: vec!["made".to_owned()],
            skipped: vec!["typed".to_owned()],
        }))
    }

    async fn revoke_token(
        &self,
        _: Request<RevokeTokenRequest>,
    ) -> Result<Response<RevokeTokenResponse>, Status> {
        let outcome = "token_revoked".to_owned();
        Ok(Response::new(RevokeTokenResponse { outcome }))
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
    /// How often somebody connected to the broker.
    pub(crate) connections: Arc<Mutex<u32>>,
    _tasks: JoinSet<()>,
}

impl Bench {
    pub(crate) fn start() -> Self {
        let stack = TestStack::new();
        let seals = Seals::default();
        let root = stack.dir().join("plugins");
        let notary = Notary {
            key: stack.signing_key(Service::Broker),
            stack: stack.trust().stack.clone(),
            serial: Mutex::default(),
            pending: Mutex::default(),
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
        let (grants, counted) = (Grants(Arc::clone(&asked)), Arc::clone(&connections));
        let (broker, proxy, sealing) = (
            socket("broker"),
            socket("socket-proxy"),
            Sealing(Arc::clone(&seals)),
        );
        tasks.spawn(async move {
            tonic::transport::Server::builder()
                .add_service(LockServiceServer::new(notary))
                .add_service(VaultServiceServer::new(grants))
                .add_service(CustodyServiceServer::new(Custody))
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
        let (config, manage, admin) = (
            self.stack.config_dir(),
            self.stack.dir().join("manage"),
            self.stack.dir().join("admin.token"),
        );
        let places = [
            "--config-dir",
            text(&config),
            "--manage-dir",
            text(&manage),
            "--admin-token-file",
            text(&admin),
        ];
        bailey_with(places.iter().chain(args), input).await
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
