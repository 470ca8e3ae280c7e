//! The jobs that this runner holds: takes assignments, runs each in a cell, reports, lets go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bailey_cell::launch::{Envelope, Returned};
use bailey_proto::engine::v1::{Assignment, Cancel, HeldLease};
use bailey_service::Context;
use bailey_trust::MAX_SERVICES;
use bailey_types::AttemptNumber;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::attach::Late;
use crate::attempt::{Attempt, Done, Outcome, StartKind, Stops, Timings, Trouble};
use crate::care::Care;
use crate::cell::Workshop;
use crate::report::{self, Reports};

/// Job id and attempt, as the engine wrote them.
type Lease = (String, u32);

/// An attempt that is held.
#[derive(Clone, Debug)]
pub struct Holding {
    /// Cancels it.
    cancelled: CancellationToken,
    /// Whether it lasts: then it takes no slot.
    lasts: bool,
}

/// See the module.
pub struct Desk<R> {
    /// Tasks and shutdown.
    pub ctx: Context,
    /// Where cells are made.
    pub workshop: Workshop,
    /// Where reports go.
    pub reports: R,
    /// Who looks after Docker.
    pub care: Arc<Care>,
    /// How many jobs run at a time.
    pub slots: usize,
    /// Attempts whose report was not taken yet.
    pub held: watch::Sender<BTreeMap<Lease, Holding>>,
}

impl<R: Reports> Desk<R> {
    /// The leases that this life holds.
    pub fn held(&self) -> Vec<HeldLease> {
        let held = self.held.borrow();
        held.keys()
            .map(|(job_id, attempt)| HeldLease {
                job_id: job_id.clone(),
                attempt: *attempt,
            })
            .collect()
    }

    /// Takes an assignment. One that is held already is the same one again, after a reconnect.
    pub fn assign(self: &Arc<Self>, assignment: Assignment) {
        let lease = (assignment.job_id.clone(), assignment.attempt);
        let cancelled = CancellationToken::new();
        let lasts = assignment.lasts;
        let most = if lasts { MAX_SERVICES } else { self.slots };
        let mut before = 0;
        let is_new = self.held.send_if_modified(|held| {
            let alike = held.values().filter(|holding| holding.lasts == lasts);
            before = alike.count();
            let is_new = !held.contains_key(&lease);
            if is_new {
                let cancelled = cancelled.clone();
                held.insert(lease.clone(), Holding { cancelled, lasts });
            }
            is_new
        });
        if !is_new {
            return;
        }
        let refusal = if self.ctx.shutdown.is_cancelled() {
            Some("the runner stops")
        } else if before >= most {
            Some("the runner has no free slot")
        } else {
            None
        };
        let desk = Arc::clone(self);
        self.ctx.spawn("job", async move {
            let reported = CancellationToken::new();
            let (outcome, seen, late) = match refusal {
                Some(reason) => (not_started(reason), Seen::default(), None),
                None => desk.work(assignment, cancelled, reported.clone()).await,
            };
            let (job_id, attempt) = lease.clone();
            let report = report::of(job_id, attempt, outcome, seen);
            report::deliver(&desk.reports, report, &desk.ctx.shutdown).await;
            reported.cancel();
            desk.held.send_modify(|held| {
                held.remove(&lease);
            });
            // The answer did not wait for it, and holds no slot for it.
            if let Some(late) = late
                && let Ok(late) = late.await
            {
                report::amend(&desk.reports, lease, late, &desk.ctx.shutdown).await;
            }
            Ok(())
        });
    }

    /// Ends an attempt; one that is not held has ended already.
    pub fn cancel(&self, cancel: &Cancel) {
        let held = self.held.borrow();
        if let Some(holding) = held.get(&(cancel.job_id.clone(), cancel.attempt))
            && !holding.cancelled.is_cancelled()
        {
            tracing::info!(job.id = %cancel.job_id, "the engine cancels a job");
            holding.cancelled.cancel();
        }
    }

