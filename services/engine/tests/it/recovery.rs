//! What a crash leaves, and what becomes of it.

use bailey_proto::engine::v1::JobStatus;
use serde_json::json;

use crate::runner::{TestRunner, held};
use crate::stack::TestEngine;

const OK: &str = r#"{"status":"ok","result":"x"}"#;

#[tokio::test]
async fn queued_jobs_survive_a_restart() {
    let mut engine = TestEngine::start().await;
    let id = engine.submit("first", "poll", r#"{"a":1}"#).await;
    engine.stop().await;
    engine.launch().await;
    let mut runner = TestRunner::connect(&engine.runner, "r", 1, vec![]).await;
    let job = runner.job().await;
    assert_eq!((job.job_id.as_str(), job.attempt), (id.as_str(), 1));
}

#[tokio::test]
async fn a_runner_that_outlives_the_engine_keeps_its_job() {
    let mut engine = TestEngine::start().await;
    let mut runner = TestRunner::connect(&engine.runner, "r", 1, vec![]).await;
    let id = engine.submit("first", "poll", "").await;
    let job = runner.job().await;
    engine.stop().await;
    engine.launch().await;

    let mut runner = TestRunner::connect(&engine.runner, "r", 1, vec![held(&job)]).await;
    runner.printed(&job, OK).await;

    let ended = engine.ended(&id).await;
    assert_eq!((ended.status(), ended.attempt), (JobStatus::Succeeded, 1));
}

#[tokio::test]
async fn a_new_life_of_the_runner_runs_the_job_again() {
    let engine = TestEngine::start().await;
    let mut first = TestRunner::connect(&engine.runner, "first-life", 1, vec![]).await;
    let id = engine.submit("first", "poll", "").await;
    let lost = first.job().await;
    let mut second = TestRunner::connect(&engine.runner, "second-life", 1, vec![]).await;
    let job = second.job().await;
    assert_eq!((job.job_id.as_str(), job.attempt), (id.as_str(), 2));
    // The earlier life, should it still be there, has no say any more.
    first
        .printed(&lost, r#"{"status":"ok","result":"too late"}"#)
        .await;
    second.printed(&job, OK).await;
    assert_eq!(engine.ended(&id).await.result, "x");
}

#[tokio::test]
async fn both_gone_the_job_runs_again_and_is_dead_when_its_attempts_are_used_up() {
    let mut engine = TestEngine::start().await;
    let mut runner = TestRunner::connect(&engine.runner, "one", 1, vec![]).await;
    let id = engine.submit("first", "poll", "").await;
    assert_eq!(runner.job().await.attempt, 1);
    engine.stop().await;
    engine.launch().await;
    let mut runner = TestRunner::connect(&engine.runner, "two", 1, vec![]).await;
    assert_eq!(runner.job().await.attempt, 2);
    engine.stop().await;
    engine.launch().await;
    let _runner = TestRunner::connect(&engine.runner, "three", 1, vec![]).await;
    let ended = engine.ended(&id).await;
    assert_eq!((ended.status(), ended.attempt), (JobStatus::Dead, 2));
    assert_eq!(ended.transitions.last().unwrap().reason, "lease_lost");
}

#[tokio::test]
async fn a_lease_ends_when_its_runner_falls_silent() {
    let engine = TestEngine::impatient().await;
    let mut events = engine.events("job.retry_scheduled", -1).await;
    let mut runner = TestRunner::connect(&engine.runner, "r", 1, vec![]).await;
    let id = engine.submit("first", "poll", "").await;
    assert_eq!(runner.job().await.attempt, 1);
    let retry = events.about("job.retry_scheduled", &id).await;
    assert_eq!(retry["reason"], json!("lease_lost"));
    assert_eq!(engine.job(&id).await.waiting_for, "no runner is connected");
    let mut back = TestRunner::connect(&engine.runner, "r", 1, vec![]).await;
    assert_eq!(back.job().await.attempt, 2);
}

#[tokio::test]
async fn leases_that_nobody_claims_after_a_restart_expire() {
    let mut engine = TestEngine::impatient().await;
    let mut runner = TestRunner::connect(&engine.runner, "r", 1, vec![]).await;
    let id = engine.submit("once", "poll", "").await;
    runner.job().await;
    engine.stop().await;
    drop(runner);
    engine.launch().await;
    let ended = engine.ended(&id).await;
    assert_eq!(
        ended.status(),
        JobStatus::Dead,
        "its only attempt is lost, and nobody knows what it did"
    );
}
