//! Jobs that last. Each has a row of its own beside its row in the queue.

use bailey_db::Connection;
use bailey_types::{JobId, Sha256, Timestamp};

use crate::db::job::find;
use crate::db::{corrupt, count, text};
use crate::job::{Job, LogLine};
use crate::service::{Service, Wanted};

/// Attempts and changes of status that are kept of a job that lasts; older ones would never go by themselves.
const KEPT_ATTEMPTS: u32 = 50;
const KEPT_TRANSITIONS: u32 = 200;

struct Row {
    definition: String,
    wanted: String,
    failures: i64,
    restarts: i64,
    lines_taken: i64,
    next_event_index: i64,
}

impl TryFrom<Row> for Service {
    type Error = sqlx::Error;

    fn try_from(row: Row) -> Result<Self, sqlx::Error> {
        Ok(Self {
            definition: text(&row.definition)?,
            wanted: text(&row.wanted)?,
            failures: count(row.failures)?,
            restarts: row.restarts.try_into().map_err(corrupt)?,
            lines_taken: row.lines_taken.try_into().map_err(corrupt)?,
            next_event_index: count(row.next_event_index)?,
        })
    }
}

/// Makes a job that was just put in one that lasts.
pub async fn insert(
    db: &mut Connection,
    job: JobId,
    definition: Sha256,
) -> Result<(), sqlx::Error> {
    let (job, definition) = (job.to_string(), definition.to_string());
    sqlx::query!(
        "INSERT INTO service (job_id, definition, wanted, failures, restarts, lines_taken, next_event_index)
         VALUES (?, ?, 'run', 0, 0, 0, 0)",
        job,
        definition,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// What is kept of the job beside its row in the queue.
pub async fn find(db: &mut Connection, job: JobId) -> Result<Option<Service>, sqlx::Error> {
    let job = job.to_string();
    let row = sqlx::query_as!(
        Row,
        "SELECT definition, wanted, failures, restarts, lines_taken, next_event_index FROM service WHERE job_id = ?",
        job,
    );
    row.fetch_optional(db)
        .await?
        .map(Service::try_from)
        .transpose()
}

/// Every one that has not ended, oldest first.
pub async fn live(db: &mut Connection) -> Result<Vec<(Job, Service)>, sqlx::Error> {
    let ids = sqlx::query_scalar!(
        "SELECT job.job_id FROM job JOIN service ON service.job_id = job.job_id
         WHERE job.status IN ('queued', 'running') ORDER BY job_seq"
    );
    let ids = ids.fetch_all(&mut *db).await?;
    let mut live = Vec::new();
    for id in ids {
        let id: JobId = text(&id)?;
        let (job, service) = (find::by_id(db, id).await?, find(db, id).await?);
        live.extend(job.zip(service));
    }
    Ok(live)
}

/// The oldest that is due, of a plugin that is not in `held`, and not one whose predecessor still runs.
pub async fn due(
    db: &mut Connection,
    now: Timestamp,
    held: &[&str],
) -> Result<Option<Job>, sqlx::Error> {
    let held = serde_json::to_string(held).map_err(corrupt)?;
    let id = sqlx::query_scalar!(
        "SELECT job.job_id FROM job JOIN service ON service.job_id = job.job_id
         WHERE job.status = 'queued' AND (next_retry_at_ms IS NULL OR next_retry_at_ms <= ?)
             AND plugin NOT IN (SELECT value FROM json_each(?))
             AND NOT EXISTS (
                 SELECT 1 FROM job AS twin
                 WHERE twin.plugin = job.plugin AND twin.command = job.command AND twin.dedupe_key = job.dedupe_key
                     AND twin.status = 'running')
         ORDER BY job_seq LIMIT 1",
        now.0,
        held,
    );
    match id.fetch_optional(&mut *db).await? {
        Some(id) => find::by_id(db, text(&id)?).await,
        None => Ok(None),
    }
}

/// Says what is to become of it.
pub async fn want(db: &mut Connection, job: JobId, wanted: Wanted) -> Result<(), sqlx::Error> {
    let (job, wanted) = (job.to_string(), wanted.name());
    sqlx::query!(
        "UPDATE service SET wanted = ? WHERE job_id = ?",
        wanted,
        job
    )
    .execute(db)
    .await?;
    Ok(())
}

/// An attempt begins: its lines are counted anew.
pub async fn begin(db: &mut Connection, job: JobId) -> Result<(), sqlx::Error> {
    let job = job.to_string();
    sqlx::query!("UPDATE service SET lines_taken = 0 WHERE job_id = ?", job)
        .execute(db)
        .await?;
    Ok(())
}

/// An attempt has ended, and another is to follow. Forgets what is too old to matter.
pub async fn ended(db: &mut Connection, job: &Job, failures: u32) -> Result<(), sqlx::Error> {
    let id = job.id.to_string();
    sqlx::query!(
        "UPDATE service SET wanted = 'run', failures = ?, restarts = restarts + 1 WHERE job_id = ?",
        failures,
        id,
    )
    .execute(&mut *db)
    .await?;
    let oldest = job.attempt.saturating_sub(KEPT_ATTEMPTS);
    sqlx::query!(
        "DELETE FROM attempt WHERE job_id = ? AND attempt <= ?",
        id,
        oldest
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        "DELETE FROM transition WHERE job_id = ?1 AND transition_seq NOT IN
             (SELECT transition_seq FROM transition WHERE job_id = ?1 ORDER BY transition_seq DESC LIMIT ?2)",
        id,
        KEPT_TRANSITIONS,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// A line is taken.
pub async fn take_line(
    db: &mut Connection,
    job: JobId,
    number: u64,
    next_event_index: u32,
) -> Result<(), sqlx::Error> {
    let number = i64::try_from(number).map_err(corrupt)?;
    let job = job.to_string();
    sqlx::query!(
        "UPDATE service SET lines_taken = ?, next_event_index = ? WHERE job_id = ?",
        number,
        next_event_index,
        job,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Writes down what the job said last. What is `None` stays.
pub async fn note(
    db: &mut Connection,
    job: JobId,
    (result, error): (Option<&str>, Option<&str>),
    logs: &[LogLine],
) -> Result<(), sqlx::Error> {
    let job = job.to_string();
    let logs = serde_json::to_string(logs).map_err(corrupt)?;
    sqlx::query!(
        "UPDATE job SET result = COALESCE(?, result), last_error = COALESCE(?, last_error), logs = ? WHERE job_id = ?",
        result,
        error,
        logs,
        job,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// A queued one need not wait any longer.
pub async fn hurry(db: &mut Connection, job: JobId, now: Timestamp) -> Result<(), sqlx::Error> {
    let id = job.to_string();
    sqlx::query!("UPDATE service SET failures = 0 WHERE job_id = ?", id)
        .execute(&mut *db)
        .await?;
    crate::db::job::defer(db, job, now, "").await
}
