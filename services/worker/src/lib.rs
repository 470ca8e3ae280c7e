#![doc = include_str!("../README.md")]

mod retention;

use bailey_mesh::Mesh;
use bailey_service::{Context, Misconfigured};

/// Runs the worker until it is told to stop.
pub async fn run(ctx: Context) -> anyhow::Result<()> {
    // Files that could not be locked are refused at start; what is in force is the lock.
    let files = bailey_config::read_dir(&ctx.settings.config_dir)
        .map_err(|e| Misconfigured(e.to_string()))?;
    bailey_config::parse(&files.texts).map_err(|e| Misconfigured(e.to_string()))?;
    let mesh = Mesh::join(&ctx).await?;
    serve(ctx, mesh).await
}

/// Works under an identity that is there already.
pub async fn serve(ctx: Context, mesh: Mesh) -> anyhow::Result<()> {
    ctx.spawn("retention", retention::run(ctx.clone(), mesh));
    ctx.ready();
    ctx.stopped().await
}
