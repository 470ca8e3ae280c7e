//! Which job an origin was used for.

use bailey_db::Connection;
use bailey_types::{JobId, OriginId};

/// Uses the origin for `job`, unless another job has it. `pipeline` and `step` are empty for a call. Answers whether the job has it now.
pub(crate) async fn take(
    tx: &mut Connection,
    origin: OriginId,
    (pipeline, step): (&str, &str),
    job: JobId,
) -> Result<bool, sqlx::Error> {
    let (origin, job) = (origin.to_string(), job.to_string());
    sqlx::query!(
        "INSERT INTO origin_use (origin_id, pipeline, step, job_id) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT DO NOTHING",
        origin,
        pipeline,
        step,
        job
    )
    .execute(&mut *tx)
    .await?;
    let row = sqlx::query!(
        "SELECT job_id FROM origin_use WHERE origin_id = ?1 AND pipeline = ?2 AND step = ?3",
        origin,
        pipeline,
        step
    )
    .fetch_one(tx)
    .await?;
    Ok(row.job_id == job)
}
