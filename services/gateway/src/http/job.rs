//! `/jobs`, `/job/{id}` and `/job/{id}/tree`.

mod attempt;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State as Shared};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use bailey_proto::engine::v1 as engine;
use bailey_proto::engine::v1::JobStatus;
use bailey_types::Timestamp;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use self::attempt::AttemptView;
use super::some;
use crate::auth::{self, Token, scopes};
use crate::problem::Problem;
use crate::state::State;
use crate::view::View;

/// A job as clients see it.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobView {
    job_id: String,
    /// `queued`, `running`, `succeeded`, `failed`, `timed_out`, `dead`, `skipped` or `cancelled`.
    status: &'static str,
    plugin: String,
    command: String,
    attempt: u32,
    max_attempts: u32,
    submitted_by: String,
    principal: String,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_retry_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stderr: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_job_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_event_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pipeline: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting_for: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    logs: Vec<LogView>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    transitions: Vec<TransitionView>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attempts: Vec<AttemptView>,
    /// The job was not done within `?wait`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    timeout_exceeded: bool,
}

#[derive(Debug, Serialize, ToSchema)]
struct LogView {
    level: String,
    message: String,
}

#[derive(Debug, Serialize, ToSchema)]
struct TransitionView {
    from: &'static str,
    to: &'static str,
    reason: String,
    attempt: u32,
    at: String,
}

/// A status by its name in the API.
pub fn status_name(status: i32) -> &'static str {
    match JobStatus::try_from(status).unwrap_or_default() {
        JobStatus::Unspecified => "unknown",
        JobStatus::Queued => "queued",
        JobStatus::Running => "running",
        JobStatus::Succeeded => "succeeded",
        JobStatus::Failed => "failed",
        JobStatus::TimedOut => "timed_out",
        JobStatus::Dead => "dead",
        JobStatus::Skipped => "skipped",
        JobStatus::Cancelled => "cancelled",
    }
}

fn status_from_name(name: &str) -> Option<JobStatus> {
    // The reference has aliases for three of them (6.2).
    Some(match name {
        "queued" | "pending" => JobStatus::Queued,
        "running" => JobStatus::Running,
        "succeeded" | "ok" => JobStatus::Succeeded,
        "failed" | "error" => JobStatus::Failed,
        "timed_out" => JobStatus::TimedOut,
        "dead" => JobStatus::Dead,
        "skipped" => JobStatus::Skipped,
        "cancelled" => JobStatus::Cancelled,
        _ => return None,
    })
}

fn is_terminal(status: i32) -> bool {
    !matches!(
        JobStatus::try_from(status),
        Ok(JobStatus::Queued | JobStatus::Running | JobStatus::Unspecified) | Err(_)
    )
}

impl JobView {
    /// `job` for a client who may read what plugins answered, or may not (reference: ductile 6.1).
    fn new(job: engine::Job, results: bool) -> Self {
        let time = |ms: i64| (ms != 0).then(|| Timestamp(ms).to_rfc3339());
        let shown = |text: String| results.then(|| some(text)).flatten();
        Self {
            status: status_name(job.status),
            job_id: job.job_id,
            plugin: job.plugin,
            command: job.command,
            attempt: job.attempt,
            max_attempts: job.max_attempts,
            submitted_by: job.submitted_by,
            principal: job.principal,
            created_at: Timestamp(job.created_at_ms).to_rfc3339(),
            started_at: time(job.started_at_ms),
            completed_at: time(job.completed_at_ms),
            next_retry_at: time(job.next_retry_at_ms),
            result: shown(job.result),
            last_error: shown(job.last_error),
            stderr: shown(job.stderr),
            parent_job_id: some(job.parent_job_id),
            source_event_id: some(job.source_event_id),
            pipeline: some(job.pipeline),
            step: some(job.step),
            decision_id: some(job.decision_id),
            waiting_for: some(job.waiting_for),
            logs: if results {
                job.logs.into_iter().map(LogView::from).collect()
            } else {
                Vec::new()
            },
            transitions: job
                .transitions
                .into_iter()
                .map(TransitionView::from)
                .collect(),
            attempts: job.attempts.into_iter().map(AttemptView::from).collect(),
            timeout_exceeded: false,
        }
    }
}

