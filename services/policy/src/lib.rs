#![doc = include_str!("../README.md")]

mod broker;
mod claim;
mod db;
mod decision;
mod denial;
mod drift;
mod error;
mod forget;
mod grounds;
mod ledger;
mod lock;
mod pool;
mod request;
mod rpc;

use std::sync::Arc;

use anyhow::Context as _;
use bailey_mesh::Mesh;
use bailey_service::{Context, Misconfigured};
use bailey_trust::SigningKey;
use bailey_types::Service;
use tokio::net::TcpListener;

use crate::broker::Broker;
use crate::decision::State;
use crate::drift::Folders;
use crate::ledger::Ledger;
use crate::pool::Grants;

/// The schema of `/data/policy.db`.
static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!();

/// Runs the service until it is told to stop.
pub async fn run(ctx: Context) -> anyhow::Result<()> {
    let listener = bailey_mesh::bind(ctx.settings.listen).context("binding the mesh port")?;
    let mesh = Mesh::join(&ctx).await.context("joining the mesh")?;
    serve(ctx, mesh, listener).await
}

/// As [`run`], with a port and a place on the mesh that the caller has made.
pub async fn serve(ctx: Context, mesh: Mesh, listener: TcpListener) -> anyhow::Result<()> {
    let key = SigningKey::read(&ctx.settings.secret_path("signing-policy"))?;
    if key.verifying_key() != ctx.trust.signing.policy {
        return Err(Misconfigured(
            "signing-policy is not the key that trust.json names for policy".into(),
        )
        .into());
    }
    let database = ctx.settings.data_dir.join("policy.db");
    let db = bailey_db::connect(&database, &MIGRATOR)
        .await
        .context("opening policy.db")?;
    let mut tx = db.read().await.context("reading policy.db")?;
    let memory = db::memory::read(&mut tx)
        .await
        .context("reading policy.db")?;
    drop(tx);
    let lock = Arc::new(ctx.lock(memory.lock_serial, lock::View::of));
    let folders = Folders::new(mesh.auditor(), ctx.clock.clone());
    lock::watch(&ctx, lock.clone(), folders.clone());
    let ledger = Ledger::start(
        &ctx,
        mesh.channel(Service::Audit),
        memory.log,
        key.clone(),
        db.clone(),
    );
    forget::start(&ctx, db.clone(), mesh.auditor());
    let state = State {
        trust: ctx.trust.clone(),
        clock: ctx.clock.clone(),
        broker: Broker::new(mesh.channel(Service::Broker)),
        auditor: mesh.auditor(),
        key,
        db,
        lock,
        folders,
        grants: Grants::default(),
        ledger,
    };
    let (serving, routes) = (ctx.clone(), rpc::routes(state));
    ctx.spawn("rpc", async move {
        mesh.serve(&serving, listener, routes).await
    });
    ctx.ready();
    ctx.stopped().await
}
