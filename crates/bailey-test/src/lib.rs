#![doc = include_str!("../README.md")]
#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test that cannot be set up must fail"
)]

pub mod stranger;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bailey_mesh::{Authority, Identity, Mesh};
use bailey_roots::Intermediate;
use bailey_service::{Context, Settings};
use bailey_trust::{Lock, SealingKey, SigningKey, TrustFile, sign};
use bailey_types::{Clock, Service, StackId};
use tempfile::TempDir;
use tokio::net::TcpSocket;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::service::Routes;

/// The roots of trust of a stack of its own, and the ports of its services. Everything goes when it is dropped.
pub struct TestStack {
    dir: TempDir,
    trust: TrustFile,
    authority: Arc<Authority>,
    ports: BTreeMap<Service, Reserved>,
    enrolment: Reserved,
}

/// A port that is ours: bound, so that nobody else gets it, and not listening, so that connections are refused.
struct Reserved {
    address: SocketAddr,
    _socket: TcpSocket,
}

impl Reserved {
    fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        // With this on both sockets, the service can bind the port too.
        socket.set_reuseaddr(true).unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        Self {
            address: socket.local_addr().unwrap(),
            _socket: socket,
        }
    }
}

impl Default for TestStack {
    fn default() -> Self {
        Self::new()
    }
}

impl TestStack {
    /// Makes the roots, as `bailey init` does.
    pub fn new() -> Self {
        Self::named(&"test".parse().unwrap())
    }

