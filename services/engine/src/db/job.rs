//! The queue: every job there is, from when it is put in until it is pruned.

pub mod find;
pub mod list;
mod row;

use bailey_db::Connection;
use bailey_types::{DecisionId, JobId, Timestamp};

use crate::db::transition::Told;
use crate::job::{AskedBy, Input, LogLine, NewJob};

/// Puts a job in; [`admit`] follows. Answers false where the same event has started the same target before.
pub async fn insert(db: &mut Connection, job: &NewJob, at: Timestamp) -> Result<bool, sqlx::Error> {
    let id = job.id.to_string();
    let (plugin, command) = (job.plugin.as_str(), job.command.as_str());
    let (parent, event) = (
        job.parent.map(|id| id.to_string()),
        job.source_event.map(|id| id.to_string()),
    );
    let place = job.place.as_ref();
    let pipeline = place.map_or("", |place| place.pipeline.as_str());
    let step = place.map_or("", |place| place.step.as_str());
    let instance = place.map_or("", |place| place.instance.as_str());
    let event_type = place.map_or("", |place| place.event_type.as_str());
    let event_index = place.map_or(0, |place| place.event_index);
    let done = sqlx::query!(
        "INSERT INTO job (job_id, plugin, command, status, attempt, uncounted, max_attempts, submitted_by, dedupe_key,
             created_at_ms, waiting_for, logs, parent_job_id, source_event_id, pipeline, step, pipeline_instance, event_type,
             event_index, route_depth, generation, principal)
         VALUES (?, ?, ?, 'queued', 1, 0, ?, ?, ?, ?, '', '[]', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (parent_job_id, source_event_id, plugin, command, pipeline, step) WHERE parent_job_id IS NOT NULL
         DO NOTHING",
        id,
        plugin,
        command,
        job.max_attempts,
        job.submitted_by,
        job.dedupe_key,
        at.0,
        parent,
        event,
        pipeline,
        step,
        instance,
        event_type,
        event_index,
        job.route_depth,
        job.generation,
        job.principal,
    );
    Ok(done.execute(db).await?.rows_affected() == 1)
}

/// Keeps what a job is asked with that was just put in, and tells of it. Answers the event's place in the log.
pub async fn admit(db: &mut Connection, input: &Input, told: &Told) -> Result<i64, sqlx::Error> {
    let (asked_by, signed) = match &input.asked_by {
        AskedBy::Origin(signed) => ("origin", signed),
        AskedBy::ParentDecision(signed) => ("parent_decision", signed),
    };
    let (payload, signature) = (signed.payload.as_ref(), signed.signature.as_ref());
    let (job, before, now, event_id, event_job) = told.columns();
    let (change, event) = (&told.change, &told.event);
    let event_type = event.kind.as_str();
    let done = sqlx::query!(
        "INSERT INTO job_input (job_id, payload, context, asked_by, asked_payload, asked_signature) VALUES (?, ?, ?, ?, ?, ?);
         INSERT INTO transition (job_id, from_status, to_status, reason, attempt, at_ms) VALUES (?, ?, ?, ?, ?, ?);
         INSERT INTO event (event_id, type, source, payload, dedupe_key, at_ms, job_id) VALUES (?, ?, ?, ?, ?, ?, ?)",
        job,
        input.payload,
        input.context,
        asked_by,
        payload,
        signature,
        job,
        before,
        now,
        change.reason,
        change.attempt,
        change.at.0,
        event_id,
        event_type,
        event.source,
        event.payload,
        event.dedupe_key,
        event.at.0,
        event_job,
    );
    Ok(done.execute(db).await?.last_insert_rowid())
}

/// Gives the lease of a queued job to a runner. Answers false where the job is not queued any more.
pub async fn lease(
    db: &mut Connection,
    job: JobId,
    runner: &str,
    decision: DecisionId,
    at: Timestamp,
) -> Result<bool, sqlx::Error> {
    let (job, decision) = (job.to_string(), decision.to_string());
    let done = sqlx::query!(
        "UPDATE job SET status = 'running', started_at_ms = ?, next_retry_at_ms = NULL, waiting_for = '', decision_id = ?,
             runner_instance = ?
         WHERE job_id = ? AND status = 'queued'",
        at.0,
        decision,
        runner,
        job,
    );
    Ok(done.execute(db).await?.rows_affected() == 1)
}

/// What is left of an attempt, whatever its outcome.
#[derive(Clone, Debug, Default)]
pub struct Traces {
    /// What went wrong.
    pub error: Option<String>,
    /// What it wrote to stderr.
    pub stderr: Option<String>,
    /// The plugin's log lines.
    pub logs: Vec<LogLine>,
}

