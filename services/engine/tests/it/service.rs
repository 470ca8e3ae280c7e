//! Jobs that last.

mod ends;

use std::time::Duration;

use bailey_plugin::catalogue::{Catalogue, ServiceState};
use bailey_proto::engine::v1 as wire;
use bailey_proto::engine::v1::report_request::Outcome;
use bailey_proto::engine::v1::{JobStatus, lease_response};
use bailey_trust::{Lock, ServiceTerms};
use serde_json::json;
use tonic::Code;

use crate::runner::{TestRunner, held};
use crate::stack::{TestEngine, lock};

/// The lock of these tests, with a service, and a pipeline that its events start.
pub fn with_service(serial: u64, heartbeat_seconds: Option<u32>) -> Lock {
    let mut lock = lock(serial);
    let text = lock.config_files.get_mut("config.yaml").unwrap();
    *text = text.replace(
        "pipelines:\n",
        "  watcher: {config: {every: 1}}\npipelines:\n  - {name: seen, on: watcher.saw, from_plugin: watcher, steps: [{uses: once}]}\n",
    );
    let mut watcher = lock.plugins.values().next().unwrap().clone();
    let manifest = &mut watcher.proposed.manifest;
    manifest.name = "watcher".parse().unwrap();
    let mut serve = manifest.commands.first().unwrap().clone();
    serve.name = "serve".parse().unwrap();
    manifest.commands.push(serve);
    watcher.proposed.walls.service = Some(ServiceTerms { heartbeat_seconds });
    watcher.uid = 20_050;
    lock.plugins.insert("watcher".parse().unwrap(), watcher);
    lock
}

pub fn name(plugin: &str) -> bailey_types::PluginName {
    plugin.parse().unwrap()
}

pub async fn start() -> (TestEngine, TestRunner) {
    let engine = TestEngine::unlocked().await;
    engine.stack.write_lock(&with_service(1, None));
    let runner = TestRunner::connect(&engine.runner, "r", 1, vec![]).await;
    (engine, runner)
}

pub async fn put_in(engine: &TestEngine) -> wire::SubmitJobResponse {
    let request = engine.service("watcher");
    let mut intake = engine.scheduled_intake();
    intake.submit_job(request).await.unwrap().into_inner()
}

pub fn exited() -> Outcome {
    Outcome::Finished(wire::Finished {
        exit_code: 3,
        stderr: "last words".into(),
        ..wire::Finished::default()
    })
}

fn lost() -> Outcome {
    Outcome::Lost(wire::Lost {
        reason: "cancelled".into(),
        ..wire::Lost::default()
    })
}

pub async fn shown(engine: &TestEngine) -> bailey_plugin::catalogue::Service {
    let request = wire::CatalogueRequest {};
    let answer = engine.query().catalogue(request).await.unwrap();
    let catalogue: Catalogue = serde_json::from_str(&answer.into_inner().catalogue_json).unwrap();
    let mut plugins = catalogue.plugins.into_iter();
    let entry = plugins.find(|entry| entry.name.as_str() == "watcher");
    entry.unwrap().service.unwrap()
}

