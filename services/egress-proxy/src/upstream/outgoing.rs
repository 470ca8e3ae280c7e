//! The body that goes out: what the client sends, as it sends it, within its bounds.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};

use bailey_proto::egress::v1::ExchangeRequest;
use bailey_proto::egress::v1::exchange_request::Part;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Code, Status, Streaming};

use super::asked::BODY_LIMIT_BYTES;
use super::failure::Why;

/// Bytes of one message's part of a body.
pub(crate) const CHUNK_LIMIT_BYTES: usize = 64 << 10;
/// Bytes of a message: a part, or a head with its path and headers.
pub(crate) const MESSAGE_LIMIT_BYTES: usize = CHUNK_LIMIT_BYTES + (1 << 10);

/// What a body's progress tells to those who wait for the answer, and how they end it.
#[derive(Default)]
pub(crate) struct Progress {
    sent: Mutex<Sent>,
    over: CancellationToken,
    fault: OnceLock<Why>,
}

#[derive(Default)]
struct Sent {
    bytes: u64,
    /// Nothing follows.
    whole: bool,
}

impl Progress {
    /// What was handed to the connection.
    pub(crate) fn sent_bytes(&self) -> u64 {
        self.sent().bytes
    }

    /// Ends the body where it is: from now on nothing more of it is handed to the connection, which outlives the exchange. Whether it was whole.
    pub(crate) fn end(&self) -> bool {
        let sent = self.sent();
        self.over.cancel();
        sent.whole
    }

    fn sent(&self) -> MutexGuard<'_, Sent> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the body ended early, if the client is to blame.
    pub(crate) fn fault(&self) -> Option<Why> {
        self.fault.get().cloned()
    }
}

/// See the module.
pub(crate) struct Outgoing {
    /// Unset where there is no body.
    parts: Option<Streaming<ExchangeRequest>>,
    first: Option<Bytes>,
    length: Option<u64>,
    progress: Arc<Progress>,
    over: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// The body broke off; [`Progress::fault`] says why.
#[derive(Debug, thiserror::Error)]
#[error("the client's body broke off")]
pub(crate) struct BrokeOff;

impl Outgoing {
    /// What follows the head in `parts`. Where its length is not known, it is waited for whether anything follows: a request without a body
    /// must not look like one with.
    pub(crate) async fn new(
        mut parts: Streaming<ExchangeRequest>,
        length: Option<u64>,
        progress: Arc<Progress>,
    ) -> Result<Self, Why> {
        let over = progress.over.clone().cancelled_owned();
        let mut body = Self {
            over: Box::pin(over),
            parts: None,
            first: None,
            length,
            progress,
        };
        if length.is_none() {
            match read(parts.message().await)? {
                Some(first) => body.first = Some(first),
                None => body.length = Some(0),
            }
        }
        body.parts = Some(parts);
        body.progress.sent().whole = body.length == Some(0);
        Ok(body)
    }

    /// Counts `part`, which may be too much.
    fn count(&self, part: &Bytes) -> Result<(), Why> {
        let mut sent = self.progress.sent();
        // Looked at together with the count: what was recorded at the end is all that there will be.
        if self.progress.over.is_cancelled() {
            return Err(Why::ClientGone);
        }
        let bytes = sent.bytes.saturating_add(part.len() as u64);
        if let Some(length) = self.length
            && bytes > length
        {
            return Err(Why::Asked(
                "the body is longer than body_bytes says".to_owned(),
            ));
        }
        if bytes > BODY_LIMIT_BYTES {
            return Err(Why::Asked("the body is longer than 16 MiB".to_owned()));
        }
        sent.bytes = bytes;
        // Nobody asks for the end of a body of known length.
        sent.whole = self.length == Some(bytes);
        Ok(())
    }

    fn next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Why>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(self.count(&first).map(|()| Some(first)));
        }
        let Some(parts) = &mut self.parts else {
            return Poll::Ready(Ok(None));
        };
        let next = std::task::ready!(tokio_stream::Stream::poll_next(Pin::new(parts), cx));
        let part = read(next.transpose());
        Poll::Ready(part.and_then(|part| {
            match part {
                Some(part) => self.count(&part).map(|()| Some(part)),
                None if self
                    .length
                    .is_some_and(|length| self.progress.sent_bytes() < length) =>
                {
                    Err(Why::Asked(
                        "the body is shorter than body_bytes says".to_owned(),
                    ))
                }
                None => {
                    self.progress.sent().whole = true;
                    Ok(None)
                }
            }
        }))
    }
}

/// The bytes of a message; none at the end.
fn read(message: Result<Option<ExchangeRequest>, Status>) -> Result<Option<Bytes>, Why> {
    match message.map_err(|status| broken(&status))? {
        None => Ok(None),
        Some(ExchangeRequest {
            part: Some(Part::Body(part)),
        }) if part.len() <= CHUNK_LIMIT_BYTES => Ok(Some(part)),
        Some(ExchangeRequest {
            part: Some(Part::Body(_)),
        }) => Err(Why::Asked(
            "a part of the body is longer than 64 KiB".to_owned(),
        )),
        Some(_) => Err(Why::Asked(
            "after the head come parts of the body, and nothing else".to_owned(),
        )),
    }
}

/// Why there is no message.
pub(crate) fn broken(status: &Status) -> Why {
    if [Code::OutOfRange, Code::InvalidArgument].contains(&status.code()) {
        return Why::Asked(
            "a message is too large: a part of the body has 64 KiB at most".to_owned(),
        );
    }
    Why::ClientGone
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BrokeOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokeOff>>> {
        loop {
            if self.over.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Some(Err(BrokeOff)));
            }
            match std::task::ready!(self.next(cx)) {
                Ok(Some(part)) if part.is_empty() => {}
                Ok(Some(part)) => return Poll::Ready(Some(Ok(Frame::data(part)))),
                Ok(None) => return Poll::Ready(None),
                Err(why) => {
                    // Told once: the first reason is the reason.
                    self.progress.fault.get_or_init(|| why);
                    return Poll::Ready(Some(Err(BrokeOff)));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.length == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.length
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
