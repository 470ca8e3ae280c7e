//! How a peer is called: a channel that connects when it must and follows the identity.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bailey_types::Service;
use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::ServiceExt as _;

use crate::Mesh;
use crate::gather::Gather;

/// Longest that a connection may take until it is usable.
const CONNECT: Duration = Duration::from_secs(5);

/// While calls are open, a peer that vanished without a word is noticed after this and [`KEEP_ALIVE_ANSWER`].
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(5);

/// Stream and connection windows: a request of 10 MiB must not wait for an answer after each 64 KiB.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 1 << 20;
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// Calls one peer. Cheap to clone; generated clients are made over it.
#[derive(Clone)]
pub struct MeshChannel {
    mesh: Mesh,
    peer: Service,
}

impl MeshChannel {
    pub(crate) fn new(mesh: Mesh, peer: Service) -> Self {
        Self { mesh, peer }
    }
}

impl tower::Service<http::Request<Body>> for MeshChannel {
    type Response = http::Response<Body>;
    type Error = tonic::Status;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (connected, peer) = (self.mesh.connected(self.peer), self.peer);
        Box::pin(async move {
            // One channel for the whole call: a renewal in between must not split it.
            let mut channel = connected?;
            let answered = async { channel.ready().await?.call(request).await }.await;
            answered.map_err(|error: tonic::transport::Error| away(peer, error))
        })
    }
}

/// A transport error as callers should see it: the peer is away, and why.
fn away(peer: Service, error: tonic::transport::Error) -> tonic::Status {
    let reason = bailey_error::Chain(&error).to_string();
    let mut status = tonic::Status::unavailable(format!("{peer} cannot be reached: {reason}"));
    status.set_source(Arc::new(error));
    status
}

/// A channel to `address` under `config`. Nothing is connected before the first call.
pub(crate) fn lazy(address: String, config: ClientConfig) -> Channel {
    let connector = TlsConnector::from(Arc::new(config));
    // The URI only fills in `:authority`; the connector knows where to go.
    let endpoint = Endpoint::from_static("http://mesh")
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_ANSWER);
    endpoint.connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
        let (address, connector) = (address.clone(), connector.clone());
        async move {
            let connecting = tokio::time::timeout(CONNECT, connect(&address, &connector));
            let timed_out = |_| {
                io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("connecting took longer than {CONNECT:?}"),
                )
            };
            connecting
                .await
                .map_err(timed_out)
                .flatten()
                .map(|stream| TokioIo::new(Gather::new(stream)))
        }
    }))
}

async fn connect(address: &str, connector: &TlsConnector) -> io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
    // Without it a small request waits 40 ms for an acknowledgement.
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from("mesh").map_err(io::Error::other)?;
    let stream = connector.connect(name, tcp).await?;
    if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err(io::Error::other("the peer does not speak h2"));
    }
    Ok(stream)
}
