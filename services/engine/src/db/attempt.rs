//! Every lease of a job, with the decision it rests on.

use bailey_db::Connection;
use bailey_proto::engine::v1::Timings;
use bailey_proto::trust::v1::Signed;
use bailey_types::{JobId, Timestamp};

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
             create_us, ticket_us, start_us, run_us)
         VALUES (?, ?, ?, ?, ?, ?, '', 0, 0, 0, 0)",
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
    let job = job.to_string();
    sqlx::query!(
        "UPDATE attempt SET ended_at_ms = ?, outcome = ?, create_us = ?, ticket_us = ?, start_us = ?, run_us = ?
         WHERE job_id = ? AND attempt = ?",
        at.0,
        outcome,
        timings.create_us,
        timings.ticket_us,
        timings.start_us,
        timings.run_us,
        job,
        attempt,
    )
    .execute(db)
    .await?;
    Ok(())
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
