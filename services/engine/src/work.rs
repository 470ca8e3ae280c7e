//! One unit of work: what it changes in the queue, what it tells of that in the log, and who is to hear of it once it is committed.

use bailey_db::{Connection, Transaction};
use bailey_proto::engine::v1::Timings;
use bailey_proto::trust::v1::Signed;
use bailey_types::{DecisionId, EventId, JobId, Timestamp};
use serde_json::{Value, json};

use crate::db;
use crate::db::job::Traces;
use crate::db::transition::{Told, Transition};
use crate::event::{NewEvent, OWN_SOURCE};
use crate::job::{Job, NewJob, Status};
use crate::state::State;

/// A transaction and its effects. Dropped, nothing of it has happened.
pub struct Work {
    tx: Transaction,
    now: Timestamp,
    newest: Option<i64>,
    ended: Vec<JobId>,
    queued: bool,
}

impl Work {
    /// Begins, once every earlier one has ended.
    pub async fn begin(state: &State) -> Result<Self, sqlx::Error> {
        let tx = state.db.write().await?;
        Ok(Self {
            tx,
            now: state.clock.now(),
            newest: None,
            ended: Vec::new(),
            queued: false,
        })
    }

    /// For the functions in `db/`.
    pub fn db(&mut self) -> &mut Connection {
        &mut self.tx
    }

    /// When it is.
    pub const fn now(&self) -> Timestamp {
        self.now
    }

    /// Makes it so, and tells those who wait.
    pub async fn commit(self, state: &State) -> Result<(), sqlx::Error> {
        self.tx.commit().await?;
        // First those who wait for an answer.
        for job in self.ended {
            // Nobody waits: nothing to tell.
            let _waiting = state.ended_jobs.send(job);
        }
        if let Some(newest) = self.newest {
            state.newest_event.send_replace(newest);
        }
        if self.queued {
            state.wake.notify_one();
        }
        Ok(())
    }

    /// Appends an event.
    pub async fn emit(&mut self, event: &NewEvent) -> Result<(), sqlx::Error> {
        self.newest = Some(db::event::append(&mut self.tx, event).await?);
        Ok(())
    }

    /// Puts a job in. Answers false where the same event has started the same target before.
    pub async fn enqueue(&mut self, job: &NewJob) -> Result<bool, sqlx::Error> {
        if !db::job::insert(&mut self.tx, job, self.now).await? {
            return Ok(false);
        }
        self.queued = true;
        let payload = json!({
            "job_id": job.id, "plugin": job.plugin, "command": job.command, "submitted_by": job.submitted_by,
            "parent_job_id": job.parent, "event_id": job.source_event,
            "pipeline": job.place.as_ref().map(|place| &place.pipeline), "step": job.place.as_ref().map(|place| &place.step),
        });
        let change = self.change((None, Status::Queued), &job.submitted_by, 1);
        let told = self.told(job.id, change, "job.enqueued", &payload)?;
        self.newest = Some(db::job::admit(&mut self.tx, &job.input, &told).await?);
        Ok(true)
    }

    /// Gives a job to a runner. Answers false where it is not queued any more.
    pub async fn lease(
        &mut self,
        job: &Job,
        runner: &str,
        (id, decision): (DecisionId, &Signed),
    ) -> Result<bool, sqlx::Error> {
        if !db::job::lease(&mut self.tx, job.id, runner, id, self.now).await? {
            return Ok(false);
        }
        let payload = json!({ "job_id": job.id, "plugin": job.plugin, "command": job.command, "attempt": job.attempt, "decision_id": id });
        let statuses = (Some(Status::Queued), Status::Running);
        let change = self.change(statuses, "leased", job.attempt);
        let told = self.told(job.id, change, "job.started", &payload)?;
        let begun = db::attempt::begin(&mut self.tx, runner, decision, &told);
        self.newest = Some(begun.await?);
        Ok(true)
    }

    /// Closes the books on an attempt; what becomes of the job is another matter.
    pub async fn close_attempt(
        &mut self,
        job: &Job,
        outcome: &str,
        timings: Timings,
    ) -> Result<(), sqlx::Error> {
        db::attempt::end(
            &mut self.tx,
            job.id,
            job.attempt,
            outcome,
            timings,
            self.now,
        )
        .await
    }

