//! Every change of a job's status.

use bailey_types::{JobId, Timestamp};

use crate::db::{count, text};
use crate::event::NewEvent;
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

/// A change of a job, and the event that tells of it.
///
/// Whoever stores it stores with it what has changed: several statements to SQLite at once take no longer than one, for each is a way to another
/// thread and back.
#[derive(Clone, Debug)]
pub struct Told {
    /// The job.
    pub job: JobId,
    /// What it became.
    pub change: Transition,
    /// Says so in the log.
    pub event: NewEvent,
}

impl Told {
    /// What the columns are to hold that are not in it as they are: the job, its status before and now, and the event's id and job.
    pub(super) fn columns(&self) -> (String, &'static str, &'static str, String, Option<String>) {
        let before = self.change.from.map_or("", Status::name);
        let event_job = self.event.job.map(|job| job.to_string());
        (
            self.job.to_string(),
            before,
            self.change.to.name(),
            self.event.id.to_string(),
            event_job,
        )
    }
}

/// A change as the database tells it.
#[derive(serde::Deserialize)]
pub(super) struct Row(String, String, String, i64, i64);

impl TryFrom<Row> for Transition {
    type Error = sqlx::Error;

    fn try_from(Row(from, to, reason, attempt, at_ms): Row) -> Result<Self, sqlx::Error> {
        let from = Some(from.as_str()).filter(|from| !from.is_empty());
        Ok(Self {
            from: from.map(text).transpose()?,
            to: text(&to)?,
            reason,
            attempt: count(attempt)?,
            at: Timestamp(at_ms),
        })
    }
}
