//! The routes. Each module translates one part of the API; nothing here decides.

mod call;
mod event;
mod health;
mod job;
mod page;
mod plugin;
mod stream;
mod upstream;

use std::time::Instant;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{MatchedPath, Request, State as Shared};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use utoipa::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::{self, scopes};
use crate::ingress::{self, Ingress};
use crate::metrics::RequestLabels;
use crate::posture;
use crate::problem::Problem;
use crate::state::State;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// How much of a body that is too large is read beyond its limit, so that its sender learns why it is refused.
const DRAINED_BYTES: usize = 8 << 20;

/// On the wire, an empty text stands for nothing.
fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Bailey",
        description = "The HTTP API of a Bailey stack. Send an API token as `Authorization: Bearer <token>`; errors are application/problem+json."
    ),
    components(schemas(Problem)),
    modifiers(&BearerToken),
    security(("token" = []))
)]
struct Api;

struct BearerToken;

impl utoipa::Modify for BearerToken {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        api.components
            .get_or_insert_default()
            .add_security_scheme("token", scheme);
    }
}

/// The routes of one way in, with the API's own description.
pub fn router(state: &State, ingress: Ingress) -> Router {
    let (router, api) = described().split_for_parts();
    let document = api
        .to_json()
        .map_err(|error| tracing::error!(%error, "the OpenAPI document cannot be written"));
    let openapi = move |Shared(state): Shared<State>, headers: http::HeaderMap| async move {
        auth::reader(&state, &headers, scopes::ANY).await?;
        let document = document.map_err(|()| {
            Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "the OpenAPI document cannot be written",
            )
        })?;
        Ok::<_, Problem>(([(header::CONTENT_TYPE, "application/json")], document))
    };
    router
        .route("/", get(page::root))
        .route("/assets/status.css", get(page::css))
        .route("/openapi.json", get(openapi))
        .fallback(async || {
            Problem::new(
                StatusCode::NOT_FOUND,
                "no-route",
                "there is no such address; /openapi.json lists them",
            )
        })
        .method_not_allowed_fallback(async || {
            Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "wrong-method",
                "this address does not take that method",
            )
        })
        .layer(axum::extract::DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(state.clone(), body))
        .layer(middleware::from_fn_with_state(
            state.clone(),
            posture::guard,
        ))
        .layer(middleware::from_fn_with_state(ingress, ingress::guard))
        .layer(middleware::from_fn_with_state(
            (state.clone(), ingress),
            log,
        ))
        .with_state(state.clone())
}

fn described() -> OpenApiRouter<State> {
    OpenApiRouter::with_openapi(Api::openapi())
        .routes(routes!(health::healthz))
        .routes(routes!(plugin::list))
        .routes(routes!(plugin::detail))
        .routes(routes!(plugin::clear))
        .routes(routes!(plugin::restart))
        .routes(routes!(call::call))
        .routes(routes!(event::emit, stream::follow))
        .routes(routes!(job::list))
        .routes(routes!(job::read))
        .routes(routes!(job::tree))
        .routes(routes!(upstream::list))
        .routes(routes!(upstream::check))
        .routes(routes!(metrics))
}

/// Figures of the gateway and of the queue, as OpenMetrics.
#[utoipa::path(get, path = "/metrics", tag = "system", responses(
    (status = 200, description = "OpenMetrics 1.0", content_type = "application/openmetrics-text", body = String),
    (status = 401, body = Problem), (status = 403, body = Problem),
))]
async fn metrics(
    Shared(state): Shared<State>,
    headers: http::HeaderMap,
) -> Result<Response, Problem> {
    auth::reader(&state, &headers, scopes::SYSTEM).await?;
    let status = state
        .query()
        .status(bailey_proto::engine::v1::StatusRequest {})
        .await;
    let status = status.map(tonic::Response::into_inner).ok();
    let text = state.metrics().text(status.as_ref()).map_err(|error| {
        tracing::error!(%error, "the metrics cannot be written");
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the metrics cannot be written",
        )
    })?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// Looks at the lock for the request, and takes its whole body within its limits, before anything else is done with it.
async fn body(
    Shared(state): Shared<State>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let (limits, view) = (state.limits(), state.view());
    let limit_bytes = usize::try_from(view.api.max_body_size_bytes).unwrap_or(usize::MAX);
    request.extensions_mut().insert(view);
    let (head, mut body) = request.into_parts();
    let announced = HttpBody::size_hint(&body).upper();
    let announced = announced.and_then(|bytes| usize::try_from(bytes).ok());
    let most = announced.unwrap_or(limit_bytes).min(limit_bytes);
    // Kept until the answer, for as long as the body lies in memory.
    let room = state.body_room(most).await?;
    let taken = Limited::new(&mut body, limit_bytes).collect();
    let taken = tokio::time::timeout(limits.body_timeout, taken)
        .await
        .map_err(|_| {
            let seconds = limits.body_timeout.as_secs();
            Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                "too-slow",
                format!("the body did not arrive within {seconds} s"),
            )
        })?;
    let bytes = match taken {
        Ok(bytes) => bytes,
        Err(error) if error.is::<LengthLimitError>() => {
            // One that is slow to write has had its time.
            let _drained = tokio::time::timeout(limits.body_timeout, drain(body)).await;
            let detail = format!("a body may have {limit_bytes} bytes at most (api.max_body_size)");
            return Err(Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too-large",
                detail,
            ));
        }
        Err(_) => return Err(Problem::bad_request("the body did not arrive whole")),
    };
    let answer = next
        .run(Request::from_parts(head, Body::from(bytes.to_bytes())))
        .await;
    drop(room);
    Ok(answer)
}

/// Reads on, and keeps nothing: whoever still writes when the connection is closed may never see the answer (RFC 9112 section 9.6).
async fn drain(mut body: Body) {
    let mut left = DRAINED_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        let size = frame.data_ref().map_or(0, axum::body::Bytes::len);
        let Some(rest) = left.checked_sub(size) else {
            return;
        };
        left = rest;
    }
}

/// One line per request, its figures, and the headers that every answer carries.
async fn log(
    Shared((state, ingress)): Shared<(State, Ingress)>,
    request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let method = method_name(request.method());
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("unknown", MatchedPath::as_str)
        .to_owned();
    let login = ingress::login(ingress, request.headers());
    let id = uuid::Uuid::now_v7().to_string();
    let mut response = next.run(request).await;
    let (status, elapsed) = (response.status(), started.elapsed());
    secure(&mut response, &id);
    state.metrics().answered(
        &RequestLabels {
            method: method.to_owned(),
            route: route.clone(),
            status: status.as_u16(),
        },
        elapsed.as_secs_f64(),
    );
    let duration_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    let by_tailnet = login.is_some();
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                request.id = id, http.method = method, http.route = route, http.status = status.as_u16(),
                duration_ms, ingress = ?ingress, tailnet_user = by_tailnet, "{method} {route} answered {status}"
            )
        };
    }
    match status.as_u16() {
        500.. => line!(error),
        400.. => line!(warn),
        _ => line!(info),
    }
    response
}

/// The method for figures and log lines: each name is a series for ever, so that clients must not be able to make new ones.
fn method_name(method: &Method) -> &'static str {
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
        .into_iter()
        .find(|known| *known == method.as_str())
        .unwrap_or("other")
}

fn secure(response: &mut Response, request_id: &str) {
    let headers = response.headers_mut();
    let fixed = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(REQUEST_ID, id);
    }
}

#[cfg(test)]
mod tests;
