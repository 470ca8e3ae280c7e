//! Which way a request came in, and what that way may carry.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderName, StatusCode, header};

use crate::problem::Problem;

/// The way a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ingress {
    /// Through `tailscale serve` in the sidecar, which sets the identity headers and deletes a client's own (reference: tailscale 2.3).
    Tailnet,
    /// Through `ingress-local`, on the loopback address of the host.
    Local,
}

/// Headers that only the sidecar may set.
const TAILSCALE_PREFIX: &str = "tailscale-";
const FUNNEL: HeaderName = HeaderName::from_static("tailscale-funnel-request");
const LOGIN: HeaderName = HeaderName::from_static("tailscale-user-login");

/// Hosts under which the loopback listener may be addressed; anything else is a DNS rebinding attempt.
const LOCAL_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// Refuses what must not come in this way; removes what this way may not say.
pub async fn guard(State(ingress): State<Ingress>, mut request: Request, next: Next) -> Response {
    let refused = match ingress {
        Ingress::Tailnet => refuse_tailnet(request.headers()),
        Ingress::Local => {
            drop_tailscale_headers(request.headers_mut());
            let authority = request.uri().authority().map(|a| a.as_str().to_owned());
            refuse_local(authority.as_deref(), request.headers())
        }
    };
    match refused {
        Some(problem) => {
            tracing::warn!(problem = %problem.detail, "a request was refused at the door");
            problem.into_response()
        }
        None => next.run(request).await,
    }
}

fn refuse_tailnet(headers: &HeaderMap) -> Option<Problem> {
    let forbid = |token, detail: &str| Some(Problem::new(StatusCode::FORBIDDEN, token, detail));
    if headers.contains_key(FUNNEL) {
        return forbid(
            "funnel",
            "requests from the public internet (Tailscale Funnel) are not served; switch Funnel off",
        );
    }
    // The sidecar sets it for every device that a person owns, and for no other.
    if headers.get(LOGIN).is_none_or(http::HeaderValue::is_empty) {
        return forbid(
            "no-tailnet-user",
            "only devices of a tailnet user are served; tagged devices are not",
        );
    }
    None
}

fn refuse_local(authority: Option<&str>, headers: &HeaderMap) -> Option<Problem> {
    let host = authority.or_else(|| {
        headers
            .get(header::HOST)
            .and_then(|value| value.to_str().ok())
    });
    let name = host.map(|host| match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    });
    let known = name.is_some_and(|name| {
        LOCAL_HOSTS
            .iter()
            .any(|local| local.eq_ignore_ascii_case(name))
    });
    let detail = "this address is served as localhost or 127.0.0.1 only";
    (!known).then(|| Problem::new(StatusCode::MISDIRECTED_REQUEST, "wrong-host", detail))
}

fn drop_tailscale_headers(headers: &mut HeaderMap) {
    let forged: Vec<_> = headers
        .keys()
        .filter(|name| name.as_str().starts_with(TAILSCALE_PREFIX))
        .cloned()
        .collect();
    for name in forged {
        headers.remove(name);
    }
}

/// The tailnet login of the request's device, where the way in vouches for it.
pub fn login(ingress: Ingress, headers: &HeaderMap) -> Option<Arc<str>> {
    match ingress {
        Ingress::Tailnet => headers
            .get(LOGIN)
            .and_then(|value| value.to_str().ok())
            .map(Into::into),
        Ingress::Local => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(n, v)| (HeaderName::from_static(n), v.parse().unwrap()))
            .collect()
    }

    #[test]
    fn a_tailnet_user_passes_and_funnel_or_nobody_does_not() {
        assert!(
            refuse_tailnet(&headers(&[("tailscale-user-login", "alice@example.com")])).is_none()
        );
        assert!(refuse_tailnet(&headers(&[])).is_some());
        assert!(refuse_tailnet(&headers(&[("tailscale-user-login", "")])).is_some());
        let funnel = [
            ("tailscale-user-login", "alice@example.com"),
            ("tailscale-funnel-request", "?1"),
        ];
        assert!(refuse_tailnet(&headers(&funnel)).is_some());
    }

    #[test]
    fn loopback_answers_to_its_own_names_only() {
        for host in [
            "localhost",
            "localhost:8443",
            "127.0.0.1:8443",
            "[::1]:8443",
            "LOCALHOST:1",
        ] {
            assert!(refuse_local(Some(host), &headers(&[])).is_none(), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "evil.example:8443",
            "localhost:x",
            "",
        ] {
            assert!(refuse_local(Some(host), &headers(&[])).is_some(), "{host}");
        }
        assert!(refuse_local(None, &headers(&[])).is_some());
    }

    #[test]
    fn loopback_forgets_forged_identity_headers() {
        let mut forged = headers(&[
            ("tailscale-user-login", "alice@example.com"),
            ("accept", "*/*"),
        ]);
        drop_tailscale_headers(&mut forged);
        assert_eq!(forged.len(), 1);
        assert_eq!(
            login(Ingress::Local, &headers(&[("tailscale-user-login", "a@b")])),
            None
        );
    }
}
