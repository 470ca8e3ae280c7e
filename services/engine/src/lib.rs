#![doc = include_str!("../README.md")]

pub mod db;
mod dispatch;
mod event;
mod feed;
mod fleet;
mod intake;
mod job;
mod lock;
mod outcome;
mod pattern;
mod query;
mod report;
mod request;
mod route;
mod rpc;
mod service;
mod spawn;
mod state;
pub mod upstream;
mod view;
mod work;

use anyhow::Context as _;
use bailey_mesh::Mesh;
use bailey_proto::broker::v1::ticket_service_client::TicketServiceClient;
use bailey_proto::policy::v1::decision_service_client::DecisionServiceClient;
use bailey_service::Context;
use bailey_types::{Serial, Service};

use crate::fleet::Fleet;
use crate::state::{MAX_MESSAGE_BYTES, MAX_TICKET_BYTES, Parts, State};

pub use state::Options;

/// Runs the engine until it is told to stop.
pub async fn run(ctx: Context) -> anyhow::Result<()> {
    let mesh = Mesh::join(&ctx).await?;
    serve(ctx, mesh, Options::default()).await
}

/// Serves under an identity that is there already.
pub async fn serve(ctx: Context, mesh: Mesh, options: Options) -> anyhow::Result<()> {
    let listener = bailey_mesh::bind(ctx.settings.listen).context("binding the RPC port")?;
    let state = open(&ctx, &mesh, options).await?;
    ctx.spawn("dispatch", dispatch::run(state.clone()));
    ctx.spawn("leases", dispatch::reap(state.clone()));
    ctx.spawn("lock", lock::watch(ctx.clone(), state.clone()));
    let routes = rpc::routes(&state, &ctx);
    let (serving, served_ctx) = (mesh.clone(), ctx.clone());
    ctx.spawn("rpc", async move {
        serving.serve(&served_ctx, listener, routes).await
    });
    ctx.ready();
    let stopped = ctx.stopped().await;
    state.db.close().await;
    stopped
}

async fn open(ctx: &Context, mesh: &Mesh, options: Options) -> anyhow::Result<State> {
    let path = ctx.settings.data_dir.join("engine.db");
    let db = bailey_db::connect(&path, &db::MIGRATOR)
        .await
        .context("opening the queue")?;
    let mut read = db.read().await.context("reading the queue")?;
    let running = db::job::find::running(&mut read)
        .await
        .context("reading what was running")?;
    let newest_event = db::event::newest(&mut read)
        .await
        .context("reading the log")?;
    let live = db::service::live(&mut read).await;
    let live = live.context("reading which services there are")?;
    let leased = live
        .iter()
        .filter(|(job, _)| job.status == job::Status::Running);
    let lasting = leased.map(|(job, _)| (job.id, job.attempt)).collect();
    drop(read);
    if !running.is_empty() {
        tracing::info!(
            "{} jobs were running; their runner may still hold them",
            running.len()
        );
    }
    let policy = DecisionServiceClient::new(mesh.channel(Service::Policy))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let broker = TicketServiceClient::new(mesh.channel(Service::Broker))
        .max_decoding_message_size(MAX_TICKET_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    Ok(State::new(Parts {
        db,
        lock: ctx.lock(Serial(0), view::parse),
        keys: ctx.trust.signing.clone(),
        clock: ctx.clock.clone(),
        fleet: Fleet::new(running, options.lease_expiry).with_lasting(lasting),
        options,
        newest_event,
        auditor: mesh.auditor(),
        policy,
        broker,
        upstreams: upstream::Client::new(mesh.channel(Service::EgressProxy)),
        shutdown: ctx.shutdown.clone(),
    }))
}
