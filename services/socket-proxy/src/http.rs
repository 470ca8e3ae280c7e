//! The Unix socket of the runner: HTTP/1.1, one peer, nothing that is not a call.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bailey_cell::MAX_BODY_BYTES;
use bailey_service::Process;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, SERVER, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;

use crate::answer::json_answer;
use crate::engine::{self, Body};
use crate::error::Error;
use crate::proxy::Proxy;
use crate::route::{self, Call, Effect};
use crate::session::Session;

/// Connections at a time; the runner has two per cell.
const MAX_CONNECTIONS: usize = 512;
const MAX_HEADERS: usize = 32;
const HEAD_LIMIT_BYTES: usize = 16 << 10;
/// How long a head or a body may take.
const READ_TIME: Duration = Duration::from_secs(30);

/// Opens a Unix socket where only peers of the shared volume can be; who they are is checked for every connection.
pub fn bind(path: &Path) -> std::io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt as _;

    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let listener = UnixListener::bind(path)?;
    // The peer has another uid than this service; SO_PEERCRED decides, not the mode.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// Serves the runner until the service stops.
pub async fn serve(
    proxy: Arc<Proxy>,
    listener: UnixListener,
    runner_uid: u32,
    process: Process,
) -> anyhow::Result<()> {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let permit = Arc::clone(&connections).acquire_owned().await?;
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, for example: the next moment may be better.
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = proxy.shutdown().cancelled() => return Ok(()),
        };
        if !is_peer(&stream, runner_uid, &proxy, "docker.sock") {
            continue;
        }
        let (proxy, sessions) = (Arc::clone(&proxy), process.clone());
        process.spawn("runner connection", async move {
            connection(proxy, stream, sessions).await;
            drop(permit);
            Ok(())
        });
    }
}

/// Whether the process at the other end runs as `uid` (SO_PEERCRED, unix(7)). Anybody else is audited.
pub fn is_peer(stream: &UnixStream, uid: u32, proxy: &Proxy, socket: &str) -> bool {
    let found = stream.peer_cred().map(|peer| peer.uid());
    if matches!(found, Ok(found) if found == uid) {
        return true;
    }
    let found = found.map_or(json!(null), |found| json!(found));
    tracing::warn!(peer.uid = %found, "refused a peer on {socket}: only uid {uid} may connect");
    let fields = json!({ "socket": socket, "uid": found, "expected": uid });
    proxy.audit().record("peer.refused", fields, true);
    false
}

async fn connection(proxy: Arc<Proxy>, stream: UnixStream, process: Process) {
    let shutdown = proxy.shutdown().clone();
    let service = service_fn(move |request| {
        let (proxy, process) = (Arc::clone(&proxy), process.clone());
        async move { Ok::<_, Infallible>(respond(proxy, request, &process).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(READ_TIME)
        .max_headers(MAX_HEADERS)
        .max_buf_size(HEAD_LIMIT_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::select! {
        ended = serving => {
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection of the runner ended early");
            }
        }
        () = shutdown.cancelled() => {}
    }
}

async fn respond(
    proxy: Arc<Proxy>,
    request: Request<Incoming>,
    process: &Process,
) -> Response<Body> {
    let what = format!("{} {}", request.method(), request.uri().path());
    let mut answer = match dispatch(&proxy, request, process).await {
        Ok(answer) => answer,
        Err(error) => refused(&proxy, &what, &error),
    };
    if let Ok(name) = HeaderValue::from_str(&route::server_name()) {
        answer.headers_mut().insert(SERVER, name);
    }
    answer
}

async fn dispatch(
    proxy: &Arc<Proxy>,
    mut request: Request<Incoming>,
    process: &Process,
) -> Result<Response<Body>, Error> {
    // Before the body is taken: afterwards the connection cannot be had any more.
    let upgrade = hyper::upgrade::on(&mut request);
    let (head, body) = request.into_parts();
    let call = route::parse(&head).map_err(Error::Refused)?;
    let effect = call.effect();
    let (limit, place) = match effect {
        // Before the body is read: bodies that do not end fill the memory.
        Effect::Create => (MAX_BODY_BYTES, proxy.room().create().await),
        Effect::Change => (0, proxy.room().change().await),
        Effect::None => (0, None),
    };
    let body = read_body(body, limit).await?;
    let id = match (call, effect) {
        (Call::Attach(id), _) => id,
        (call, Effect::None) => return proxy.answer(&call, &body).await,
        (call, Effect::Create | Effect::Change) => {
            let change = Change {
                what: format!("{} {}", head.method, head.uri.path()),
                call,
                body,
                place,
            };
            return change.run(proxy, process).await;
        }
    };
    // Before the one attach is used up: an attached stream has left the connections that are counted.
    let full = || Error::NotNow("too many cells are attached already".into());
    let place = proxy.room().session().ok_or_else(full)?;
    let (record, engine) = proxy.attach(&id).await?;
    let session = Session {
        proxy: Arc::clone(proxy),
        id,
        record,
        engine,
    };
    process.spawn("attached cell", async move {
        session.run(upgrade).await;
        drop(place);
        Ok(())
    });
    let mut answer = Response::new(engine::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("tcp"));
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/vnd.docker.raw-stream"),
    );
    Ok(answer)
}

/// A call after which the engine has other containers, or other ones run.
struct Change {
    what: String,
    call: Call,
    body: Bytes,
    /// Its room in this process, until its end.
    place: Option<OwnedSemaphorePermit>,
}

impl Change {
    /// Runs in a task of its own: a runner that leaves must not keep the books from what the engine did, nor a refusal from the audit log.
    async fn run(self, proxy: &Arc<Proxy>, process: &Process) -> Result<Response<Body>, Error> {
        let (done, answered) = oneshot::channel();
        let proxy = Arc::clone(proxy);
        process.spawn("change of a container", async move {
            let answer = match proxy.answer(&self.call, &self.body).await {
                Ok(answer) => answer,
                Err(error) => refused(&proxy, &self.what, &error),
            };
            drop(self.place);
            if done.send(answer).is_err() {
                tracing::debug!("the runner left before the answer to {}", self.what);
            }
            Ok(())
        });
        let stopped = |_| Error::NotNow("the service stops".into());
        answered.await.map_err(stopped)
    }
}

async fn read_body(body: Incoming, limit_bytes: usize) -> Result<Bytes, Error> {
    let read = timeout(READ_TIME, Limited::new(body, limit_bytes).collect()).await;
    match read {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(_)) => Err(Error::Refused(format!(
            "at most {limit_bytes} bytes of body are allowed here"
        ))),
        Err(_) => Err(Error::Refused(format!(
            "the body took longer than {READ_TIME:?}"
        ))),
    }
}

fn refused(proxy: &Proxy, what: &str, error: &Error) -> Response<Body> {
    let (status, message) = (error.status(), error.to_string());
    tracing::warn!(http.status = status.as_u16(), "{what}: {message}");
    if error.is_refusal() {
        let call: String = what.chars().take(200).collect();
        let fields = json!({ "call": call, "reason": message });
        let kind = if what.ends_with("/containers/create") {
            "create.refused"
        } else {
            "docker.refused"
        };
        proxy.audit().record(kind, fields, true);
    }
    json_answer(status, &json!({ "message": message }))
}
