//! The one thread that has the log. Requests that come in while it writes are written together, with one fsync.
//!
//! It has nothing else to do: a disk that hangs must not keep the health check, the handshakes and the certificate waiting. An append wakes it
//! once, and its answer wakes the caller once.

mod keeper;

use std::sync::Arc;

use bailey_audit_log::{Latest, Log, Recovered};
use bailey_error::Chain;
use bailey_service::Context;
use bailey_trust::VerifyingKey;
use bailey_types::{Service, Sha256};
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};

use crate::entry::Received;
use crate::error::Error;
use crate::fold::Folds;
use crate::reserve::Volume;
use crate::writer::keeper::Keeper;

/// Requests that may wait; more are refused, so that a slow disk is seen and not hidden.
const QUEUE: usize = 1024;

/// Entries that are looked at in one turn for the latest of somebody, and turns in one call.
const LATEST_ENTRIES: u64 = 4096;
const LATEST_TURNS: u32 = 16;

/// How often the journal is published and windows of refusals are ended.
const TICK: std::time::Duration = std::time::Duration::from_secs(1);

/// The newest checkpoint, and the proof that it continues what the caller knew.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) note: Vec<u8>,
    pub(crate) proof: Vec<Sha256>,
}

/// Entries that are on disk.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) first_index: u64,
    pub(crate) state: State,
}

/// Entries that were read.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) entries: Vec<Vec<u8>>,
    pub(crate) size: u64,
}

type Answer<T> = oneshot::Sender<Result<T, Error>>;

struct Append {
    caller: Service,
    entries: Vec<Received>,
    known: u64,
    answer: Answer<Done>,
}

enum Order {
    Append(Append),
    Checkpoint {
        known: u64,
        answer: Answer<State>,
    },
    KeepCosigned {
        service: Service,
        key: VerifyingKey,
        note: Vec<u8>,
        answer: Answer<()>,
    },
    Entries {
        first: u64,
        limit: u32,
        answer: Answer<Read>,
    },
    Latest {
        caller: Service,
        kinds: Arc<[String]>,
        before: u64,
        answer: Answer<Latest>,
    },
    Tick,
    Stop,
}

/// Sends orders to the keeper. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Writer(mpsc::Sender<Order>);

impl Writer {
    pub(crate) async fn append(
        &self,
        caller: Service,
        entries: Vec<Received>,
        known: u64,
    ) -> Result<Done, Error> {
        self.ask(|answer| {
            Order::Append(Append {
                caller,
                entries,
                known,
                answer,
            })
        })
        .await
    }

    pub(crate) async fn checkpoint(&self, known: u64) -> Result<State, Error> {
        self.ask(|answer| Order::Checkpoint { known, answer }).await
    }

    pub(crate) async fn keep_cosigned(
        &self,
        service: Service,
        key: VerifyingKey,
        note: Vec<u8>,
    ) -> Result<(), Error> {
        self.ask(|answer| Order::KeepCosigned {
            service,
            key,
            note,
            answer,
        })
        .await
    }

    pub(crate) async fn entries(&self, first: u64, limit: u32) -> Result<Read, Error> {
        self.ask(|answer| Order::Entries {
            first,
            limit,
            answer,
        })
        .await
    }

    /// The newest of the caller's own entries of `kinds` before an index: of a long log a part is looked at, and those who append get their
    /// turns in between.
    pub(crate) async fn latest(
        &self,
        caller: Service,
        kinds: Arc<[String]>,
        before: u64,
    ) -> Result<Latest, Error> {
        let mut latest = Latest {
            entry: None,
            looked_from: before,
        };
        let mut turns = 0..LATEST_TURNS;
        while latest.entry.is_none() && latest.looked_from > 0 && turns.next().is_some() {
            let asked = self.ask(|answer| Order::Latest {
                caller,
                kinds: Arc::clone(&kinds),
                before: latest.looked_from,
                answer,
            });
            latest = asked.await?;
        }
        Ok(latest)
    }

    async fn ask<T>(&self, order: impl FnOnce(Answer<T>) -> Order) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        self.0.try_send(order(answer)).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => Error::Busy,
            mpsc::error::TrySendError::Closed(_) => Error::Stopping,
        })?;
        answered.await.map_err(|_| Error::Stopping)?
    }
}

/// Starts the keeper and its clockwork, and records that the log was opened.
pub(crate) async fn start(
    ctx: &Context,
    log: Log,
    volume: Volume,
    recovered: Recovered,
) -> anyhow::Result<Writer> {
    let (sender, orders) = mpsc::channel(QUEUE);
    let writer = Writer(sender);
    let keeper = Keeper {
        log,
        volume,
        folds: Folds::default(),
        clock: ctx.clock.clone(),
        ctx: ctx.clone(),
    };
    ctx.spawn("log", async move {
        tokio::task::spawn_blocking(move || keeper.run(orders)).await?;
        Ok(())
    });
    let (shutdown, ticking) = (ctx.shutdown.clone(), writer.clone());
    ctx.spawn("clockwork", async move {
        let mut ticks = tokio::time::interval(TICK);
        loop {
            let order = tokio::select! {
                _ = ticks.tick() => Order::Tick,
                () = shutdown.cancelled() => Order::Stop,
            };
            let stop = matches!(order, Order::Stop);
            if ticking.0.send(order).await.is_err() || stop {
                return Ok(());
            }
        }
    });
    let fields = format!(
        "{{\"replayed_entries\":{},\"cut_bytes\":{}}}",
        recovered.replayed_entries, recovered.cut_bytes
    );
    let opened = Received {
        kind: "audit.opened".into(),
        fields: RawValue::from_string(fields)?,
        refusal: false,
    };
    if let Err(error) = writer.append(Service::Audit, vec![opened], 0).await {
        tracing::warn!(error = %Chain(&error), "the opening of the log is not recorded");
    }
    Ok(writer)
}

#[cfg(test)]
mod tests;