impl From<engine::LogLine> for LogView {
    fn from(line: engine::LogLine) -> Self {
        Self {
            level: line.level,
            message: line.message,
        }
    }
}

impl From<engine::Transition> for TransitionView {
    fn from(transition: engine::Transition) -> Self {
        Self {
            from: status_name(transition.from),
            to: status_name(transition.to),
            reason: transition.reason,
            attempt: transition.attempt,
            at: Timestamp(transition.at_ms).to_rfc3339(),
        }
    }
}

/// How long a client waits for a job. Invariant: more than nothing, at most the gateway's limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait(Duration);

impl Wait {
    /// As the engine is asked.
    pub fn millis(self) -> i64 {
        i64::try_from(self.0.as_millis()).unwrap_or(i64::MAX)
    }

    /// Reads `30s`, `500ms` or `2m`.
    pub fn parse(text: &str, limit: Duration) -> Result<Self, Problem> {
        let digits = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit_ms = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            _ => 0,
        };
        let wait = number
            .parse::<u64>()
            .ok()
            .and_then(|n| n.checked_mul(unit_ms))
            .map(Duration::from_millis);
        match wait {
            Some(wait) if !wait.is_zero() && wait <= limit => Ok(Self(wait)),
            _ => {
                let limit = limit.as_secs();
                Err(Problem::bad_request(format!(
                    "wait={text} is not a time up to {limit}s; write 500ms, 30s or 2m"
                )))
            }
        }
    }
}

