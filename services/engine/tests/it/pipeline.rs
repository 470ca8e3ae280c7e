//! Events, and the steps that follow from them.

use bailey_proto::engine::v1::JobStatus;
use bailey_proto::policy::v1::decide_request::AskedBy;
use serde_json::json;

use crate::runner::TestRunner;
use crate::stack::TestEngine;

#[tokio::test]
async fn an_event_runs_a_pipeline_step_by_step() {
    let engine = TestEngine::start().await;
    let mut runner = TestRunner::connect(&engine.runner, "r", 1, vec![]).await;
    let emitted = engine
        .intake()
        .emit_event(engine.event("thing.seen", r#"{"n":1}"#))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(emitted.job_ids.len(), 1);

    let one = runner.job().await;
    let asked = engine.policy.last();
    assert!(matches!(asked.asked_by, Some(AskedBy::Origin(_))));
    let step = asked.pipeline_step.unwrap();
    assert_eq!(
        (
            step.pipeline.as_str(),
            step.step.as_str(),
            step.event_type.as_str()
        ),
        ("chain", "one", "thing.seen")
    );
    let got = engine.request(&one);
    assert_eq!(got["payload"]["payload"], json!({"n": 1}));
    assert_eq!(got["context"]["ductile_step_id"], "one");
    assert_eq!(got["context"]["ductile_route_max_depth"], 2);
    assert_eq!(got["event"]["event_id"], json!(emitted.event_id));
    runner
        .printed(
            &one,
            r#"{"status":"ok","result":"r1","events":[{"type":"x.y","payload":{"m":2}}]}"#,
        )
        .await;

    let two = runner.job().await;
    let asked = engine.policy.last();
    assert!(
        matches!(asked.asked_by, Some(AskedBy::ParentDecision(parent)) if Some(&parent) == one.decision.as_ref())
    );
    assert_eq!(asked.pipeline_step.unwrap().instance_id, step.instance_id);
    let got = engine.request(&two);
    assert_eq!(
        got["payload"]["payload"],
        json!({
            "m": 2, "result": "r1", "ductile_upstream_plugin": "first",
            "ductile_upstream_pipeline": "chain", "ductile_upstream_step_id": "one",
        })
    );
    assert_eq!(
        (&got["event"]["type"], &got["event"]["source"]),
        (&json!("x.y"), &json!("first"))
    );
    runner
        .printed(&two, r#"{"status":"ok","result":"r2"}"#)
        .await;

    engine.ended(&two.job_id).await;
    for root in [&emitted.event_id, &one.job_id, &two.job_id] {
        is_tree_of_two(&engine, root, &one.job_id, &two.job_id).await;
    }
}

async fn is_tree_of_two(engine: &TestEngine, root: &str, parent: &str, child: &str) {
    let tree = engine.tree(root).await;
    let jobs: Vec<_> = tree
        .iter()
        .map(|job| {
            (
                job.job_id.as_str(),
                job.parent_job_id.as_str(),
                job.status(),
            )
        })
        .collect();
    let done = JobStatus::Succeeded;
    assert_eq!(jobs, [(parent, "", done), (child, parent, done)]);
}

#[tokio::test]
async fn a_step_without_events_still_leads_on() {
    let engine = TestEngine::start().await;
    let mut runner = TestRunner::connect(&engine.runner, "r", 1, vec![]).await;
    engine
        .intake()
        .emit_event(engine.event("thing.seen", "{}"))
        .await
        .unwrap();
    let one = runner.job().await;
    runner
        .printed(&one, r#"{"status":"ok","result":"quiet"}"#)
        .await;
    let two = runner.job().await;
    let got = engine.request(&two);
    assert_eq!(got["event"]["type"], "ductile.step.succeeded");
    assert_eq!(got["event"]["payload"]["result"], "quiet");
}

#[tokio::test]
async fn an_event_within_a_pipeline_starts_others_too() {
    let engine = TestEngine::start().await;
    let mut runner = TestRunner::connect(&engine.runner, "r", 1, vec![]).await;
    engine
        .intake()
        .emit_event(engine.event("thing.seen", "{}"))
        .await
        .unwrap();
    let one = runner.job().await;
    let response =
        r#"{"status":"ok","result":"x","events":[{"type":"a.b"},{"type":"first.done"}]}"#;
    runner.printed(&one, response).await;
    let mut next = Vec::new();
    for _ in 0..2 {
        let job = runner.job().await;
        let step = engine.policy.last().pipeline_step.unwrap();
        next.push((
            job.plugin.clone(),
            step.pipeline,
            step.event_type,
            step.event_index,
        ));
        runner
            .printed(&job, r#"{"status":"ok","result":"x"}"#)
            .await;
    }
    let last = runner.job().await;
    let step = engine.policy.last().pipeline_step.unwrap();
    next.push((
        last.plugin,
        step.pipeline,
        step.event_type,
        step.event_index,
    ));
    next.sort();
    let text = |a: &str, b: &str, c: &str, d| (a.to_owned(), b.to_owned(), c.to_owned(), d);
    assert_eq!(
        next,
        [
            text("once", "other", "first.done", 1),
            text("second", "chain", "a.b", 0),
            text("second", "chain", "first.done", 1),
        ]
    );
}

#[tokio::test]
async fn a_plugin_called_by_hand_may_start_a_pipeline_by_what_it_emits() {
    let engine = TestEngine::start().await;
    let mut runner = TestRunner::connect(&engine.runner, "r", 1, vec![]).await;
    engine.submit("first", "poll", "").await;
    let job = runner.job().await;
    runner
        .printed(
            &job,
            r#"{"status":"ok","result":"x","events":[{"type":"first.done"}]}"#,
        )
        .await;
    assert_eq!(runner.job().await.plugin, "once");
    let step = engine.policy.last().pipeline_step.unwrap();
    assert_eq!(
        (step.pipeline.as_str(), step.step.as_str()),
        ("other", "step_1")
    );
}

#[tokio::test]
async fn an_event_that_nobody_waits_for_is_kept() {
    let engine = TestEngine::start().await;
    let emitted = engine
        .intake()
        .emit_event(engine.event("nobody.cares", r#"{"x":1}"#))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(emitted.job_ids, Vec::<String>::new());
    let event = engine.events("nobody.*", 0).await.next().await;
    assert_eq!(
        (event.event_id, event.payload_json.as_str()),
        (emitted.event_id, r#"{"x":1}"#)
    );
}

#[tokio::test]
async fn a_subscriber_that_comes_back_with_its_cursor_misses_nothing() {
    let mut engine = TestEngine::start().await;
    for n in 0..3 {
        engine
            .intake()
            .emit_event(engine.event("count.up", &format!(r#"{{"n":{n}}}"#)))
            .await
            .unwrap();
    }
    let first = engine.events("count.>", 0).await.next().await;
    engine.stop().await;
    engine.launch().await;
    let mut rest = engine.events("count.>", first.seq).await;
    assert_eq!(rest.next().await.payload_json, r#"{"n":1}"#);
    assert_eq!(rest.next().await.payload_json, r#"{"n":2}"#);
    engine
        .intake()
        .emit_event(engine.event("count.up", r#"{"n":3}"#))
        .await
        .unwrap();
    assert_eq!(rest.next().await.payload_json, r#"{"n":3}"#);
}
