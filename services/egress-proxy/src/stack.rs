//! The stack's own clients, on the mesh: nothing is granted to them, and they are told so.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bailey_mesh::Auditor;
use bailey_service::Context;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Connections at once; more wait in the listener's queue.
const MAX_CONNECTIONS: usize = 64;
const HEAD_LIMIT_BYTES: usize = 16 << 10;
const MAX_HEADERS: usize = 64;
/// How long a head may take.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// Longest name in the audit log.
const MAX_NAME: usize = 260;

/// Refuses what comes in at `listener` until the service stops.
pub(crate) async fn refuse_everything(
    ctx: Context,
    listener: TcpListener,
    auditor: Auditor,
) -> anyhow::Result<()> {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let place = Arc::clone(&places).acquire_owned();
        let accepted = async {
            let place = place.await.context("waiting for a place")?;
            anyhow::Ok((place, listener.accept().await))
        };
        let (place, accepted) = tokio::select! {
            accepted = accepted => accepted?,
            () = ctx.shutdown.cancelled() => return Ok(()),
        };
        let (stream, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Descriptors are short until another connection ends.
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (auditor, shutdown) = (auditor.clone(), ctx.shutdown.clone());
        ctx.spawn("proxy connection", async move {
            tokio::select! {
                () = refuse_all(stream, client, auditor) => {}
                () = shutdown.cancelled() => {}
            }
            drop(place);
            Ok(())
        });
    }
}

async fn refuse_all(stream: TcpStream, client: SocketAddr, auditor: Auditor) {
    let service = service_fn(move |request| {
        let answer = refuse(&request, client, &auditor);
        async move { Ok::<_, Infallible>(answer) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_headers(MAX_HEADERS)
        .max_buf_size(HEAD_LIMIT_BYTES)
        // One refusal a connection: a body that nobody reads cannot pass for the next request.
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = serving.await {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// The host that was asked for, never a path or a query: those can hold secrets.
fn target(request: &Request<Incoming>) -> String {
    let uri = request.uri().authority().map(http::uri::Authority::as_str);
    let header = || request.headers().get(http::header::HOST)?.to_str().ok();
    let name = uri.or_else(header).unwrap_or_default();
    // `user:password@host` is of the authority too.
    let host = name.rsplit_once('@').map_or(name, |(_, host)| host);
    host.chars().take(MAX_NAME).collect()
}

fn refuse(
    request: &Request<Incoming>,
    client: SocketAddr,
    auditor: &Auditor,
) -> Response<Full<Bytes>> {
    let (method, host) = (request.method().as_str(), target(request));
    tracing::warn!(
        http.method = method,
        egress.host = host,
        "refused a way out to {host}: nothing is granted"
    );
    let fields = json!({ "client": client.ip().to_string(), "method": method, "host": host });
    auditor.append_refusal("egress.refused", &fields);
    let problem = json!({
        "type": "about:blank",
        "title": "no egress is granted",
        "status": StatusCode::FORBIDDEN.as_u16(),
        "detail": "Nothing in this stack may reach a host outside yet.",
    });
    let mut answer = Response::new(Full::new(Bytes::from(problem.to_string())));
    *answer.status_mut() = StatusCode::FORBIDDEN;
    let headers = answer.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}
