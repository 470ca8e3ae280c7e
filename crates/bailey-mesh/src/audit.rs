//! Appending to the audit log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bailey_proto::audit::v1::audit_service_client::AuditServiceClient;
use bailey_proto::audit::v1::{AppendRequest, AppendResponse, Entry};
use bailey_service::Context;
use bailey_types::Service;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio_util::sync::CancellationToken;

use crate::{MeshChannel, Refusal};

/// Entries that may wait while the audit service is away.
const QUEUE: usize = 1024;

/// Entries in one call, as the protocol allows.
const BATCH: usize = 256;

/// How long the first entry waits for company. An entry that nobody waits for would otherwise be sent, written and flushed to the disk between the
/// steps of the very call that it tells of, and each of these competes with the call.
const COMPANY: Duration = Duration::from_millis(50);

const LONGEST_CALL: Duration = Duration::from_secs(5);

/// How long the last call may take: within what a stop leaves for it.
const LAST_CALL: Duration = Duration::from_millis(700);

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
    /// Taken out and not yet on the log's disk.
    pending: Vec<Entry>,
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
            Queue {
                entries,
                pending: Vec::new(),
                lost,
            },
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
        let (why, entry) = match self.queue.try_send(entry) {
            Ok(()) => return,
            Err(TrySendError::Full(entry)) => {
                ("the audit service has been away for too long", entry)
            }
            Err(TrySendError::Closed(entry)) => ("the service has stopped", entry),
        };
        self.lost.fetch_add(1, Ordering::Relaxed);
        let kind = entry.kind;
        tracing::error!(audit.kind = kind, "an audit entry ({kind}) was lost: {why}");
    }
}

fn entry(kind: &str, fields: &Value, refusal: bool) -> Entry {
    Entry {
        kind: kind.to_owned(),
        fields_json: fields.to_string(),
        refusal,
    }
}

/// Sends what is queued, in order, until the service's other tasks have ended: they append while they do. Then what is left, once.
pub(crate) async fn deliver(
    ctx: Context,
    channel: MeshChannel,
    mut queue: Queue,
) -> anyhow::Result<()> {
    let drained = ctx.process.drained.clone();
    let mut client = AuditServiceClient::new(channel);
    loop {
        let room = BATCH - 1;
        tokio::select! {
            _ = queue.entries.recv_many(&mut queue.pending, room) => queue.gather(&drained).await,
            () = drained.cancelled() => queue.take_now(),
        }
        let lost = queue.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let fields = json!({"entries": lost});
            queue.pending.push(entry("audit.lost", &fields, false));
        }
        if queue.pending.is_empty() {
            return Ok(());
        }
        if !send(&ctx, &mut client, &queue.pending).await {
            // Nothing of it is tried again. What is lost is said where the queue ends.
            return Ok(());
        }
        queue.pending.clear();
    }
}

impl Queue {
    /// Takes what comes soon after the first entries, until a call is full or there is nobody left who appends.
    async fn gather(&mut self, drained: &CancellationToken) {
        let mut late = std::pin::pin!(tokio::time::sleep(COMPANY));
        while self.pending.len() < BATCH - 1 {
            let room = BATCH - 1 - self.pending.len();
            tokio::select! {
                taken = self.entries.recv_many(&mut self.pending, room) => {
                    // Nobody is left who could send.
                    if taken == 0 {
                        return;
                    }
                }
                () = &mut late => return,
                () = drained.cancelled() => return,
            }
        }
    }

    fn take_now(&mut self) {
        while self.pending.len() < BATCH - 1
            && let Ok(entry) = self.entries.try_recv()
        {
            self.pending.push(entry);
        }
    }
}

impl Drop for Queue {
    /// However the service ends, short of being killed, what the audit log did not get is said: what and how many.
    fn drop(&mut self) {
        self.entries.close();
        let mut left = std::mem::take(&mut self.pending);
        while let Ok(entry) = self.entries.try_recv() {
            left.push(entry);
        }
        if left.is_empty() {
            return;
        }
        let kinds = kinds(&left);
        tracing::error!(
            audit.lost = left.len(),
            audit.kinds = kinds,
            "{} audit entries were lost in the stop: {kinds}",
            left.len()
        );
    }
}

/// Each kind with how many there are of it.
fn kinds(entries: &[Entry]) -> String {
    let mut counts = BTreeMap::<&str, usize>::new();
    for entry in entries {
        *counts.entry(&entry.kind).or_default() += 1;
    }
    let counts = counts
        .iter()
        .map(|(kind, count)| format!("{kind} ({count})"));
    counts.collect::<Vec<_>>().join(", ")
}

/// Tries until the entries are appended, or refused; once nobody appends any more, only once. Whether they need no further care.
async fn send(
    ctx: &Context,
    client: &mut AuditServiceClient<MeshChannel>,
    entries: &[Entry],
) -> bool {
    let drained = &ctx.process.drained;
    let mut pause = FIRST_PAUSE;
    loop {
        let is_last = drained.is_cancelled();
        let request = AppendRequest {
            entries: entries.to_vec(),
            known_size: 0,
        };
        let answer = tokio::select! {
            answer = tokio::time::timeout(LONGEST_CALL, client.append(request)) => Some(answer),
            () = out_of_time(drained) => None,
        };
        let is_last = is_last || answer.is_none();
        let reason = match answer {
            Some(Ok(Ok(_))) => {
                ctx.trouble("audit", None);
                return true;
            }
            Some(Ok(Err(status))) => {
                // Trying again would not change its mind, and would keep what follows waiting for ever.
                if matches!(
                    status.code(),
                    tonic::Code::InvalidArgument | tonic::Code::PermissionDenied
                ) {
                    tracing::error!(
                        error = status.message(),
                        "the audit service refused {} entries: {}",
                        entries.len(),
                        kinds(entries)
                    );
                    return true;
                }
                status.message().to_owned()
            }
            Some(Err(_)) => format!("no answer within {LONGEST_CALL:?}"),
            None => format!("no answer within the last {LAST_CALL:?} of the service"),
        };
        tracing::debug!(
            error = reason,
            "the audit service did not take {} entries yet",
            entries.len()
        );
        ctx.trouble("audit", Some(format!("audit: {reason}")));
        if is_last {
            return false;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
            () = drained.cancelled() => {}
        }
    }
}

/// Returns when the service has no more time for a call.
async fn out_of_time(drained: &CancellationToken) {
    drained.cancelled().await;
    tokio::time::sleep(LAST_CALL).await;
}

#[cfg(test)]
mod tests;
