#![doc = include_str!("../README.md")]

pub mod address;
mod allowance;
mod door;
mod grant;
mod hello;
mod lease;
pub mod outside;
mod pass;
mod refusals;
mod stack;
mod tunnel;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bailey_mesh::{Auditor, Mesh};
use bailey_service::Context;
use tokio::net::TcpListener;

use crate::lease::Leases;
use crate::outside::{Internet, Outside};

/// How often the lock is looked at, of which a look costs one `stat`.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// Flags beside those that all services have.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Where the stack's own services ask for a way out
    #[arg(long, default_value = "0.0.0.0:7002")]
    pub proxy_listen: SocketAddr,
}

/// The service.
pub async fn run(ctx: Context, args: Args) -> anyhow::Result<()> {
    let listener = TcpListener::bind(args.proxy_listen).await;
    let listener = listener.with_context(|| format!("listening on {}", args.proxy_listen))?;
    let mesh = Mesh::join(&ctx).await.context("joining the mesh")?;
    serve(ctx, listener, mesh.auditor(), Arc::new(Internet::new())).await
}

/// Serves holders at `egress/egress.sock`, with `outside` beyond, and the stack at `listener`, until the service stops.
pub async fn serve(
    ctx: Context,
    listener: TcpListener,
    auditor: Auditor,
    outside: Arc<dyn Outside>,
) -> anyhow::Result<()> {
    let path = ctx.settings.run_dir.join("egress/egress.sock");
    let holders = door::bind(&path).with_context(|| format!("opening {}", path.display()))?;
    let leases = Arc::new(Leases::new(&ctx));
    let door = Arc::new(door::Door::new(leases, outside, auditor.clone()));
    ctx.spawn(
        "stack's clients",
        stack::refuse_everything(ctx.clone(), listener, auditor),
    );
    ctx.spawn(
        "holders",
        door::serve(ctx.clone(), holders, Arc::clone(&door)),
    );
    ctx.spawn("watch", watch(ctx.clone(), door));
    ctx.ready();
    ctx.stopped().await
}

/// Says when the lock cannot be used, ends what a new one takes away, and sums up refusals.
async fn watch(ctx: Context, door: Arc<door::Door>) -> anyhow::Result<()> {
    let mut seen = None;
    let mut every = tokio::time::interval(WATCH_EVERY);
    loop {
        tokio::select! {
            _ = every.tick() => {}
            () = ctx.shutdown.cancelled() => {
                door.summarise(None);
                return Ok(());
            }
        }
        ctx.trouble("lock", door.leases.lock_trouble());
        seen = door.leases.review(seen);
        door.summarise(Some(Instant::now()));
    }
}
