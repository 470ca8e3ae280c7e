#![doc = include_str!("../README.md")]

mod attach;
mod attempt;
mod backoff;
mod care;
mod cell;
mod desk;
mod docker;
mod gate;
mod lease;
mod report;
mod rpc;
mod ticket;
mod watch;

use std::sync::Arc;

use anyhow::Context as _;
use bailey_mesh::Mesh;
use bailey_service::{Context, Misconfigured};
use bailey_trust::LockSource;
use bailey_types::{Serial, Service};

use crate::care::{Care, Running};
use crate::cell::Workshop;
use crate::desk::Desk;
use crate::docker::Engine;
use crate::report::ToEngine;
use crate::rpc::Channel;
use crate::ticket::Broker;

/// Flags of the runner.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Args {
    /// How many jobs run at a time [default: twice the number of cores, at least 2]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    slots: Option<u16>,
}

impl Args {
    fn slots(self) -> usize {
        self.slots.map_or_else(default_slots, usize::from)
    }
}

/// Most plugins wait for somebody else most of their time.
fn default_slots() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (2 * cores).max(2)
}

/// Runs until it is told to stop.
pub async fn run(ctx: Context, args: Args) -> anyhow::Result<()> {
    // What runs is the locked configuration; bad files are refused all the same, before the operator locks them.
    bailey_config::read_dir(&ctx.settings.config_dir)
        .and_then(|files| bailey_config::parse(&files.texts))
        .map_err(|e| Misconfigured(e.to_string()))?;
    let mesh = Mesh::join(&ctx).await.context("joining the mesh")?;
    let engine = rpc::channel(mesh.channel(Service::Engine));
    let broker = rpc::channel(mesh.channel(Service::Broker));
    start(&ctx, engine, broker, args);
    ctx.ready();
    ctx.stopped().await
}

/// Starts everything that runs jobs for the engine behind one channel with tickets of the broker behind the other.
fn start(ctx: &Context, engine: Channel, broker: Channel, args: Args) {
    let docker = Engine::new(ctx.settings.run_dir.join("docker").join("docker.sock"));
    let lock = Arc::new(LockSource::new(
        &ctx.settings.config_dir.join("bailey.lock"),
        ctx.trust.signing.broker,
        ctx.trust.stack.clone(),
        // It keeps nothing between two lives; broker and socket-proxy refuse an older lock for it.
        Serial(0),
        |lock| bailey_config::parse(&lock.config_files).map_err(|e| e.to_string()),
    ));
    let running = Running::default();
    let care = Arc::new(Care::new(
        ctx,
        docker.clone(),
        Arc::clone(&lock),
        running.clone(),
    ));
    let client = lease::client(engine);
    let desk = Arc::new(Desk {
        ctx: ctx.clone(),
        workshop: Workshop {
            engine: docker,
            tickets: Broker::new(broker),
            lock,
            policy: ctx.trust.signing.policy,
            stack: ctx.trust.stack.clone(),
        },
        reports: ToEngine(client.clone()),
        care: Arc::clone(&care),
        running,
        slots: args.slots(),
        held: tokio::sync::watch::Sender::default(),
    });
    ctx.spawn("care", async move {
        care.tend().await;
        Ok(())
    });
    ctx.spawn("lease", async move {
        lease::keep(client, desk).await;
        Ok(())
    });
}

#[cfg(test)]
mod tests;
