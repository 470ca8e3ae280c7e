//! What stands before every method: the caller table.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bailey_types::Service;
use futures::future::BoxFuture;
use tonic::body::Body;

use crate::callers;
use crate::stream::{Remote, RemoteAddress};
use crate::verify::Peer;

/// Who calls, by its certificate. Only this crate makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller(Peer);

impl Caller {
    pub(crate) fn new(peer: Peer) -> Self {
        Self(peer)
    }

    /// The calling service.
    pub fn service(self) -> Service {
        self.0.service
    }

    /// What the certificate says that this connection was opened with.
    pub fn peer(self) -> Peer {
        self.0
    }

    /// Who calls this request. On the mesh every request has a caller; the error is for a handler that is served elsewhere.
    pub fn of<T>(request: &tonic::Request<T>) -> Result<Self, tonic::Status> {
        let caller = request.extensions().get::<Self>().copied();
        caller.ok_or_else(|| tonic::Status::unauthenticated("the caller has no certificate"))
    }
}

/// Something that was refused before it reached a handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A connection with a certificate that is none of ours, or with none at all, or one more than its caller may have.
    Connection {
        /// What TLS said.
        reason: String,
    },
    /// A method that the caller may not call.
    Method {
        /// The caller; nobody on the enrolment listener.
        caller: Option<Service>,
        /// The path as it was asked for, cut to 200 bytes.
        method: String,
    },
}

pub(crate) type Hook = Arc<dyn Fn(Refusal) + Send + Sync>;

#[derive(Clone)]
pub(crate) struct GateLayer {
    pub(crate) hook: Hook,
}

impl<S> tower::Layer<S> for GateLayer {
    type Service = Gate<S>;

    fn layer(&self, inner: S) -> Gate<S> {
        Gate {
            inner,
            hook: Arc::clone(&self.hook),
        }
    }
}

#[derive(Clone)]
pub(crate) struct Gate<S> {
    inner: S,
    hook: Hook,
}

impl<S> tower::Service<http::Request<Body>> for Gate<S>
where
    S: tower::Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let remote = request.extensions().get::<Remote>().copied();
        let caller = remote.and_then(|remote| remote.caller);
        let service = caller.map(Caller::service);
        let method = request.uri().path();
        if remote.is_none() || !callers::of(method).admit(service) {
            let method: String = method.chars().take(200).collect();
            let refusal = self.refuse(service, method);
            return Box::pin(async { Ok(refusal) });
        }
        let method = method.to_owned();
        // Whoever stands behind the gate finds the caller here, and cannot find another one.
        request.extensions_mut().remove::<Caller>();
        caller.and_then(|caller| request.extensions_mut().insert(caller));
        remote.and_then(|remote| {
            request
                .extensions_mut()
                .insert(RemoteAddress(remote.address))
        });
        let (started, answering) = (Instant::now(), self.inner.call(request));
        Box::pin(async move {
            let answered = answering.await;
            if let Ok(response) = &answered {
                log(response, &method, service, started);
            }
            answered
        })
    }
}

impl<S> Gate<S> {
    fn refuse(&self, caller: Option<Service>, method: String) -> http::Response<Body> {
        let who = caller.map_or("nobody", Service::name);
        tracing::warn!(
            caller.id = who,
            rpc.method = method,
            "refused {who} the method {method}"
        );
        let status = tonic::Status::permission_denied(format!("{who} may not call {method}"));
        (self.hook)(Refusal::Method { caller, method });
        status.into_http()
    }
}

fn log(response: &http::Response<Body>, method: &str, caller: Option<Service>, started: Instant) {
    let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let who = caller.map_or("nobody", Service::name);
    // Only an answer without a message has its code here; what fails in the middle of a stream is its handler's to log.
    let code = response
        .headers()
        .get("grpc-status")
        .and_then(|code| code.to_str().ok())
        .unwrap_or("0");
    if code == "0" {
        tracing::debug!(
            caller.id = who,
            rpc.method = method,
            duration_ms,
            "answered {method}"
        );
    } else {
        tracing::info!(
            caller.id = who,
            rpc.method = method,
            rpc.code = code,
            duration_ms,
            "answered {method} with code {code}"
        );
    }
}
