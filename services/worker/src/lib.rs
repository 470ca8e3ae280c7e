#![doc = include_str!("../README.md")]

mod retention;

use bailey_mesh::Mesh;
use bailey_service::Context;

/// Runs the worker until it is told to stop.
pub async fn run(ctx: Context) -> anyhow::Result<()> {
    let mesh = Mesh::join(&ctx).await?;
    serve(ctx, mesh).await
}

/// Works under an identity that is there already.
pub async fn serve(ctx: Context, mesh: Mesh) -> anyhow::Result<()> {
    ctx.spawn("retention", retention::run(ctx.clone(), mesh));
    ctx.ready();
    ctx.stopped().await
}
