//! What a client asks for, checked against the rules and the upstream.

use bailey_config::Upstream;
use bailey_config::upstream::{header, path};
use bailey_proto::egress::v1::{Header, RequestHead};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use super::failure::Why;

/// Headers of a request, and their bytes.
const MAX_HEADERS: usize = 64;
const HEADERS_LIMIT_BYTES: usize = 16 << 10;
/// Bytes of a request's body.
pub(crate) const BODY_LIMIT_BYTES: u64 = 16 << 20;

/// A request for an upstream, before its key.
pub(crate) struct Asked {
    pub(crate) method: Method,
    /// Absolute; its path is below the base.
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    /// Length of the body, where the client knows it.
    pub(crate) body_bytes: Option<u64>,
}

impl Asked {
    /// Checks `head` for `upstream`.
    pub(crate) fn parse(head: &RequestHead, upstream: &Upstream) -> Result<Self, Why> {
        let asked = |text: String| Why::Asked(text);
        let method = method(&head.method).ok_or_else(|| {
            asked("the method must be GET, HEAD, POST, PUT, PATCH or DELETE".to_owned())
        })?;
        if let Some(wrong) = path::problem(&head.path) {
            return Err(asked(wrong.to_owned()));
        }
        let url = &upstream.url;
        let scheme = if url.tls() { "https" } else { "http" };
        let uri = Uri::builder()
            .scheme(scheme)
            .authority(url.authority())
            .path_and_query(url.target(&head.path));
        let uri = uri.build().map_err(|e| asked(format!("the path: {e}")))?;
        let body_bytes = if is_without_body(&method) {
            if head.body_bytes.is_some_and(|bytes| bytes > 0) {
                return Err(asked(format!("{method} has no body")));
            }
            Some(0)
        } else {
            head.body_bytes
        };
        if body_bytes.is_some_and(|bytes| bytes > BODY_LIMIT_BYTES) {
            return Err(asked("the body is longer than 16 MiB".to_owned()));
        }
        Ok(Self {
            method,
            uri,
            headers: headers(&head.headers, upstream).map_err(asked)?,
            body_bytes,
        })
    }
}

fn method(text: &str) -> Option<Method> {
    let methods = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
    ];
    methods.into_iter().find(|method| method.as_str() == text)
}

fn is_without_body(method: &Method) -> bool {
    [Method::GET, Method::HEAD].contains(method)
}

/// The client's headers with those of the configuration, none of which the client may set.
fn headers(given: &[Header], upstream: &Upstream) -> Result<HeaderMap, String> {
    let bytes: usize = given.iter().map(|h| h.name.len() + h.value.len()).sum();
    if given.len() > MAX_HEADERS || bytes > HEADERS_LIMIT_BYTES {
        return Err(format!(
            "there are more than {MAX_HEADERS} headers, or more than 16 KiB of them"
        ));
    }
    let mut headers = HeaderMap::new();
    for Header { name, value } in given {
        let parsed = HeaderName::from_bytes(name.as_bytes());
        let name = parsed.map_err(|_| {
            let name: String = name.chars().take(64).collect();
            format!("{name:?} is not the name of a header")
        })?;
        let shown: String = name.as_str().chars().take(64).collect();
        if let Some(wrong) = header::problem(&name) {
            return Err(format!("the header {shown} {wrong}"));
        }
        if let Some(key) = &upstream.key {
            if header::is_alike(key.header.as_str(), name.as_str()) {
                return Err(format!(
                    "the header {shown} carries the key, which is not the client's"
                ));
            }
            if header::cuts_up(&name) {
                return Err(format!(
                    "the header {name} is not sent with a key: in a part of an answer, or in other characters, it could not be found"
                ));
            }
        }
        let mut configured = upstream.headers.keys();
        if configured.any(|own| header::is_alike(own, name.as_str())) {
            return Err(format!("the header {name} is set by the configuration"));
        }
        let value = HeaderValue::from_bytes(value);
        let value =
            value.map_err(|_| format!("the value of the header {shown} has control characters"))?;
        headers.append(name, value);
    }
    for (name, value) in &upstream.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|e| e.to_string())?;
        headers.insert(name, value.clone());
    }
    let plain = HeaderValue::from_static("identity");
    headers.insert(http::header::ACCEPT_ENCODING, plain);
    Ok(headers)
}

#[cfg(test)]
mod tests;
