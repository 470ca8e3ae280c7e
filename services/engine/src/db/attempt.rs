//! Every lease of a job, with the decision it rests on.

use bailey_db::Connection;
use bailey_proto::engine::v1::{StartKind, Timings};
use bailey_proto::trust::v1::Signed;
use bailey_types::{JobId, Timestamp};

use super::transition::Told;
use super::{corrupt, count, time};

/// One lease of a job.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Which one.
    pub number: u32,
    /// When a runner got it.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// What became of it, in a word; empty while it runs.
    pub outcome: String,
    /// How long each phase took.
    pub timings: Timings,
}

/// Records that a runner gets the job, and tells of it. Answers the event's place in the log.
pub async fn begin(
    db: &mut Connection,
    runner: &str,
    decision: &Signed,
    told: &Told,
) -> Result<i64, sqlx::Error> {
    let (payload, signature) = (decision.payload.as_ref(), decision.signature.as_ref());
    let (job, before, now, event_id, event_job) = told.columns();
    let (change, event) = (&told.change, &told.event);
    let event_type = event.kind.as_str();
    let done = sqlx::query!(
        "INSERT INTO attempt (job_id, attempt, runner_instance, decision_payload, decision_signature, started_at_ms, outcome,
             create_us, ticket_us, start_us, run_us, start_kind)
         VALUES (?, ?, ?, ?, ?, ?, '', 0, 0, 0, 0, '');
         INSERT INTO transition (job_id, from_status, to_status, reason, attempt, at_ms) VALUES (?, ?, ?, ?, ?, ?);
         INSERT INTO event (event_id, type, source, payload, dedupe_key, at_ms, job_id) VALUES (?, ?, ?, ?, ?, ?, ?)",
        job,
        change.attempt,
        runner,
        payload,
        signature,
        change.at.0,
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

/// Records how an attempt ended.
pub async fn end(
    db: &mut Connection,
    job: JobId,
    attempt: u32,
    outcome: &str,
    timings: Timings,
    at: Timestamp,
) -> Result<(), sqlx::Error> {
    let (job, kind) = (job.to_string(), kind_name(timings.start_kind()));
    sqlx::query!(
        "UPDATE attempt SET ended_at_ms = ?, outcome = ?, create_us = ?, ticket_us = ?, start_us = ?, run_us = ?, start_kind = ?
         WHERE job_id = ? AND attempt = ?",
        at.0,
        outcome,
        timings.create_us,
        timings.ticket_us,
        timings.start_us,
        timings.run_us,
        kind,
        job,
        attempt,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Says that more is told of the last attempt of a job that ended at `since` or later. Answers false of any other, and when
/// it was told before, unless it is `more` of the same.
pub async fn amend(
    db: &mut Connection,
    job: JobId,
    attempt: u32,
    (since, more): (Timestamp, bool),
) -> Result<bool, sqlx::Error> {
    let job = job.to_string();
    let done = sqlx::query!(
        "UPDATE attempt SET amended = 1 WHERE job_id = ?1 AND attempt = ?2 AND (amended = 0 OR ?4)
             AND EXISTS (SELECT 1 FROM job WHERE job_id = ?1 AND attempt = ?2 AND completed_at_ms >= ?3)",
        job,
        attempt,
        since.0,
        more,
    );
    Ok(done.execute(db).await?.rows_affected() == 1)
}

/// An attempt as the database tells it: number, start, end, outcome, the four phases, how its cell came to be.
#[derive(serde::Deserialize)]
pub(super) struct Row(i64, i64, Option<i64>, String, i64, i64, i64, i64, String);

impl TryFrom<Row> for Attempt {
    type Error = sqlx::Error;

    fn try_from(row: Row) -> Result<Self, sqlx::Error> {
        let Row(number, started, ended, outcome, create_us, ticket_us, start_us, run_us, start) =
            row;
        Ok(Self {
            number: count(number)?,
            started_at: Timestamp(started),
            ended_at: time(ended),
            outcome,
            timings: Timings {
                create_us,
                ticket_us,
                start_us,
                run_us,
                start_kind: kind(&start)?.into(),
            },
        })
    }
}

const fn kind_name(kind: StartKind) -> &'static str {
    match kind {
        StartKind::Unspecified => "",
        StartKind::Cold => "cold",
        StartKind::Held => "held",
        StartKind::Warm => "warm",
    }
}

fn kind(name: &str) -> Result<StartKind, sqlx::Error> {
    let mut kinds = [
        StartKind::Unspecified,
        StartKind::Cold,
        StartKind::Held,
        StartKind::Warm,
    ]
    .into_iter();
    let found = kinds.find(|kind| kind_name(*kind) == name);
    found.ok_or_else(|| corrupt(format!("{name:?} is no kind of start")))
}

/// The decision that an attempt rests on.
pub async fn decision(
    db: &mut Connection,
    job: JobId,
    attempt: u32,
) -> Result<Option<Signed>, sqlx::Error> {
    let job = job.to_string();
    let row = sqlx::query!(
        "SELECT decision_payload, decision_signature FROM attempt WHERE job_id = ? AND attempt = ?",
        job,
        attempt,
    );
    let signed = row.fetch_optional(db).await?.map(|row| Signed {
        payload: row.decision_payload.into(),
        signature: row.decision_signature.into(),
    });
    Ok(signed)
}