/// Queues a job again, for its next attempt at `not_before`, and tells of it. `uncounted` is how many attempts then do not count. Answers the event's
/// place in the log.
pub async fn requeue(
    db: &mut Connection,
    (attempt, uncounted): (u32, u32),
    not_before: Timestamp,
    waiting_for: &str,
    traces: &Traces,
    told: &Told,
) -> Result<i64, sqlx::Error> {
    let logs = logs(&traces.logs)?;
    let (job, before, now, event_id, event_job) = told.columns();
    let (change, event) = (&told.change, &told.event);
    let event_type = event.kind.as_str();
    let done = sqlx::query!(
        "UPDATE job SET status = 'queued', attempt = ?, uncounted = ?, next_retry_at_ms = ?, waiting_for = ?, last_error = ?,
             stderr = ?, logs = ?, runner_instance = NULL
         WHERE job_id = ?;
         INSERT INTO transition (job_id, from_status, to_status, reason, attempt, at_ms) VALUES (?, ?, ?, ?, ?, ?);
         INSERT INTO event (event_id, type, source, payload, dedupe_key, at_ms, job_id) VALUES (?, ?, ?, ?, ?, ?, ?)",
        attempt,
        uncounted,
        not_before.0,
        waiting_for,
        traces.error,
        traces.stderr,
        logs,
        job,
        job,
        before,
        now,
        change.reason,
        change.attempt,
        change.at.0,
        event_id,
        event_type,
        event.source,
        event.payload,
        event.dedupe_key,
        event.at.0,
        event_job,
    );
    Ok(done.execute(db).await?.last_insert_rowid())
}

/// Lets a queued job wait without an attempt.
pub async fn defer(
    db: &mut Connection,
    job: JobId,
    not_before: Timestamp,
    waiting_for: &str,
) -> Result<(), sqlx::Error> {
    let job = job.to_string();
    sqlx::query!(
        "UPDATE job SET next_retry_at_ms = ?, waiting_for = ? WHERE job_id = ? AND status = 'queued'",
        not_before.0,
        waiting_for,
        job,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Ends a job as its change says, and tells of it. Answers the event's place in the log.
pub async fn finish(
    db: &mut Connection,
    result: Option<&str>,
    traces: &Traces,
    told: &Told,
) -> Result<i64, sqlx::Error> {
    let logs = logs(&traces.logs)?;
    let (job, before, status, event_id, event_job) = told.columns();
    let (change, event) = (&told.change, &told.event);
    let event_type = event.kind.as_str();
    let done = sqlx::query!(
        "UPDATE job SET status = ?, completed_at_ms = ?, next_retry_at_ms = NULL, waiting_for = '', result = ?, last_error = ?,
             stderr = ?, logs = ?, runner_instance = NULL
         WHERE job_id = ?;
         INSERT INTO transition (job_id, from_status, to_status, reason, attempt, at_ms) VALUES (?, ?, ?, ?, ?, ?);
         INSERT INTO event (event_id, type, source, payload, dedupe_key, at_ms, job_id) VALUES (?, ?, ?, ?, ?, ?, ?)",
        status,
        change.at.0,
        result,
        traces.error,
        traces.stderr,
        logs,
        job,
        job,
        before,
        status,
        change.reason,
        change.attempt,
        change.at.0,
        event_id,
        event_type,
        event.source,
        event.payload,
        event.dedupe_key,
        event.at.0,
        event_job,
    );
    Ok(done.execute(db).await?.last_insert_rowid())
}

/// Keeps what the last attempt of an ended job wrote to stderr, where that is more than what was known.
pub async fn amend(db: &mut Connection, job: JobId, stderr: &str) -> Result<(), sqlx::Error> {
    let job = job.to_string();
    // Not length(): that of a text ends at its first NUL.
    sqlx::query!(
        "UPDATE job SET stderr = ?1 WHERE job_id = ?2 AND octet_length(COALESCE(stderr, '')) < octet_length(?1)",
        stderr,
        job,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Deletes at most `limit` jobs that ended before `before`, with their attempts and transitions.
pub async fn prune(db: &mut Connection, before: Timestamp, limit: u32) -> Result<u64, sqlx::Error> {
    // A parent stays as long as a child of it: a tree without its root tells nobody who asked.
    let ids: Vec<String> = sqlx::query_scalar!(
        "SELECT job_id FROM job
         WHERE completed_at_ms < ? AND NOT EXISTS (SELECT 1 FROM job AS child WHERE child.parent_job_id = job.job_id)
         ORDER BY completed_at_ms LIMIT ?",
        before.0,
        limit,
    )
    .fetch_all(&mut *db)
    .await?;
    let ids = serde_json::to_string(&ids).map_err(crate::db::corrupt)?;
    sqlx::query!(
        "DELETE FROM origin WHERE job_id IN (SELECT value FROM json_each(?))",
        ids
    )
    .execute(&mut *db)
    .await?;
    let gone = sqlx::query!(
        "DELETE FROM job WHERE job_id IN (SELECT value FROM json_each(?))",
        ids
    );
    Ok(gone.execute(db).await?.rows_affected())
}

fn logs(lines: &[LogLine]) -> Result<String, sqlx::Error> {
    serde_json::to_string(lines).map_err(crate::db::corrupt)
}
