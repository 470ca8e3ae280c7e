//! Audit's log, as policy knows it. One task talks to audit, so that what is known of the log is one line and never two: every answer must continue
//! the last one. Decisions that come in meanwhile are recorded together.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bailey_audit_log::{Checkpoint, check_consistency, cosign, read_checkpoint};
use bailey_error::Chain;
use bailey_mesh::MeshChannel;
use bailey_proto::audit::v1::audit_service_client::AuditServiceClient;
use bailey_proto::audit::v1::{AppendRequest, CheckpointRequest, CosignRequest, Entry};
use bailey_service::Context;
use bailey_trust::SigningKey;
use bailey_types::{Serial, Service};
use tokio::sync::{mpsc, oneshot};

use crate::db;
use crate::db::memory::Memory;
use crate::error::Error;

/// Decisions that may wait.
const QUEUE: usize = 512;

/// Entries of one request; audit takes no more.
const MAX_ENTRIES: usize = 256;

/// An fsync takes a fraction of a millisecond; a disk that takes longer than this has failed.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How often policy says by its signature that it has seen the log.
const COSIGN_EVERY: Duration = Duration::from_mins(10);

/// How soon it tries again when audit did not take it.
const COSIGN_AGAIN: Duration = Duration::from_secs(2);

struct Order {
    entry: Entry,
    answer: oneshot::Sender<Result<u64, Error>>,
}

/// Records decisions. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Ledger {
    orders: mpsc::Sender<Order>,
    known: Arc<Mutex<Checkpoint>>,
}

impl Ledger {
    /// Starts the task; `known` is what policy remembers of the log.
    pub(crate) fn start(
        ctx: &Context,
        audit: MeshChannel,
        known: Checkpoint,
        key: SigningKey,
        db: bailey_db::Db,
    ) -> Self {
        let (orders, waiting) = mpsc::channel(QUEUE);
        let known = Arc::new(Mutex::new(known));
        let client = AuditServiceClient::new(audit);
        let task = Task {
            ctx: ctx.clone(),
            client,
            known: known.clone(),
            key,
            db,
        };
        ctx.spawn("ledger", task.run(waiting));
        Self { orders, known }
    }

    /// The newest checkpoint that was found consistent.
    pub(crate) fn known(&self) -> Checkpoint {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records an entry. When this returns, audit has it on disk, and its log continues all that policy knew of it. Answers its index.
    pub(crate) async fn append(&self, kind: &str, fields: serde_json::Value) -> Result<u64, Error> {
        let entry = Entry {
            kind: kind.to_owned(),
            fields_json: fields.to_string(),
            refusal: false,
        };
        let (answer, answered) = oneshot::channel();
        self.orders
            .try_send(Order { entry, answer })
            .map_err(|e| match e {
                mpsc::error::TrySendError::Full(_) => Error::Busy,
                mpsc::error::TrySendError::Closed(_) => Error::Stopping,
            })?;
        answered.await.map_err(|_| Error::Stopping)?
    }
}

struct Task {
    ctx: Context,
    client: AuditServiceClient<MeshChannel>,
    known: Arc<Mutex<Checkpoint>>,
    key: SigningKey,
    db: bailey_db::Db,
}

impl Task {
    async fn run(mut self, mut waiting: mpsc::Receiver<Order>) -> anyhow::Result<()> {
        let mut cosign_at = tokio::time::Instant::now();
        let mut orders = Vec::new();
        loop {
            tokio::select! {
                received = waiting.recv_many(&mut orders, MAX_ENTRIES) => match received {
                    0 => return Ok(()),
                    _ => self.append(std::mem::take(&mut orders)).await,
                },
                () = tokio::time::sleep_until(cosign_at) => {
                    let done = self.cosign().await;
                    cosign_at = tokio::time::Instant::now() + if done { COSIGN_EVERY } else { COSIGN_AGAIN };
                }
                () = self.ctx.shutdown.cancelled() => return Ok(()),
            }
        }
    }