    /// Queues a running job for another attempt, which counts unless `uncounted` grows.
    pub async fn retry(
        &mut self,
        job: &Job,
        reason: &str,
        retry: &Retry,
        traces: &Traces,
    ) -> Result<(), sqlx::Error> {
        let next = job.attempt.saturating_add(1);
        let waiting_for = if retry.uncounted > job.uncounted {
            traces.error.as_deref().unwrap_or(reason)
        } else {
            ""
        };
        self.queued = true;
        let payload = json!({
            "job_id": job.id, "plugin": job.plugin, "command": job.command, "attempt": job.tries(),
            "max_attempts": job.max_attempts, "backoff_ms": retry.not_before.0.saturating_sub(self.now.0),
            "next_retry_at": retry.not_before.to_rfc3339(), "reason": reason, "error": short(traces.error.as_deref()),
            "retry_policy_owner": "core",
        });
        let change = self.change((Some(job.status), Status::Queued), reason, job.attempt);
        let told = self.told(job.id, change, "job.retry_scheduled", &payload)?;
        let requeued = db::job::requeue(
            &mut self.tx,
            (next, retry.uncounted),
            retry.not_before,
            waiting_for,
            traces,
            &told,
        );
        self.newest = Some(requeued.await?);
        Ok(())
    }

    /// Ends a job.
    pub async fn end(
        &mut self,
        job: &Job,
        status: Status,
        reason: &str,
        result: Option<&str>,
        traces: &Traces,
    ) -> Result<(), sqlx::Error> {
        self.ended.push(job.id);
        // A slot of its plugin is free again, and a twin by dedupe key may run.
        self.queued = true;
        let duration = job.started_at.map(|at| self.now.0.saturating_sub(at.0));
        let mut payload = json!({
            "job_id": job.id, "plugin": job.plugin, "command": job.command, "status": status.name(),
            "attempt": job.tries(), "duration_ms": duration,
        });
        if status != Status::Succeeded
            && let Some(payload) = payload.as_object_mut()
        {
            payload.insert("reason".into(), reason.into());
            payload.insert("error".into(), short(traces.error.as_deref()).into());
        }
        if status == Status::Dead {
            self.tell("job.retry_exhausted", job.id, &payload).await?;
        }
        let change = self.change((Some(job.status), status), reason, job.attempt);
        let told = self.told(job.id, change, lifecycle(status), &payload)?;
        self.newest = Some(db::job::finish(&mut self.tx, result, traces, &told).await?);
        Ok(())
    }

    fn change(
        &self,
        (from, to): (Option<Status>, Status),
        reason: &str,
        attempt: u32,
    ) -> Transition {
        Transition {
            from,
            to,
            reason: reason.to_owned(),
            attempt,
            at: self.now,
        }
    }

    fn told(
        &self,
        job: JobId,
        change: Transition,
        event_type: &'static str,
        payload: &Value,
    ) -> Result<Told, sqlx::Error> {
        let event = self.event(event_type, job, payload)?;
        Ok(Told { job, change, event })
    }

    /// Tells of a job in the log.
    pub async fn tell(
        &mut self,
        event_type: &'static str,
        job: JobId,
        payload: &Value,
    ) -> Result<(), sqlx::Error> {
        let event = self.event(event_type, job, payload)?;
        self.emit(&event).await
    }

    fn event(
        &self,
        event_type: &'static str,
        job: JobId,
        payload: &Value,
    ) -> Result<NewEvent, sqlx::Error> {
        Ok(NewEvent {
            id: EventId::new(),
            kind: event_type.parse().map_err(db::corrupt)?,
            source: OWN_SOURCE.to_owned(),
            payload: payload.to_string(),
            dedupe_key: String::new(),
            at: self.now,
            job: Some(job),
        })
    }
}

/// When the next attempt may begin.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// Not before.
    pub not_before: Timestamp,
    /// How many attempts then do not count.
    pub uncounted: u32,
}

/// The event that tells of an end (reference: ductile 6.3).
const fn lifecycle(status: Status) -> &'static str {
    match status {
        Status::Succeeded => "job.completed",
        Status::TimedOut => "job.timed_out",
        Status::Skipped => "job.skipped",
        Status::Cancelled => "job.cancelled",
        Status::Queued | Status::Running | Status::Failed | Status::Dead => "job.failed",
    }
}

/// Longest error in an event, characters; the job has all of it.
const MAX_ERROR: usize = 500;

fn short(error: Option<&str>) -> String {
    error.unwrap_or_default().chars().take(MAX_ERROR).collect()
}
