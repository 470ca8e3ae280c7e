//! The HTTP proxy: `CONNECT`, and plain HTTP in absolute form (RFC 9110 section 9.3.6, RFC 9112 section 3.2).

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bailey_lease::{Kind, Refusal};
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1 as client;
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::way::{self, Way};

const HEAD_LIMIT_BYTES: usize = 16 << 10;
const MAX_HEADERS: usize = 100;
/// How long a head may take.
const HEAD_TIME: Duration = Duration::from_secs(30);

/// Headers that are between two neighbours and go no further (RFC 9110, section 7.6.1), beside those that `Connection` names.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-authenticate"),
    HeaderName::from_static("proxy-authorization"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("te"),
    HeaderName::from_static("trailer"),
    TRANSFER_ENCODING,
    UPGRADE,
];

type Body = BoxBody<Bytes, hyper::Error>;

/// What goes on beside the conversation with the client: its tunnel, its servers. Ends with it.
type Beside = Arc<Mutex<JoinSet<()>>>;

/// Serves one client.
pub(crate) async fn serve(stream: TcpStream, way: Arc<Way>) {
    let beside = Beside::default();
    let service = {
        let beside = Arc::clone(&beside);
        service_fn(move |request| {
            let (way, beside) = (Arc::clone(&way), Arc::clone(&beside));
            async move { Ok::<_, Infallible>(answer(request, &way, &beside).await) }
        })
    };
    let conversation = server::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_headers(MAX_HEADERS)
        .max_buf_size(HEAD_LIMIT_BYTES)
        .preserve_header_case(true)
        .auto_date_header(false)
        // A client may end its side before it has its answer.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    // A client that breaks off, or speaks something else, is simply gone.
    drop(conversation.await);
    let rest = std::mem::take(&mut *beside.lock().unwrap_or_else(PoisonError::into_inner));
    rest.join_all().await;
}

/// Does `task` beside the conversation.
fn start(beside: &Beside, task: impl Future<Output = ()> + Send + 'static) {
    let mut tasks = beside.lock().unwrap_or_else(PoisonError::into_inner);
    while tasks.try_join_next().is_some() {}
    tasks.spawn(task);
}

async fn answer(request: Request<Incoming>, way: &Way, beside: &Beside) -> Response<Body> {
    let answered = if request.method() == Method::CONNECT {
        connect(request, way, beside).await
    } else {
        forward(request, way, beside).await
    };
    answered.unwrap_or_else(|(status, reason)| {
        let text = Full::new(Bytes::from(format!("bailey: {reason}\n")));
        let mut answer = Response::new(text.map_err(|never| match never {}).boxed());
        *answer.status_mut() = status;
        let kind = HeaderValue::from_static("text/plain; charset=utf-8");
        answer.headers_mut().insert(CONTENT_TYPE, kind);
        answer
    })
}

type Problem = (StatusCode, String);

async fn connect(
    mut request: Request<Incoming>,
    way: &Way,
    beside: &Beside,
) -> Result<Response<Body>, Problem> {
    let authority = request.uri().authority();
    let target = authority.and_then(|a| Some((a.host().to_owned(), a.port_u16()?)));
    let (host, port) = target.ok_or_else(|| bad("CONNECT needs host:port"))?;
    let mut server = way.open(host, port).await.map_err(problem)?;
    let upgrade = hyper::upgrade::on(&mut request);
    start(beside, async move {
        if let Ok(client) = upgrade.await {
            way::join(&mut TokioIo::new(client), &mut server).await;
        }
    });
    Ok(Response::new(
        Empty::new().map_err(|never| match never {}).boxed(),
    ))
}

async fn forward(
    request: Request<Incoming>,
    way: &Way,
    beside: &Beside,
) -> Result<Response<Body>, Problem> {
    let (mut head, body) = request.into_parts();
    let authority = head.uri.authority().cloned();
    let (Some(authority), Some(true)) = (authority, head.uri.scheme().map(|s| *s == Scheme::HTTP))
    else {
        return Err(bad("this is a proxy: http:// in absolute form, or CONNECT"));
    };
    let port = authority.port_u16().unwrap_or(80);
    let stream = way.open(authority.host().to_owned(), port).await;
    let stream = stream.map_err(problem)?;
    head.uri = origin_form(&head.uri);
    strip(&mut head.headers);
    // A request's Host must not name somebody else than its target does (RFC 9112, section 3.2.2).
    head.headers.insert(HOST, host_header(&authority)?);
    let unreachable = |e: hyper::Error| {
        let reason = format!("{}: {e}", authority.host());
        (StatusCode::BAD_GATEWAY, reason)
    };
    let (mut sender, connection) = client::Builder::new()
        .max_buf_size(HEAD_LIMIT_BYTES)
        .preserve_header_case(true)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(unreachable)?;
    start(beside, async move {
        // Its error is that of the response.
        drop(connection.await);
    });
    let request = Request::from_parts(head, body);
    let response = sender.send_request(request).await.map_err(unreachable)?;
    let (mut head, body) = response.into_parts();
    strip(&mut head.headers);
    Ok(Response::from_parts(head, body.boxed()))
}

fn origin_form(uri: &Uri) -> Uri {
    let path = uri.path_and_query().cloned();
    Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")))
}

fn host_header(authority: &Authority) -> Result<HeaderValue, Problem> {
    let text = authority.as_str();
    let text = text.rsplit_once('@').map_or(text, |(_, host)| host);
    HeaderValue::from_str(text).map_err(|_| bad("the host is no text"))
}

fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

fn bad(reason: &str) -> Problem {
    (StatusCode::BAD_REQUEST, reason.to_owned())
}

fn problem(refusal: Refusal) -> Problem {
    let status = match refusal.kind {
        Kind::NotAllowed => StatusCode::FORBIDDEN,
        Kind::Limit => StatusCode::TOO_MANY_REQUESTS,
        Kind::NoLease | Kind::Unresolved | Kind::Unreachable => StatusCode::BAD_GATEWAY,
    };
    (status, refusal.reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_between_neighbours_goes_no_further() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, x-mine"),
            ("x-mine", "1"),
            ("proxy-authorization", "Basic c2VjcmV0"),
            ("proxy-connection", "keep-alive"),
            ("transfer-encoding", "chunked"),
            ("accept", "*/*"),
            ("content-length", "3"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        strip(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "content-length"]);
    }

    #[test]
    fn a_password_in_the_target_is_not_passed_on() {
        let authority = Authority::from_static("me:secret@example.com:8080");
        assert_eq!(host_header(&authority).unwrap(), "example.com:8080");
        assert_eq!(authority.host(), "example.com");
        let uri = Uri::from_static("http://me:secret@example.com/a?b=c");
        assert_eq!(origin_form(&uri), Uri::from_static("/a?b=c"));
        assert_eq!(
            origin_form(&Uri::from_static("http://example.com")),
            Uri::from_static("/")
        );
    }
}
