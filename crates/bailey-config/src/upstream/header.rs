//! Which headers of a request are whose: the transport's, the key's, the configuration's, the caller's.

use http::{HeaderName, HeaderValue};

/// Longest name.
const MAX_NAME: usize = 64;
/// Longest value that a configuration sets.
const MAX_VALUE: usize = 1024;

/// Headers that belong to a connection or to how a message is framed (RFC 9110, section 7.6.1), and what would change what comes back: another
/// encoding than the plain one could not be searched for the key.
const OF_THE_TRANSPORT: [&str; 13] = [
    "accept-encoding",
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "proxy-connection",
    "proxy-authorization",
];

/// Names that begin so make some servers take another path, method or host than those of the request.
const LEAD_ELSEWHERE: [&str; 10] = [
    "x-envoy-",
    "x-forwarded",
    "x-host",
    "x-http-",
    "x-method",
    "x-original-",
    "x-override-",
    "x-proxy-",
    "x-rewrite-",
    "x-url",
];
const ELSEWHERE: &str = "is not sent: some servers would take another path, method or host from it";

/// What makes an answer come in parts, or spelled so that a key in it would not be found.
const CUT_UP: [&str; 3] = ["accept-charset", "if-range", "range"];

/// Names that end so carry what lets somebody in.
const OF_SECRETS: [&str; 6] = [
    "api-key",
    "apikey",
    "authorization",
    "cookie",
    "secret",
    "token",
];

/// Whether egress-proxy alone decides about it, so that neither configuration nor caller may set it.
pub fn is_of_the_transport(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("proxy-") || OF_THE_TRANSPORT.contains(&name)
}

/// Why a caller may not send it, whatever the upstream, if it may not.
pub fn problem(name: &HeaderName) -> Option<&'static str> {
    if is_of_the_transport(name) {
        return Some("is set by egress-proxy alone");
    }
    match name.as_str() {
        // CGI and what came after it make one name of `x_key` and `x-key`.
        name if name.contains('_') => Some(
            "is not sent: some servers take a name with `_` for the one with `-`, which has rules of its own",
        ),
        "authorization" => Some("comes from the vault alone: say secret_ref in the upstream"),
        "cookie" | "cookie2" => Some("is not sent: nobody here keeps cookies"),
        "forwarded" => Some(ELSEWHERE),
        name if LEAD_ELSEWHERE.iter().any(|start| name.starts_with(start)) => Some(ELSEWHERE),
        _ => None,
    }
}

/// Whether it could make an answer come so that a key in it is not found.
pub fn cuts_up(name: &HeaderName) -> bool {
    CUT_UP.contains(&name.as_str())
}

/// Whether some servers take `one` for `other`.
pub fn is_alike(one: &str, other: &str) -> bool {
    let folded = |name: &str| name.replace('_', "-");
    folded(one) == folded(other)
}

/// The header that carries a key.
pub(crate) fn for_key(name: &str) -> Result<HeaderName, String> {
    let name = parse(name)?;
    if is_of_the_transport(&name) || ["cookie", "cookie2"].contains(&name.as_str()) {
        return Err(format!("{name} cannot carry a key"));
    }
    Ok(name)
}

/// A header that a configuration sets.
pub(crate) fn fixed(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let name = parse(name)?;
    if is_of_the_transport(&name) {
        return Err(format!("{name} is set by egress-proxy alone"));
    }
    if OF_SECRETS.iter().any(|end| name.as_str().ends_with(end)) {
        return Err(format!(
            "{name} carries a secret, which belongs into the vault: say secret_ref, and `header: {name}`"
        ));
    }
    let printable = value.bytes().all(|b| (0x20..0x7f).contains(&b));
    if value.len() > MAX_VALUE || value.trim() != value || !printable {
        return Err(format!(
            "the value of {name} must be printable ASCII, {MAX_VALUE} bytes at most, without spaces around it"
        ));
    }
    let value = HeaderValue::from_str(value).map_err(|e| format!("the value of {name}: {e}"))?;
    Ok((name, value))
}

fn parse(name: &str) -> Result<HeaderName, String> {
    let parsed = HeaderName::from_bytes(name.as_bytes());
    parsed
        .ok()
        .filter(|name| name.as_str().len() <= MAX_NAME)
        .ok_or_else(|| {
            let name: String = name.chars().take(MAX_NAME).collect();
            format!("{name:?} is not the name of a header, {MAX_NAME} bytes at most")
        })
}
