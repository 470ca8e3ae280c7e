//! The service with a world of the test's own beyond it: names that it makes up, servers on 127.0.0.1. What may be spoken to is decided by the
//! addresses that the names have; only the last step, connecting, leads to this machine instead.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bailey_lease::{Connect, Opening, Refusal, Token};
use bailey_plugin::{Limits, Manifest};
use bailey_proto::audit::v1::audit_service_server::{AuditService, AuditServiceServer};
use bailey_proto::audit::v1::{
    AppendRequest, AppendResponse, CheckpointRequest, CheckpointResponse, CosignRequest,
    CosignResponse, EntriesRequest, EntriesResponse, Entry, LatestRequest, LatestResponse,
};
use bailey_service::Context;
use bailey_test::{Served, TestStack};
use bailey_trust::{
    Decision, DecisionOrigin, EgressLimits, Lock, LockedPlugin, ProposedPlugin, StateKind, Walls,
    sign,
};
use bailey_types::{
    AttemptNumber, Blake3, Clock, DecisionId, ImageId, JobId, OriginId, Serial, Service, Sha256,
    Timestamp,
};
use egress_proxy::address::Prefix;
use egress_proxy::outside::{Asker, Outside};
use serde_json::Value;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

/// The plugin whose holders are this process.
pub const PLUGIN: &str = "fetch";
/// An address of the internet, as far as the service can know.
pub const PUBLIC: &str = "93.184.216.34";
/// The image that is locked.
pub const IMAGE: Sha256 = Sha256([4; 32]);

/// What the audit service was told.
#[derive(Clone)]
struct Kept {
    entries: Arc<Mutex<Vec<Entry>>>,
    count: watch::Sender<usize>,
}

#[tonic::async_trait]
impl AuditService for Kept {
    async fn append(
        &self,
        request: Request<AppendRequest>,
    ) -> Result<Response<AppendResponse>, Status> {
        let mut entries = self.entries.lock().unwrap();
        entries.extend(request.into_inner().entries);
        self.count.send_replace(entries.len());
        Ok(Response::new(AppendResponse::default()))
    }

    async fn checkpoint(
        &self,
        _: Request<CheckpointRequest>,
    ) -> Result<Response<CheckpointResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn cosign(&self, _: Request<CosignRequest>) -> Result<Response<CosignResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn entries(
        &self,
        _: Request<EntriesRequest>,
    ) -> Result<Response<EntriesResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn latest(&self, _: Request<LatestRequest>) -> Result<Response<LatestResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }
}

/// What is beyond the service.
#[derive(Default)]
pub struct Beyond {
    /// Addresses of names; what is not here has none.
    pub names: Mutex<BTreeMap<String, Vec<IpAddr>>>,
    /// What stands where.
    pub servers: Mutex<BTreeMap<SocketAddr, SocketAddr>>,
    /// Names that were asked for, with the dot at their end.
    pub asked: Mutex<Vec<String>>,
    /// Addresses that were connected to.
    pub dialled: Mutex<Vec<SocketAddr>>,
}

#[async_trait]
impl Outside for Beyond {
    async fn resolve(&self, _: Asker, name: String) -> io::Result<Vec<IpAddr>> {
        let found = self
            .names
            .lock()
            .unwrap()
            .get(name.trim_end_matches('.'))
            .cloned();
        self.asked.lock().unwrap().push(name);
        found.ok_or_else(|| io::Error::other("no such name"))
    }

    async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        self.dialled.lock().unwrap().push(to);
        let server = self.servers.lock().unwrap().get(&to).copied();
        TcpStream::connect(server.ok_or(io::ErrorKind::ConnectionRefused)?).await
    }

    fn own_networks(&self) -> io::Result<Vec<Prefix>> {
        Ok(vec![Prefix::new("172.18.0.0".parse().unwrap(), 16)])
    }
}

impl Beyond {
    /// `name` is at `addresses`.
    pub fn name(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
        self.names.lock().unwrap().insert(name.into(), addresses);
    }

    /// `server` stands at `address:port`.
    pub fn stand(&self, address: &str, port: u16, server: SocketAddr) {
        let at = SocketAddr::new(address.parse().unwrap(), port);
        self.servers.lock().unwrap().insert(at, server);
    }

