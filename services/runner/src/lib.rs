#![doc = include_str!("../README.md")]

mod answer;
mod attach;
mod attempt;
mod audit;
mod backoff;
mod care;
mod cell;
mod container;
mod desk;
mod docker;
mod gate;
mod grants;
mod host_paths;
mod kept;
mod lease;
mod make;
mod pools;
mod quarantine;
mod reconcile;
mod report;
mod roster;
mod rpc;
mod shelf;
mod state;
mod turns;
mod watch;

use std::sync::Arc;

use anyhow::Context as _;
use bailey_mesh::Mesh;
use bailey_service::Context;
use bailey_trust::MAX_SERVICES;
use bailey_types::{Serial, Service};
use tokio::sync::Semaphore;

use crate::audit::Record;
use crate::care::Care;
use crate::cell::Workshop;
use crate::container::Maker;
use crate::desk::Desk;
use crate::docker::Engine;
use crate::grants::Grants;
use crate::kept::Stalls;
use crate::pools::Pools;
use crate::quarantine::Quarantine;
use crate::reconcile::{Keeper, Reconciler};
use crate::report::ToEngine;
use crate::roster::Roster;
use crate::rpc::Channel;
use crate::state::{Probes, States};
use crate::turns::Turns;

/// Containers that are kept ready at most, for each job that may run.
const READY_PER_SLOT: usize = 8;
/// Cells with a job at most, for each job that may run: as many may be parted with as run.
const CELLS_PER_SLOT: usize = 2;

/// Flags of the runner.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Args {
    /// How many jobs run at a time, at most: `max_workers` of the configuration is the engine's to keep
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    slots: u16,
    /// How many containers are kept ready at most, all plugins together [default: eight times the slots]
    #[arg(long)]
    ready: Option<u16>,
}

impl Args {
    fn slots(self) -> usize {
        usize::from(self.slots)
    }

    fn ready(self) -> usize {
        self.ready
            .map_or(READY_PER_SLOT * self.slots(), usize::from)
    }
}

/// Runs until it is told to stop.
pub async fn run(ctx: Context, args: Args) -> anyhow::Result<()> {
    let mesh = Mesh::join(&ctx).await.context("joining the mesh")?;
    let peers = Peers {
        engine: rpc::channel(mesh.channel(Service::Engine)),
        policy: rpc::channel(mesh.channel(Service::Policy)),
        audit: Arc::new(mesh.auditor()),
    };
    let _: Arc<Stalls> = start(&ctx, peers, args);
    ctx.ready();
    ctx.stopped().await
}

/// Whom the runner speaks to.
struct Peers {
    /// Leases jobs.
    engine: Channel,
    /// Grants pools.
    policy: Channel,
    /// The audit log.
    audit: Arc<dyn Record>,
}

/// Starts everything that runs jobs; answers what is kept ready.
fn start(ctx: &Context, peers: Peers, args: Args) -> Arc<Stalls> {
    let docker = Engine::new(ctx.settings.run_dir.join("docker").join("docker.sock"));
    // It keeps nothing between two lives; broker and socket-proxy refuse an older lock for it.
    let lock = Arc::new(ctx.lock(Serial(0), |lock| {
        bailey_config::parse(&lock.config_files).map_err(|e| e.to_string())
    }));
    let roster = Roster::default();
    let stalls = Arc::new(Stalls::default());
    let quarantine = Arc::new(Quarantine::new(Arc::clone(&peers.audit)));
    let reconciler = Arc::new(Reconciler {
        engine: docker.clone(),
        stack: ctx.trust.stack.clone(),
        roster: roster.clone(),
        keeper: Arc::clone(&stalls) as Arc<dyn Keeper>,
        quarantine: Arc::clone(&quarantine),
        lock: Arc::clone(&lock),
    });
    let care = Arc::new(Care::new(ctx, Arc::clone(&reconciler)));
    let policy_key = ctx.trust.signing.policy;
    let probes = Probes {
        engine: docker.clone(),
        stack: ctx.trust.stack.clone(),
        roster: roster.clone(),
        lock: Arc::clone(&lock),
    };
    let audit = Arc::clone(&peers.audit);
    let states = States::new(ctx.clone(), Arc::new(probes), audit);
    let pools = Arc::new(Pools {
        ctx: ctx.clone(),
        maker: Arc::new(Maker {
            engine: docker,
            stack: ctx.trust.stack.clone(),
            roster,
            states,
        }),
        lock: Arc::clone(&lock),
        grants: Grants::new(peers.policy, policy_key, ctx.clock.clone()),
        stalls: Arc::clone(&stalls),
        care: Arc::clone(&care),
        quarantine,
        audit: peers.audit,
        room: Arc::new(Semaphore::new(args.ready())),
    });
    let client = lease::client(peers.engine);
    let desk = Arc::new(Desk {
        ctx: ctx.clone(),
        workshop: Workshop {
            pools: Arc::clone(&pools),
            lock,
            policy: policy_key,
            room: Arc::new(Semaphore::new(CELLS_PER_SLOT * args.slots())),
            lasting: Arc::new(Semaphore::new(CELLS_PER_SLOT * MAX_SERVICES)),
            turns: Turns::default(),
            slots: args.slots(),
        },
        reports: ToEngine(client.clone()),
        care: Arc::clone(&care),
        slots: args.slots(),
        held: tokio::sync::watch::Sender::default(),
    });
    let (following, stopping) = (Arc::clone(&care), ctx.shutdown.clone());
    ctx.spawn("reconcile", async move {
        reconciler.tend(&following, &stopping).await;
        Ok(())
    });
    ctx.spawn("care", async move {
        care.tend().await;
        Ok(())
    });
    ctx.spawn("pools", async move {
        pools.tend().await;
        Ok(())
    });
    ctx.spawn("lease", async move {
        lease::keep(client, desk).await;
        Ok(())
    });
    stalls
}

#[cfg(test)]
mod tests;
