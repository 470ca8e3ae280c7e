//! `/upstreams` and `/upstream/{name}/check`.

use axum::Json;
use axum::extract::{Path, State as Shared};
use bailey_proto::engine::v1 as engine;
use http::HeaderMap;
use serde::Serialize;
use utoipa::ToSchema;

use super::some;
use crate::auth::{self, scopes};
use crate::problem::Problem;
use crate::state::State;

/// The upstreams of the lock.
#[derive(Debug, Serialize, ToSchema)]
pub struct Upstreams {
    /// By name.
    pub upstreams: Vec<Upstream>,
}

/// An HTTP service beyond the stack that the stack itself calls.
#[derive(Debug, Serialize, ToSchema)]
pub struct Upstream {
    /// Its name in the configuration.
    pub name: String,
    /// Its base.
    pub url: String,
    /// The name of the secret that is its key; absent: none is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// Whom the secret must be granted to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// The header that carries the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// The address that is connected to; absent: that of the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Whether its certificate is checked against an authority of the configuration's own.
    pub own_ca: bool,
    /// The services of the stack that may call it.
    pub clients: Vec<String>,
    /// Longest time of a whole exchange, milliseconds.
    pub timeout_ms: i64,
    /// Most exchanges at once.
    pub max_concurrent: u32,
    /// Exchanges that each client may begin: `60/min`.
    pub rate: String,
    /// What a check asks for, below the base.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
}

impl From<engine::Upstream> for Upstream {
    fn from(upstream: engine::Upstream) -> Self {
        let engine::Upstream {
            name,
            url,
            secret,
            principal,
            header,
            address,
            clients,
            timeout_ms,
            max_concurrent,
            check,
            own_ca,
            rate,
        } = upstream;
        Self {
            name,
            url,
            secret: some(secret),
            principal: some(principal),
            header: some(header),
            address: some(address),
            own_ca,
            clients,
            timeout_ms,
            max_concurrent,
            rate,
            check: some(check),
        }
    }
}

/// What came of a check.
#[derive(Debug, Serialize, ToSchema)]
pub struct Checked {
    /// The upstream.
    pub upstream: String,
    /// The HTTP status that it answered; absent: it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u32>,
    /// Until the end of the answer, or of the attempt.
    pub duration_ms: i64,
    /// Whether its key was sent.
    pub key_sent: bool,
    /// The name of the secret that is its key; absent: none is configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// Bytes of the answer's body, which is read and thrown away.
    pub received_bytes: u64,
    /// Why there is no whole answer; absent: there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// The upstreams that are locked. Names of keys, never keys.
#[utoipa::path(get, path = "/upstreams", tag = "upstreams", responses(
    (status = 200, description = "All of them, by name", body = Upstreams),
    (status = 401, body = Problem), (status = 403, body = Problem), (status = 503, body = Problem),
))]
pub async fn list(
    Shared(state): Shared<State>,
    headers: HeaderMap,
) -> Result<Json<Upstreams>, Problem> {
    auth::reader(&state, &headers, scopes::SYSTEM).await?;
    let request = engine::ListUpstreamsRequest {};
    let listed = state.upstreams().list_upstreams(request).await?;
    let upstreams = listed.into_inner().upstreams;
    Ok(Json(Upstreams {
        upstreams: upstreams.into_iter().map(Upstream::from).collect(),
    }))
}

/// Asks an upstream as the stack would, with its key, and says what came of it. What the upstream answers beside its status is nobody's to see.
#[utoipa::path(post, path = "/upstream/{name}/check", tag = "upstreams", params(("name" = String, Path, description = "Its name")), responses(
    (status = 200, description = "It was asked; `status` or `failure` say what came of it", body = Checked),
    (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem),
    (status = 404, description = "No such upstream is locked", body = Problem),
    (status = 429, description = "It was checked too often; `Retry-After` says for how long to wait", body = Problem), (status = 503, body = Problem),
))]
pub async fn check(
    Shared(state): Shared<State>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Checked>, Problem> {
    let origin = auth::checker(&state, &headers, &name).await?;
    let request = engine::CheckUpstreamRequest {
        name: name.clone(),
        origin: Some(origin),
    };
    let checked = state.upstreams().check_upstream(request).await?;
    let engine::CheckUpstreamResponse {
        status,
        duration_ms,
        key_sent,
        received_bytes,
        failure,
        secret,
    } = checked.into_inner();
    Ok(Json(Checked {
        upstream: name,
        status: (status != 0).then_some(status),
        duration_ms,
        key_sent,
        secret: some(secret),
        received_bytes,
        failure: some(failure),
    }))
}
