#![doc = include_str!("../README.md")]

mod auth;
mod http;
mod ingress;
mod limits;
mod listener;
mod metrics;
mod posture;
mod problem;
mod state;
mod view;

use std::sync::Arc;

use anyhow::Context as _;
use bailey_mesh::Mesh;
use bailey_service::Context;
use bailey_types::Serial;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::ingress::Ingress;
use crate::limits::Limits;
use crate::state::State;
use crate::view::View;

/// Where the two ways in are served.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Plain HTTP for the sidecar. The name is this container's on the network that it shares with the sidecar alone: nothing on the
    /// mesh can connect, and forge what the sidecar vouches for
    #[arg(long, default_value = "gateway-tailnet:8080", value_name = "HOST:PORT")]
    pub tailnet: String,
    /// TLS for `ingress-local`, likewise
    #[arg(long, default_value = "gateway-local:8443", value_name = "HOST:PORT")]
    pub local: String,
}

/// Runs the gateway until it is stopped.
pub async fn run(ctx: Context, args: Args) -> anyhow::Result<()> {
    let mesh = Mesh::join(&ctx).await.context("joining the mesh")?;
    serve(ctx, mesh, args).await
}

/// Serves both ways in on the given addresses.
pub async fn serve(ctx: Context, mesh: Mesh, args: Args) -> anyhow::Result<()> {
    // Both ports are bound before either is served: a half-open gateway must not look healthy.
    let tailnet = bind(&args.tailnet)
        .await
        .context("binding the port for the sidecar")?;
    let local = bind(&args.local)
        .await
        .context("binding the port for ingress-local")?;
    let tls = tls(&mesh).context("setting up TLS for ingress-local")?;
    let limits = Limits::default();
    let state = State::new(
        mesh,
        ctx.lock(Serial(0), View::of),
        limits.clone(),
        ctx.clock.clone(),
        ctx.shutdown.clone(),
    );
    let listeners = [
        (tailnet, None, Ingress::Tailnet),
        (local, Some(tls), Ingress::Local),
    ];
    for (listener, tls, ingress) in listeners {
        let router = http::router(&state, ingress);
        let serving = listener::serve(listener, tls, router, limits.clone(), ctx.shutdown.clone());
        ctx.spawn("http", serving);
    }
    ctx.ready();
    ctx.stopped().await
}

/// Binds the one address that `name` stands for.
async fn bind(name: &str) -> anyhow::Result<TcpListener> {
    let mut addresses = tokio::net::lookup_host(name)
        .await
        .with_context(|| format!("looking up {name}"))?;
    let address = addresses
        .next()
        .with_context(|| format!("{name} has no address"))?;
    bailey_mesh::bind(address).with_context(|| format!("binding {address}"))
}

/// The gateway's mesh certificate serves the loopback listener too: the broker puts `localhost` into it.
fn tls(mesh: &Mesh) -> anyhow::Result<TlsAcceptor> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(mesh.certificate_resolver());
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
