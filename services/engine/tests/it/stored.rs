//! What is stored is old, much, or not what the engine wrote.

use bailey_proto::engine::v1 as wire;
use bailey_proto::engine::v1::JobStatus;
use bailey_proto::engine::v1::report_request::Outcome;
use serde_json::json;
use tonic::Code;

use crate::runner::TestRunner;
use crate::service::{exited, name, put_in, shown, start, with_service};
use crate::stack::{TestEngine, lock};

/// The job once it says why it waits, or has ended.
async fn waiting(engine: &TestEngine, job: &str) -> wire::Job {
    loop {
        let found = engine.job(job).await;
        let says_why = found.waiting_for.contains('_');
        if says_why || found.completed_at_ms > 0 {
            return found;
        }
    }
}

#[tokio::test]
async fn a_service_that_cannot_be_asked_waits_and_a_call_fails() {
    for (broken, why) in [
        (
            "INSERT INTO plugin_state VALUES ('watcher', '{broken', 0)",
            "request_broken",
        ),
        ("DELETE FROM job_input", "input_missing"),
    ] {
        let engine = TestEngine::unlocked().await;
        engine.stack.write_lock(&with_service(1, None));
        let service = put_in(&engine).await.job_id;
        let call = engine.submit("watcher", "poll", "").await;
        engine.alter(broken).await;
        let _runner = TestRunner::connect(&engine.runner, "r", 1, vec![]).await;
        let service = waiting(&engine, &service).await;
        assert_eq!(service.status(), JobStatus::Queued);
        assert!(service.waiting_for.starts_with(why), "{service:?}");
        let call = engine.ended(&call).await;
        assert_eq!(call.status(), JobStatus::Failed);
        assert!(call.last_error.starts_with(why), "{call:?}");
    }
}

#[tokio::test]
async fn a_service_without_numbers_for_its_events_is_told_for_good() {
    let (engine, mut runner) = start().await;
    put_in(&engine).await;
    let service = runner.job().await;
    engine
        .alter("UPDATE service SET next_event_index = 4294967295")
        .await;
    let event = r#"{"status":"ok","events":[{"type":"x.y"}]}"#;
    let refused = runner.line(&service, 1, event).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("more events"), "{refused}");
    // The neighbour: a line without any.
    let line = r#"{"status":"ok","result":"fine"}"#;
    runner.line(&service, 1, line).await.unwrap();
}

#[tokio::test]
async fn a_kept_state_that_is_broken_stops_neither_lines_nor_reports() {
    let (engine, mut runner) = start().await;
    let job = put_in(&engine).await.job_id;
    let service = runner.job().await;
    let call = engine.submit("watcher", "poll", "").await;
    let assigned = runner.job().await;
    engine
        .alter("INSERT INTO plugin_state VALUES ('watcher', '{broken', 0)")
        .await;
    let update = r#"{"status":"ok","result":"r","state_updates":{"a":1}}"#;
    runner.line(&service, 1, update).await.unwrap();
    let found = engine.job(&job).await;
    assert_eq!(found.status(), JobStatus::Running);
    assert!(found.last_error.contains("no JSON object"), "{found:?}");
    runner.printed(&assigned, update).await;
    let call = engine.ended(&call).await;
    assert_eq!(call.transitions.last().unwrap().reason, "state_broken");
    // The neighbour: what leaves the state alone is taken.
    let line = r#"{"status":"ok","result":"fine"}"#;
    runner.line(&service, 2, line).await.unwrap();
    assert_eq!(engine.job(&job).await.result, "fine");
}

#[tokio::test]
async fn the_tree_of_what_came_of_a_service_begins_below_it() {
    let (engine, mut runner) = start().await;
    let service = put_in(&engine).await.job_id;
    let serving = runner.job().await;
    let saw = r#"{"status":"ok","events":[{"type":"watcher.saw"}]}"#;
    let mut children = Vec::new();
    for number in 1..=2 {
        runner.line(&serving, number, saw).await.unwrap();
        let child = runner.job().await;
        let answer = r#"{"status":"ok","result":"x"}"#;
        runner.printed(&child, answer).await;
        children.push(child.job_id);
    }
    let ids = |tree: Vec<wire::Job>| tree.into_iter().map(|job| job.job_id).collect::<Vec<_>>();
    assert_eq!(ids(engine.tree(&children[1]).await), children[1..]);
    let mut whole = vec![service.clone()];
    whole.extend(children);
    assert_eq!(ids(engine.tree(&service).await), whole);
}