    /// Makes the roots of the stack `id`: for tests that share a Docker Engine, where names must not meet.
    pub fn named(id: &StackId) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (config, secrets) = (dir.path().join("config"), dir.path().join("secrets"));
        bailey_roots::make(id, &config, &secrets).unwrap();
        let trust = TrustFile::read(&config.join("trust.json")).unwrap();
        let vault = SealingKey::read(&secrets.join("age.key")).unwrap();
        let authority = Arc::new(Authority::read(&trust, &secrets, &vault).unwrap());
        let ports = Service::ALL
            .iter()
            .map(|service| (*service, Reserved::new()))
            .collect();
        Self {
            dir,
            trust,
            authority,
            ports,
            enrolment: Reserved::new(),
        }
    }

    /// The folder with everything.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// `config/`.
    pub fn config_dir(&self) -> PathBuf {
        self.dir().join("config")
    }

    /// `secrets/`.
    pub fn secrets_dir(&self) -> PathBuf {
        self.dir().join("secrets")
    }

    /// What `trust.json` holds.
    pub fn trust(&self) -> &TrustFile {
        &self.trust
    }

    /// The intermediate CA.
    pub fn authority(&self) -> Arc<Authority> {
        Arc::clone(&self.authority)
    }

    /// Another intermediate under the same root.
    pub fn another_intermediate(&self, validity: Duration) -> Intermediate {
        let sealed = fs::read(self.secrets_dir().join("root-ca.key.age")).unwrap();
        let key = self.vault_key().open(&sealed, 4096).unwrap();
        let (stack, root) = (&self.trust.stack, &self.trust.root_ca_pem);
        let key = std::str::from_utf8(&key).unwrap();
        bailey_roots::intermediate(stack, root, key, validity, Clock::system().now()).unwrap()
    }

    /// Makes a new root CA, as `bailey pki new-root` does. Contexts that are made from now on know it.
    pub fn new_root(&mut self) {
        let (config, secrets) = (self.config_dir(), self.secrets_dir());
        bailey_roots::make_new_root(&config, &secrets, Clock::system().now()).unwrap();
        self.trust = TrustFile::read(&config.join("trust.json")).unwrap();
        let authority = Authority::read(&self.trust, &secrets, &self.vault_key()).unwrap();
        self.authority = Arc::new(authority);
    }

    /// The key that `service` (broker, policy, audit or scheduler) signs with.
    pub fn signing_key(&self, service: Service) -> SigningKey {
        SigningKey::read(&self.secrets_dir().join(format!("signing-{service}"))).unwrap()
    }

    /// The age key of the vault.
    pub fn vault_key(&self) -> SealingKey {
        SealingKey::read(&self.secrets_dir().join("age.key")).unwrap()
    }

    /// The key that launch tickets are sealed to.
    pub fn socket_proxy_key(&self) -> SealingKey {
        SealingKey::read(&self.secrets_dir().join("sealing-socket-proxy")).unwrap()
    }

    /// Where `service` serves.
    pub fn address(&self, service: Service) -> SocketAddr {
        self.ports.get(&service).unwrap().address
    }

    /// Where the broker's enrolment listener belongs.
    pub fn enrolment_address(&self) -> SocketAddr {
        self.enrolment.address
    }

    /// Writes a file of the configuration.
    pub fn write_config(&self, name: &str, text: &str) {
        let path = self.config_dir().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Writes `bailey.lock`, signed by the broker's key. Replaces it as the CLI does: by a rename.
    pub fn write_lock(&self, lock: &Lock) {
        let signed = sign(lock, &self.signing_key(Service::Broker)).unwrap();
        let (path, new) = (
            self.config_dir().join("bailey.lock"),
            self.config_dir().join(".bailey.lock.new"),
        );
        fs::write(&new, bailey_trust::source::to_file_text(&signed)).unwrap();
        fs::rename(new, path).unwrap();
    }

    /// A context for `service`: its port, a data folder of its own (the same each time), all peers known.
    pub fn context(&self, service: Service) -> Context {
        let data_dir = self.dir().join("data").join(service.name());
        fs::create_dir_all(&data_dir).unwrap();
        let settings = Settings {
            data_dir,
            listen: self.address(service),
            peers: self
                .ports
                .iter()
                .map(|(service, port)| (*service, port.address.to_string()))
                .collect(),
            enrol: self.enrolment.address.to_string(),
            ..Settings::for_test(self.dir())
        };
        Context::for_test(service, settings, self.trust.clone())
    }

    /// An identity of `service` that is valid for a day.
    pub fn identity(&self, service: Service) -> Identity {
        self.identity_for(service, Authority::VALIDITY)
    }

    /// An identity of `service` that is valid for `validity`.
    pub fn identity_for(&self, service: Service, validity: Duration) -> Identity {
        self.authority
            .identity(service, validity, Clock::system().now())
            .unwrap()
    }

    /// The place of the context's service on the mesh: what `Mesh::join` answers, without a broker.
    pub fn join(&self, ctx: &Context) -> Mesh {
        Mesh::with_identity(ctx, self.identity(ctx.service))
    }

    /// A place on the mesh for a caller that is not under test.
    pub fn mesh(&self, service: Service) -> Mesh {
        self.join(&self.context(service))
    }

    /// Serves `routes` as `service` on its port, until the answer is dropped.
    pub fn serve(&self, service: Service, routes: Routes) -> Served {
        let ctx = self.context(service);
        let mesh = self.join(&ctx);
        let listener = bailey_mesh::bind(ctx.settings.listen).unwrap();
        let shutdown = ctx.shutdown.clone();
        let serving = ctx.clone();
        ctx.spawn("peer", async move {
            mesh.serve(&serving, listener, routes).await
        });
        Served {
            ctx,
            _stop: CancellationToken::drop_guard(shutdown),
        }
    }
}

/// A peer that serves until this is dropped.
pub struct Served {
    ctx: Context,
    _stop: DropGuard,
}

impl Served {
    /// Stops serving and waits until the port is free.
    pub async fn stop(self) {
        self.ctx.shutdown.cancel();
        self.ctx.stopped().await.unwrap();
    }
}

/// The program that `docs/how-to/egress.md` gives for ssh's `ProxyCommand`.
pub fn documented_connect() -> &'static str {
    let how_to = include_str!("../../../docs/how-to/egress.md");
    let blocks = how_to.split("```python\n").skip(1);
    let mut programs = blocks.filter_map(|rest| rest.split("```").next());
    programs
        .find(|program| program.contains("CONNECT {0}:{1}"))
        .unwrap()
}
