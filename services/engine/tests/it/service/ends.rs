//! How the attempts of jobs that last end, and what follows.

use bailey_plugin::catalogue::ServiceState;
use bailey_proto::engine::v1 as wire;
use bailey_proto::engine::v1::JobStatus;
use bailey_proto::engine::v1::report_request::Outcome;
use tonic::Code;

use super::{exited, lost, put_in, shown, start};
use crate::runner::TestRunner;

#[tokio::test]
async fn what_ends_is_started_again_and_its_events_go_on() {
    let (engine, mut runner) = start().await;
    let job = put_in(&engine).await.job_id;
    let first = runner.job().await;
    let event = r#"{"status":"ok","events":[{"type":"x.y"}]}"#;
    runner.line(&first, 1, event).await.unwrap();
    runner.report(&first, exited()).await;
    let waiting = engine.job(&job).await;
    assert_eq!(waiting.status(), JobStatus::Queued);
    assert_eq!(waiting.stderr, "last words");
    assert_eq!(waiting.last_error, "it ended with exit code 3");
    let last = waiting.transitions.last().unwrap();
    let pause = waiting.next_retry_at_ms - last.at_ms;
    assert_eq!((pause, last.reason.as_str()), (1000, "exited"));
    let late = runner.line(&first, 2, event).await.unwrap_err();
    assert_eq!(late.code(), Code::FailedPrecondition);

    let second = runner.job().await;
    assert_eq!((second.job_id.as_str(), second.attempt), (job.as_str(), 2));
    // Its lines begin anew, the numbers of its events do not.
    let saw = r#"{"status":"ok","events":[{"type":"watcher.saw"}]}"#;
    runner.line(&second, 1, saw).await.unwrap();
    runner.job().await;
    assert_eq!(engine.policy.last().pipeline_step.unwrap().event_index, 1);
    runner
        .report(
            &second,
            Outcome::Unhealthy(wire::Unhealthy {
                reason: "it wrote no line".into(),
                ..wire::Unhealthy::default()
            }),
        )
        .await;
    let waiting = engine.job(&job).await;
    let last = waiting.transitions.last().unwrap();
    assert_eq!(waiting.next_retry_at_ms - last.at_ms, 2000);
    let shown = shown(&engine).await;
    assert_eq!(
        (shown.state, shown.restarts, shown.detail.as_str()),
        (ServiceState::Waiting, 2, "it wrote no line")
    );
}

/// What runs has run for a while.
const LONG_AGO: &str =
    "UPDATE job SET started_at_ms = started_at_ms - 11000 WHERE status = 'running'";

fn stopped() -> Outcome {
    Outcome::Lost(wire::Lost {
        reason: "the runner was stopped".into(),
        stopped: true,
        ..wire::Lost::default()
    })
}

#[tokio::test]
async fn one_that_ends_with_its_runner_again_and_again_waits_longer_each_time() {
    let (engine, mut runner) = start().await;
    let job = put_in(&engine).await.job_id;
    let pause = async |ends: usize| loop {
        let found = engine.job(&job).await;
        let ended = |reason: &str| matches!(reason, "stopped" | "lease_lost");
        let mut ended = found.transitions.iter().filter(|it| ended(&it.reason));
        if let Some(last) = ended.nth(ends - 1) {
            break (last.reason.clone(), found.next_retry_at_ms - last.at_ms);
        }
    };
    // Given one that brings its runner down while it starts, or a runner that says so
    let first = runner.job().await;
    runner.report(&first, stopped()).await;
    assert_eq!(pause(1).await, ("stopped".to_owned(), 1000));
    runner.job().await;
    let mut next = TestRunner::connect(&engine.runner, "next", 1, vec![]).await;
    assert_eq!(pause(2).await, ("lease_lost".to_owned(), 2000));
    let third = next.job().await;
    next.report(&third, stopped()).await;
    assert_eq!(pause(3).await, ("stopped".to_owned(), 4000));
}

