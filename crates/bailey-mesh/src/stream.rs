//! An accepted connection: it knows whose it is, and ends when its certificate does.

use std::future::Future as _;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::crowd::Inside;
use crate::gate::Caller;
use crate::gather::Gather;

/// Where a connection comes from. In the extensions of each request; for limits, not for trust.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteAddress(pub SocketAddr);

/// What is known of the other end of a connection. `caller` is empty only on the enrolment listener.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Remote {
    pub(crate) address: SocketAddr,
    pub(crate) caller: Option<Caller>,
}

pub(crate) struct MeshStream {
    tls: Gather<TlsStream<TcpStream>>,
    remote: Remote,
    end: Pin<Box<Sleep>>,
    _inside: Inside,
}

impl MeshStream {
    pub(crate) fn new(
        tls: TlsStream<TcpStream>,
        remote: Remote,
        lifetime: Duration,
        inside: Inside,
    ) -> Self {
        Self {
            tls: Gather::new(tls),
            remote,
            end: Box::pin(tokio::time::sleep(lifetime)),
            _inside: inside,
        }
    }
}

impl Connected for MeshStream {
    type ConnectInfo = Remote;

    fn connect_info(&self) -> Remote {
        self.remote
    }
}

impl AsyncRead for MeshStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // A server always waits for the next frame, so this is where the end is noticed, in the middle of calls too.
        if self.end.as_mut().poll(cx).is_ready() {
            let expired = io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the client's certificate has expired",
            );
            return Poll::Ready(Err(expired));
        }
        Pin::new(&mut self.tls).poll_read(cx, buf)
    }
}

impl AsyncWrite for MeshStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}
