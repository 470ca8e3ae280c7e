//! Errors as clients see them: `application/problem+json` (RFC 9457), with the member `error` that Ductile's clients read.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

/// What went wrong, in one object.
#[derive(Debug, Serialize, ToSchema)]
pub struct Problem {
    /// `/problems/<token>`: a stable name of the kind of problem.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind of problem in words.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What to do about it.
    pub detail: String,
    /// The same as `detail`, under the name that Ductile's clients read.
    pub error: String,
    /// After how many seconds to try again, where that is known.
    #[serde(skip)]
    pub retry_after: Option<u64>,
}

impl Problem {
    /// A problem of the given status; `token` names its kind.
    pub fn new(status: StatusCode, token: &str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        let title = status.canonical_reason().unwrap_or("Error");
        Self {
            kind: format!("/problems/{token}"),
            title,
            status: status.as_u16(),
            error: detail.clone(),
            detail,
            retry_after: None,
        }
    }

    /// 400.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", detail)
    }
}

impl From<tonic::Status> for Problem {
    fn from(status: tonic::Status) -> Self {
        use tonic::Code;
        let (http, token) = match status.code() {
            Code::InvalidArgument | Code::OutOfRange => (StatusCode::BAD_REQUEST, "bad-request"),
            Code::Unauthenticated => (StatusCode::UNAUTHORIZED, "unknown-token"),
            Code::PermissionDenied => (StatusCode::FORBIDDEN, "forbidden"),
            Code::NotFound => (StatusCode::NOT_FOUND, "not-found"),
            Code::AlreadyExists | Code::Aborted => (StatusCode::CONFLICT, "conflict"),
            Code::FailedPrecondition => (StatusCode::CONFLICT, "not-possible-now"),
            Code::ResourceExhausted => (StatusCode::TOO_MANY_REQUESTS, "too-much"),
            Code::Unavailable | Code::Cancelled => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            Code::DeadlineExceeded => (StatusCode::GATEWAY_TIMEOUT, "too-slow"),
            Code::Ok | Code::Unknown | Code::Unimplemented | Code::Internal | Code::DataLoss => {
                (StatusCode::INTERNAL_SERVER_ERROR, "internal")
            }
        };
        if http == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(
                error = status.message(),
                "a service answered with an internal error"
            );
            return Self::new(
                http,
                token,
                "something failed inside; the log of the gateway says what",
            );
        }
        if http == StatusCode::SERVICE_UNAVAILABLE {
            // The transport's own words ("tcp connect error") name no service and help nobody.
            tracing::warn!(error = status.message(), "a service is away");
            return Self::new(
                http,
                token,
                "a part of the stack is not answering; see /healthz, and try again",
            );
        }
        let after = status.metadata().get("retry-after");
        Self {
            retry_after: after.and_then(|after| after.to_str().ok()?.parse().ok()),
            ..Self::new(http, token, status.message())
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(&self)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"bailey\""),
            );
        }
        response
    }
}
