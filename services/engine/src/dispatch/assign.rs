//! One job on its way to a runner: request, decision, ticket and lease, assignment.

use std::time::Duration;

use bailey_proto::engine::v1::lease_response::Message;
use bailey_proto::engine::v1::{Assignment, LeaseResponse};
use bailey_proto::policy::v1::decide_request::AskedBy as Asked;
use bailey_proto::policy::v1::decide_response::Outcome;
use bailey_proto::policy::v1::{Allowed, DecideRequest, DecideResponse, Denied, PipelineStep};
use bailey_proto::trust::v1::Signed;
use bailey_trust::{Decision, verify};
use bailey_types::{DecisionId, Sha256};
use tokio::time::Instant;
use tonic::Code;

use crate::fleet::Lease;
use crate::job::{AskedBy, Input, Job};
use crate::state::State;
use crate::view::{self, Locked};
use crate::work::Work;
use crate::{db, report, request, service};

use super::answered;
use super::ticket::{self, NotMade};

/// How long a job waits that policy could not judge, when it is the job and not policy.
const JOB_PAUSE: Duration = Duration::from_secs(10);

/// How long a service waits that cannot be assigned.
const SERVICE_PAUSE: Duration = Duration::from_mins(1);

/// What became of the try.
pub(super) enum Assigned {
    /// The job is not in the way any more: assigned, ended, or put off by itself.
    Done,
    /// Nothing can be assigned for now, and why.
    Postponed(String),
}

/// Assigns `job` to `runner`.
pub(super) async fn one(
    state: &State,
    locked: &Locked,
    runner: &str,
    job: &Job,
) -> Result<Assigned, report::Error> {
    if job.lasts() && !is_locked(state, locked, job).await? {
        return Ok(Assigned::Done);
    }
    let timeout = match view::find(locked, &job.plugin, &job.command) {
        Ok(_) if job.lasts() => Duration::ZERO,
        Ok(config) => config.timeouts.of(&job.command),
        Err(absent) => {
            report::refuse(state, job.id, "not_locked", &absent.to_string()).await?;
            return Ok(Assigned::Done);
        }
    };
    let Some((input, request)) = build(state, locked, job, timeout).await? else {
        return Ok(Assigned::Done);
    };
    match decide(state, job, input, request).await {
        Ok(Outcome::Allowed(allowed)) => match check(state, job, &allowed) {
            Ok(decision) => assign(state, runner, job, (decision, allowed), timeout).await,
            Err(problem) => put_off(state, job, (&problem, JOB_PAUSE)).await,
        },
        // Policy sees the same lock in a moment, or the operator must act; the job has done nothing wrong.
        Ok(Outcome::Denied(Denied { reason, detail })) if reason.starts_with("lock_") => {
            Ok(Assigned::Postponed(format!("policy: {detail}")))
        }
        Ok(Outcome::Denied(Denied { reason, detail })) => {
            refuse(state, job, &reason, &detail).await
        }
        Err(status) if status.code() == Code::InvalidArgument && !job.lasts() => {
            report::refuse(state, job.id, "request_refused", status.message()).await?;
            Ok(Assigned::Done)
        }
        // One job must not keep the others waiting for ever.
        Err(status)
            if matches!(
                status.code(),
                Code::Internal | Code::Unknown | Code::OutOfRange | Code::InvalidArgument
            ) =>
        {
            let why = format!("policy: {}", status.message());
            put_off(state, job, (&why, JOB_PAUSE)).await
        }
        Err(status) => Ok(Assigned::Postponed(format!("policy: {}", status.message()))),
    }
}

/// Whether a service still is what is locked. One that is not is ended: its successor is the scheduler's to put in.
async fn is_locked(state: &State, locked: &Locked, job: &Job) -> Result<bool, report::Error> {
    let mut read = state.db.read().await?;
    let known = db::service::find(&mut read, job.id).await?;
    drop(read);
    let Some(known) = known else {
        // Left as it is it would be its turn again at once, and again.
        let (reason, detail) = report::NOT_KEPT;
        report::refuse(state, job.id, reason, detail).await?;
        return Ok(false);
    };
    let gone = service::gone(locked, job, &known)?;
    if let Some(wanted) = gone {
        service::end(state, job.id, wanted).await?;
    }
    Ok(gone.is_none())
}