    fn known(&self) -> Checkpoint {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn append(&mut self, orders: Vec<Order>) {
        let (entries, answers): (Vec<_>, Vec<_>) = orders
            .into_iter()
            .map(|order| (order.entry, order.answer))
            .unzip();
        let recorded = self.record(entries).await;
        self.ctx.trouble(
            "record",
            recorded
                .as_ref()
                .err()
                .map(|error| Chain(error).to_string()),
        );
        match recorded {
            Ok(first) => {
                for (index, answer) in (first..).zip(answers) {
                    answered(answer, Ok(index));
                }
            }
            Err(error) => {
                tracing::error!(error = %Chain(&error), "no allow without a record: {}", Chain(&error));
                let why = Chain(&error).to_string();
                for answer in answers {
                    answered(answer, Err(Error::Unrecorded(why.clone())));
                }
            }
        }
    }

    async fn record(&mut self, entries: Vec<Entry>) -> Result<u64, Error> {
        let (known, count) = (
            self.known(),
            u64::try_from(entries.len()).unwrap_or(u64::MAX),
        );
        let request = AppendRequest {
            entries,
            known_size: known.size,
        };
        let asked = tokio::time::timeout(TIMEOUT, self.client.append(request)).await;
        let response = asked
            .map_err(|_| Error::AuditSlow)?
            .map_err(Error::Audit)?
            .into_inner();
        let found = self.learn(known, &response.checkpoint, &response.consistency_proof)?;
        if response
            .first_index
            .checked_add(count)
            .is_none_or(|end| end > found.size)
        {
            let (size, end) = (found.size, response.first_index.saturating_add(count));
            return Err(Error::Uncovered { size, end });
        }
        Ok(response.first_index)
    }

    /// Checks that a checkpoint continues what was known, and knows it from now on.
    fn learn<B: AsRef<[u8]>>(
        &self,
        known: Checkpoint,
        note: &[u8],
        proof: &[B],
    ) -> Result<Checkpoint, Error> {
        let trust = &self.ctx.trust;
        let found = read_checkpoint(note, &trust.stack, &trust.signing.audit)?;
        check_consistency(known, found, proof)?;
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = found;
        Ok(found)
    }

    /// Co-signs the newest checkpoint. Answers whether that went well.
    async fn cosign(&mut self) -> bool {
        let done = match tokio::time::timeout(TIMEOUT, self.try_cosign()).await {
            Ok(done) => done,
            Err(_) => Err(Error::AuditSlow),
        };
        self.ctx.trouble(
            "record",
            done.as_ref().err().map(|error| Chain(error).to_string()),
        );
        if let Err(error) = &done {
            tracing::warn!(error = %Chain(error), "the log is not co-signed: {}", Chain(error));
        }
        done.is_ok()
    }

    async fn try_cosign(&mut self) -> Result<(), Error> {
        let known = self.known();
        let request = CheckpointRequest {
            known_size: known.size,
        };
        let response = self
            .client
            .checkpoint(request)
            .await
            .map_err(Error::Audit)?
            .into_inner();
        let found = self.learn(known, &response.checkpoint, &response.consistency_proof)?;
        let mut tx = self.db.write().await?;
        db::memory::advance(
            &mut tx,
            Memory {
                lock_serial: Serial(0),
                log: found,
            },
        )
        .await?;
        tx.commit().await?;
        let (stack, now) = (&self.ctx.trust.stack, self.ctx.clock.now());
        let note = cosign(&response.checkpoint, stack, Service::Policy, &self.key, now)?;
        self.client
            .cosign(CosignRequest { note: note.into() })
            .await
            .map_err(Error::Audit)?;
        Ok(())
    }
}

fn answered(answer: oneshot::Sender<Result<u64, Error>>, result: Result<u64, Error>) {
    if answer.send(result).is_err() {
        tracing::debug!("the caller did not wait for the record");
    }
}
