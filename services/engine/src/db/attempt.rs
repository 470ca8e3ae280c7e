//! Every lease of a job, with the decision it rests on.

use bailey_db::Connection;
use bailey_proto::engine::v1::{StartKind, Timings};
use bailey_proto::trust::v1::Signed;
use bailey_types::{JobId, Timestamp};

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

/// Records that a runner gets the job.
pub async fn begin(
    db: &mut Connection,
    job: JobId,
    attempt: u32,
    runner: &str,
    decision: &Signed,
    at: Timestamp,
) -> Result<(), sqlx::Error> {
    let job = job.to_string();
    let (payload, signature) = (decision.payload.as_ref(), decision.signature.as_ref());
    sqlx::query!(
        "INSERT INTO attempt (job_id, attempt, runner_instance, decision_payload, decision_signature, started_at_ms, outcome,
             create_us, ticket_us, start_us, run_us, start_kind)
         VALUES (?, ?, ?, ?, ?, ?, '', 0, 0, 0, 0, '')",
        job,
        attempt,
        runner,
        payload,
        signature,
        at.0,
    )
    .execute(db)
    .await?;
    Ok(())
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

/// Says that more is told of the last attempt of a job that ended at `since` or later. Answers false of any other, and when it was told before.
pub async fn amend(
    db: &mut Connection,
    job: JobId,
    attempt: u32,
    since: Timestamp,
) -> Result<bool, sqlx::Error> {
    let job = job.to_string();
    let done = sqlx::query!(
        "UPDATE attempt SET amended = 1 WHERE job_id = ?1 AND attempt = ?2 AND amended = 0
             AND EXISTS (SELECT 1 FROM job WHERE job_id = ?1 AND attempt = ?2 AND completed_at_ms >= ?3)",
        job,
        attempt,
        since.0,
    );
    Ok(done.execute(db).await?.rows_affected() == 1)
}

/// All attempts of a job, oldest first.
pub async fn all(db: &mut Connection, job: JobId) -> Result<Vec<Attempt>, sqlx::Error> {
    let job = job.to_string();
    let rows = sqlx::query!(
        "SELECT attempt, started_at_ms, ended_at_ms, outcome, create_us, ticket_us, start_us, run_us, start_kind
         FROM attempt WHERE job_id = ? ORDER BY attempt",
        job,
    );
    rows.fetch_all(db)
        .await?
        .into_iter()
        .map(|row| {
            Ok(Attempt {
                number: count(row.attempt)?,
                started_at: Timestamp(row.started_at_ms),
                ended_at: time(row.ended_at_ms),
                outcome: row.outcome,
                timings: Timings {
                    create_us: row.create_us,
                    ticket_us: row.ticket_us,
                    start_us: row.start_us,
                    run_us: row.run_us,
                    start_kind: kind(&row.start_kind)?.into(),
                },
            })
        })
        .collect()
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
