#![doc = include_str!("../README.md")]

mod age_key;
mod change;
pub mod custody;
mod durable;
#[cfg(test)]
mod faults;
mod issuer;
mod limiter;
mod lock;
mod manage;
mod operation;
mod posture;
mod presence;
mod proof;
mod record;
mod rpc;
mod state;
mod telling;
#[cfg(test)]
mod testing;
mod ticket;
mod token;
mod upstream;
mod vault;
mod view;
mod witness;

use std::alloc::System;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bailey_error::Chain;
use bailey_mesh::Mesh;
use bailey_service::Context;
use bailey_types::Service;
use zeroizing_alloc::ZeroAlloc;

use crate::issuer::{Issuer, Keeper};
use crate::manage::Gate;
use crate::state::State;

/// Whatever is freed is wiped: not only the values and buffers that wipe themselves, but every copy that a parser, a cipher or a connection
/// made on the way.
#[global_allocator]
static WIPING: ZeroAlloc<System> = ZeroAlloc(System);

/// How often the broker looks whether what was missing is there.
const LOOK: Duration = Duration::from_secs(5);

/// The flags that only the broker has.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Where services without a certificate ask for one
    #[arg(long, default_value = "0.0.0.0:7001")]
    pub enrol_listen: SocketAddr,
    /// How long a certificate is valid
    #[arg(long, default_value = "24h", value_name = "SPAN")]
    pub certificate_lifetime: bailey_yaml::Span,
    /// The uid that may use the management socket
    #[arg(long, default_value = "10012", value_name = "UID")]
    pub manage_uid: u32,
}

/// Runs the broker.
pub async fn run(ctx: Context, args: Args) -> anyhow::Result<()> {
    let state = Arc::new(State::open(&ctx, args.certificate_lifetime.0)?);
    // The management socket needs neither mesh nor vault: it is where a sealed broker says so.
    let path = ctx.settings.management_socket(Service::Broker);
    let socket = manage::bind(&path).with_context(|| format!("binding {}", path.display()))?;
    let gate = Gate::new(Arc::clone(&state), args.manage_uid);
    let routes = rpc::management(&state);
    ctx.spawn("manage", manage::serve(ctx.clone(), socket, gate, routes));
    ctx.spawn("watch", watch(ctx.clone(), Arc::clone(&state)));
    ctx.spawn("telling", telling::run(ctx.clone(), Arc::clone(&state)));
    ctx.spawn("join", join(ctx.clone(), state, args.enrol_listen));
    ctx.stopped().await
}

/// Serves the mesh as soon as the age key opens the intermediate.
async fn join(ctx: Context, state: Arc<State>, enrol: SocketAddr) -> anyhow::Result<()> {
    let Some(keeper) = unsealed(&ctx, &state).await else {
        return Ok(());
    };
    let authority = keeper.authority();
    let mesh = Mesh::with_authority(&ctx, Arc::clone(&authority), state.lifetime)?;
    // Both ports are bound before either is served.
    let listener = bailey_mesh::bind(ctx.settings.listen).context("binding the mesh port")?;
    let strangers = bailey_mesh::bind(enrol).context("binding the enrolment port")?;
    state.records.open(&mesh);
    state.news.notify_one();
    let issuer = Issuer::new(keeper, mesh.clone(), state.lifetime);
    anyhow::ensure!(state.issuer.set(issuer).is_ok(), "joined the mesh twice");
    let (routes, door) = (rpc::mesh(&state, &authority), (ctx.clone(), mesh.clone()));
    ctx.spawn("mesh", async move {
        door.1.serve(&door.0, listener, routes).await
    });
    let (routes, door) = (
        rpc::enrolment(&state, &authority),
        (ctx.clone(), mesh.clone()),
    );
    ctx.spawn("enrolment", async move {
        door.1.serve_enrolment(&door.0, strangers, routes).await
    });
    ctx.spawn("issuer", issuer::watch(ctx.clone(), Arc::clone(&state)));
    ctx.spawn("witness", witness::run(ctx.clone(), mesh, state));
    ctx.ready();
    Ok(())
}

/// The intermediate, once it can be opened; `None` if the service is told to stop before that.
async fn unsealed(ctx: &Context, state: &State) -> Option<Keeper> {
    loop {
        let keeper = Keeper::open(&ctx.settings, &ctx.trust);
        match keeper.and_then(|keeper| keeper.tried(ctx.clock.now())) {
            Ok(keeper) => return Some(keeper),
            Err(error) => {
                let reason = Chain(&error);
                ctx.degraded(format!("sealed, no certificates are issued: {reason}"));
            }
        }
        tokio::select! {
            () = ctx.shutdown.cancelled() => return None,
            () = state.look.notified() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Says what is missing, takes up a vault whose key has come, and keeps the broker itself on the roll.
async fn watch(ctx: Context, state: Arc<State>) -> anyhow::Result<()> {
    let started = ctx.clock.now();
    let mut presence = ctx.presence();
    while !ctx.shutdown.is_cancelled() {
        state.unseal().await;
        for (part, trouble) in state.troubles() {
            ctx.trouble(part, trouble);
        }
        let beat = bailey_mesh::beat_request(&presence.borrow_and_update().clone(), started);
        state.roll.beat(Service::Broker, beat, ctx.clock.now())?;
        tokio::select! {
            () = ctx.shutdown.cancelled() => {}
            () = tokio::time::sleep(LOOK) => {}
            () = state.shown.notified() => {}
            changed = presence.changed() => changed.context("watching our own presence")?,
        }
    }
    Ok(())
}
