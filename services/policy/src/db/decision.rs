//! The decisions that were given.

use bailey_db::Connection;
use bailey_types::{DecisionId, JobId, Timestamp};

pub(crate) async fn insert(
    tx: &mut Connection,
    decision: DecisionId,
    job: JobId,
    instance: &str,
    at: Timestamp,
) -> Result<(), sqlx::Error> {
    let (decision, job) = (decision.to_string(), job.to_string());
    sqlx::query!(
        "INSERT INTO decision (decision_id, job_id, instance_id, decided_at_ms) VALUES (?1, ?2, ?3, ?4)",
        decision,
        job,
        instance,
        at.0
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Takes back a decision that was never given.
pub(crate) async fn delete(tx: &mut Connection, decision: DecisionId) -> Result<(), sqlx::Error> {
    let decision = decision.to_string();
    sqlx::query!("DELETE FROM decision WHERE decision_id = ?1", decision)
        .execute(tx)
        .await?;
    Ok(())
}

/// How many decisions the job has had.
pub(crate) async fn count(tx: &mut Connection, job: JobId) -> Result<u64, sqlx::Error> {
    let job = job.to_string();
    let row = sqlx::query!(
        r#"SELECT COUNT(*) AS "count!: i64" FROM decision WHERE job_id = ?1"#,
        job
    )
    .fetch_one(tx)
    .await?;
    Ok(u64::try_from(row.count).unwrap_or(0))
}

/// The pipeline instance of a decision of ours for `job`; `None` where there is no such decision.
pub(crate) async fn instance(
    tx: &mut Connection,
    decision: DecisionId,
    job: JobId,
) -> Result<Option<String>, sqlx::Error> {
    let (decision, job) = (decision.to_string(), job.to_string());
    let row = sqlx::query!(
        "SELECT instance_id FROM decision WHERE decision_id = ?1 AND job_id = ?2",
        decision,
        job
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(|row| row.instance_id))
}
