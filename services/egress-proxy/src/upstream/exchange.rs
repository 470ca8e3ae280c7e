//! One exchange, from what the client says to the last byte of the answer.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bailey_proto::egress::v1::exchange_request::Part;
use bailey_proto::egress::v1::exchange_response::Part as Answered;
use bailey_proto::egress::v1::{ExchangeRequest, ExchangeResponse, RequestHead};
use bailey_types::Service;
use http::header::CONTENT_LENGTH;
use http::{Method, Request, Response, Version};
use hyper::body::{Body as _, Incoming};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{CaptureConnection, capture_connection};
use tokio::sync::mpsc::{self, OwnedPermit};
use tokio::time::{sleep_until, timeout};
use tonic::{Status, Streaming};

use super::answer::{self, Told};
use super::asked::Asked;
use super::connect;
use super::failure::{Failure, Why};
use super::key::Released;
use super::origin::{self, Principal};
use super::outgoing::{Outgoing, Progress, broken};
use super::place::Place;
use super::rate::Beginner;
use super::record::Record;
use super::{Live, Upstreams};

/// How long a client may take to say what it wants.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// Messages to the client that wait for it.
const QUEUE: usize = 2;
/// Longest name of an upstream in a message.
const MAX_NAME: usize = 32;

/// An exchange that may begin.
struct Admitted {
    live: Arc<Live>,
    client: Service,
    /// Who had the client ask, if the exchange is a check.
    principal: Option<String>,
    asked: Asked,
    progress: Arc<Progress>,
    deadline: tokio::time::Instant,
    _places: [Place; 2],
}

impl Upstreams {
    /// Has one exchange for `client`; the answer begins with its head.
    pub(crate) async fn exchange(
        self: &Arc<Self>,
        client: Service,
        mut parts: Streaming<ExchangeRequest>,
    ) -> Result<mpsc::Receiver<Told>, Failure> {
        let head = self.head(client, &mut parts).await.map_err(|why| {
            let failure = why.of("?");
            if !matches!(failure.why, Why::ClientGone) {
                self.refused(client, None, &failure);
            }
            failure
        })?;
        let name: String = head.upstream.chars().take(MAX_NAME).collect();
        let unbegun = |principal: Option<&str>, why: Why| {
            let failure = why.of(&name);
            if failure.why.is_refusal() {
                self.refused(client, principal, &failure);
            }
            failure
        };
        let principal = self.origins.principal(client, &head);
        let principal = principal.map_err(|why| unbegun(None, why))?;
        let admitted = self.admit(client, principal.as_ref(), &head).await;
        let principal = principal.as_ref().map(|principal| principal.name.as_str());
        let admitted = admitted.map_err(|why| unbegun(principal, why))?;
        // Dropped, and so written, before the places are free.
        let mut record = self.record(&admitted);
        let (key, body) = match self.begin(&admitted, parts).await {
            Ok(begun) => begun,
            Err(why) => {
                record.ended(Err(&why));
                record.refused = why.is_refusal();
                return Err(unbegun(principal, why));
            }
        };
        let sent = self.send(admitted, record, key, body).await;
        sent.map_err(|why| why.of(&name))
    }

    /// What `client` wants.
    async fn head(
        &self,
        client: Service,
        parts: &mut Streaming<ExchangeRequest>,
    ) -> Result<RequestHead, Why> {
        let _place = self.unsaid(client)?;
        first(parts).await
    }

