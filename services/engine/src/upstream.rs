//! HTTP exchanges with upstreams, by way of egress-proxy: the key and the TLS to the host are its own, and the engine has neither.

use std::iter;
use std::time::{Duration, Instant};

use bailey_error::{Classify, Kind};
use bailey_mesh::MeshChannel;
use bailey_proto::egress::v1 as wire;
use bailey_proto::egress::v1::upstream_service_client::UpstreamServiceClient;
use bailey_proto::egress::v1::{exchange_request, exchange_response};
use bailey_proto::trust::v1::Signed;
use bailey_trust::LockSourceError;
use bailey_types::{SecretName, UpstreamName};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use tonic::{Code, Status, Streaming};

use crate::state::State;

/// Body in one message, bytes.
const PIECE_BYTES: usize = 64 << 10;
/// Body of a request, and of an answer: egress-proxy has the same limits.
const REQUEST_BYTES: usize = 16 << 20;
const ANSWER_BYTES: u64 = 64 << 20;

/// What is sent to an upstream.
#[derive(Clone, Debug)]
pub struct Sent<'a> {
    /// Its name in the lock.
    pub upstream: &'a UpstreamName,
    /// The method.
    pub method: Method,
    /// The path below its base, with the query; empty: the base itself.
    pub path: &'a str,
    /// The headers, without those that the key, the configuration and the connection have.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// Who asked for it, where it is a check.
    pub origin: Option<Signed>,
}

/// What an upstream answers: the head, and a body that comes piece by piece.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers. A key that stood in one is not there any more.
    pub headers: HeaderMap,
    /// Whether a key was sent.
    pub key_sent: bool,
    messages: Streaming<wire::ExchangeResponse>,
    received_bytes: u64,
}

/// Why there is no whole answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// egress-proxy says so, or cannot be reached.
    #[error("{}", told(.0))]
    NotExchanged(Box<Status>),
    /// More than a request may have.
    #[error("the request has {0} bytes; {REQUEST_BYTES} are allowed")]
    RequestTooLarge(usize),
    /// More than an answer may have.
    #[error("the answer has more than {ANSWER_BYTES} bytes")]
    AnswerTooLarge,
    /// Not what egress-proxy answers.
    #[error("egress-proxy's answer cannot be understood")]
    Malformed,
}

impl Classify for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::NotExchanged(status) => Kind::of(status.code()),
            Self::RequestTooLarge(_) => Kind::InvalidArgument,
            Self::AnswerTooLarge => Kind::FailedPrecondition,
            Self::Malformed => Kind::Internal,
        }
    }
}

/// What egress-proxy says to its callers is for the operator; "internal error" tells nobody where to look.
fn told(status: &Status) -> &str {
    if Kind::of(status.code()) == Kind::Internal {
        "egress-proxy failed; its log says why"
    } else {
        status.message()
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self::NotExchanged(Box::new(status))
    }
}

/// Calls upstreams. Cheap to clone.
#[derive(Clone)]
pub struct Client(UpstreamServiceClient<MeshChannel>);

impl Client {
    /// Over this channel to egress-proxy.
    pub fn new(channel: MeshChannel) -> Self {
        Self(UpstreamServiceClient::new(channel))
    }

    /// Sends a request and waits for the head of the answer. Dropping the answer ends the exchange.
    pub async fn exchange(&self, sent: Sent<'_>) -> Result<Answer, Error> {
        if sent.body.len() > REQUEST_BYTES {
            return Err(Error::RequestTooLarge(sent.body.len()));
        }
        let messages = futures::stream::iter(messages(sent)?);
        let mut messages = self.0.clone().exchange(messages).await?.into_inner();
        let part = messages.message().await?.and_then(|message| message.part);
        let Some(exchange_response::Part::Head(head)) = part else {
            return Err(Error::Malformed);
        };
        let status = u16::try_from(head.status).ok();
        let status = status.and_then(|status| StatusCode::from_u16(status).ok());
        Ok(Answer {
            status: status.ok_or(Error::Malformed)?,
            headers: headers(head.headers)?,
            key_sent: head.key_sent,
            messages,
            received_bytes: 0,
        })
    }
}

impl Answer {
    /// The next piece of the body; `None` once all of it is there.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, Error> {
        let Some(message) = self.messages.message().await? else {
            return Ok(None);
        };
        let Some(exchange_response::Part::Body(piece)) = message.part else {
            return Err(Error::Malformed);
        };
        self.received_bytes += u64::try_from(piece.len()).unwrap_or(u64::MAX);
        if self.received_bytes > ANSWER_BYTES {
            return Err(Error::AnswerTooLarge);
        }
        Ok(Some(piece))
    }
}

