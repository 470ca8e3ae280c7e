//! A job's row, and the job it stands for.

use bailey_types::Timestamp;

use crate::db::{corrupt, count, optional, text, time};
use crate::job::{Job, Place};

#[expect(dead_code, reason = "`SELECT *` names every column")]
pub(super) struct Row {
    pub(super) job_seq: i64,
    pub(super) job_id: String,
    pub(super) plugin: String,
    pub(super) command: String,
    pub(super) status: String,
    pub(super) attempt: i64,
    pub(super) uncounted: i64,
    pub(super) max_attempts: i64,
    pub(super) submitted_by: String,
    pub(super) dedupe_key: String,
    pub(super) created_at_ms: i64,
    pub(super) started_at_ms: Option<i64>,
    pub(super) completed_at_ms: Option<i64>,
    pub(super) next_retry_at_ms: Option<i64>,
    pub(super) waiting_for: String,
    pub(super) result: Option<String>,
    pub(super) last_error: Option<String>,
    pub(super) stderr: Option<String>,
    pub(super) logs: String,
    pub(super) parent_job_id: Option<String>,
    pub(super) source_event_id: Option<String>,
    pub(super) pipeline: String,
    pub(super) step: String,
    pub(super) pipeline_instance: String,
    pub(super) event_type: String,
    pub(super) event_index: i64,
    pub(super) route_depth: i64,
    pub(super) generation: i64,
    pub(super) principal: String,
    pub(super) decision_id: Option<String>,
    pub(super) runner_instance: Option<String>,
}

impl TryFrom<Row> for Job {
    type Error = sqlx::Error;

    fn try_from(row: Row) -> Result<Self, sqlx::Error> {
        let place = place(&row)?;
        Ok(Self {
            id: text(&row.job_id)?,
            plugin: text(&row.plugin)?,
            command: text(&row.command)?,
            status: text(&row.status)?,
            attempt: count(row.attempt)?,
            uncounted: count(row.uncounted)?,
            max_attempts: count(row.max_attempts)?,
            submitted_by: row.submitted_by,
            dedupe_key: row.dedupe_key,
            created_at: Timestamp(row.created_at_ms),
            started_at: time(row.started_at_ms),
            completed_at: time(row.completed_at_ms),
            next_retry_at: time(row.next_retry_at_ms),
            waiting_for: row.waiting_for,
            result: row.result,
            last_error: row.last_error,
            stderr: row.stderr,
            logs: serde_json::from_str(&row.logs).map_err(corrupt)?,
            parent: optional(row.parent_job_id.as_deref())?,
            source_event: optional(row.source_event_id.as_deref())?,
            place,
            route_depth: count(row.route_depth)?,
            generation: count(row.generation)?,
            principal: row.principal,
            decision: row.decision_id,
            runner: row.runner_instance,
        })
    }
}

fn place(row: &Row) -> Result<Option<Place>, sqlx::Error> {
    if row.pipeline.is_empty() {
        return Ok(None);
    }
    Ok(Some(Place {
        pipeline: text(&row.pipeline)?,
        step: text(&row.step)?,
        instance: row.pipeline_instance.clone(),
        event_type: text(&row.event_type)?,
        event_index: count(row.event_index)?,
    }))
}
