#![doc = include_str!("../README.md")]

mod entry;
mod error;
mod fold;
mod reserve;
mod rpc;
mod writer;

use anyhow::Context as _;
use bailey_audit_log::Log;
use bailey_mesh::Mesh;
use bailey_service::{Context, Misconfigured};
use bailey_trust::SigningKey;
use tokio::net::TcpListener;

use crate::reserve::Volume;

/// Runs the service until it is told to stop.
pub async fn run(ctx: Context) -> anyhow::Result<()> {
    let listener = bailey_mesh::bind(ctx.settings.listen).context("binding the mesh port")?;
    let mesh = Mesh::join(&ctx).await.context("joining the mesh")?;
    serve(ctx, mesh, listener).await
}

/// As [`run`], with a port and a place on the mesh that the caller has made.
pub async fn serve(ctx: Context, mesh: Mesh, listener: TcpListener) -> anyhow::Result<()> {
    let key = SigningKey::read(&ctx.settings.secret_path("signing-audit"))?;
    if key.verifying_key() != ctx.trust.signing.audit {
        return Err(Misconfigured(
            "signing-audit is not the key that trust.json names for audit".into(),
        )
        .into());
    }
    let (dir, stack) = (ctx.settings.data_dir.join("log"), ctx.trust.stack.clone());
    let volume = Volume::of(&ctx.settings.data_dir);
    let (log, recovered) = tokio::task::spawn_blocking(move || Log::open(&dir, &stack, key))
        .await
        .context("opening the log")?
        .context("opening the log")?;
    if recovered.cut_bytes > 0 {
        tracing::warn!(
            bytes = recovered.cut_bytes,
            "cut off a batch that was never finished, and never answered"
        );
    }
    tracing::info!(
        entries = log.size(),
        replayed = recovered.replayed_entries,
        "opened the log"
    );
    let writer = writer::start(&ctx, log, volume, recovered).await?;
    let routes = rpc::routes(writer, ctx.trust.clone());
    let serving = ctx.clone();
    ctx.spawn("rpc", async move {
        mesh.serve(&serving, listener, routes).await
    });
    ctx.ready();
    ctx.stopped().await
}