    /// Whether `client`, or whoever had it ask, may have what `head` asks for; it may have to wait for its turn.
    async fn admit(
        &self,
        client: Service,
        principal: Option<&Principal>,
        head: &RequestHead,
    ) -> Result<Admitted, Why> {
        let live = self.live(&head.upstream, client)?;
        if principal.is_some() && !origin::is_check(head, &live.upstream) {
            let wrong = "it is for a check, and this is something else";
            return Err(Why::Origin(wrong.to_owned()));
        }
        let asked = Asked::parse(head, &live.upstream)?;
        let deadline = tokio::time::Instant::now() + live.upstream.timeout;
        let place = self.bounded(&live, deadline, live.place(client)).await;
        let place = place.map_err(|why| {
            let late = matches!(why, Why::Time(_));
            let timeout = live.upstream.timeout;
            if late { Why::NoTurn(timeout) } else { why }
        })?;
        // After a wait, the same upstream as the lock of the moment has it: no connection outlives its lock.
        let waited = live;
        let live = self.live(&head.upstream, client)?;
        if !Arc::ptr_eq(&live.places, &waited.places) {
            return Err(Why::Relocked);
        }
        let places = [place, self.place(client)?];
        // Whoever shows a used one spends nothing: the checks are for all who may.
        if let Some(principal) = principal {
            self.origins.take(principal)?;
        }
        live.begin(principal.map_or(Beginner::Client(client), |_| Beginner::Check))?;
        Ok(Admitted {
            live,
            client,
            principal: principal.map(|principal| principal.name.clone()),
            asked,
            progress: Arc::default(),
            deadline,
            _places: places,
        })
    }

    /// What goes out: the body, of which something is there, and the key.
    async fn begin(
        &self,
        admitted: &Admitted,
        parts: Streaming<ExchangeRequest>,
    ) -> Result<(Option<Released>, Outgoing), Why> {
        let progress = Arc::clone(&admitted.progress);
        let body = Outgoing::new(parts, admitted.asked.body_bytes, progress);
        let (live, deadline) = (&admitted.live, admitted.deadline);
        let body = self.bounded(live, deadline, body).await?;
        // Last: a client may take its time with the body, and a key that is revoked meanwhile is not sent.
        let key = self.bounded(live, deadline, self.key(admitted)).await?;
        Ok((key, body))
    }

    async fn key(&self, admitted: &Admitted) -> Result<Option<Released>, Why> {
        let live = &admitted.live;
        let Some(key) = &live.upstream.key else {
            return Ok(None);
        };
        let serial = self.serial(live)?;
        let released = self.keys.release(&live.name, key, admitted.client, serial);
        released.await.map(Some)
    }

    /// Sends the request, and has the answer handed on.
    async fn send(
        self: &Arc<Self>,
        mut admitted: Admitted,
        mut record: Record,
        key: Option<Released>,
        body: Outgoing,
    ) -> Result<mpsc::Receiver<Told>, Why> {
        let live = Arc::clone(&admitted.live);
        let (request, connection) = request(&live, &mut admitted.asked, key.as_ref(), body);
        record.connection = Some(connection);
        record.keyed = key.is_some().then(Instant::now);
        let progress = Arc::clone(&admitted.progress);
        let answered = async {
            let answer = live.client.request(request).await;
            let answer =
                answer.map_err(|error| progress.fault().unwrap_or_else(|| failed(&error)))?;
            record.status = Some(answer.status().as_u16());
            let (head, found) = answer::head(&answer, key.as_ref())?;
            record.in_head(&found);
            Ok((head, answer))
        };
        let (head, answer) = match self.bounded(&live, admitted.deadline, answered).await {
            Ok(answered) => answered,
            Err(why) => {
                record.ended(Err(&why));
                return Err(why);
            }
        };
        // One place more: the last word must not have to wait for a client that does not listen.
        let (client, told) = mpsc::channel(QUEUE + 2);
        let last = client.clone().reserve_owned().await;
        let last = last.map_err(|_| Why::ClientGone)?;
        let head = ExchangeResponse {
            part: Some(Answered::Head(head)),
        };
        client.send(Ok(head)).await.map_err(|_| Why::ClientGone)?;
        let passing = Passing {
            record,
            admitted,
            key,
            answer,
            client,
            last,
        };
        let upstreams = Arc::clone(self);
        self.ctx.spawn("upstream exchange", async move {
            upstreams.pass(passing).await;
            Ok(())
        });
        Ok(told)
    }

