#![doc = include_str!("../README.md")]

mod db;
mod delivery;
mod plan;
mod rhythm;
mod service;
mod state;
mod timer;

use anyhow::Context as _;
use bailey_mesh::Mesh;
use bailey_service::{Context, Misconfigured};
use bailey_trust::SigningKey;

use crate::state::State;

/// Runs the scheduler until it is told to stop.
pub async fn run(ctx: Context) -> anyhow::Result<()> {
    let mesh = Mesh::join(&ctx).await?;
    serve(ctx, mesh).await
}

/// Schedules under an identity that is there already.
pub async fn serve(ctx: Context, mesh: Mesh) -> anyhow::Result<()> {
    let state = open(&ctx, mesh).await?;
    ctx.spawn("delivery", delivery::run(ctx.clone(), state.clone()));
    ctx.spawn("timer", timer::run(ctx.clone(), state.clone()));
    ctx.ready();
    let stopped = ctx.stopped().await;
    state.db.close().await;
    stopped
}

async fn open(ctx: &Context, mesh: Mesh) -> anyhow::Result<State> {
    let path = ctx.settings.secret_path("signing-scheduler");
    let key =
        SigningKey::read(&path).map_err(|e| Misconfigured(bailey_error::Chain(&e).to_string()))?;
    if key.verifying_key() != ctx.trust.signing.scheduler {
        return Err(Misconfigured(format!(
            "{} is not the key that trust.json has for the scheduler",
            path.display()
        ))
        .into());
    }
    let path = ctx.settings.data_dir.join("scheduler.db");
    let db = bailey_db::connect(&path, &db::MIGRATOR)
        .await
        .context("opening the scheduler's database")?;
    let seen = {
        let mut read = db.read().await.context("reading the newest lock serial")?;
        db::lock::seen(&mut read)
            .await
            .context("reading the newest lock serial")?
    };
    let lock = ctx.lock(seen, plan::parse);
    Ok(State::new(db, lock, key, mesh, ctx.clock.clone()))
}
