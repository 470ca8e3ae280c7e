//! Connections: accepted, bounded, secured where they must be, and let go when the gateway stops.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::limits::Limits;

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long open requests may go on after the gateway was told to stop.
const DRAIN: Duration = Duration::from_secs(4);

/// Serves `router` on `listener` until `shutdown`; with TLS if an acceptor is given.
pub async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let places = Arc::new(Semaphore::new(limits.connections));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let Some((stream, peer, place)) = accepted else {
            continue;
        };
        let connection = Connection {
            tls: tls.clone(),
            router: router.clone(),
            limits: limits.clone(),
        };
        let shutdown = shutdown.clone();
        connections.spawn(async move {
            if let Err(error) = connection.serve(stream, &shutdown).await {
                tracing::debug!(error, peer.address = %peer, "a connection ended with an error");
            }
            drop(place);
        });
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        tracing::warn!(
            "requests were still open {} s after the stop; they are cut",
            DRAIN.as_secs()
        );
    }
    Ok(())
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, place)),
        Err(error) => {
            // Out of file descriptors, for example: nothing to do but let others finish first.
            tracing::warn!(%error, "accepting a connection failed");
            tokio::time::sleep(Duration::from_millis(50)).await;
            None
        }
    }
}

struct Connection {
    tls: Option<TlsAcceptor>,
    router: Router,
    limits: Limits,
}

impl Connection {
    async fn serve(self, stream: TcpStream, shutdown: &CancellationToken) -> Result<(), String> {
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        match &self.tls {
            None => self.http(stream, shutdown).await,
            Some(tls) => {
                let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await;
                let stream = handshake
                    .map_err(|_| "no TLS handshake in time")?
                    .map_err(|e| e.to_string())?;
                self.http(stream, shutdown).await
            }
        }
    }

    async fn http(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        shutdown: &CancellationToken,
    ) -> Result<(), String> {
        // HTTP/1.1 only: browsers, curl and `tailscale serve` all speak it, and h2 would double what can go wrong here.
        let service = TowerToHyperService::new(self.router.clone());
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.head_timeout)
            .max_buf_size(64 << 10)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            result = connection.as_mut() => return result.map_err(|e| e.to_string()),
            () = shutdown.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        connection.await.map_err(|e| e.to_string())
    }
}
