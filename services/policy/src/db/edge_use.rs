//! Which job followed from an event of another.

use bailey_db::Connection;
use bailey_types::{JobId, PipelineName, StepId};

/// Uses the edge for `job`, unless another job has it. Answers whether the job has it now.
pub(crate) async fn take(
    tx: &mut Connection,
    parent: JobId,
    (pipeline, step, event_index): (&PipelineName, &StepId, u32),
    job: JobId,
) -> Result<bool, sqlx::Error> {
    let (parent, job) = (parent.to_string(), job.to_string());
    let (pipeline, step) = (pipeline.as_str(), step.as_str());
    sqlx::query!(
        "INSERT INTO edge_use (parent_job_id, pipeline, step, event_index, job_id) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT DO NOTHING",
        parent,
        pipeline,
        step,
        event_index,
        job
    )
    .execute(&mut *tx)
    .await?;
    let row = sqlx::query!(
        "SELECT job_id FROM edge_use
         WHERE parent_job_id = ?1 AND pipeline = ?2 AND step = ?3 AND event_index = ?4",
        parent,
        pipeline,
        step,
        event_index
    )
    .fetch_one(tx)
    .await?;
    Ok(row.job_id == job)
}
