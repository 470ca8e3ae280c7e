#![doc = include_str!("../README.md")]

mod auth;
mod http;
mod ingress;
mod limits;
mod listener;
mod metrics;
mod problem;
mod state;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context as _;
use bailey_mesh::Mesh;
use bailey_service::Context;
use tokio_rustls::TlsAcceptor;

use crate::ingress::Ingress;
use crate::limits::Limits;
use crate::state::State;

/// Where the two ways in are served.
#[derive(Clone, Copy, Debug)]
pub struct Listen {
    /// Plain HTTP for the sidecar, on the `ingress` network.
    pub tailnet: SocketAddr,
    /// TLS for `ingress-local`.
    pub local: SocketAddr,
}

impl Default for Listen {
    fn default() -> Self {
        let any = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        Self {
            tailnet: any(8080),
            local: any(8443),
        }
    }
}

/// Runs the gateway until it is stopped.
pub async fn run(ctx: Context) -> anyhow::Result<()> {
    let mesh = Mesh::join(&ctx).await.context("joining the mesh")?;
    serve(ctx, mesh, Listen::default()).await
}

/// Serves both ways in on the given addresses.
pub async fn serve(ctx: Context, mesh: Mesh, listen: Listen) -> anyhow::Result<()> {
    // Both ports are bound before either is served: a half-open gateway must not look healthy.
    let tailnet = bailey_mesh::bind(listen.tailnet).context("binding the port for the sidecar")?;
    let local = bailey_mesh::bind(listen.local).context("binding the port for ingress-local")?;
    let tls = tls(&mesh).context("setting up TLS for ingress-local")?;
    let limits = Limits::default();
    let state = State::new(
        mesh,
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