/// The head, then the body in pieces, each cut when its turn comes.
fn messages(sent: Sent<'_>) -> Result<impl Iterator<Item = wire::ExchangeRequest> + use<>, Error> {
    let header = |(name, value): (&HeaderName, &HeaderValue)| wire::Header {
        name: name.as_str().to_owned(),
        value: Bytes::copy_from_slice(value.as_bytes()),
    };
    let mut body = sent.body;
    let body_bytes = u64::try_from(body.len()).map_err(|_| Error::RequestTooLarge(body.len()))?;
    let head = exchange_request::Part::Head(wire::RequestHead {
        upstream: sent.upstream.to_string(),
        method: sent.method.to_string(),
        path: sent.path.to_owned(),
        headers: sent.headers.iter().map(header).collect(),
        body_bytes: Some(body_bytes),
        origin: sent.origin,
    });
    let pieces = iter::from_fn(move || {
        let piece = body.split_to(body.len().min(PIECE_BYTES));
        (!piece.is_empty()).then_some(exchange_request::Part::Body(piece))
    });
    let message = |part| wire::ExchangeRequest { part: Some(part) };
    Ok(iter::once(head).chain(pieces).map(message))
}

fn headers(sent: Vec<wire::Header>) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::with_capacity(sent.len());
    for wire::Header { name, value } in sent {
        let name = HeaderName::try_from(name).map_err(|_| Error::Malformed)?;
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| Error::Malformed)?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// What came of a check.
#[derive(Debug, Default)]
pub struct Checked {
    /// What the upstream answered, if it did.
    pub status: Option<StatusCode>,
    /// Until the end of the answer, or of the attempt.
    pub took: Duration,
    /// Whether its key was sent.
    pub key_sent: bool,
    /// The secret that is its key.
    pub secret: Option<SecretName>,
    /// Bytes of the answer's body.
    pub received_bytes: u64,
    /// Why there is no whole answer.
    pub failure: Option<String>,
}

/// Why nothing is checked.
#[derive(Debug, thiserror::Error)]
pub enum Unchecked {
    /// Nothing is known of upstreams without a lock.
    #[error(transparent)]
    Lock(#[from] LockSourceError),
    /// egress-proxy has no room for a check now, or has had too many. It was not asked.
    #[error("{}", .0.message())]
    Refused(Box<Status>),
    /// The lock does not have it.
    #[error("no upstream {0} is locked; `bailey upstream list` lists those that are")]
    Absent(UpstreamName),
}

impl Classify for Unchecked {
    fn kind(&self) -> Kind {
        match self {
            Self::Lock(_) => Kind::FailedPrecondition,
            Self::Absent(_) => Kind::NotFound,
            Self::Refused(_) => Kind::ResourceExhausted,
        }
    }
}

/// Asks an upstream for its `check`, in the name of whoever `origin` says, and keeps nothing of what it answers but how that was.
pub async fn check(
    state: &State,
    name: &UpstreamName,
    origin: Signed,
) -> Result<Checked, Unchecked> {
    let locked = state.locked()?;
    let upstream = locked.view.config.upstreams.get(name);
    let upstream = upstream.ok_or_else(|| Unchecked::Absent(name.clone()))?;
    let mut checked = Checked {
        secret: upstream.key.as_ref().map(|key| key.secret.clone()),
        ..Checked::default()
    };
    let sent = Sent {
        upstream: name,
        method: Method::GET,
        path: &upstream.check,
        headers: HeaderMap::new(),
        body: Bytes::new(),
        origin: Some(origin),
    };
    let (started, limit) = (Instant::now(), state.options.check_timeout);
    let asked = tokio::time::timeout(limit, ask(&state.upstreams, sent, &mut checked)).await;
    checked.failure = match asked {
        Ok(Ok(())) => None,
        Ok(Err(Error::NotExchanged(status)))
            if checked.status.is_none() && status.code() == Code::ResourceExhausted =>
        {
            return Err(Unchecked::Refused(status));
        }
        Ok(Err(error)) => {
            let said = error.to_string();
            // Whoever asked for the check knows of which.
            let which = format!("the upstream {name}: ");
            let bare = said.strip_prefix(&which).map(str::to_owned);
            Some(bare.unwrap_or(said))
        }
        Err(_) => {
            let seconds = limit.as_secs_f32();
            Some(format!("there was no whole answer within {seconds} s"))
        }
    };
    checked.took = started.elapsed();
    Ok(checked)
}

async fn ask(client: &Client, sent: Sent<'_>, checked: &mut Checked) -> Result<(), Error> {
    let mut answer = client.exchange(sent).await?;
    checked.status = Some(answer.status);
    checked.key_sent = answer.key_sent;
    while let Some(piece) = answer.piece().await? {
        checked.received_bytes += u64::try_from(piece.len()).unwrap_or(u64::MAX);
    }
    Ok(())
}