#[tokio::test]
async fn a_service_has_no_end_and_takes_no_slot_from_calls() {
    let (engine, mut runner) = start().await;
    assert_eq!(shown(&engine).await.state, ServiceState::Absent);
    let job = put_in(&engine).await.job_id;
    let service = runner.job().await;
    assert_eq!((service.lasts, service.timeout_ms), (true, 0));
    assert_eq!(service.command, "serve");
    assert_eq!(engine.request(&service).get("deadline_at"), None);
    let found = engine.job(&job).await;
    assert_eq!(
        (found.status(), found.max_attempts, found.principal.as_str()),
        (JobStatus::Running, 0, "service:watcher")
    );
    // The runner has one slot, and it is free.
    engine.submit("first", "poll", "").await;
    let call = runner.job().await;
    assert_eq!((call.plugin.as_str(), call.lasts), ("first", false));
    // Other commands of the same plugin are calls like any.
    runner
        .printed(&call, r#"{"status":"ok","result":"x"}"#)
        .await;
    engine.submit("watcher", "poll", "").await;
    let call = runner.job().await;
    assert_eq!((call.command.as_str(), call.lasts), ("poll", false));
    let status = engine.status().await;
    assert_eq!((status.services, status.services_running), (1, 1));
    let shown = shown(&engine).await;
    assert_eq!(
        (shown.state, shown.job_id, shown.restarts),
        (ServiceState::Running, Some(job), 0)
    );
}

#[tokio::test]
async fn a_line_is_applied_when_it_comes_and_only_once() {
    let (engine, mut runner) = start().await;
    let job = put_in(&engine).await.job_id;
    let service = runner.job().await;
    let line = r#"{"status":"ok","result":"r1","events":[{"type":"a.b"},{"type":"watcher.saw","payload":{"n":1}}],
        "state_updates":{"seen":1},"logs":[{"message":"hello"}]}"#
        .replace('\n', "");
    for _ in 0..2 {
        runner.line(&service, 1, &line).await.unwrap();
    }
    let step = runner.job().await;
    assert_eq!(step.plugin, "once");
    let asked = engine.policy.last();
    let place = asked.pipeline_step.unwrap();
    assert_eq!((place.pipeline.as_str(), place.event_index), ("seen", 1));
    let parent = wire_decision(asked.asked_by.as_ref());
    assert_eq!(parent.as_ref(), service.decision.as_ref());
    assert_eq!(engine.job(&step.job_id).await.parent_job_id, job);
    runner
        .printed(&step, r#"{"status":"ok","result":"x"}"#)
        .await;

    // What was sent twice started nothing twice, and the numbers of events go on.
    let more = r#"{"status":"ok","events":[{"type":"watcher.saw"}],"state_updates":{"more":true}}"#;
    runner.line(&service, 2, more).await.unwrap();
    let step = runner.job().await;
    let place = engine.policy.last().pipeline_step.unwrap();
    assert_eq!(place.event_index, 2);
    runner
        .printed(&step, r#"{"status":"ok","result":"x"}"#)
        .await;

    let found = engine.job(&job).await;
    assert_eq!(found.status(), JobStatus::Running);
    assert_eq!((found.result.as_str(), found.logs.len()), ("r1", 1));
    engine.submit("watcher", "poll", "").await;
    let call = runner.job().await;
    assert_eq!(
        engine.request(&call)["state"],
        json!({"seen": 1, "more": true})
    );
}

fn wire_decision(
    asked: Option<&bailey_proto::policy::v1::decide_request::AskedBy>,
) -> Option<bailey_proto::trust::v1::Signed> {
    use bailey_proto::policy::v1::decide_request::AskedBy;
    match asked {
        Some(AskedBy::ParentDecision(signed)) => Some(signed.clone()),
        Some(AskedBy::Origin(_)) | None => None,
    }
}

#[tokio::test]
async fn what_is_no_response_is_logged_and_heartbeats_leave_no_trace() {
    let (engine, mut runner) = start().await;
    let job = put_in(&engine).await.job_id;
    let service = runner.job().await;
    for number in 1..=3 {
        let beat = r#"{"status":"ok","result":""}"#;
        runner.line(&service, number, beat).await.unwrap();
    }
    assert_eq!(engine.job(&job).await.logs.len(), 0);
    runner.line(&service, 4, "Listening").await.unwrap();
    let error = r#"{"status":"error","error":"disk gone"}"#;
    runner.line(&service, 5, error).await.unwrap();
    let found = engine.job(&job).await;
    let levels: Vec<_> = found.logs.iter().map(|line| line.level.as_str()).collect();
    assert_eq!(levels, ["warn", "error"]);
    assert_eq!(found.last_error, "disk gone");
    assert_eq!(found.status(), JobStatus::Running);
    let long = "x".repeat((1 << 20) + 1);
    let refused = runner.line(&service, 6, &long).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_secret_that_a_service_printed_is_told_while_it_runs_in_one_line() {
    let (engine, mut runner) = start().await;
    let mut events = engine.events("plugin.secret_returned", -1).await;
    let job = put_in(&engine).await.job_id;
    let service = runner.job().await;
    let printed = |count| wire::ReturnedSecret {
        secret: "token".into(),
        stream: wire::OutputStream::Stderr.into(),
        count,
    };
    let said = |times: &str| format!("its secret token to stderr {times}, ");

    // When the runner says so beside its lines, then that is told,
    for (count, times) in [(1, "once"), (2, "2 times"), (4, "4 times")] {
        runner.returned = vec![printed(count)];
        runner.amend(&service, "not while it runs").await.unwrap();
        let event = events.about("plugin.secret_returned", &job).await;
        assert_eq!(
            (&event["attempt"], &event["count"]),
            (&json!(1), &json!(count))
        );
        // and the job has one line of it, however often.
        let found = engine.job(&job).await;
        assert_eq!(
            (found.status(), found.stderr.as_str()),
            (JobStatus::Running, "")
        );
        assert_eq!(found.logs.len(), 1, "{:?}", found.logs);
        assert!(
            found.logs[0].message.contains(&said(times)),
            "{:?}",
            found.logs
        );
    }

    // At its end too; the next attempt has a line of its own.
    runner.returned = vec![printed(5)];
    runner.report(&service, exited()).await;
    let logs = engine.job(&job).await.logs;
    let warned = |times: &str| {
        let of = logs
            .iter()
            .filter(|line| line.message.contains(&said(times)));
        of.count()
    };
    assert_eq!((warned("4 times"), warned("5 times")), (0, 1), "{logs:?}");
    let service = runner.job().await;
    assert_eq!(service.attempt, 2);
    runner.returned = vec![printed(1)];
    runner.amend(&service, "").await.unwrap();
    let logs = engine.job(&job).await.logs;
    let of = |attempt: u32| {
        let about = format!("in attempt {attempt} the plugin printed");
        logs.iter()
            .filter(move |line| line.message.contains(&about))
            .count()
    };
    assert_eq!((of(1), of(2)), (1, 1), "{logs:?}");
}

#[tokio::test]
async fn the_same_service_is_put_in_once_whatever_else_changes_in_the_lock() {
    let (engine, mut runner) = start().await;
    let first = put_in(&engine).await;
    let service = runner.job().await;
    let mut other = with_service(2, None);
    other.plugins.get_mut(&name("first")).unwrap().uid = 20_070;
    engine.stack.write_lock(&other);
    let again = put_in(&engine).await;
    assert_eq!((again.job_id, again.deduplicated), (first.job_id, true));
    runner.line(&service, 1, "{}").await.unwrap();
}

#[tokio::test]
async fn another_lock_replaces_it_when_the_old_cell_is_gone() {
    let (engine, mut runner) = start().await;
    let old = put_in(&engine).await.job_id;
    let first = runner.job().await;
    engine.stack.write_lock(&with_service(2, Some(60)));
    let new = put_in(&engine).await;
    assert!(!new.deduplicated && new.job_id != old);
    assert_eq!(runner.cancel().await.job_id, old);
    // Until its cell is gone it runs, and its successor waits: a call is not held up by that.
    assert_eq!(engine.job(&old).await.status(), JobStatus::Running);
    engine.submit("first", "poll", "").await;
    let call = runner.job_past_cancels().await;
    assert_eq!(call.plugin, "first");
    runner.report(&first, lost()).await;
    let ended = engine.ended(&old).await;
    assert_eq!(ended.status(), JobStatus::Cancelled);
    assert_eq!(ended.transitions.last().unwrap().reason, "replaced");
    let second = runner.job_past_cancels().await;
    assert_eq!(second.job_id, new.job_id);
}

#[tokio::test]
async fn a_lock_without_it_ends_it() {
    let (engine, mut runner) = start().await;
    let job = put_in(&engine).await.job_id;
    let service = runner.job().await;
    engine.stack.write_lock(&lock(2));
    assert_eq!(runner.cancel().await.job_id, job);
    runner.report(&service, lost()).await;
    let ended = engine.ended(&job).await;
    assert_eq!(ended.status(), JobStatus::Cancelled);
    assert_eq!(ended.transitions.last().unwrap().reason, "removed");
    // And nobody can put it in again.
    let refused = engine.scheduled_intake();
    let refused = { refused }.submit_job(engine.service("watcher")).await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn only_the_scheduler_puts_a_service_in_and_only_what_is_one() {
    let (engine, _runner) = start().await;
    let by_token = engine.call("watcher", "serve", "");
    let refused = engine.intake().submit_job(by_token).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("is a service"), "{refused}");
    for principal in ["schedule:watcher:default", "service:first"] {
        let request = engine.service_as("watcher", principal);
        let refused = engine.scheduled_intake().submit_job(request).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{principal}");
    }
    let mut plain = with_service(2, None);
    let watcher = plain.plugins.get_mut(&name("watcher")).unwrap();
    watcher.proposed.walls.service = None;
    engine.stack.write_lock(&plain);
    let mut intake = engine.scheduled_intake();
    let refused = intake.submit_job(engine.service("watcher")).await;
    assert_eq!(refused.unwrap_err().code(), Code::Unavailable);
    // The neighbour: then its command is one like any.
    engine.submit("watcher", "serve", "").await;
}

#[tokio::test]
async fn a_quarantined_one_waits_until_it_is_cleared() {
    let (engine, mut runner) = start().await;
    let job = put_in(&engine).await.job_id;
    let first = runner.job().await;
    runner.quarantines(vec![held(&first)], &["watcher"]).await;
    runner.report(&first, exited()).await;
    let restart = wire::RestartPluginRequest {
        plugin: "watcher".into(),
        principal: "token:ops".into(),
    };
    let state = loop {
        let shown = shown(&engine).await;
        if shown.state == ServiceState::Quarantined {
            break shown;
        }
    };
    assert_eq!(state.detail, "watcher ended too often");
    let found = engine.job(&job).await;
    assert_eq!(found.waiting_for, "watcher ended too often");
    let refused = engine.plugins().restart_plugin(restart).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    // Its pause of a second is over, and it is not started: a call that comes then is.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    engine.submit("first", "poll", "").await;
    assert_eq!(runner.job().await.plugin, "first");
    let clear = wire::ClearPluginRequest {
        plugin: "watcher".into(),
        principal: "token:ops".into(),
    };
    engine.plugins().clear_plugin(clear).await.unwrap();
    assert!(matches!(
        runner.next().await,
        lease_response::Message::Clear(_)
    ));
    runner.quarantines(vec![], &[]).await;
    let second = runner.job().await;
    assert_eq!((second.job_id, second.attempt), (job, 2));
}

#[tokio::test]
async fn a_service_goes_on_while_the_engine_is_started_again() {
    let (mut engine, mut runner) = start().await;
    put_in(&engine).await;
    let service = runner.job().await;
    runner.line(&service, 1, "one").await.unwrap();
    engine.stop().await;
    engine.launch().await;
    let mut runner = TestRunner::connect(&engine.runner, "r", 1, vec![held(&service)]).await;
    runner.line(&service, 1, "one").await.unwrap();
    runner.line(&service, 2, "two").await.unwrap();
    let found = engine.job(&service.job_id).await;
    assert_eq!((found.logs.len(), found.status()), (2, JobStatus::Running));
    // It still takes no slot.
    engine.submit("first", "poll", "").await;
    assert_eq!(runner.job().await.plugin, "first");
}

#[tokio::test]
async fn one_that_policy_denies_waits_and_never_ends() {
    let engine = TestEngine::unlocked().await;
    let mut denied = with_service(1, None);
    let text = denied.config_files.get_mut("config.yaml").unwrap();
    *text = text
        .replace("  forbidden:\n", "")
        .replace("  watcher:", "  forbidden:");
    *text = text.replace("from_plugin: watcher", "from_plugin: first");
    let watcher = denied.plugins.remove(&name("watcher")).unwrap();
    denied.plugins.insert("forbidden".parse().unwrap(), watcher);
    engine.stack.write_lock(&denied);
    let _runner = TestRunner::connect(&engine.runner, "r", 1, vec![]).await;
    let mut intake = engine.scheduled_intake();
    let submitted = intake.submit_job(engine.service("forbidden")).await;
    let job = submitted.unwrap().into_inner().job_id;
    engine.policy.asked(1).await;
    let waiting = loop {
        let found = engine.job(&job).await;
        if !found.waiting_for.is_empty() {
            break found;
        }
    };
    assert_eq!(waiting.status(), JobStatus::Queued);
    assert_eq!(waiting.waiting_for, "no_contract: nothing allows it");
    assert!(waiting.next_retry_at_ms > 0);
}
