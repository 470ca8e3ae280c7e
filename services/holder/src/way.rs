//! The way to egress-proxy: the lease, and connections under it.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use bailey_lease::{Connect, Kind, Opening, Refusal, Token, read_open, read_token};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, copy_bidirectional_with_sizes};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// How long egress-proxy may take to answer: it looks names up and connects in less.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// Of one direction of one connection; 64 connections must fit into 16 MiB many times over.
const BUFFER_BYTES: usize = 8 << 10;

/// Where connections go.
pub(crate) struct Way {
    socket: PathBuf,
    lease: Mutex<Result<Token, Refusal>>,
}

/// The connection that the lease lives by.
pub(crate) struct Control(UnixStream);

impl Way {
    /// Asks for the lease of `decision`. What egress-proxy refuses is kept, and told to every client.
    pub(crate) async fn lease(
        socket: PathBuf,
        decision: Vec<u8>,
    ) -> anyhow::Result<(Self, Option<Control>)> {
        let ask = async {
            let mut stream = UnixStream::connect(&socket).await?;
            Opening::Lease(decision).write(&mut stream).await?;
            let answer = read_token(&mut stream).await?;
            std::io::Result::Ok((stream, answer))
        };
        let asked = timeout(ANSWER_TIME, ask)
            .await
            .context("egress-proxy does not answer")?;
        let (stream, lease) = asked.context("asking egress-proxy for a lease")?;
        let control = lease.is_ok().then(|| Control(stream));
        let lease = Mutex::new(lease);
        Ok((Self { socket, lease }, control))
    }

    /// Nothing goes out, and `reason` says why.
    pub(crate) fn closed(socket: PathBuf, reason: &str) -> Self {
        let way = Self {
            socket,
            lease: Mutex::new(Err(Refusal::new(Kind::NoLease, String::new()))),
        };
        way.close(reason);
        way
    }

    /// From now on nothing goes out.
    pub(crate) fn close(&self, reason: &str) {
        *self.lease.lock().unwrap_or_else(PoisonError::into_inner) =
            Err(Refusal::new(Kind::NoLease, reason));
    }

    /// Why nothing goes out, if nothing does.
    pub(crate) fn refused(&self) -> Option<Refusal> {
        let lease = self.lease.lock().unwrap_or_else(PoisonError::into_inner);
        lease.as_ref().err().cloned()
    }

    /// Opens a connection to `host`, as the client wrote it.
    pub(crate) async fn open(&self, host: String, port: u16) -> Result<UnixStream, Refusal> {
        let lease = self
            .lease
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let token = lease?;
        let ask = async {
            let mut stream = UnixStream::connect(&self.socket).await?;
            let opening = Opening::Connect(Connect { token, host, port });
            opening.write(&mut stream).await?;
            let answer = read_open(&mut stream).await?;
            std::io::Result::Ok(answer.map(|()| stream))
        };
        match timeout(ANSWER_TIME, ask).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => Err(Refusal::new(
                Kind::NoLease,
                format!("egress-proxy is away: {error}"),
            )),
            Err(_) => Err(Refusal::new(Kind::NoLease, "egress-proxy does not answer")),
        }
    }
}

impl Control {
    /// Waits until egress-proxy ends the lease.
    pub(crate) async fn over(&mut self) {
        let mut byte = [0; 1];
        // It never sends anything more: a byte, the end and an error all mean that it is over.
        drop(self.0.read(&mut byte).await);
    }
}

/// Passes bytes both ways until both ends are done or one breaks off, which the other sees as an end.
pub(crate) async fn join(
    client: &mut (impl AsyncRead + AsyncWrite + Unpin),
    server: &mut UnixStream,
) {
    drop(copy_bidirectional_with_sizes(client, server, BUFFER_BYTES, BUFFER_BYTES).await);
}