/// A job that was waited for: 200 with its outcome, or 202 where the time was up first.
pub fn waited(job: Option<engine::Job>) -> Result<Response, Problem> {
    let job = found(job)?;
    let done = is_terminal(job.status);
    // Whoever may call a command may read what it answered.
    let view = JobView {
        timeout_exceeded: !done,
        ..JobView::new(job, true)
    };
    let status = if done {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    Ok((status, Json(view)).into_response())
}

fn found(job: Option<engine::Job>) -> Result<engine::Job, Problem> {
    job.ok_or_else(|| {
        Problem::new(
            StatusCode::NOT_FOUND,
            "no-such-job",
            "there is no such job; it may be older than job_log_retention",
        )
    })
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ReadQuery {
    /// Wait this long for the job to end, e.g. `30s`.
    wait: Option<String>,
}

/// One job, with its attempts and transitions.
#[utoipa::path(get, path = "/job/{id}", tag = "jobs", params(("id" = String, Path, description = "The job"), ReadQuery), responses(
    (status = 200, body = JobView), (status = 401, body = Problem), (status = 403, body = Problem), (status = 404, body = Problem),
))]
pub async fn read(
    Shared(state): Shared<State>,
    Extension(view): Extension<Arc<View>>,
    Path(id): Path<String>,
    query: Result<Query<ReadQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Json<JobView>, Problem> {
    let Query(query) = query.map_err(|e| Problem::bad_request(e.body_text()))?;
    let wait = query
        .wait
        .as_deref()
        .map(|text| Wait::parse(text, view.api.max_sync_timeout))
        .transpose()?;
    let token = auth::reader(&state, &headers, scopes::JOBS).await?;
    if let Some(wait) = wait {
        let _permit = state.wait_permit(view.api.max_concurrent_sync)?;
        state
            .query()
            .wait_for_job(engine::WaitForJobRequest {
                job_id: id.clone(),
                timeout_ms: wait.millis(),
            })
            .await?;
    }
    let answer = state
        .query()
        .read_job(engine::ReadJobRequest { job_id: id })
        .await?
        .into_inner();
    Ok(Json(JobView::new(
        found(answer.job)?,
        may_read_results(&token),
    )))
}

fn may_read_results(token: &Token) -> bool {
    token.has(scopes::RESULTS)
}

/// A job, or an event, with everything that came of it; parents before children.
#[utoipa::path(get, path = "/job/{id}/tree", tag = "jobs", params(("id" = String, Path, description = "A job or an event")), responses(
    (status = 200, body = Vec<JobView>), (status = 401, body = Problem), (status = 403, body = Problem), (status = 404, body = Problem),
))]
pub async fn tree(
    Shared(state): Shared<State>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Vec<JobView>>, Problem> {
    let token = auth::reader(&state, &headers, scopes::TREE).await?;
    let answer = state
        .query()
        .read_tree(engine::ReadTreeRequest { root_id: id })
        .await?
        .into_inner();
    let results = may_read_results(&token);
    Ok(Json(
        answer
            .jobs
            .into_iter()
            .map(|job| JobView::new(job, results))
            .collect(),
    ))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    /// Only this plugin.
    plugin: Option<String>,
    /// Only this command.
    command: Option<String>,
    /// Only this status.
    status: Option<String>,
    /// 1 to 200; 50 if absent.
    limit: Option<u32>,
}

/// A page of jobs.
#[derive(Serialize, ToSchema)]
pub struct Jobs {
    /// Newest first.
    jobs: Vec<JobView>,
    /// How many match in all.
    total: u64,
}

/// The newest jobs.
#[utoipa::path(get, path = "/jobs", tag = "jobs", params(ListQuery), responses(
    (status = 200, body = Jobs), (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem),
))]
pub async fn list(
    Shared(state): Shared<State>,
    query: Result<Query<ListQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Json<Jobs>, Problem> {
    let Query(query) = query.map_err(|e| Problem::bad_request(e.body_text()))?;
    let token = auth::reader(&state, &headers, scopes::JOBS).await?;
    let limit = query.limit.unwrap_or(50);
    if !(1..=200).contains(&limit) {
        return Err(Problem::bad_request("limit must be 1 to 200"));
    }
    let status = match query.status.as_deref() {
        None => JobStatus::Unspecified,
        Some(name) => status_from_name(name)
            .ok_or_else(|| Problem::bad_request(format!("{name:?} is no status of a job")))?,
    };
    let request = engine::ListJobsRequest {
        plugin: query.plugin.unwrap_or_default(),
        command: query.command.unwrap_or_default(),
        status: status.into(),
        limit,
    };
    let answer = state.query().list_jobs(request).await?.into_inner();
    let results = may_read_results(&token);
    let jobs = answer
        .jobs
        .into_iter()
        .map(|job| JobView::new(job, results))
        .collect();
    Ok(Json(Jobs {
        jobs,
        total: answer.total,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_has_a_unit_and_a_limit() {
        let limit = Duration::from_mins(5);
        let parse = |text| Wait::parse(text, limit).ok().map(|Wait(wait)| wait);
        assert_eq!(parse("30s"), Some(Duration::from_secs(30)));
        assert_eq!(parse("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(parse("5m"), Some(limit));
        for bad in [
            "",
            "30",
            "s",
            "0s",
            "301s",
            "-1s",
            "1h",
            "18446744073709551615m",
            "3 s",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn results_are_left_out_for_who_may_not_read_them() {
        let job = engine::Job {
            result: "secret".into(),
            stderr: "e".into(),
            last_error: "l".into(),
            ..engine::Job::default()
        };
        let hidden = serde_json::to_value(JobView::new(job.clone(), false)).unwrap();
        assert!(
            hidden.get("result").is_none()
                && hidden.get("stderr").is_none()
                && hidden.get("last_error").is_none()
        );
        assert_eq!(
            serde_json::to_value(JobView::new(job, true)).unwrap()["result"],
            "secret"
        );
    }

    #[test]
    fn every_status_has_its_name_and_back() {
        for status in 1..=8 {
            assert_eq!(
                status_from_name(status_name(status)).map(i32::from),
                Some(status)
            );
        }
        assert_eq!(status_from_name("nonsense"), None);
    }
}
