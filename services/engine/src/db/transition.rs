//! Every change of a job's status.

use bailey_db::Connection;
use bailey_types::{JobId, Timestamp};

use crate::db::{count, text};
use crate::job::Status;

/// One change.
#[derive(Clone, Debug)]
pub struct Transition {
    /// `None`: it came to be.
    pub from: Option<Status>,
    /// What it became.
    pub to: Status,
    /// A stable token, or a sentence.
    pub reason: String,
    /// During which attempt.
    pub attempt: u32,
    /// When.
    pub at: Timestamp,
}

/// Records a change.
pub async fn record(
    db: &mut Connection,
    job: JobId,
    change: &Transition,
) -> Result<(), sqlx::Error> {
    let job = job.to_string();
    let (from, to) = (change.from.map_or("", Status::name), change.to.name());
    sqlx::query!(
        "INSERT INTO transition (job_id, from_status, to_status, reason, attempt, at_ms) VALUES (?, ?, ?, ?, ?, ?)",
        job,
        from,
        to,
        change.reason,
        change.attempt,
        change.at.0,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// All changes of a job, oldest first.
pub async fn all(db: &mut Connection, job: JobId) -> Result<Vec<Transition>, sqlx::Error> {
    let job = job.to_string();
    let rows = sqlx::query!(
        "SELECT from_status, to_status, reason, attempt, at_ms FROM transition WHERE job_id = ? ORDER BY transition_seq",
        job,
    );
    rows.fetch_all(db)
        .await?
        .into_iter()
        .map(|row| {
            let from = Some(row.from_status.as_str()).filter(|from| !from.is_empty());
            Ok(Transition {
                from: from.map(text).transpose()?,
                to: text(&row.to_status)?,
                reason: row.reason,
                attempt: count(row.attempt)?,
                at: Timestamp(row.at_ms),
            })
        })
        .collect()
}
