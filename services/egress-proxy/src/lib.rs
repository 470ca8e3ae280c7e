#![doc = include_str!("../README.md")]

pub mod address;
mod allowance;
mod dial;
mod door;
mod grant;
mod hello;
mod lease;
mod lock;
pub mod outside;
mod pass;
mod refusals;
mod rpc;
mod tunnel;
mod upstream;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bailey_mesh::Mesh;
use bailey_service::Context;
use bailey_types::Serial;
use tokio::net::TcpListener;

use crate::lease::Leases;
use crate::lock::View;
use crate::outside::{Internet, Outside};
use crate::upstream::Upstreams;

/// How often the lock is looked at, of which a look costs one `stat`.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// The service.
pub async fn run(ctx: Context) -> anyhow::Result<()> {
    let listen = ctx.settings.listen;
    let listener = bailey_mesh::bind(listen).with_context(|| format!("listening on {listen}"))?;
    let mesh = Mesh::join(&ctx).await.context("joining the mesh")?;
    serve(ctx, listener, mesh, Arc::new(Internet::new())).await
}

/// Serves holders at `egress/egress.sock` and the mesh at `listener`, with `outside` beyond, until the service stops.
pub async fn serve(
    ctx: Context,
    listener: TcpListener,
    mesh: Mesh,
    outside: Arc<dyn Outside>,
) -> anyhow::Result<()> {
    let path = ctx.settings.run_dir.join("egress/egress.sock");
    let holders = door::bind(&path).with_context(|| format!("opening {}", path.display()))?;
    // Not kept over restarts: a decision names the serial it rests on, and policy refuses older locks.
    let lock = Arc::new(ctx.lock(Serial(0), View::of));
    let leases = Arc::new(Leases::new(&ctx, Arc::clone(&lock)));
    let upstreams = Upstreams::new(&ctx, &mesh, lock, Arc::clone(&outside));
    let upstreams = Arc::new(upstreams.context("preparing the way to upstreams")?);
    let door = Arc::new(door::Door::new(leases, outside, mesh.auditor()));
    let (serving, routes) = (ctx.clone(), rpc::routes(Arc::clone(&upstreams)));
    ctx.spawn("mesh", async move {
        mesh.serve_with_windows(&serving, listener, routes, rpc::WINDOWS)
            .await
    });
    ctx.spawn(
        "holders",
        door::serve(ctx.clone(), holders, Arc::clone(&door)),
    );
    ctx.spawn("watch", watch(ctx.clone(), door, upstreams));
    ctx.ready();
    ctx.stopped().await
}

/// Says when the lock cannot be used, ends what a new one takes away, and sums up refusals.
async fn watch(
    ctx: Context,
    door: Arc<door::Door>,
    upstreams: Arc<Upstreams>,
) -> anyhow::Result<()> {
    let mut seen = None;
    let mut every = tokio::time::interval(WATCH_EVERY);
    loop {
        tokio::select! {
            _ = every.tick() => {}
            () = ctx.shutdown.cancelled() => {
                door.summarise(None);
                upstreams.summarise(None);
                return Ok(());
            }
        }
        // Of this lock or a later one is what is reviewed next.
        let lock = door.leases.lock();
        seen = door.leases.review(seen);
        upstreams.review();
        let serial = lock.as_ref().map_or(0, |loaded| loaded.lock.serial.0);
        ctx.trouble("lock", lock.err());
        ctx.goes_by(serial);
        door.summarise(Some(Instant::now()));
        upstreams.summarise(Some(Instant::now()));
    }
}
