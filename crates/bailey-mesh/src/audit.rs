//! Appending to the audit log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bailey_proto::audit::v1::audit_service_client::AuditServiceClient;
use bailey_proto::audit::v1::{AppendRequest, AppendResponse, Entry};
use bailey_service::Context;
use bailey_types::Service;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{MeshChannel, Refusal};

/// Entries that may wait while the audit service is away.
const QUEUE: usize = 1024;

/// Entries in one call, as the protocol allows.
const BATCH: usize = 256;

/// How long the first entry waits for company. An entry that nobody waits for would otherwise be sent, written and flushed to the disk between the
/// steps of the very call that it tells of, and each of these competes with the call.
const COMPANY: Duration = Duration::from_millis(50);

const LONGEST_CALL: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Appends entries to the audit log. Cheap to clone.
#[derive(Clone)]
pub struct Auditor {
    queue: mpsc::Sender<Entry>,
    lost: Arc<AtomicU64>,
    channel: Option<MeshChannel>,
}

/// The other end of an auditor's queue.
pub(crate) struct Queue {
    entries: mpsc::Receiver<Entry>,
    lost: Arc<AtomicU64>,
}

impl Auditor {
    pub(crate) fn new() -> (Self, Queue) {
        let (queue, entries) = mpsc::channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        (
            Self {
                queue,
                lost: Arc::clone(&lost),
                channel: None,
            },
            Queue { entries, lost },
        )
    }

    pub(crate) fn over(mut self, channel: MeshChannel) -> Self {
        self.channel = Some(channel);
        self
    }

    /// Queues an entry. `fields` is an object of names and hashes, never of values. What does not fit into the queue is counted and the
    /// count is appended later.
    pub fn append(&self, kind: &str, fields: &Value) {
        self.enqueue(entry(kind, fields, false));
    }

    /// Queues a refusal: the audit service may fold equal ones of ours into one.
    pub fn append_refusal(&self, kind: &str, fields: &Value) {
        self.enqueue(entry(kind, fields, true));
    }

    /// Appends an entry and waits until it is on disk under a checkpoint.
    pub async fn append_now(
        &self,
        kind: &str,
        fields: &Value,
    ) -> Result<AppendResponse, tonic::Status> {
        self.append_at_once(vec![entry(kind, fields, false)]).await
    }

    /// Appends entries in order, and waits until all of them are on disk. Of more than 256 the first may be there after an error.
    pub async fn append_all_now(&self, entries: &[(&str, &Value)]) -> Result<(), tonic::Status> {
        for batch in entries.chunks(BATCH) {
            let batch = batch
                .iter()
                .map(|(kind, fields)| entry(kind, fields, false));
            self.append_at_once(batch.collect()).await?;
        }
        Ok(())
    }

    async fn append_at_once(&self, entries: Vec<Entry>) -> Result<AppendResponse, tonic::Status> {
        let request = AppendRequest {
            entries,
            known_size: 0,
        };
        let Some(channel) = self.channel.clone() else {
            return Err(tonic::Status::unavailable("no way to the audit service"));
        };
        let mut client = AuditServiceClient::new(channel);
        let late = |_| {
            tonic::Status::deadline_exceeded(format!(
                "the audit service did not answer within {LONGEST_CALL:?}"
            ))
        };
        let answer = tokio::time::timeout(LONGEST_CALL, client.append(request))
            .await
            .map_err(late)??;
        Ok(answer.into_inner())
    }

    pub(crate) fn refused(&self, refusal: &Refusal) {
        let fields = match refusal {
            Refusal::Connection { reason } => json!({"reason": reason}),
            Refusal::Method { caller, method } => {
                json!({"caller": caller.map(Service::name), "method": method})
            }
        };
        self.append_refusal("rpc.refused", &fields);
    }

    fn enqueue(&self, entry: Entry) {
        if let Err(error) = self.queue.try_send(entry) {
            self.lost.fetch_add(1, Ordering::Relaxed);
            tracing::error!(%error, "an audit entry was lost: the audit service has been away for too long");
        }
    }
}

fn entry(kind: &str, fields: &Value, refusal: bool) -> Entry {
    Entry {
        kind: kind.to_owned(),
        fields_json: fields.to_string(),
        refusal,
    }
}

/// Sends what is queued, in order, until the shutdown; then what is left, once.
pub(crate) async fn deliver(
    ctx: Context,
    channel: MeshChannel,
    mut queue: Queue,
) -> anyhow::Result<()> {
    let mut client = AuditServiceClient::new(channel);
    let mut entries = Vec::new();
    loop {
        tokio::select! {
            _ = queue.entries.recv_many(&mut entries, BATCH - 1) => {
                gather(&ctx, &mut queue, &mut entries).await;
            }
            () = ctx.shutdown.cancelled() => {
                while entries.len() < BATCH - 1 && let Ok(entry) = queue.entries.try_recv() {
                    entries.push(entry);
                }
            }
        }
        let lost = queue.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            entries.push(entry("audit.lost", &json!({"entries": lost}), false));
        }
        if entries.is_empty() {
            return Ok(());
        }
        send(&ctx, &mut client, std::mem::take(&mut entries)).await;
    }
}

/// Takes what comes soon after the first entries, until a call is full or the service stops.
async fn gather(ctx: &Context, queue: &mut Queue, entries: &mut Vec<Entry>) {
    let mut late = std::pin::pin!(tokio::time::sleep(COMPANY));
    while entries.len() < BATCH - 1 {
        let room = BATCH - 1 - entries.len();
        tokio::select! {
            taken = queue.entries.recv_many(entries, room) => {
                // Nobody is left who could send.
                if taken == 0 {
                    return;
                }
            }
            () = &mut late => return,
            () = ctx.shutdown.cancelled() => return,
        }
    }
}

/// Tries until the entries are appended; after the shutdown only once.
async fn send(ctx: &Context, client: &mut AuditServiceClient<MeshChannel>, entries: Vec<Entry>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let request = AppendRequest {
            entries: entries.clone(),
            known_size: 0,
        };
        let reason = match tokio::time::timeout(LONGEST_CALL, client.append(request)).await {
            Ok(Ok(_)) => return ctx.trouble("audit", None),
            Ok(Err(status)) => {
                // Trying again would not change its mind, and would keep what follows waiting for ever.
                if matches!(
                    status.code(),
                    tonic::Code::InvalidArgument | tonic::Code::PermissionDenied
                ) {
                    tracing::error!(
                        error = status.message(),
                        "the audit service refused {} entries",
                        entries.len()
                    );
                    return;
                }
                status.message().to_owned()
            }
            Err(_) => format!("no answer within {LONGEST_CALL:?}"),
        };
        if ctx.shutdown.is_cancelled() {
            tracing::error!(
                error = reason,
                "{} audit entries were lost in the stop",
                entries.len()
            );
            return;
        }
        tracing::debug!(
            error = reason,
            "the audit service did not take {} entries yet",
            entries.len()
        );
        ctx.trouble("audit", Some(format!("audit: {reason}")));
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
            () = ctx.shutdown.cancelled() => {}
        }
    }
}
