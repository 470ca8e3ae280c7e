#![doc = include_str!("../README.md")]

mod pass;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bailey_service::Process;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections at once; more wait in the listener's queue.
const MAX_CONNECTIONS: usize = 256;
/// How long the gateway may take to accept. It is on the same host.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The flags.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Where connections come in; Compose publishes it on 127.0.0.1
    #[arg(long, default_value = "0.0.0.0:8443")]
    pub door: SocketAddr,
    /// Where they go; the name exists on the network that is shared with the gateway, and only there
    #[arg(long, default_value = "gateway-local:8443", value_name = "HOST:PORT")]
    pub gateway: String,
    /// Seconds without a byte in either direction after which a connection is closed
    #[arg(long, default_value_t = 900, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub idle_seconds: u64,
}

/// Forwards connections until it is stopped.
pub async fn run(process: Process, args: Args) -> anyhow::Result<()> {
    let listener = TcpListener::bind(args.door).await;
    let listener = listener.with_context(|| format!("listening on {}", args.door))?;
    serve(
        process,
        listener,
        args.gateway,
        Duration::from_secs(args.idle_seconds),
    )
    .await
}

/// Forwards what `listener` accepts to `gateway` until it is stopped.
pub async fn serve(
    process: Process,
    listener: TcpListener,
    gateway: String,
    idle: Duration,
) -> anyhow::Result<()> {
    let forwarder = process.clone();
    process.spawn("forwarding", async move {
        accept(&forwarder, &listener, &gateway, idle).await
    });
    process.ready();
    process.stopped().await
}

async fn accept(
    process: &Process,
    listener: &TcpListener,
    gateway: &str,
    idle: Duration,
) -> anyhow::Result<()> {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let place = Arc::clone(&places)
            .acquire_owned()
            .await
            .context("waiting for a place")?;
        let stream = tokio::select! {
            () = process.shutdown.cancelled() => return Ok(()),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // The peer is gone already, or descriptors are short until another connection ends.
                    tracing::warn!(error = %error, "accepting a connection failed: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let (shutdown, gateway) = (process.shutdown.clone(), gateway.to_owned());
        process.spawn("connection", async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = forward(stream, &gateway, idle, place) => {}
            }
            Ok(())
        });
    }
}

/// Passes bytes both ways until both sides are done. They are TLS: nothing in here can read them.
async fn forward(
    mut inside: TcpStream,
    gateway: &str,
    idle: Duration,
    _place: OwnedSemaphorePermit,
) {
    let outcome = async {
        let connect = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(gateway));
        let mut outside = connect.await.context("the gateway does not answer")??;
        outside.set_nodelay(true)?;
        inside.set_nodelay(true)?;
        pass::both_ways(&mut inside, &mut outside, idle).await?;
        anyhow::Ok(())
    };
    if let Err(error) = outcome.await {
        tracing::warn!(error = %error, "a connection to {gateway} ended early: {error}");
    }
}