#[tokio::test]
async fn what_is_told_after_a_report_is_taken_once_and_soon() {
    let engine = TestEngine::start().await;
    let mut runner = TestRunner::connect(&engine.runner, "r", 1, vec![]).await;
    let mut ended = Vec::new();
    for _ in 0..2 {
        let id = engine.submit("first", "poll", "").await;
        let job = runner.job().await;
        let answer = r#"{"status":"ok","result":"x"}"#;
        runner.printed(&job, answer).await;
        engine.ended(&id).await;
        ended.push((id, job));
    }
    let [(once, first), (late, second)] = ended.try_into().unwrap();
    // The length of a text does not end at its first NUL.
    runner.amend(&first, "a word\0and more").await.unwrap();
    assert_eq!(engine.job(&once).await.stderr, "a word\0and more");
    let again = "a word\0and more, and more yet";
    runner.amend(&first, again).await.unwrap();
    assert_eq!(engine.job(&once).await.stderr, "a word\0and more");

    engine
        .alter("UPDATE job SET completed_at_ms = completed_at_ms - 61000")
        .await;
    runner.amend(&second, "a word, late").await.unwrap();
    assert_eq!(engine.job(&late).await.stderr, "a word");
    let secret = wire::ReturnedSecret {
        secret: "token".into(),
        stream: wire::OutputStream::Stderr.into(),
        count: 3,
    };
    runner.returned = vec![secret; 65];
    let refused = runner.amend(&second, "a word, late").await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    runner.returned.pop();
    runner.amend(&second, "a word, late").await.unwrap();
}

#[tokio::test]
async fn a_secret_that_came_back_late_is_told_though_nothing_else_is_new() {
    let engine = TestEngine::start().await;
    let mut runner = TestRunner::connect(&engine.runner, "r", 1, vec![]).await;
    let mut events = engine.events("plugin.secret_returned", 0).await;
    let id = engine.submit("first", "poll", "").await;
    let job = runner.job().await;
    let answer = r#"{"status":"ok","result":"x"}"#;
    runner.printed(&job, answer).await;
    engine.ended(&id).await;
    runner.returned = vec![wire::ReturnedSecret {
        secret: "token".into(),
        stream: wire::OutputStream::Stdout.into(),
        count: 3,
    }];
    runner.amend(&job, "").await.unwrap();
    let told = events.about("plugin.secret_returned", &id).await;
    assert_eq!(
        (&told["secret"], &told["count"]),
        (&json!("token"), &json!(3))
    );
    let found = engine.job(&id).await;
    assert_eq!(found.stderr, "a word");
    let line = "its secret token to stdout 3 times, ";
    assert!(
        found.logs.iter().any(|log| log.message.contains(line)),
        "{:?}",
        found.logs
    );
    // What one amendment cannot hold comes in others, which may come twice.
    let told = |stream: wire::OutputStream| wire::ReturnedSecret {
        secret: "token".into(),
        stream: stream.into(),
        count: 4,
    };
    let parts = [wire::OutputStream::Stderr, wire::OutputStream::Stderr];
    for stream in [&parts[..], &[wire::OutputStream::Stdout]].concat() {
        runner.returned = vec![told(stream)];
        runner.amend(&job, "").await.unwrap();
    }
    for stream in ["stderr", "stdout"] {
        let event = events.about("plugin.secret_returned", &id).await;
        assert_eq!(event["stream"], json!(stream));
    }
    let lines = async || engine.job(&id).await.logs.len();
    assert_eq!(lines().await, found.logs.len() + 1);
    // With anything else it is a second one of its kind.
    runner.returned = vec![wire::ReturnedSecret {
        secret: "other".into(),
        ..told(wire::OutputStream::Stdout)
    }];
    runner.amend(&job, "a word, again").await.unwrap();
    assert_eq!(lines().await, found.logs.len() + 1);
}

