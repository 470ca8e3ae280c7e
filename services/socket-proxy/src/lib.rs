#![doc = include_str!("../README.md")]

pub mod answer;
pub mod audit;
pub mod compare;
pub mod engine;
pub mod error;
pub mod frames;
pub mod http;
pub mod launch;
pub mod lease;
pub mod measure;
pub mod output;
mod own_image;
pub mod probe;
pub mod proxy;
pub mod registry;
pub mod remembered;
pub mod room;
pub mod route;
pub mod rpc;
pub mod seal;
pub mod session;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bailey_mesh::Mesh;
use bailey_service::Context;
use bailey_trust::SealingKey;
use bailey_types::{ImageId, Service};
use rustix::process::DumpableBehavior;

use crate::audit::Record;
use crate::engine::Engine;
use crate::proxy::{Parts, Proxy};
use crate::remembered::Remembered;
use crate::session::Patience;

/// How often the engine and the lock are looked at when nobody asks for them.
const WATCH_EVERY: Duration = Duration::from_secs(5);

/// Flags beside those that all services have.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Where the Docker Engine listens
    #[arg(long, default_value = "/var/run/docker.sock")]
    pub docker_socket: PathBuf,
    /// Uid that may speak the Docker API here
    #[arg(long, default_value_t = Service::Runner.uid())]
    pub runner_uid: u32,
    /// Uid that may seal images
    #[arg(long, default_value_t = 10_012)]
    pub cli_uid: u32,
    /// Id of the image of probes, instead of the one that this process runs from
    #[arg(long)]
    pub probe_image: Option<ImageId>,
    /// Image of holders
    #[arg(long)]
    pub holder_image: Option<String>,
    /// Seconds that an attached cell waits for its envelope to begin
    #[arg(long, default_value_t = 3600)]
    pub idle_seconds: u64,
    /// Seconds that an envelope may take from its first byte to its last
    #[arg(long, default_value_t = 30)]
    pub envelope_seconds: u64,
    /// Seconds that a sealed image is kept at start although nothing names it: a lock may be in the making
    #[arg(long, default_value_t = 3600)]
    pub keep_images_seconds: u64,
}

/// The service: a client on the mesh, which listens on nothing there.
pub async fn run(ctx: Context, args: Args) -> anyhow::Result<()> {
    // Nothing of the same uid, and no core file, may read the sealing key or a request out of this process (PR_SET_DUMPABLE, prctl(2)).
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .context("making this process unreadable")?;
    let mesh = Mesh::join(&ctx).await.context("joining the mesh")?;
    serve(ctx, args, Arc::new(mesh.auditor())).await
}

/// Serves both sockets, with the audit log where `audit` says, until the service stops.
pub async fn serve(ctx: Context, args: Args, audit: Arc<dyn Record>) -> anyhow::Result<()> {
    let settings = &ctx.settings;
    let sealing = SealingKey::read(&settings.secret_path("sealing-socket-proxy"))?;
    let remembered = Remembered::open(settings.data_dir.join("lock-serial"))?;
    let lock = ctx.lock(remembered.newest(), |_| Ok(()));
    let proxy = Arc::new(Proxy::new(Parts {
        trust: Arc::clone(&ctx.trust),
        sealing,
        lock,
        remembered,
        engine: Engine::new(args.docker_socket, ctx.process.clone()),
        clock: ctx.clock.clone(),
        audit,
        shutdown: ctx.shutdown.clone(),
        probe_image: args.probe_image,
        holder_image: args.holder_image,
        patience: Patience {
            idle: Duration::from_secs(args.idle_seconds),
            envelope: Duration::from_secs(args.envelope_seconds),
            room: Patience::ROOM,
        },
    }));
    let docker = settings.run_dir.join("docker/docker.sock");
    let docker = http::bind(&docker).with_context(|| format!("opening {}", docker.display()))?;
    let manage = settings.management_socket(Service::SocketProxy);
    let manage = http::bind(&manage).with_context(|| format!("opening {}", manage.display()))?;
    let process = ctx.process.clone();
    let runner = http::serve(Arc::clone(&proxy), docker, args.runner_uid, process.clone());
    ctx.spawn("docker socket", runner);
    let cli = rpc::serve(Arc::clone(&proxy), manage, args.cli_uid, process);
    ctx.spawn("management socket", cli);
    let keep = Duration::from_secs(args.keep_images_seconds);
    ctx.spawn("watch", watch(Arc::clone(&proxy), ctx.clone(), keep));
    ctx.ready();
    ctx.stopped().await
}

/// Says what is missing, tidies up as soon as the engine answers, and ends when it never can again.
async fn watch(proxy: Arc<Proxy>, ctx: Context, keep: Duration) -> anyhow::Result<()> {
    let mut every = tokio::time::interval(WATCH_EVERY);
    let mut tidied = false;
    loop {
        tokio::select! {
            _ = every.tick() => {}
            () = ctx.shutdown.cancelled() => return Ok(()),
        }
        ctx.process.trouble("lock", proxy.lock_trouble());
        let mut docker = proxy.engine().ping().await;
        if docker.is_err() && proxy.engine().is_cut_off() {
            // Docker starts this container again as soon as it is back, with the socket that it has then.
            anyhow::bail!(
                "the Docker Engine's socket was replaced: only a new start sees the new one"
            );
        }
        if docker.is_ok() && !tidied {
            docker = seal::remove_leftovers(proxy.engine(), proxy.stack()).await;
            tidied = docker.is_ok();
            if tidied {
                // What cannot be removed now is no trouble: the next lock tries again.
                if let Err(error) = proxy.collect(keep).await {
                    tracing::info!(%error, "nothing was collected");
                }
            }
        }
        ctx.process
            .trouble("docker", docker.err().map(|e| e.to_string()));
    }
}
