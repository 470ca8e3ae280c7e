//! A broker at work, with the real roots of trust and the real log beside it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use bailey_mesh::Mesh;
use bailey_plugin::{Container, Limits, Manifest};
use bailey_proto::management::v1::custody_service_client::CustodyServiceClient;
use bailey_proto::management::v1::lock_service_client::LockServiceClient;
use bailey_proto::management::v1::pki_service_client::PkiServiceClient;
use bailey_proto::management::v1::vault_service_client::VaultServiceClient;
use bailey_proto::management::v1::{
    CreateTokenRequest, InitRequest, ProposeRequest, RegisterPrincipalRequest, SetSecretRequest,
    SignRequest,
};
use bailey_proto::trust::v1::Signed;
use bailey_service::{Context, Readiness};
use bailey_test::{Served, TestStack};
use bailey_trust::{Lock, LockProposal, ProposedPlugin, StateKind};
use bailey_types::{Blake3, Service, Sha256};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tonic::metadata::MetadataValue;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status};

use crate::audit::Audit;

pub const CONFIG: &str = "accounts:\n  default: {}\nplugins:\n  greet: {}\nupstreams:\n  model: {url: 'https://api.example.com/v1', secret_ref: model-key}\n";

/// A broker that runs until this is dropped.
pub struct Broker {
    pub stack: TestStack,
    pub audit: Audit,
    pub served: Option<Served>,
    ctx: Context,
    running: JoinSet<anyhow::Result<()>>,
    lifetime: Duration,
    uid: u32,
}

type Bearing = InterceptedService<Channel, Bearer>;

impl Broker {
    /// A broker beside a running audit service.
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// As [`Broker::start`], but `prepare` may change the stack's files or the broker's flags before.
    pub async fn start_with(prepare: impl FnOnce(&mut Self)) -> Self {
        listen_to_the_log();
        let stack = TestStack::new();
        stack.write_config("config.yaml", CONFIG);
        let audit = Audit::new(&stack);
        let mut broker = Self {
            ctx: stack.context(Service::Broker),
            served: Some(audit.serve(&stack)),
            audit,
            stack,
            running: JoinSet::new(),
            lifetime: Duration::from_hours(1),
            uid: rustix::process::getuid().as_raw(),
        };
        prepare(&mut broker);
        broker.run().await;
        broker
    }

    pub fn lifetime(&mut self, lifetime: Duration) {
        self.lifetime = lifetime;
    }

    /// The socket is for somebody else.
    pub fn for_another_uid(&mut self) {
        self.uid += 1;
    }

    async fn run(&mut self) {
        let path = self.socket();
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let args = broker::Args {
            enrol_listen: self.stack.enrolment_address(),
            certificate_lifetime: bailey_yaml::Span(self.lifetime),
            manage_uid: self.uid,
        };
        self.running.spawn(broker::run(self.ctx.clone(), args));
        let mut presence = self.ctx.presence();
        let started = presence.wait_for(|presence| presence.readiness != Readiness::Starting);
        started.await.unwrap();
    }

    /// Stops it as SIGTERM does.
    pub async fn stop(&mut self) {
        self.ctx.shutdown.cancel();
        self.running.join_next().await.unwrap().unwrap().unwrap();
    }