/// Ends a job that will never run. A service never ends for good while it is locked: what is in its way may be mended without another
/// lock, so it waits.
async fn refuse(
    state: &State,
    job: &Job,
    reason: &str,
    detail: &str,
) -> Result<Assigned, report::Error> {
    if job.lasts() {
        return put_off(state, job, (&format!("{reason}: {detail}"), SERVICE_PAUSE)).await;
    }
    report::refuse(state, job.id, reason, detail).await?;
    Ok(Assigned::Done)
}

async fn put_off(
    state: &State,
    job: &Job,
    (why, pause): (&str, Duration),
) -> Result<Assigned, report::Error> {
    tracing::warn!(job.id = %job.id, "the job {} waits: {why}", job.id);
    let mut work = Work::begin(state).await?;
    let not_before = work.now().plus(pause);
    db::job::defer(work.db(), job.id, not_before, why).await?;
    work.commit(state).await?;
    Ok(Assigned::Done)
}

async fn build(
    state: &State,
    locked: &Locked,
    job: &Job,
    timeout: Duration,
) -> Result<Option<(Input, Vec<u8>)>, report::Error> {
    let mut look = state.db.look().await?;
    let input = db::job::find::input(&mut look, job).await?;
    drop(look);
    let pipelines = &locked.view.config.pipelines;
    let pipeline = job
        .place
        .as_ref()
        .and_then(|place| pipelines.iter().find(|p| p.name == place.pipeline));
    let deadline = (!job.lasts()).then(|| state.clock.now().plus(timeout));
    let Some((input, kept)) = input else {
        refuse(
            state,
            job,
            "input_missing",
            "what it was asked with is gone",
        )
        .await?;
        return Ok(None);
    };
    let built = request::build(
        job,
        &input,
        &kept,
        pipeline.and_then(|p| p.max_depth),
        deadline,
    );
    match built.map_err(|e| bailey_error::Chain(&e).to_string()) {
        Ok(request) => Ok(Some((input, request))),
        Err(problem) => {
            refuse(state, job, "request_broken", &problem).await?;
            Ok(None)
        }
    }
}

async fn decide(
    state: &State,
    job: &Job,
    input: Input,
    request: Vec<u8>,
) -> Result<Outcome, tonic::Status> {
    let asked_by = match input.asked_by {
        AskedBy::Origin(signed) => Asked::Origin(signed),
        AskedBy::ParentDecision(signed) => Asked::ParentDecision(signed),
    };
    let pipeline_step = job.place.as_ref().map(|place| PipelineStep {
        pipeline: place.pipeline.to_string(),
        step: place.step.to_string(),
        instance_id: place.instance.clone(),
        event_type: place.event_type.to_string(),
        event_index: place.event_index,
    });
    let question = DecideRequest {
        job_id: job.id.to_string(),
        attempt: job.attempt,
        plugin: job.plugin.to_string(),
        command: job.command.to_string(),
        request: request.into(),
        pipeline_step,
        asked_by: Some(asked_by),
    };
    let mut policy = state.policy.clone();
    let DecideResponse { outcome } = answered(state, policy.decide(question)).await?;
    outcome.ok_or_else(|| tonic::Status::internal("an answer without an outcome"))
}

/// Checks that the decision is for this attempt and these bytes: broker and socket-proxy would refuse anything else, but later.
fn check(state: &State, job: &Job, allowed: &Allowed) -> Result<DecisionId, String> {
    let signed = allowed
        .decision
        .as_ref()
        .ok_or("policy: an allowance without a decision")?;
    let decision = verify::<Decision>(signed, &state.keys.policy)
        .map_err(|e| format!("policy: {e}"))?
        .statement;
    let same = decision.job == job.id
        && decision.attempt.0 == job.attempt
        && decision.plugin == job.plugin
        && decision.command == job.command
        && decision.request_sha256 == Sha256::of(&allowed.request);
    if same {
        Ok(decision.id)
    } else {
        Err("policy: a decision about something else".to_owned())
    }
}

