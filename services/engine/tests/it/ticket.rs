//! A job's launch ticket, from the broker to the runner.

use std::time::{Duration, Instant};

use bailey_proto::engine::v1::JobStatus;
use serde_json::json;
use tonic::Status;

use crate::runner::TestRunner;
use crate::service;
use crate::stack::TestEngine;

#[tokio::test]
async fn without_a_ticket_no_runner_hears_of_the_job_and_no_attempt_is_lost() {
    let engine = TestEngine::start().await;
    let mut runner = TestRunner::connect(&engine.runner, "r", 1, vec![]).await;
    let away = Status::unavailable("the vault is sealed");
    engine.broker.refuses(Some(away));
    let mut events = engine.events("job.*", -1).await;
    let id = engine.submit("once", "poll", "").await;
    let put_off = events.about("job.retry_scheduled", &id).await;
    assert_eq!(put_off["reason"], "not_started");
    let waiting = engine.job(&id).await;
    assert_eq!(waiting.status(), JobStatus::Queued);
    assert_eq!(waiting.waiting_for, "broker: the vault is sealed");
    engine.broker.refuses(None);
    let job = runner.job().await;
    // The first that it hears of; it has one try, and still has it.
    assert_eq!((job.job_id.as_str(), job.attempt), (id.as_str(), 2));
    runner
        .printed(&job, r#"{"status":"ok","result":"done"}"#)
        .await;
    assert_eq!(engine.ended(&id).await.status(), JobStatus::Succeeded);
}

#[tokio::test]
async fn a_refused_ticket_is_the_end_of_the_job_and_of_no_other() {
    let engine = TestEngine::start().await;
    let mut runner = TestRunner::connect(&engine.runner, "r", 1, vec![]).await;
    let refusal = "secret_revoked: the secret demo_key is revoked";
    let refused = Status::permission_denied(refusal);
    engine.broker.refuses(Some(refused));
    let id = engine.submit("first", "poll", "").await;
    let ended = engine.ended(&id).await;
    assert_eq!(
        (ended.status(), ended.last_error),
        (
            JobStatus::Failed,
            format!("the launch was refused: {refusal}")
        )
    );
    engine.broker.refuses(None);
    let next = engine.submit("first", "poll", "").await;
    assert_eq!(runner.job().await.job_id, next);
}

#[tokio::test]
async fn what_the_ticket_took_beyond_the_lease_is_told_to_the_runner() {
    let engine = TestEngine::start().await;
    let mut runner = TestRunner::connect(&engine.runner, "r", 1, vec![]).await;
    let held_up = engine.broker.held_up().await;
    let id = engine.submit("first", "poll", "").await;
    // The lease does not wait for the ticket.
    let mut events = engine.events("job.started", 0).await;
    events.about("job.started", &id).await;
    assert_eq!(engine.job(&id).await.status(), JobStatus::Running);
    drop(held_up);
    let job = runner.job().await;
    assert!(job.ticket_us > 0, "{}", job.ticket_us);
}

#[tokio::test]
async fn an_outdated_decision_is_asked_for_again_and_counts_for_nothing() {
    let engine = TestEngine::start().await;
    let mut runner = TestRunner::connect(&engine.runner, "r", 1, vec![]).await;
    let outdated = "older_lock: decided under the lock 4; the present one is 5";
    let refusal = Status::failed_precondition(outdated);
    engine.broker.refuses(Some(refusal));
    let mut events = engine.events("job.*", -1).await;
    let id = engine.submit("once", "poll", "").await;
    events.about("job.retry_scheduled", &id).await;
    engine.broker.refuses(None);
    let job = runner.job().await;
    assert_eq!((job.job_id.as_str(), job.attempt), (id.as_str(), 2));
}

#[tokio::test]
async fn a_broker_that_is_away_is_not_asked_for_every_job_at_once() {
    let pause = Duration::from_millis(500);
    let engine = TestEngine::waits(Duration::from_secs(10), pause).await;
    let _runner = TestRunner::connect(&engine.runner, "r", 8, vec![]).await;
    engine.broker.refuses(Some(Status::unavailable("busy")));
    let begun = Instant::now();
    let mut events = engine.events("job.retry_scheduled", 0).await;
    for _ in 0..3 {
        engine.submit("first", "poll", "").await;
    }
    for _ in 0..3 {
        events.next().await;
    }
    assert!(begun.elapsed() >= 2 * pause, "{:?}", begun.elapsed());
    assert!(engine.broker.asked() >= 3);
}

#[tokio::test]
async fn a_broker_that_hangs_is_given_up() {
    let short = Duration::from_millis(300);
    let engine = TestEngine::waits(short, Duration::from_millis(5)).await;
    let mut runner = TestRunner::connect(&engine.runner, "r", 1, vec![]).await;
    let held_up = engine.broker.held_up().await;
    let mut events = engine.events("job.*", -1).await;
    let id = engine.submit("once", "poll", "").await;
    events.about("job.retry_scheduled", &id).await;
    let waiting_for = engine.job(&id).await.waiting_for;
    assert_eq!(waiting_for, "broker: it did not answer in time");
    drop(held_up);
    assert_eq!(runner.job().await.job_id, id);
}

#[tokio::test]
async fn a_runner_that_leaves_while_the_ticket_is_made_loses_nothing() {
    let engine = TestEngine::start().await;
    let runner = TestRunner::connect(&engine.runner, "r", 1, vec![]).await;
    let held_up = engine.broker.held_up().await;
    let mut events = engine.events("job.*", 0).await;
    let id = engine.submit("once", "poll", "").await;
    events.about("job.started", &id).await;
    drop(runner);
    // Another life has taken its place by the time the ticket is there.
    let mut next = TestRunner::connect(&engine.runner, "s", 1, vec![]).await;
    drop(held_up);
    let job = next.job().await;
    assert_eq!((job.job_id.as_str(), job.attempt), (id.as_str(), 2));
    next.printed(&job, r#"{"status":"ok","result":"done"}"#)
        .await;
    assert_eq!(engine.ended(&id).await.status(), JobStatus::Succeeded);
}

#[tokio::test]
async fn a_service_that_gets_no_ticket_is_started_later() {
    let (engine, mut runner) = service::start().await;
    engine.broker.refuses(Some(Status::permission_denied(
        "requires_vault: the plugin requires a vault that knows the principal watcher",
    )));
    let mut events = engine.events("job.*", 0).await;
    let id = service::put_in(&engine).await.job_id;
    let again = events.about("job.retry_scheduled", &id).await;
    assert_eq!(again["reason"], "refused");
    engine.broker.refuses(None);
    assert_eq!(runner.job().await.job_id, id);
}

#[tokio::test]
async fn a_request_of_nearly_eight_mebibytes_arrives() {
    let engine = TestEngine::start().await;
    let mut runner = TestRunner::connect(&engine.runner, "r", 1, vec![]).await;
    let event = engine.event("thing.seen", "{}");
    engine.intake().emit_event(event).await.unwrap();
    let one = runner.job().await;
    // What an event carries is in the next step's request twice.
    let text = "x".repeat((4 << 20) - 100);
    let event = json!({"type": "x.y", "payload": {"text": text}});
    let answer = json!({"status": "ok", "result": "r", "events": [event]});
    runner.printed(&one, &answer.to_string()).await;
    let two = runner.job().await;
    assert!(two.sealed.len() > 7 << 20, "{}", two.sealed.len());
    assert!(engine.request(&two)["event"]["payload"]["text"] == text.as_str());
}
