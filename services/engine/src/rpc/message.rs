//! The engine's types as messages.

use bailey_proto::engine::v1 as wire;
use bailey_types::Timestamp;

use crate::db::attempt::Attempt;
use crate::db::transition::Transition;
use crate::event::Event;
use crate::job::{Job, LogLine, Status};
use crate::query::Full;

/// Longest result of a job in a list, characters; all of it is in the job itself.
const MAX_LISTED_RESULT: usize = 1024;

pub(super) const fn status(status: Status) -> wire::JobStatus {
    match status {
        Status::Queued => wire::JobStatus::Queued,
        Status::Running => wire::JobStatus::Running,
        Status::Succeeded => wire::JobStatus::Succeeded,
        Status::Failed => wire::JobStatus::Failed,
        Status::TimedOut => wire::JobStatus::TimedOut,
        Status::Dead => wire::JobStatus::Dead,
        Status::Skipped => wire::JobStatus::Skipped,
        Status::Cancelled => wire::JobStatus::Cancelled,
    }
}

/// The status that is asked for; `None`: any.
pub(super) const fn wanted(status: wire::JobStatus) -> Option<Status> {
    match status {
        wire::JobStatus::Unspecified => None,
        wire::JobStatus::Queued => Some(Status::Queued),
        wire::JobStatus::Running => Some(Status::Running),
        wire::JobStatus::Succeeded => Some(Status::Succeeded),
        wire::JobStatus::Failed => Some(Status::Failed),
        wire::JobStatus::TimedOut => Some(Status::TimedOut),
        wire::JobStatus::Dead => Some(Status::Dead),
        wire::JobStatus::Skipped => Some(Status::Skipped),
        wire::JobStatus::Cancelled => Some(Status::Cancelled),
    }
}

pub(super) fn full(full: Full) -> wire::Job {
    let mut message = job(full.job);
    message.transitions = full.transitions.into_iter().map(transition).collect();
    message.attempts = full.attempts.into_iter().map(attempt).collect();
    message
}

/// A job for a list: without what may be long.
pub(super) fn listed(job: Job) -> wire::Job {
    let mut message = self::job(job);
    message.stderr.clear();
    message.logs.clear();
    if let Some((end, _)) = message.result.char_indices().nth(MAX_LISTED_RESULT) {
        message.result.truncate(end);
        message.result.push('…');
    }
    message
}

pub(super) fn job(job: Job) -> wire::Job {
    let attempt = job.tries();
    let (pipeline, step) = job
        .place
        .map(|p| (p.pipeline.to_string(), p.step.to_string()))
        .unwrap_or_default();
    wire::Job {
        job_id: job.id.to_string(),
        plugin: job.plugin.to_string(),
        command: job.command.to_string(),
        status: status(job.status).into(),
        attempt,
        max_attempts: job.max_attempts,
        submitted_by: job.submitted_by,
        created_at_ms: job.created_at.0,
        started_at_ms: time(job.started_at),
        completed_at_ms: time(job.completed_at),
        next_retry_at_ms: time(job.next_retry_at),
        result: job.result.unwrap_or_default(),
        last_error: job.last_error.unwrap_or_default(),
        stderr: job.stderr.unwrap_or_default(),
        parent_job_id: job.parent.map(|id| id.to_string()).unwrap_or_default(),
        source_event_id: job
            .source_event
            .map(|id| id.to_string())
            .unwrap_or_default(),
        pipeline,
        step,
        principal: job.principal,
        decision_id: job.decision.unwrap_or_default(),
        waiting_for: job.waiting_for,
        logs: job.logs.into_iter().map(log).collect(),
        transitions: Vec::new(),
        attempts: Vec::new(),
    }
}

pub(super) fn event(event: Event) -> wire::Event {
    wire::Event {
        event_id: event.id.to_string(),
        seq: event.seq,
        r#type: event.kind.to_string(),
        source: event.source,
        payload_json: event.payload,
        dedupe_key: event.dedupe_key,
        at_ms: event.at.0,
        job_id: event.job.map(|id| id.to_string()).unwrap_or_default(),
    }
}

fn transition(change: Transition) -> wire::Transition {
    wire::Transition {
        from: change
            .from
            .map_or(wire::JobStatus::Unspecified, status)
            .into(),
        to: status(change.to).into(),
        reason: change.reason,
        attempt: change.attempt,
        at_ms: change.at.0,
    }
}

fn attempt(attempt: Attempt) -> wire::Attempt {
    wire::Attempt {
        attempt: attempt.number,
        started_at_ms: attempt.started_at.0,
        ended_at_ms: time(attempt.ended_at),
        outcome: attempt.outcome,
        timings: Some(attempt.timings),
    }
}

fn log(line: LogLine) -> wire::LogLine {
    wire::LogLine {
        level: line.level,
        message: line.message,
    }
}

fn time(at: Option<Timestamp>) -> i64 {
    at.map_or(0, |at| at.0)
}