/// Writes the lease down while the broker makes the ticket: neither needs the other, and both wait for a disk. Then the runner gets both.
async fn assign(
    state: &State,
    runner: &str,
    job: &Job,
    (decision, allowed): (DecisionId, Allowed),
    timeout: Duration,
) -> Result<Assigned, report::Error> {
    let signed = allowed.decision.clone().unwrap_or_default();
    let begun = Instant::now();
    let written = async {
        let leased = lease(state, runner, job, (decision, &signed)).await;
        (leased, Instant::now())
    };
    let (made, (leased, written_at)) = tokio::join!(ticket::make(state, allowed), written);
    if !leased? {
        // A ticket that nobody uses is no harm.
        return Ok(Assigned::Done);
    }
    let lease = (job.id, job.attempt);
    let ticket = match made {
        Ok(made) => made,
        Err(not_made) => {
            let (ended, assigned) = end(state, lease, not_made).await;
            return kept(state, runner, lease, ended).map(|()| assigned);
        }
    };
    let waited = ticket.ready_at.saturating_duration_since(written_at);
    let (made_us, waited_us) = (micros(ticket.ready_at - begun), micros(waited));
    tracing::info!(job.id = %job.id, job.attempt = job.attempt, ticket.made_us = made_us, ticket.waited_us = waited_us, "assigned {}.{}", job.plugin, job.command);
    let assignment = Assignment {
        job_id: job.id.to_string(),
        attempt: job.attempt,
        plugin: job.plugin.to_string(),
        command: job.command.to_string(),
        decision: Some(signed),
        ticket: Some(ticket.signed),
        sealed: ticket.sealed,
        ticket_us: waited_us,
        timeout_ms: i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX),
        lasts: job.lasts(),
    };
    let message = LeaseResponse {
        message: Some(Message::Assignment(assignment)),
    };
    let assigned = if job.lasts() {
        state.fleet.assign_lasting(runner, lease, message)
    } else {
        state.fleet.assign(runner, lease, message)
    };
    if !assigned {
        let why = "the runner was gone before it got the job";
        let taken = report::take_back(state, lease, why).await;
        kept(state, runner, lease, taken)?;
    }
    Ok(Assigned::Done)
}

/// Ends a lease that got no ticket. Answers whether that could be written down, and what became of the try.
async fn end(
    state: &State,
    lease: Lease,
    not_made: NotMade,
) -> (Result<(), report::Error>, Assigned) {
    match not_made {
        NotMade::Refused(reason) => (report::refused(state, lease, reason).await, Assigned::Done),
        NotMade::Outdated(why) => (report::take_back(state, lease, &why).await, Assigned::Done),
        NotMade::Unavailable(why) => (
            report::take_back(state, lease, &why).await,
            Assigned::Postponed(why),
        ),
    }
}

/// A lease that could not be ended, and that no runner knows, is given up as one that its runner does not hold.
fn kept(
    state: &State,
    runner: &str,
    lease: Lease,
    ended: Result<(), report::Error>,
) -> Result<(), report::Error> {
    if ended.is_err() {
        state.fleet.book(runner, lease);
    }
    ended
}

/// Answers false where the job is not queued any more.
async fn lease(
    state: &State,
    runner: &str,
    job: &Job,
    decision: (DecisionId, &Signed),
) -> Result<bool, report::Error> {
    let mut work = Work::begin(state).await?;
    if !work.lease(job, runner, decision).await? {
        return Ok(false);
    }
    if job.lasts() {
        db::service::begin(work.db(), job.id).await?;
    }
    work.commit(state).await?;
    Ok(true)
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}