#[tokio::test]
async fn what_its_runner_took_with_it_is_no_trouble_of_a_service() {
    let (engine, mut runner) = start().await;
    let job = put_in(&engine).await.job_id;
    let first = runner.job().await;
    engine.alter(LONG_AGO).await;
    runner.report(&first, stopped()).await;
    let second = runner.job().await;
    assert_eq!(second.attempt, 2);
    engine.alter(LONG_AGO).await;
    // A runner that could not say so: its next life tells.
    let mut next = TestRunner::connect(&engine.runner, "next", 1, vec![]).await;
    let third = next.job().await;
    assert_eq!(third.attempt, 3);
    let found = engine.job(&job).await;
    let outcomes: Vec<_> = found.attempts.iter().map(|a| a.outcome.as_str()).collect();
    assert_eq!(outcomes, ["stopped", "lease_lost", ""]);
    assert_eq!((found.last_error.as_str(), found.logs.len()), ("", 0));
    // Neither made the next pause longer.
    next.report(&third, exited()).await;
    let waiting = engine.job(&job).await;
    let last = waiting.transitions.last().unwrap();
    assert_eq!(waiting.next_retry_at_ms - last.at_ms, 1000);
}

#[tokio::test]
async fn a_job_that_lasts_without_a_service_ends_and_the_service_is_put_in_anew() {
    let (engine, mut runner) = start().await;
    let running = put_in(&engine).await.job_id;
    let first = runner.job().await;
    engine.alter("DELETE FROM service").await;
    runner.report(&first, exited()).await;
    let ended = engine.ended(&running).await;
    assert_eq!(ended.status(), JobStatus::Failed);
    assert!(
        ended.last_error.starts_with("service_missing: "),
        "{ended:?}"
    );

    let queued = put_in(&engine).await.job_id;
    assert_ne!(queued, running);
    let second = runner.job().await;
    runner.report(&second, exited()).await;
    engine.alter("DELETE FROM service").await;
    let ended = engine.ended(&queued).await;
    assert_eq!(ended.status(), JobStatus::Failed);
    assert!(
        ended.last_error.starts_with("service_missing: "),
        "{ended:?}"
    );

    let job = put_in(&engine).await.job_id;
    assert_eq!(runner.job().await.job_id, job);
}

#[tokio::test]
async fn whoever_restarts_it_gets_another_cell_at_once() {
    let (engine, mut runner) = start().await;
    let job = put_in(&engine).await.job_id;
    let first = runner.job().await;
    let restart = |plugin: &str| wire::RestartPluginRequest {
        plugin: plugin.to_owned(),
        principal: "token:ops".into(),
    };
    let absent = engine.plugins().restart_plugin(restart("first")).await;
    assert_eq!(absent.unwrap_err().code(), Code::NotFound);
    let answer = engine.plugins().restart_plugin(restart("watcher")).await;
    assert_eq!(answer.unwrap().into_inner().job_id, job);
    let cancel = runner.cancel().await;
    assert_eq!((cancel.job_id, cancel.attempt), (job.clone(), 1));
    assert_eq!(shown(&engine).await.state, ServiceState::Stopping);
    runner.report(&first, lost()).await;
    let second = runner.job().await;
    assert_eq!((second.job_id.clone(), second.attempt), (job.clone(), 2));
    let found = engine.job(&job).await;
    let reasons: Vec<_> = found
        .transitions
        .iter()
        .map(|t| t.reason.as_str())
        .collect();
    assert_eq!(reasons, ["service", "leased", "restart", "leased"]);
    let outcomes: Vec<_> = found.attempts.iter().map(|a| a.outcome.as_str()).collect();
    assert_eq!(
        (outcomes, found.last_error.as_str()),
        (vec!["restart", ""], "")
    );
    // One that waits for its pause waits no longer.
    runner.report(&second, exited()).await;
    runner.report(&second, exited()).await;
    let answer = engine.plugins().restart_plugin(restart("watcher")).await;
    answer.unwrap();
    assert_eq!(runner.job().await.attempt, 3);
}

#[tokio::test]
async fn one_whose_runner_is_gone_is_started_again() {
    let (engine, mut runner) = start().await;
    let job = put_in(&engine).await.job_id;
    runner.job().await;
    let mut next = TestRunner::connect(&engine.runner, "another life", 1, vec![]).await;
    let second = next.job().await;
    assert_eq!((second.job_id, second.attempt), (job, 2));
}
