//! The listeners of one namespace.

use std::io::{BufRead as _, Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use bailey_lease::MAX_DECISION_BYTES;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;

use crate::command::Options;
use crate::way::{Control, Way};
use crate::{http, socks};

/// Clients at once; more wait in the listeners' queues.
const MAX_CLIENTS: usize = 64;
const QUEUE: u32 = 64;
/// The kernel's buffers of a connection count as the container's memory.
const SOCKET_BUFFER_BYTES: u32 = 64 << 10;

/// Serves the namespace until something fails that nothing can be done about.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let http = listen(options.http)?;
    let socks = listen(options.socks)?;
    let mut out = std::io::stdout();
    out.write_all(b"ready\n")
        .and_then(|()| out.flush())
        .context("saying that it is ready")?;
    let decision = decision().await?;
    let leased = Way::lease(options.socket.clone(), decision).await;
    let (way, control) = leased.unwrap_or_else(|error| {
        let reason = format!("there is no way out: {error:#}");
        (Way::closed(options.socket, &reason), None)
    });
    if let Some(refusal) = way.refused() {
        eprintln!("holder: no lease: {refusal}");
    }
    serve(http, socks, Arc::new(way), control).await
}

fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let open = || {
        let socket = TcpSocket::new_v4()?;
        // Accepted connections inherit them.
        socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
        socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
        socket.bind(address)?;
        socket.listen(QUEUE)
    };
    let listener = open().with_context(|| format!("listening on {address}"))?;
    if address.port() == 0 {
        eprintln!("listening on {}", listener.local_addr()?);
    }
    Ok(listener)
}

/// The one line of standard input.
async fn decision() -> anyhow::Result<Vec<u8>> {
    let reading = tokio::task::spawn_blocking(|| {
        let limit = u64::try_from(MAX_DECISION_BYTES).unwrap_or(u64::MAX);
        let mut line = Vec::new();
        let mut input = std::io::stdin().lock().take(limit);
        input.read_until(b'\n', &mut line).map(|_| line)
    });
    let mut line = reading.await?.context("reading the decision")?;
    if line.pop() != Some(b'\n') {
        bail!("standard input ended before a line with the decision");
    }
    Ok(line)
}

async fn serve(
    http: TcpListener,
    socks: TcpListener,
    way: Arc<Way>,
    mut control: Option<Control>,
) -> anyhow::Result<()> {
    let mut clients = JoinSet::new();
    loop {
        let room = clients.len() < MAX_CLIENTS;
        let over = async {
            match &mut control {
                Some(control) => control.over().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            accepted = http.accept(), if room => {
                let (stream, _) = accepted.context("accepting an HTTP client")?;
                clients.spawn(http::serve(stream, Arc::clone(&way)));
            }
            accepted = socks.accept(), if room => {
                let (stream, _) = accepted.context("accepting a SOCKS client")?;
                clients.spawn(socks::serve(stream, Arc::clone(&way)));
            }
            Some(ended) = clients.join_next() => ended.context("serving a client")?,
            () = over => {
                eprintln!("holder: the lease is over");
                way.close("the lease of this call is over");
                control = None;
            }
        }
    }
}
