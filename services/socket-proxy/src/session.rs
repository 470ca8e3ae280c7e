//! One attached cell, from the envelope to the last byte of output.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bailey_cell::launch::{Control, MAX_ENVELOPE_BYTES, Message, Returned};
use bailey_error::Chain;
use bytes::Buf;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::frames::{self, Stream};
use crate::launch::{Delivery, Refusal, Unfed};
use crate::output::{control, pump, write};
use crate::proxy::Proxy;
use crate::registry::{ContainerId, Record};
use crate::room::{Place, Room};

/// How long a cell waits for its request.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Until the envelope begins: a warm cell may wait long.
    pub idle: Duration,
    /// From its first byte to its last.
    pub envelope: Duration,
    /// Until there is room for it. The runner waits for 15 s to hear of its launch.
    pub room: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            idle: Duration::from_hours(1),
            envelope: Duration::from_secs(30),
            room: Self::ROOM,
        }
    }
}

impl Patience {
    /// How long an envelope waits for room.
    pub const ROOM: Duration = Duration::from_secs(10);
}

/// What is made room for before it comes.
const SMALL_BYTES: usize = 16 << 10;

/// A cell with both its streams.
pub struct Session {
    /// The proxy.
    pub proxy: Arc<Proxy>,
    /// The container.
    pub id: ContainerId,
    /// What is known of it.
    pub record: Record,
    /// The engine's side.
    pub engine: Upgraded,
}

impl Session {
    /// Serves the attached stream until either side ends it.
    pub async fn run(self, runner: OnUpgrade) {
        let shutdown = self.proxy.shutdown().clone();
        tokio::select! {
            () = self.serve(runner) => {}
            () = shutdown.cancelled() => {}
        }
    }

    async fn serve(self, runner: OnUpgrade) {
        let runner = match runner.await {
            Ok(runner) => runner,
            Err(error) => {
                tracing::debug!(%error, container.id = %self.id, "the runner left before its attach");
                return;
            }
        };
        let (mut from_runner, mut to_runner) = tokio::io::split(TokioIo::new(runner));
        let id = self.id.clone();
        if let Err(error) = self.converse(&mut from_runner, &mut to_runner).await {
            tracing::debug!(error = %Chain(&error), container.id = %id, "an attached stream broke");
        }
        if let Err(error) = to_runner.shutdown().await {
            tracing::debug!(%error, container.id = %id, "the runner left early");
        }
    }

    async fn converse(
        self,
        from_runner: &mut FromRunner,
        to_runner: &mut ToRunner,
    ) -> Result<(), frames::Error> {
        let (proxy, id) = (&self.proxy, &self.id);
        let (from_engine, to_engine) = tokio::io::split(TokioIo::new(self.engine));
        let mut from_engine = frames::Reader::new(from_engine);
        let mut waited = wait(proxy, from_runner, to_runner, &mut from_engine).await?;
        if let Waited::Message(Message::Grant(grant), _) = &waited {
            if let Err(refusal) = proxy.grant(id, &self.record, grant) {
                return refuse(proxy, id, refusal, to_runner).await;
            }
            control(to_runner, &Control::Granted(true)).await?;
            waited = wait(proxy, from_runner, to_runner, &mut from_engine).await?;
        }
        let (envelope, mut place) = match waited {
            Waited::Message(Message::Envelope(envelope), place) => (envelope, place),
            Waited::Message(Message::Grant(_), _) => {
                let again = Refusal("a cell is granted once".into());
                return refuse(proxy, id, again, to_runner).await;
            }
            Waited::Refused(refusal) => return refuse(proxy, id, refusal, to_runner).await,
            // Another attempt may find room.
            Waited::NoRoom(why) => return not_now(proxy, id, why, to_runner).await,
            Waited::Ended => return Ok(()),
        };
        if let Err(why) = proxy.same_lock(&self.record) {
            // Another attempt is decided under the new lock.
            return not_now(proxy, id, why, to_runner).await;
        }
        let begun = Instant::now();
        let opened = proxy.open(&self.record, envelope).await;
        place.opened();
        let delivery = match opened {
            Ok(delivery) => delivery,
            Err(Unfed::Refused(refusal)) => return refuse(proxy, id, refusal, to_runner).await,
            // Another attempt has another ticket.
            Err(Unfed::Late(why)) => return not_now(proxy, id, why, to_runner).await,
        };
        if let Err(error) = proxy.lease(&self.record, &delivery.signed_decision).await {
            // Another attempt has another holder.
            let why = format!("its holder got no lease: {}", Chain(&error));
            return not_now(proxy, id, why, to_runner).await;
        }
        if let Err(refusal) = proxy.launched(id, &self.record, &delivery) {
            return refuse(proxy, id, refusal, to_runner).await;
        }
        let redeem_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        let names = delivery.names.clone();
        tracing::info!(container.id = %id, job.id = %names.job, launch.redeem_us = redeem_us, "the ticket {} is redeemed", names.ticket);
        let alarm = |returned: &Returned| proxy.returned(id, &self.record, &names, returned);
        pass(
            (delivery, place),
            (from_engine, to_engine),
            to_runner,
            alarm,
        )
        .await
    }
}