    /// Hands the body on, whether or not anybody takes it.
    async fn pass(&self, passing: Passing) {
        let Passing {
            mut record,
            admitted,
            key,
            answer,
            client,
            last,
        } = passing;
        let (body, progress) = (answer.into_body(), &admitted.progress);
        let passed = async {
            tokio::select! {
                passed = answer::pass(body, key, &mut record, &client) => {
                    // An answer that ends well is whole, whatever became of the request's end.
                    passed.map_err(|why| progress.fault().unwrap_or(why))
                }
                () = client.closed() => Err(Why::ClientGone),
            }
        };
        let (live, deadline) = (&admitted.live, admitted.deadline);
        let end = self.bounded(live, deadline, passed).await;
        record.ended(end.as_ref().copied());
        // Before the client hears of the end: whoever knows of it finds it recorded, and its place free.
        let name = admitted.live.name.clone();
        drop((record, admitted));
        if let Err(why) = end {
            last.send(Err(why.of(name.as_str()).status()));
        }
    }

    /// Does `work` unless something ends the exchange before.
    async fn bounded<T>(
        &self,
        live: &Live,
        deadline: tokio::time::Instant,
        work: impl Future<Output = Result<T, Why>>,
    ) -> Result<T, Why> {
        tokio::select! {
            done = work => done,
            () = sleep_until(deadline) => Err(Why::Time(live.upstream.timeout)),
            () = live.over.cancelled() => Err(Why::Relocked),
            () = self.ctx.shutdown.cancelled() => Err(Why::Stopping),
        }
    }

    fn record(&self, admitted: &Admitted) -> Record {
        let url = &admitted.live.upstream.url;
        Record {
            auditor: self.auditor.clone(),
            upstream: admitted.live.name.clone(),
            client: admitted.client,
            principal: admitted.principal.clone(),
            host: format!("{}:{}", url.host(), url.port()),
            method: admitted.asked.method.clone(),
            connection: None,
            progress: Arc::clone(&admitted.progress),
            keyed: None,
            status: None,
            received_bytes: 0,
            returned: [0, 0],
            began: Instant::now(),
            cut: Some(Why::ClientGone.to_string()),
            refused: false,
        }
    }
}

/// An exchange whose answer has begun. Its record is dropped before its places.
struct Passing {
    record: Record,
    admitted: Admitted,
    key: Option<Released>,
    answer: Response<Incoming>,
    client: mpsc::Sender<Told>,
    last: OwnedPermit<Told>,
}

/// What the client wants.
async fn first(parts: &mut Streaming<ExchangeRequest>) -> Result<RequestHead, Why> {
    let first = timeout(HEAD_TIME, parts.message()).await;
    let first = first.map_err(|_| Why::Silent(HEAD_TIME))?;
    match first.map_err(|status: Status| broken(&status))? {
        Some(ExchangeRequest {
            part: Some(Part::Head(head)),
        }) => Ok(head),
        Some(_) | None => Err(Why::Asked("the first message must be the head".to_owned())),
    }
}

fn request(
    live: &Live,
    asked: &mut Asked,
    key: Option<&Released>,
    body: Outgoing,
) -> (Request<Outgoing>, CaptureConnection) {
    let mut request = Request::new(body);
    *request.method_mut() = asked.method.clone();
    *request.uri_mut() = asked.uri.clone();
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = std::mem::take(&mut asked.headers);
    if let (Some(locked), Some(key)) = (&live.upstream.key, key) {
        let value = key.value.clone();
        request.headers_mut().insert(locked.header.clone(), value);
    }
    let expects_length = [Method::POST, Method::PUT, Method::PATCH].contains(&asked.method);
    if expects_length && request.body().is_end_stream() {
        // Some servers refuse these without a length (RFC 9110, section 8.6).
        request.headers_mut().insert(CONTENT_LENGTH, 0.into());
    }
    let connection = capture_connection(&mut request);
    (request, connection)
}

/// What a client's failure before the answer means.
fn failed(error: &legacy::Error) -> Why {
    let mut source: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(connect::Error(why)) = inner.downcast_ref() {
            return why.clone();
        }
        if let Some(error) = inner.downcast_ref::<hyper::Error>() {
            return answer::broke(error);
        }
        source = inner.source();
    }
    Why::Broke("it broke off before it answered")
}
