//! What each origin asked for: an origin asks for one thing, once.

use bailey_db::Connection;
use bailey_types::{EventId, JobId, OriginId};

use crate::db::optional;

/// What an origin was used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Used {
    /// A job.
    Job(JobId),
    /// An event.
    Event(EventId),
}

/// What `origin` was used for, if it was.
pub async fn used(db: &mut Connection, origin: OriginId) -> Result<Option<Used>, sqlx::Error> {
    let origin = origin.to_string();
    let row = sqlx::query!(
        "SELECT job_id, event_id FROM origin WHERE origin_id = ?",
        origin
    );
    let Some(row) = row.fetch_optional(db).await? else {
        return Ok(None);
    };
    let job = optional(row.job_id.as_deref())?.map(Used::Job);
    let event = optional(row.event_id.as_deref())?.map(Used::Event);
    Ok(job.or(event))
}

/// Remembers what `origin` is used for. Answers false, and changes nothing, where it was used before.
pub async fn remember(
    db: &mut Connection,
    origin: OriginId,
    used: Used,
) -> Result<bool, sqlx::Error> {
    let origin = origin.to_string();
    let (job, event) = match used {
        Used::Job(job) => (Some(job.to_string()), None),
        Used::Event(event) => (None, Some(event.to_string())),
    };
    let done = sqlx::query!(
        "INSERT INTO origin (origin_id, job_id, event_id) VALUES (?, ?, ?) ON CONFLICT (origin_id) DO NOTHING",
        origin,
        job,
        event
    );
    Ok(done.execute(db).await?.rows_affected() == 1)
}
