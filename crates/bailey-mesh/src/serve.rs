//! Serving the mesh.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bailey_service::Context;
use bailey_types::Clock;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::transport::Server;

use crate::channel::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES};
use crate::crowd::{Crowd, MAX_CONNECTIONS, Who};
use crate::gate::{Caller, GateLayer, Hook, Refusal};
use crate::stream::{MeshStream, Remote};
use crate::{Mesh, tls, verify};

/// Longest that a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Handshakes at a time; more wait in the kernel's queue.
const MAX_HANDSHAKES: usize = 64;

/// How long calls may still run after the stop; streams would run for ever.
const LAST_CALLS: Duration = Duration::from_secs(2);

/// How long an enrolment connection may live: it is for one call.
const STRANGER: Duration = Duration::from_secs(10);

/// Calls on one connection at a time; more wait in the client until one has ended. No honest caller has as many: the gateway's are bounded by its
/// own connections (256 for each way in, one call each, for as long as a client waits or follows events), the runner's by its slots (256, and a
/// stream), the others' by what those two have going.
const MAX_STREAMS: u32 = 512;

const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// How much a caller may send ahead of what is read of it. This memory is the server's, for each of the connections that a caller may have.
#[derive(Clone, Copy, Debug)]
pub struct Windows {
    /// Of one call.
    pub call_bytes: u32,
    /// Of all calls on one connection.
    pub connection_bytes: u32,
}

impl Default for Windows {
    /// For large single messages.
    fn default() -> Self {
        Self {
            call_bytes: STREAM_WINDOW_BYTES,
            connection_bytes: CONNECTION_WINDOW_BYTES,
        }
    }
}

/// Binds a listener for [`Mesh::serve`]. Must be called within a runtime.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

impl Mesh {
    /// Serves `routes` to peers until the shutdown. Refusals are logged and appended to the audit log.
    pub async fn serve(
        &self,
        ctx: &Context,
        listener: TcpListener,
        routes: Routes,
    ) -> anyhow::Result<()> {
        let windows = Windows::default();
        self.serve_with_windows(ctx, listener, routes, windows)
            .await
    }

    /// As [`Mesh::serve`], with windows of its own.
    pub async fn serve_with_windows(
        &self,
        ctx: &Context,
        listener: TcpListener,
        routes: Routes,
        windows: Windows,
    ) -> anyhow::Result<()> {
        let auditor = self.auditor();
        let hook = Arc::new(move |refusal| auditor.refused(&refusal));
        serve(ctx, listener, self.tls()?, (routes, windows), hook).await
    }

    /// As [`Mesh::serve`], but `hook` gets the refusals. It must not block.
    pub async fn serve_with_hook(
        &self,
        ctx: &Context,
        listener: TcpListener,
        routes: Routes,
        hook: impl Fn(Refusal) + Send + Sync + 'static,
    ) -> anyhow::Result<()> {
        let routes = (routes, Windows::default());
        serve(ctx, listener, self.tls()?, routes, Arc::new(hook)).await
    }

    fn tls(&self) -> anyhow::Result<ServerConfig> {
        tls::server(self.certificate_resolver(), &self.root()).context("configuring TLS")
    }

    /// Serves those who have no certificate yet: the broker's enrolment listener. Only methods of that column of the table are answered.
    pub async fn serve_enrolment(
        &self,
        ctx: &Context,
        listener: TcpListener,
        routes: Routes,
    ) -> anyhow::Result<()> {
        let auditor = self.auditor();
        let config =
            tls::server_for_strangers(self.certificate_resolver()).context("configuring TLS")?;
        serve(
            ctx,
            listener,
            config,
            (routes, Windows::default()),
            Arc::new(move |refusal| auditor.refused(&refusal)),
        )
        .await
    }
}