#[tokio::test]
async fn old_facts_go_but_the_newest_of_each_plugin_and_type() {
    let engine = TestEngine::start().await;
    let mut runner = TestRunner::connect(&engine.runner, "r", 1, vec![]).await;
    for plugin in ["first", "first", "second", "first"] {
        let id = engine.submit(plugin, "snap", "").await;
        let job = runner.job().await;
        let answer = r#"{"status":"ok","result":"x","state_updates":{"n":1}}"#;
        runner.printed(&job, answer).await;
        engine.ended(&id).await;
    }
    let prune = |facts_before_ms, limit| {
        let mut client = engine.retention();
        async move {
            let request = wire::PruneRequest {
                facts_before_ms,
                limit,
                ..wire::PruneRequest::default()
            };
            client.prune(request).await.unwrap().into_inner()
        }
    };
    assert_eq!(prune(1, 100).await.facts, 0);
    assert_eq!(prune(i64::MAX, 1).await.facts, 1);
    let rest = prune(i64::MAX, 100).await;
    assert_eq!((rest.jobs, rest.events, rest.facts), (0, 0, 1));
    assert_eq!(prune(i64::MAX, 100).await.facts, 0);
}

#[tokio::test]
async fn a_restart_without_a_lock_says_that_there_is_none() {
    let engine = TestEngine::unlocked().await;
    let restart = || wire::RestartPluginRequest {
        plugin: "watcher".into(),
        principal: "token:ops".into(),
    };
    let refused = engine.plugins().restart_plugin(restart()).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(
        refused.message().contains("nothing is locked yet"),
        "{refused}"
    );
    engine.stack.write_lock(&lock(1));
    let refused = engine.plugins().restart_plugin(restart()).await;
    assert_eq!(refused.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_service_that_cannot_be_ended_does_not_keep_another_running() {
    let engine = TestEngine::unlocked().await;
    let mut two = with_service(1, None);
    let text = two.config_files.get_mut("config.yaml").unwrap();
    *text = text.replace("pipelines:\n", "  zebra: {}\npipelines:\n");
    let mut zebra = two.plugins[&name("watcher")].clone();
    zebra.proposed.manifest.name = name("zebra");
    zebra.uid = 20_052;
    zebra.holder_uid = 20_053;
    two.plugins.insert(name("zebra"), zebra);
    engine.stack.write_lock(&two);
    let mut runner = TestRunner::connect(&engine.runner, "r", 1, vec![]).await;
    put_in(&engine).await;
    runner.job().await;
    let mut intake = engine.scheduled_intake();
    let request = engine.service("zebra");
    let zebra = intake.submit_job(request).await.unwrap().into_inner();
    runner.job().await;
    engine
        .alter(
            "CREATE TRIGGER stuck BEFORE UPDATE ON service
             WHEN (SELECT plugin FROM job WHERE job_id = OLD.job_id) = 'watcher'
             BEGIN SELECT RAISE(FAIL, 'stuck'); END",
        )
        .await;
    engine.stack.write_lock(&lock(2));
    assert_eq!(runner.cancel().await.job_id, zebra.job_id);
}

#[tokio::test]
async fn what_never_began_does_not_make_a_service_wait_longer_for_its_own_ends() {
    let (engine, mut runner) = start().await;
    let job = put_in(&engine).await.job_id;
    let first = runner.job().await;
    let reason = "no image".to_owned();
    let not_started = Outcome::NotStarted(wire::NotStarted { reason });
    runner.report(&first, not_started).await;
    assert_eq!(engine.job(&job).await.waiting_for, "no image");
    for pause in [1000, 2000] {
        let next = runner.job().await;
        runner.report(&next, exited()).await;
        let waiting = engine.job(&job).await;
        let last = waiting.transitions.last().unwrap();
        assert_eq!(waiting.next_retry_at_ms - last.at_ms, pause);
    }
    assert_eq!(shown(&engine).await.restarts, 3);
}
