//! Finding the job that is to be worked on.

use std::collections::BTreeMap;

use bailey_db::Connection;
use bailey_proto::trust::v1::Signed;
use bailey_types::{CommandName, JobId, PluginName, Timestamp};

use super::row::Row;
use crate::db::plugin::EMPTY;
use crate::db::{corrupt, count, optional, text, time};
use crate::job::{AskedBy, Input, Job};

/// The job of this id.
pub async fn by_id(db: &mut Connection, job: JobId) -> Result<Option<Job>, sqlx::Error> {
    let job = job.to_string();
    let row = sqlx::query_as!(Row, "SELECT * FROM job WHERE job_id = ?", job);
    row.fetch_optional(db).await?.map(Job::try_from).transpose()
}

/// What the job is asked with, and the state that its plugin has.
pub async fn input(db: &mut Connection, job: &Job) -> Result<Option<(Input, String)>, sqlx::Error> {
    let (id, plugin) = (job.id.to_string(), job.plugin.as_str());
    let row = sqlx::query!(
        r#"SELECT job_input.*, (SELECT state FROM plugin_state WHERE plugin = ?) AS "state: String"
           FROM job_input WHERE job_id = ?"#,
        plugin,
        id,
    );
    let Some(row) = row.fetch_optional(db).await? else {
        return Ok(None);
    };
    let signed = Signed {
        payload: row.asked_payload.into(),
        signature: row.asked_signature.into(),
    };
    let asked_by = match row.asked_by.as_str() {
        "origin" => AskedBy::Origin(signed),
        "parent_decision" => AskedBy::ParentDecision(signed),
        other => return Err(corrupt(format!("a job is asked by {other:?}"))),
    };
    let input = Input {
        payload: row.payload,
        context: row.context,
        asked_by,
    };
    Ok(Some((input, row.state.unwrap_or_else(|| EMPTY.to_owned()))))
}

/// The oldest job that is due and does not last, of a plugin that is not in `full`, and not one whose twin by dedupe key is running.
pub async fn due(
    db: &mut Connection,
    now: Timestamp,
    full: &[&PluginName],
) -> Result<Option<Job>, sqlx::Error> {
    let full = serde_json::to_string(full).map_err(corrupt)?;
    let row = sqlx::query_as!(
        Row,
        "SELECT * FROM job
         WHERE status = 'queued' AND (next_retry_at_ms IS NULL OR next_retry_at_ms <= ?)
             AND plugin NOT IN (SELECT value FROM json_each(?))
             AND job_id NOT IN (SELECT job_id FROM service)
             AND NOT EXISTS (
                 SELECT 1 FROM job AS twin
                 WHERE job.dedupe_key <> '' AND twin.plugin = job.plugin AND twin.command = job.command
                     AND twin.dedupe_key = job.dedupe_key AND twin.dedupe_key <> '' AND twin.status = 'running')
         ORDER BY job_seq LIMIT 1",
        now.0,
        full,
    );
    row.fetch_optional(db).await?.map(Job::try_from).transpose()
}

/// When the next job that waits for a time is due.
pub async fn next_retry(
    db: &mut Connection,
    now: Timestamp,
) -> Result<Option<Timestamp>, sqlx::Error> {
    let at = sqlx::query_scalar!(
        r#"SELECT MIN(next_retry_at_ms) AS "at: i64" FROM job WHERE status = 'queued' AND next_retry_at_ms > ?"#,
        now.0,
    );
    Ok(time(at.fetch_one(db).await?))
}

/// How many jobs of each plugin run; services take nobody's place.
pub async fn running_by_plugin(
    db: &mut Connection,
) -> Result<BTreeMap<PluginName, u32>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT plugin, COUNT(*) AS "running: i64" FROM job
           WHERE status = 'running' AND job_id NOT IN (SELECT job_id FROM service) GROUP BY plugin"#
    );
    let rows = rows.fetch_all(db).await?;
    rows.into_iter()
        .map(|row| Ok((text(&row.plugin)?, count(row.running)?)))
        .collect()
}

/// Every running job with the instance of the runner that holds it.
pub async fn running(db: &mut Connection) -> Result<Vec<(JobId, u32, String)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT job_id, attempt, runner_instance AS "runner!" FROM job WHERE status = 'running' ORDER BY job_seq"#
    );
    let rows = rows.fetch_all(db).await?;
    rows.into_iter()
        .map(|row| Ok((text(&row.job_id)?, count(row.attempt)?, row.runner)))
        .collect()
}

/// The job that an equal one would repeat: one that succeeded since `succeeded_since`, or a live one put in since `live_since`.
pub async fn duplicate(
    db: &mut Connection,
    (plugin, command, dedupe_key): (&PluginName, &CommandName, &str),
    succeeded_since: Timestamp,
    live_since: Option<Timestamp>,
) -> Result<Option<JobId>, sqlx::Error> {
    if dedupe_key.is_empty() {
        return Ok(None);
    }
    let (plugin, command) = (plugin.as_str(), command.as_str());
    let live_since = live_since.map_or(i64::MAX, |since| since.0);
    let id = sqlx::query_scalar!(
        "SELECT job_id FROM job
         WHERE plugin = ? AND command = ? AND dedupe_key = ? AND dedupe_key <> ''
             AND ((status = 'succeeded' AND completed_at_ms >= ?) OR (status IN ('queued', 'running') AND created_at_ms >= ?))
         ORDER BY job_seq DESC LIMIT 1",
        plugin,
        command,
        dedupe_key,
        succeeded_since.0,
        live_since,
    );
    optional(id.fetch_optional(db).await?.as_deref())
}

/// How many jobs of the schedules of a command are queued or running.
pub async fn outstanding(
    db: &mut Connection,
    plugin: &PluginName,
    command: &CommandName,
) -> Result<u32, sqlx::Error> {
    let (plugin, command) = (plugin.as_str(), command.as_str());
    let total = sqlx::query_scalar!(
        r#"SELECT COUNT(*) AS "total: i64" FROM job
           WHERE plugin = ? AND command = ? AND status IN ('queued', 'running') AND submitted_by LIKE 'schedule:%'"#,
        plugin,
        command,
    );
    count(total.fetch_one(db).await?)
}
