//! What a job has been through: its changes and its leases.

use bailey_db::Connection;
use bailey_types::JobId;

use super::attempt::{self, Attempt};
use super::corrupt;
use super::transition::{self, Transition};

/// All changes and all leases of a job, oldest first. Both in one statement: two would be another way to the database's thread and back for whoever
/// waits for the job's end.
pub async fn of(
    db: &mut Connection,
    job: JobId,
) -> Result<(Vec<Transition>, Vec<Attempt>), sqlx::Error> {
    let job = job.to_string();
    let row = sqlx::query!(
        r#"SELECT
             (SELECT json_group_array(json_array(from_status, to_status, reason, attempt, at_ms) ORDER BY transition_seq)
              FROM transition WHERE job_id = ?) AS "transitions!: String",
             (SELECT json_group_array(json_array(attempt, started_at_ms, ended_at_ms, outcome, create_us, ticket_us, start_us, run_us,
                  start_kind) ORDER BY attempt)
              FROM attempt WHERE job_id = ?) AS "attempts!: String""#,
        job,
        job,
    );
    let row = row.fetch_one(db).await?;
    let transitions: Vec<transition::Row> =
        serde_json::from_str(&row.transitions).map_err(corrupt)?;
    let attempts: Vec<attempt::Row> = serde_json::from_str(&row.attempts).map_err(corrupt)?;
    Ok((
        transitions
            .into_iter()
            .map(TryFrom::try_from)
            .collect::<Result<_, _>>()?,
        attempts
            .into_iter()
            .map(TryFrom::try_from)
            .collect::<Result<_, _>>()?,
    ))
}