type FromRunner = ReadHalf<TokioIo<Upgraded>>;
type ToRunner = WriteHalf<TokioIo<Upgraded>>;
type FromEngine = frames::Reader<ReadHalf<TokioIo<Upgraded>>>;

/// What came of waiting for the runner.
enum Waited {
    Message(Message, Place),
    Refused(Refusal),
    /// There was no room in time.
    NoRoom(String),
    /// Runner or cell left.
    Ended,
}

/// Waits for the next message. A cell that idles may complain meanwhile, but not answer: there is no request yet.
async fn wait(
    proxy: &Proxy,
    from_runner: &mut FromRunner,
    to_runner: &mut ToRunner,
    from_engine: &mut FromEngine,
) -> Result<Waited, frames::Error> {
    let receiving = receive(from_runner, proxy.room(), proxy.patience());
    let mut receiving = std::pin::pin!(receiving);
    loop {
        tokio::select! {
            biased;
            received = &mut receiving => return Ok(match received {
                Ok(waited) => waited,
                Err(refusal) => Waited::Refused(refusal),
            }),
            piece = from_engine.next() => match piece? {
                Some((stream, piece)) => {
                    write(to_runner, stream, piece).await?;
                    if stream == Stream::Out {
                        let early = "the cell wrote output before it had a request";
                        return Ok(Waited::Refused(Refusal(early.into())));
                    }
                }
                None => return Ok(Waited::Ended),
            },
        }
    }
}

async fn refuse(
    proxy: &Proxy,
    id: &ContainerId,
    Refusal(reason): Refusal,
    to_runner: &mut ToRunner,
) -> Result<(), frames::Error> {
    let fields = json!({ "container": id.as_str(), "reason": reason });
    proxy.audit().record("launch.refused", fields, true);
    tracing::warn!(container.id = %id, "refused to feed a cell: {reason}");
    control(to_runner, &Control::Refused(reason)).await
}

/// Says what passes, where a refusal would be final.
async fn not_now(
    proxy: &Proxy,
    id: &ContainerId,
    why: String,
    to_runner: &mut ToRunner,
) -> Result<(), frames::Error> {
    let fields = json!({ "container": id.as_str(), "reason": why });
    proxy.audit().record("launch.put_off", fields, true);
    tracing::warn!(container.id = %id, "a cell is not fed: {why}");
    control(to_runner, &Control::NotNow(why)).await
}