async fn serve(
    ctx: &Context,
    listener: TcpListener,
    config: ServerConfig,
    (routes, windows): (Routes, Windows),
    hook: Hook,
) -> anyhow::Result<()> {
    let (streams, incoming) = mpsc::channel(MAX_HANDSHAKES);
    let door = Door {
        acceptor: TlsAcceptor::from(Arc::new(config)),
        clock: ctx.clock.clone(),
        hook: Arc::clone(&hook),
        crowd: Arc::default(),
    };
    let serving = Server::builder()
        .initial_stream_window_size(windows.call_bytes)
        .initial_connection_window_size(windows.connection_bytes)
        .max_concurrent_streams(MAX_STREAMS)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .layer(GateLayer { hook })
        .add_routes(routes)
        .serve_with_incoming_shutdown(
            ReceiverStream::new(incoming),
            ctx.shutdown.clone().cancelled_owned(),
        );
    tokio::select! {
        served = serving => served.context("serving the mesh"),
        () = door.admit(listener, streams) => Ok(()),
        () = last_calls(ctx) => Ok(()),
    }
}

async fn last_calls(ctx: &Context) {
    ctx.shutdown.cancelled().await;
    tokio::time::sleep(LAST_CALLS).await;
}

#[derive(Clone)]
struct Door {
    acceptor: TlsAcceptor,
    clock: Clock,
    hook: Hook,
    crowd: Arc<Crowd>,
}

impl Door {
    /// Accepts connections until nobody takes them any more.
    async fn admit(&self, listener: TcpListener, streams: mpsc::Sender<io::Result<MeshStream>>) {
        let mut handshakes = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept(), if handshakes.len() < MAX_HANDSHAKES => match accepted {
                    Ok((tcp, address)) => {
                        let (door, streams) = (self.clone(), streams.clone());
                        handshakes.spawn(async move {
                            if let Some(stream) = door.handshake(tcp, address).await {
                                // Nobody takes it when the server is stopping; the peer will call again.
                                let _stopping = streams.send(Ok(stream)).await;
                            }
                        });
                    }
                    Err(error) => {
                        // Mostly no file descriptor is left; let some calls end.
                        tracing::error!(%error, "accepting a connection failed");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(done) = handshakes.join_next() => {
                    if let Err(error) = done {
                        tracing::error!(%error, "a handshake panicked");
                    }
                }
            }
        }
    }

    async fn handshake(&self, tcp: TcpStream, address: SocketAddr) -> Option<MeshStream> {
        let shaken = tokio::time::timeout(HANDSHAKE, self.shake(tcp, address)).await;
        match shaken {
            Ok(Ok(stream)) => Some(stream),
            Ok(Err(error)) => {
                self.refused(&error);
                None
            }
            Err(_) => {
                tracing::warn!("a handshake took longer than {HANDSHAKE:?}");
                None
            }
        }
    }

    async fn shake(&self, tcp: TcpStream, address: SocketAddr) -> io::Result<MeshStream> {
        // Without it a small answer waits 40 ms for an acknowledgement.
        tcp.set_nodelay(true)?;
        let tls = self.acceptor.accept(tcp).await?;
        let connection = tls.get_ref().1;
        if connection.alpn_protocol() != Some(b"h2") {
            return Err(io::Error::other("the client does not speak h2"));
        }
        let leaf = connection.peer_certificates().and_then(<[_]>::first);
        let (caller, lifetime) = match leaf
            .map(verify::peer)
            .transpose()
            .map_err(io::Error::other)?
        {
            Some(peer) => (
                Some(Caller::new(peer)),
                verify::remaining(peer.not_after, self.clock.now()),
            ),
            None => (None, STRANGER),
        };
        let who = caller.map_or(Who::Stranger(address.ip()), |caller| {
            Who::Service(caller.service())
        });
        let inside = self.crowd.enter(who);
        let inside = inside.ok_or_else(|| io::Error::other(TooMany(who)))?;
        let remote = Remote { address, caller };
        Ok(MeshStream::new(tls, remote, lifetime, inside))
    }

    fn refused(&self, error: &io::Error) {
        let inner = error.get_ref();
        let tls = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let many = inner.and_then(|inner| inner.downcast_ref::<TooMany>());
        let reason = tls.map(ToString::to_string);
        let Some(reason) = reason.or_else(|| many.map(ToString::to_string)) else {
            tracing::debug!(%error, "a connection broke off in its handshake");
            return;
        };
        tracing::warn!(error = reason, "refused a connection: {reason}");
        (self.hook)(Refusal::Connection { reason });
    }
}

/// A caller with as many connections as it may have.
#[derive(Debug, thiserror::Error)]
#[error("{0} has {MAX_CONNECTIONS} connections open, which is as many as one caller may have")]
struct TooMany(Who);