    #[tracing::instrument(name = "cell.run", skip_all, fields(job.id = %assignment.job_id, job.attempt = assignment.attempt))]
    async fn work(
        &self,
        assignment: Assignment,
        cancelled: CancellationToken,
        reported: CancellationToken,
    ) -> (Outcome, Seen, Option<oneshot::Receiver<Late>>) {
        let attempt = match attempt(assignment) {
            Ok(attempt) => attempt,
            Err(why) => return (Outcome::Refused(why), Seen::default(), None),
        };
        let stops = Stops {
            cancelled,
            stopping: self.ctx.shutdown.clone(),
        };
        if let Err(trouble) = self.care.admit() {
            let outcome = Outcome::NotStarted(trouble);
            log(&attempt, &outcome, Timings::default());
            return (outcome, Seen::default(), None);
        }
        let Done {
            outcome,
            timings,
            returned,
            remains,
        } = self.workshop.run(&attempt, &stops, &self.reports).await;
        // Beside the report: neither waits for the other.
        let late = remains.map(|remains| self.workshop.pools.part(remains, reported));
        match &outcome {
            Outcome::NotStarted(trouble) => self.care.unwell(trouble),
            Outcome::Finished { .. } | Outcome::TimedOut { .. } | Outcome::Unhealthy { .. } => {
                self.care.well();
            }
            Outcome::Lost { .. } | Outcome::Refused(_) => {}
        }
        log(&attempt, &outcome, timings);
        (outcome, (timings, returned), late)
    }
}

/// What the engine is told beside the outcome.
type Seen = (Timings, Vec<Returned>);

fn not_started(reason: &str) -> Outcome {
    Outcome::NotStarted(Trouble::Other(reason.to_owned()))
}

fn attempt(assignment: Assignment) -> Result<Attempt, String> {
    let bad = |what: &str| format!("the assignment's {what} is malformed");
    Ok(Attempt {
        job: assignment.job_id.parse().map_err(|_| bad("job_id"))?,
        number: AttemptNumber(assignment.attempt),
        plugin: assignment.plugin.parse().map_err(|_| bad("plugin"))?,
        envelope: Envelope {
            decision: assignment.decision.ok_or_else(|| bad("decision"))?,
            ticket: assignment.ticket.ok_or_else(|| bad("ticket"))?,
            sealed: assignment.sealed,
        },
        ticket: u64::try_from(assignment.ticket_us)
            .map(Duration::from_micros)
            .map_err(|_| bad("ticket_us"))?,
        time: u64::try_from(assignment.timeout_ms)
            .ok()
            .filter(|time| (*time > 0) != assignment.lasts)
            .map(Duration::from_millis)
            .ok_or_else(|| bad("timeout_ms"))?,
        lasts: assignment.lasts,
    })
}

/// One line per attempt. Never what the plugin said.
fn log(attempt: &Attempt, outcome: &Outcome, timings: Timings) {
    let (plugin, run_ms) = (&attempt.plugin, timings.run.as_millis());
    let start = timings.kind.map_or("none", StartKind::as_str);
    match outcome {
        Outcome::Finished {
            exit_code,
            out_of_memory,
            stdout,
            ..
        } => tracing::info!(
            plugin.name = %plugin, exit_code, out_of_memory, stdout_bytes = stdout.len(), duration_ms = run_ms, cell.start = start,
            "{plugin} ended with exit code {exit_code}"
        ),
        Outcome::TimedOut { killed, .. } => {
            tracing::warn!(plugin.name = %plugin, killed, duration_ms = run_ms, cell.start = start, "{plugin} took too long");
        }
        Outcome::NotStarted(trouble) => {
            tracing::warn!(plugin.name = %plugin, error = trouble.sentence(), cell.start = start, "{plugin} could not be started");
        }
        Outcome::Lost { reason, .. } => {
            tracing::warn!(plugin.name = %plugin, error = %reason, duration_ms = run_ms, cell.start = start, "{plugin} was lost");
        }
        Outcome::Unhealthy { reason, .. } => {
            tracing::warn!(plugin.name = %plugin, error = %reason, duration_ms = run_ms, cell.start = start, "{plugin} was not well");
        }
        Outcome::Refused(reason) => {
            tracing::warn!(plugin.name = %plugin, error = %reason, cell.start = start, "{plugin} was refused");
        }
    }
}