/// Reads a message, once there is room for it.
async fn receive(
    from: &mut (impl AsyncRead + Unpin),
    room: &Room,
    patience: Patience,
) -> Result<Waited, Refusal> {
    let (mut first, mut rest) = ([0; 1], [0; 3]);
    match timeout(patience.idle, from.read(&mut first)).await {
        Ok(Ok(1..)) => {}
        Ok(Ok(0) | Err(_)) => return Ok(Waited::Ended),
        Err(_) => {
            return Err(Refusal(format!(
                "no envelope came within {:?}",
                patience.idle
            )));
        }
    }
    let late = |_| {
        Refusal(format!(
            "the envelope took longer than {:?}",
            patience.envelope
        ))
    };
    let length = timeout(patience.envelope, from.read_exact(&mut rest));
    if length.await.map_err(late)?.is_err() {
        return Err(Refusal("the envelope ends early".into()));
    }
    let ([a], [b, c, d]) = (first, rest);
    let size = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    if size > MAX_ENVELOPE_BYTES {
        return Err(Refusal(format!("an envelope of {size} bytes is too large")));
    }
    let Ok(place) = timeout(patience.room, room.place(size)).await else {
        return Ok(Waited::NoRoom(format!(
            "there is no room for an envelope of {size} bytes: plugins do not read what they got"
        )));
    };
    let envelope = async {
        // Beyond a little it grows with what comes, not with what is announced.
        let mut json = Zeroizing::new(Vec::with_capacity(size.min(SMALL_BYTES)));
        let wanted = u64::try_from(size).unwrap_or(u64::MAX);
        let read = AsyncReadExt::take(&mut *from, wanted)
            .read_to_end(&mut json)
            .await?;
        if read < size {
            return Ok(Err(Refusal("the envelope ends early".into())));
        }
        Ok::<_, std::io::Error>(Message::from_json(&json).map_err(|e| Refusal(e.to_string())))
    };
    match timeout(patience.envelope, envelope).await {
        Ok(Ok(envelope)) => envelope.map(|envelope| Waited::Message(envelope, place)),
        Ok(Err(_)) => Err(Refusal("the envelope ends early".into())),
        Err(elapsed) => Err(late(elapsed)),
    }
}

/// Feeds the cell and hands on what it writes, both at once: a plugin may write much before it has read all.
async fn pass(
    (delivery, place): (Delivery, Place),
    (from_engine, to_engine): (FromEngine, WriteHalf<TokioIo<Upgraded>>),
    to_runner: &mut ToRunner,
    alarm: impl FnMut(&Returned),
) -> Result<(), frames::Error> {
    let Delivery {
        bytes, patterns, ..
    } = delivery;
    let feed = async move {
        if let Err(error) = feed(to_engine, &bytes).await {
            // A plugin may end without reading its request; how it ended is for the runner to judge.
            tracing::debug!(%error, "a cell did not take its whole request");
        }
        drop((bytes, place));
    };
    let output = async {
        control(to_runner, &Control::Launched(true)).await?;
        pump(from_engine, to_runner, patterns, alarm).await
    };
    let ((), ended) = tokio::join!(feed, output);
    ended
}

async fn feed(mut to: impl AsyncWrite + Unpin, bytes: &[u8]) -> std::io::Result<()> {
    // In one piece: each would be handed on by itself.
    to.write_all_buf(&mut Buf::chain(bytes, &b"\n"[..])).await?;
    // The plugin sees the end of its input only now.
    to.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "the test awaits its own tasks")]
    async fn envelopes_that_would_fill_the_memory_wait_and_small_ones_do_not() {
        let patience = Patience {
            idle: Duration::from_secs(30),
            envelope: Duration::from_secs(30),
            room: Duration::from_secs(30),
        };
        let room = Arc::new(Room::default());
        let begin = |announced: usize| {
            let (mut runner, mut proxy) = tokio::io::duplex(1024);
            let room = Arc::clone(&room);
            let received =
                tokio::spawn(async move { receive(&mut proxy, &room, patience).await.is_ok() });
            let sent = tokio::spawn(async move {
                let length = u32::try_from(announced).unwrap().to_be_bytes();
                runner.write_all(&length).await.unwrap();
                runner.write_all(&vec![b' '; announced / 2]).await.unwrap();
                runner
            });
            (received, sent)
        };
        let soon = Duration::from_millis(500);

        // Given a runner that begins the largest envelope there is
        let (received, sent) = begin(MAX_ENVELOPE_BYTES);
        let half_sent = sent.await.unwrap();
        assert!(!received.is_finished());

        // When it begins another one, that is not taken; a small one is
        let (_, mut sent_large) = begin(MAX_ENVELOPE_BYTES);
        assert!(timeout(soon, &mut sent_large).await.is_err());
        let (_, sent_small) = begin(8 << 10);
        assert!(timeout(soon, sent_small).await.is_ok());

        // Then it is taken as soon as the first is gone
        drop(half_sent);
        assert!(!received.await.unwrap());
        assert!(timeout(Duration::from_secs(10), sent_large).await.is_ok());
    }
}