    /// Another life with the same files.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.start_again().await;
    }

    /// The next life after [`Broker::stop`].
    pub async fn start_again(&mut self) {
        self.ctx = self.stack.context(Service::Broker);
        self.run().await;
    }

    /// Waits until the broker says this of itself.
    pub async fn says(&self, wanted: &str) {
        let mut presence = self.ctx.presence();
        presence
            .wait_for(|presence| presence.detail.contains(wanted))
            .await
            .unwrap();
    }

    /// Waits until the broker says nothing of this any more.
    pub async fn no_longer_says(&self, wanted: &str) {
        let mut presence = self.ctx.presence();
        presence
            .wait_for(|presence| !presence.detail.contains(wanted))
            .await
            .unwrap();
    }

    pub fn socket(&self) -> PathBuf {
        self.ctx.settings.management_socket(Service::Broker)
    }

    /// A caller on the mesh.
    pub fn mesh(&self, service: Service) -> Mesh {
        self.stack.mesh(service)
    }

    /// A connection to the management socket.
    pub async fn channel(&self) -> Channel {
        channel_to(self.socket()).await
    }

    pub async fn vault(&self, token: &str) -> VaultServiceClient<Bearing> {
        VaultServiceClient::with_interceptor(self.channel().await, Bearer(token.to_owned()))
    }

    pub async fn lock(&self, token: &str) -> LockServiceClient<Bearing> {
        LockServiceClient::with_interceptor(self.channel().await, Bearer(token.to_owned()))
    }

    pub async fn pki(&self, token: &str) -> PkiServiceClient<Bearing> {
        PkiServiceClient::with_interceptor(self.channel().await, Bearer(token.to_owned()))
    }

    pub async fn custody(&self, token: &str) -> CustodyServiceClient<Bearing> {
        CustodyServiceClient::with_interceptor(self.channel().await, Bearer(token.to_owned()))
    }

    /// Makes the vault; answers the admin token.
    pub async fn init(&self) -> String {
        let made = self.vault("").await.init(InitRequest {}).await.unwrap();
        made.into_inner().admin_token
    }

    pub async fn create_token(&self, admin: &str, name: &str, scopes: &[&str]) -> String {
        let scopes = scopes.iter().map(ToString::to_string).collect();
        let asked = CreateTokenRequest {
            name: name.into(),
            scopes,
        };
        self.vault(admin)
            .await
            .create_token(asked)
            .await
            .unwrap()
            .into_inner()
            .token
    }

    /// The principal `greet` with the secret `demo_key`.
    pub async fn grant_demo_key(&self, admin: &str, value: &str) {
        let mut vault = self.vault(admin).await;
        let (name, kind) = ("greet".into(), "plugin".into());
        vault
            .register_principal(RegisterPrincipalRequest { name, kind })
            .await
            .unwrap();
        let asked = SetSecretRequest {
            name: "demo_key".into(),
            value: value.as_bytes().to_vec().into(),
            grant_to: vec!["greet".into()],
            ..SetSecretRequest::default()
        };
        assert_eq!(
            vault.set_secret(asked).await.unwrap().into_inner().outcome,
            "set"
        );
    }

    /// Locks the plugin `greet` and writes the lock where it belongs.
    pub async fn lock_greet(&self, admin: &str) -> Lock {
        let signed = self.signed_only(admin).await;
        let text = bailey_trust::source::to_file_text(&signed);
        std::fs::write(self.stack.config_dir().join("bailey.lock"), text).unwrap();
        let key = self.stack.trust().signing.broker;
        bailey_trust::verify::<Lock>(&signed, &key)
            .unwrap()
            .statement
    }

    /// A lock of the plugin `greet`, in no file.
    pub async fn signed_only(&self, admin: &str) -> Signed {
        let mut lock = self.lock(admin).await;
        let text = serde_json::to_vec(&proposal()).unwrap();
        let request = ProposeRequest {
            proposal: text.into(),
        };
        let code = lock.propose(request).await.unwrap().into_inner().code;
        lock.sign(SignRequest { code })
            .await
            .unwrap()
            .into_inner()
            .lock
            .unwrap()
    }
}

/// A connection to the socket at `path`.
pub async fn channel_to(path: PathBuf) -> Channel {
    let connector = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://manage")
        .connect_with_connector(connector)
        .await
        .unwrap()
}

/// Adds the admin token; an empty one is left out.
#[derive(Clone)]
pub struct Bearer(pub String);

impl tonic::service::Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if !self.0.is_empty() {
            let value = MetadataValue::try_from(format!("Bearer {}", self.0)).unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }
}

pub fn proposal() -> LockProposal {
    let manifest = Manifest {
        name: "greet".parse().unwrap(),
        version: "1".into(),
        description: String::new(),
        entrypoint: "run.py".into(),
        concurrency_safe: true,
        commands: Vec::new(),
        fact_outputs: Vec::new(),
        config_keys: bailey_plugin::manifest::ConfigKeys::default(),
        container: Container::default(),
    };
    let proposed = ProposedPlugin {
        manifest,
        manifest_blake3: Blake3([1; 32]),
        tree_blake3: Blake3([2; 32]),
        files: BTreeMap::new(),
        tar_sha256: Sha256([3; 32]),
        base: None,
        image: format!("sha256:{}", "a".repeat(64)).parse().unwrap(),
        entrypoint: vec!["/plugin/run.py".into()],
        source: "plugins/greet".into(),
        account: "default".parse().unwrap(),
        limits: Limits::default(),
        state: StateKind::None,
        egress: Vec::new(),
        host_paths: Vec::new(),
        walls: bailey_trust::Walls::default(),
        reset_state: false,
    };
    LockProposal {
        config_files: BTreeMap::from([("config.yaml".into(), CONFIG.into())]),
        plugins: BTreeMap::from([("greet".parse().unwrap(), proposed)]),
    }
}

static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// Everything that was logged by this process so far.
pub fn logged() -> String {
    let bytes = LOG.lock().unwrap_or_else(PoisonError::into_inner);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn listen_to_the_log() {
    struct Ear;

    impl std::io::Write for Ear {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            LOG.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let filter = "debug,broker=trace,bailey_mesh=trace,bailey_trust=trace";
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(|| Ear)
            .init();
    });
}