    /// `name` leads to `server`, at [`PUBLIC`].
    pub fn serve(&self, name: &str, port: u16, server: SocketAddr) {
        self.name(name, &[PUBLIC]);
        self.stand(PUBLIC, port, server);
    }

    /// What was connected to so far.
    pub fn dialled(&self) -> Vec<String> {
        let dialled = self.dialled.lock().unwrap();
        dialled.iter().map(ToString::to_string).collect()
    }
}

/// A running service.
pub struct World {
    pub stack: TestStack,
    pub beyond: Arc<Beyond>,
    pub ctx: Context,
    pub lock: Lock,
    pub tasks: JoinSet<anyhow::Result<()>>,
    kept: Kept,
    _audit: Served,
}

impl World {
    /// A service under a lock where the plugin may reach `egress`, with the bounds that are usual.
    pub async fn start(egress: &[&str]) -> Self {
        Self::with_limits(egress, EgressLimits::default()).await
    }

    /// A service under a lock with these `upstreams:`, of which it is to have nothing but what they say.
    pub async fn with_upstreams(upstreams: &str) -> Self {
        Self::with(&[], EgressLimits::default(), upstreams).await
    }

    /// The same with bounds.
    pub async fn with_limits(egress: &[&str], limits: EgressLimits) -> Self {
        Self::with(egress, limits, "").await
    }

    async fn with(egress: &[&str], limits: EgressLimits, upstreams: &str) -> Self {
        let stack = TestStack::new();
        let kept = Kept {
            entries: Arc::default(),
            count: watch::Sender::new(0),
        };
        let audit = AuditServiceServer::new(kept.clone());
        let audit = stack.serve(Service::Audit, Routes::new(audit));
        let mut lock = lock(&stack, egress, limits);
        lock.config_files = config(upstreams);
        stack.write_lock(&lock);
        let ctx = stack.context(Service::EgressProxy);
        std::fs::create_dir_all(ctx.settings.run_dir.join("egress")).unwrap();
        let listener = bailey_mesh::bind(ctx.settings.listen).unwrap();
        let mesh = stack.join(&ctx);
        let beyond = Arc::new(Beyond::default());
        let mut ready = ctx.presence();
        let mut tasks = JoinSet::new();
        let outside: Arc<dyn Outside> = beyond.clone();
        tasks.spawn(egress_proxy::serve(ctx.clone(), listener, mesh, outside));
        ready
            .wait_for(|p| p.readiness == bailey_service::Readiness::Ready)
            .await
            .unwrap();
        Self {
            stack,
            beyond,
            ctx,
            lock,
            tasks,
            kept,
            _audit: audit,
        }
    }

    /// Where holders connect.
    pub fn socket(&self) -> PathBuf {
        self.ctx.settings.run_dir.join("egress/egress.sock")
    }

    /// Writes the lock anew after `change`, with the next serial.
    pub fn relock(&mut self, change: impl FnOnce(&mut LockedPlugin)) {
        self.lock.serial = Serial(self.lock.serial.0 + 1);
        change(self.lock.plugins.values_mut().next().unwrap());
        self.stack.write_lock(&self.lock);
    }

    /// Writes the lock anew with these `upstreams:`, with the next serial.
    pub fn reconfigure(&mut self, upstreams: &str) {
        self.lock.serial = Serial(self.lock.serial.0 + 1);
        self.lock.config_files = config(upstreams);
        self.stack.write_lock(&self.lock);
    }

    /// What policy would decide now.
    pub fn decision(&self) -> Decision {
        let now = Clock::system().now();
        let locked = self.lock.plugins.values().next().unwrap();
        Decision {
            id: DecisionId::new(),
            nonce: "00".repeat(16),
            job: JobId::new(),
            attempt: AttemptNumber(1),
            principal: "token:test".into(),
            origin: DecisionOrigin::Root {
                origin: OriginId::new(),
                step: None,
            },
            plugin: PLUGIN.parse().unwrap(),
            command: "get".parse().unwrap(),
            request_sha256: Sha256::of(b""),
            lock_serial: self.lock.serial,
            image: locked.proposed.image,
            account: "default".parse().unwrap(),
            egress: locked.proposed.egress.clone(),
            contract: "token:test".into(),
            broker_epoch: "epoch".into(),
            audit_index: 0,
            issued_at: now,
            expires_at: now.plus(Duration::from_secs(30)),
        }
    }

