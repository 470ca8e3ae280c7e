//! What the parts of the engine share.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bailey_db::Db;
use bailey_mesh::{Auditor, MeshChannel};
use bailey_proto::broker::v1::ticket_service_client::TicketServiceClient;
use bailey_proto::policy::v1::decision_service_client::DecisionServiceClient;
use bailey_trust::{LockSource, LockSourceError, SigningKeys};
use bailey_types::{Clock, JobId};
use tokio::sync::{Notify, broadcast, watch};
use tokio_util::sync::CancellationToken;

use crate::fleet::Fleet;
use crate::upstream;
use crate::view::{Locked, View};

/// Largest message that comes in, bytes: a report carries 10 MiB of output, a decision a request of as much.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// Largest message with a ticket, bytes: `bailey_trust::Ticket::MAX_FINAL_BYTES`, and what sealing and an assignment add.
pub const MAX_TICKET_BYTES: usize = 20 << 20;

/// Ends of jobs that a waiter may lag behind; one that lags further looks into the database instead.
const ENDED_BACKLOG: usize = 1024;

/// What is set once. The operator has no need to touch these; tests do.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long a lease outlives the last word of its runner.
    pub lease_expiry: Duration,
    /// How long policy may take to decide, and the broker to make a ticket.
    pub decision_timeout: Duration,
    /// Shortest and longest wait before policy or the broker is asked again.
    pub policy_backoff: (Duration, Duration),
    /// How long a check of an upstream may take, whatever its own `timeout` is: somebody waits for it.
    pub check_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            lease_expiry: Duration::from_secs(20),
            decision_timeout: Duration::from_secs(10),
            policy_backoff: (Duration::from_millis(250), Duration::from_secs(5)),
            check_timeout: Duration::from_secs(30),
        }
    }
}

/// Shared by everything; cheap to clone.
#[derive(Clone)]
pub struct State(Arc<Inner>);

/// See [`State`].
pub struct Inner {
    /// The queue and the log.
    pub db: Db,
    /// The operator's word.
    pub lock: LockSource<View>,
    /// Whose signatures count.
    pub keys: SigningKeys,
    /// The time.
    pub clock: Clock,
    /// What is set once.
    pub options: Options,
    /// The runners.
    pub fleet: Fleet,
    /// There may be something to assign.
    pub wake: Notify,
    /// Place of the newest event.
    pub newest_event: watch::Sender<i64>,
    /// Jobs that became terminal.
    pub ended_jobs: broadcast::Sender<JobId>,
    /// Why nothing is assigned at all; empty where nothing holds it.
    held_up: Mutex<String>,
    /// The log nobody can rewrite.
    pub auditor: Auditor,
    /// Who decides.
    pub policy: DecisionServiceClient<MeshChannel>,
    /// Who makes tickets.
    pub broker: TicketServiceClient<MeshChannel>,
    /// The way to the services beyond the stack.
    pub upstreams: upstream::Client,
    /// Ends the streams.
    pub shutdown: CancellationToken,
}

/// What [`State::new`] needs.
pub struct Parts {
    /// As in [`Inner`].
    pub db: Db,
    /// As in [`Inner`].
    pub lock: LockSource<View>,
    /// As in [`Inner`].
    pub keys: SigningKeys,
    /// As in [`Inner`].
    pub clock: Clock,
    /// As in [`Inner`].
    pub options: Options,
    /// As in [`Inner`].
    pub fleet: Fleet,
    /// Place of the newest event.
    pub newest_event: i64,
    /// As in [`Inner`].
    pub auditor: Auditor,
    /// As in [`Inner`].
    pub policy: DecisionServiceClient<MeshChannel>,
    /// As in [`Inner`].
    pub broker: TicketServiceClient<MeshChannel>,
    /// As in [`Inner`].
    pub upstreams: upstream::Client,
    /// As in [`Inner`].
    pub shutdown: CancellationToken,
}

impl State {
    /// The state of one engine.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(Inner {
            db: parts.db,
            lock: parts.lock,
            keys: parts.keys,
            clock: parts.clock,
            options: parts.options,
            fleet: parts.fleet,
            wake: Notify::new(),
            newest_event: watch::Sender::new(parts.newest_event),
            ended_jobs: broadcast::Sender::new(ENDED_BACKLOG),
            held_up: Mutex::default(),
            auditor: parts.auditor,
            policy: parts.policy,
            broker: parts.broker,
            upstreams: parts.upstreams,
            shutdown: parts.shutdown,
        }))
    }

    /// The lock as it is now.
    pub fn locked(&self) -> Result<Locked, LockSourceError> {
        self.0.lock.current()
    }

    /// Why nothing is assigned; empty where nothing holds it.
    pub fn held_up(&self) -> String {
        self.0
            .held_up
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Says why nothing is assigned.
    pub fn hold(&self, why: &str) {
        let mut held_up = self
            .0
            .held_up
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if *held_up != why {
            why.clone_into(&mut held_up);
            if why.is_empty() {
                tracing::info!("jobs are assigned again");
            } else {
                tracing::info!(engine.held_up = why, "no job is assigned: {why}");
            }
        }
    }
}

impl std::ops::Deref for State {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}
