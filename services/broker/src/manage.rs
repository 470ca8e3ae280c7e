//! The management socket: who may connect, and who may command.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{self, Poll};
use std::time::Duration;

use anyhow::Context as _;
use bailey_error::status;
use bailey_service::Context;
use futures::future::{Either, Ready, ready};
use serde_json::json;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::Status;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::UdsConnectInfo;
use tower::{Layer, Service};

use crate::limiter::Limiter;
use crate::state::State;
use crate::token::{self, Bearer};

/// The methods that need no admin token: before there is a vault there is none, while it is sealed none can be checked, and how the broker is
/// may be asked by the CLI at any time.
const OPEN: [&str; 4] = [
    "/bailey.management.v1.PkiService/PkiStatus",
    "/bailey.management.v1.CustodyService/Unseal",
    "/bailey.management.v1.VaultService/Init",
    "/bailey.management.v1.VaultService/Status",
];

/// Binds the socket. One that an earlier life left is replaced; anything else in its place is an error.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path)?,
        Ok(_) => return Err(io::Error::other("there is something that is not a socket")),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let listener = UnixListener::bind(path)?;
    // Whoever reaches the volume may connect: who is served is decided by the peer's uid, which no mode bit can express.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// Serves the socket until the service stops.
pub async fn serve(
    ctx: Context,
    listener: UnixListener,
    gate: Gate,
    routes: Routes,
) -> anyhow::Result<()> {
    let incoming = UnixListenerStream::new(listener);
    let served = Server::builder()
        .concurrency_limit_per_connection(8)
        .timeout(Duration::from_secs(30))
        .layer(gate)
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, ctx.shutdown.clone().cancelled_owned());
    served.await.context("serving the management socket")
}

/// Lets through whom the kernel says is the CLI and who knows the admin token.
#[derive(Clone)]
pub struct Gate {
    state: Arc<State>,
    uid: u32,
    failures: Arc<Mutex<Limiter>>,
}

impl Gate {
    /// A gate for the CLI that runs as `uid`.
    pub fn new(state: Arc<State>, uid: u32) -> Self {
        let failures = Limiter::new(10, Duration::from_secs(12));
        Self {
            state,
            uid,
            failures: Arc::new(Mutex::new(failures)),
        }
    }

    fn check<B>(&self, request: &http::Request<B>) -> Result<(), Status> {
        let info = request.extensions().get::<UdsConnectInfo>();
        let uid = info.and_then(|info| info.peer_cred).map(|peer| peer.uid());
        let method = request.uri().path();
        if uid != Some(self.uid) {
            self.refused(method, uid, "wrong_uid");
            return Err(Status::permission_denied(
                "this socket is for the `cli` container only",
            ));
        }
        if OPEN.contains(&method) {
            return Ok(());
        }
        let document = self.state.vault.document().map_err(|e| status(&e))?;
        let now = self.state.clock.now();
        if !self.failures().has_room(now) {
            return Err(Status::resource_exhausted(
                "too many wrong admin tokens; wait a minute",
            ));
        }
        let bearer = bearer(request);
        let given = bearer.is_some();
        if bearer.is_some_and(|bearer| token::is_admin(&document, &bearer)) {
            return Ok(());
        }
        self.failures().take(now);
        self.refused(method, uid, "wrong_token");
        // Whoever gave one learns no more than that it is wrong.
        Err(Status::unauthenticated(if given {
            "this needs the vault's admin token, and the one that was given is another (of an earlier or later vault?): `bailey vault rotate-admin-token`, with the broker stopped, makes a new one"
        } else {
            "this needs the vault's admin token"
        }))
    }

    fn failures(&self) -> MutexGuard<'_, Limiter> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refused(&self, method: &str, uid: Option<u32>, reason: &str) {
        tracing::warn!(
            rpc.method = method,
            caller.uid = uid,
            "refused management: {reason}"
        );
        let fields = json!({ "method": method, "uid": uid, "reason": reason });
        self.state.records.refusal("manage.refused", &fields);
    }
}

fn bearer<B>(request: &http::Request<B>) -> Option<Bearer> {
    let text = request
        .headers()
        .get(http::header::AUTHORIZATION)?
        .to_str()
        .ok()?;
    let token = text.strip_prefix("Bearer ")?;
    (token.len() <= Bearer::LIMIT_BYTES).then(|| Bearer::from(token.to_owned()))
}

impl<S> Layer<S> for Gate {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded {
            gate: self.clone(),
            inner,
        }
    }
}

/// A service behind the gate.
#[derive(Clone)]
pub struct Guarded<S> {
    gate: Gate,
    inner: S,
}

impl<S, B, A> Service<http::Request<B>> for Guarded<S>
where
    S: Service<http::Request<B>, Response = http::Response<A>>,
    A: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        match self.gate.check(&request) {
            Ok(()) => Either::Left(self.inner.call(request)),
            Err(status) => Either::Right(ready(Ok(status.into_http()))),
        }
    }
}