    /// `decision` as `by` signs it, on one line.
    pub fn signed(&self, decision: &Decision, by: Service) -> Vec<u8> {
        let signed = sign(decision, &self.stack.signing_key(by)).unwrap();
        let text = bailey_trust::source::to_file_text(&signed);
        text.replace('\n', "").into_bytes()
    }

    /// Asks for a lease; the stream is what it lives by.
    pub async fn lease(&self, line: Vec<u8>) -> Result<(UnixStream, Token), Refusal> {
        let mut stream = UnixStream::connect(self.socket()).await.unwrap();
        Opening::Lease(line).write(&mut stream).await.unwrap();
        let token = bailey_lease::read_token(&mut stream).await.unwrap()?;
        Ok((stream, token))
    }

    /// A lease as a holder gets it.
    pub async fn leased(&self) -> (UnixStream, Token) {
        let line = self.signed(&self.decision(), Service::Policy);
        self.lease(line).await.unwrap()
    }

    /// Asks for a connection.
    pub async fn connect(
        &self,
        token: &Token,
        host: &str,
        port: u16,
    ) -> Result<UnixStream, Refusal> {
        let mut stream = UnixStream::connect(self.socket()).await.unwrap();
        let connect = Connect {
            token: token.clone(),
            host: host.into(),
            port,
        };
        Opening::Connect(connect).write(&mut stream).await.unwrap();
        bailey_lease::read_open(&mut stream).await.unwrap()?;
        Ok(stream)
    }

    /// The first `count` entries of the audit log.
    pub async fn audited(&self, count: usize) -> Vec<(String, Value)> {
        let mut counted = self.kept.count.subscribe();
        counted.wait_for(|kept| *kept >= count).await.unwrap();
        let entries = self.kept.entries.lock().unwrap();
        let entry = |e: &Entry| {
            assert_eq!(e.refusal, e.kind.ends_with(".refused"), "{}", e.kind);
            (
                e.kind.clone(),
                serde_json::from_str(&e.fields_json).unwrap(),
            )
        };
        entries.iter().map(entry).collect()
    }

    /// Stops the service, which must end well.
    pub async fn stop(mut self) {
        self.ctx.shutdown.cancel();
        self.tasks.join_next().await.unwrap().unwrap().unwrap();
    }
}

fn config(upstreams: &str) -> BTreeMap<String, String> {
    let text = format!("accounts: {{default: {{}}}}\n{upstreams}");
    BTreeMap::from([(bailey_config::ROOT.to_owned(), text)])
}

fn lock(stack: &TestStack, egress: &[&str], egress_limits: EgressLimits) -> Lock {
    let manifest = "manifest_spec: ductile.plugin\nmanifest_version: 1\nname: fetch\nversion: 1.0.0\nprotocol: 2\n\
        entrypoint: fetch\ncommands:\n  - name: get\n    type: read\n";
    let proposed = ProposedPlugin {
        manifest: Manifest::parse(manifest).unwrap(),
        manifest_blake3: Blake3([1; 32]),
        tree_blake3: Blake3([7; 32]),
        files: BTreeMap::new(),
        base: None,
        tar_sha256: Sha256([3; 32]),
        image: ImageId(IMAGE),
        entrypoint: vec!["/plugin/fetch".into()],
        source: "/plugins/fetch".into(),
        account: "default".parse().unwrap(),
        limits: Limits::default(),
        state: StateKind::None,
        egress: egress.iter().map(|entry| (*entry).to_owned()).collect(),
        host_paths: Vec::new(),
        walls: Walls {
            egress_limits,
            ..Walls::default()
        },
        reset_state: false,
    };
    let locked = LockedPlugin {
        proposed,
        tree_mac: Blake3([5; 32]),
        uid: 20_000,
        holder_uid: rustix::process::getuid().as_raw(),
        state_generation: 0,
    };
    Lock {
        version: 1,
        stack: stack.trust().stack.clone(),
        serial: Serial(3),
        signed_at: Timestamp(0),
        config_files: config(""),
        plugins: BTreeMap::from([(PLUGIN.parse().unwrap(), locked)]),
        next_uid: 20_002,
    }
}
