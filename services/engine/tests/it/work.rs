//! One job, from the queue to its end.

use bailey_proto::engine::v1 as wire;
use bailey_proto::engine::v1::report_request::Outcome;
use bailey_proto::engine::v1::{JobStatus, LogLine};
use bailey_trust::{Decision, verify};
use bailey_types::Sha256;
use serde_json::json;

use crate::runner::{TestRunner, held, printed};
use crate::stack::{TestEngine, all_different};

#[tokio::test]
async fn a_call_runs_and_its_result_is_there() {
    let engine = TestEngine::start().await;
    let mut events = engine.events("job.>", -1).await;
    let mut runner = TestRunner::connect(&engine.runner, "r", 2, vec![]).await;
    let id = engine.submit("first", "poll", r#"{ "a" : 1.50 }"#).await;

    let job = runner.job().await;
    assert_eq!(
        (
            job.job_id.as_str(),
            job.attempt,
            job.plugin.as_str(),
            job.command.as_str()
        ),
        (id.as_str(), 1, "first", "poll")
    );
    assert_eq!(job.timeout_ms, 60_000);
    let request = engine.broker.opened(&job);
    let text = String::from_utf8(request.clone()).unwrap();
    assert!(
        text.starts_with(r#"{"config":{"greeting":"hi"},"protocol":2,"#),
        "{text}"
    );
    assert!(text.contains(r#""payload":{ "a" : 1.50 },"#), "{text}");
    let key = engine.stack.trust().signing.policy;
    let decision = verify::<Decision>(job.decision.as_ref().unwrap(), &key)
        .unwrap()
        .statement;
    assert_eq!(decision.request_sha256, Sha256::of(&request));
    assert_eq!(engine.job(&id).await.status(), JobStatus::Running);

    runner
        .printed(
            &job,
            r#"{"status":"ok","result":"done","logs":[{"level":"warn","message":"hm"}]}"#,
        )
        .await;

    let ended = engine.ended(&id).await;
    assert_eq!(
        (ended.status(), ended.result.as_str(), ended.stderr.as_str()),
        (JobStatus::Succeeded, "done", "a word")
    );
    assert_eq!(
        ended.logs,
        [LogLine {
            level: "warn".into(),
            message: "hm".into()
        }]
    );
    assert_eq!(ended.decision_id, decision.id.to_string());
    let path: Vec<_> = ended
        .transitions
        .iter()
        .map(|t| (t.from(), t.to()))
        .collect();
    let (queued, running) = (JobStatus::Queued, JobStatus::Running);
    let whole = [
        (JobStatus::Unspecified, queued),
        (queued, running),
        (running, JobStatus::Succeeded),
    ];
    assert_eq!(path, whole);
    for kind in ["job.enqueued", "job.started", "job.completed"] {
        let event = events.next().await;
        assert_eq!(
            (
                event.r#type.as_str(),
                event.job_id.as_str(),
                event.source.as_str()
            ),
            (kind, id.as_str(), "bailey.engine")
        );
    }
}

#[tokio::test]
async fn a_call_of_handle_is_an_event_that_starts_nothing_else() {
    let engine = TestEngine::start().await;
    let mut runner = TestRunner::connect(&engine.runner, "r", 1, vec![]).await;
    let id = engine.submit("first", "handle", r#"{"x":1}"#).await;
    let job = runner.job().await;
    let request = engine.request(&job);
    assert_eq!(request["event"]["type"], "api.trigger");
    assert_eq!(
        request["event"]["payload"],
        json!({"x": 1, "ductile_plugin": "first"})
    );
    assert_eq!(request["payload"]["payload"], json!({"x": 1}));
    assert_eq!(
        request["event"]["event_id"],
        json!(engine.job(&id).await.source_event_id)
    );
    assert_eq!(job.timeout_ms, 120_000);
}

#[tokio::test]
async fn what_policy_denies_fails_for_good() {
    let engine = TestEngine::start().await;
    let _runner = TestRunner::connect(&engine.runner, "r", 1, vec![]).await;
    let id = engine.submit("forbidden", "poll", "").await;
    let ended = engine.ended(&id).await;
    assert_eq!(ended.status(), JobStatus::Failed);
    assert_eq!(ended.last_error, "no_contract: nothing allows it");
}

#[tokio::test]
async fn without_policy_jobs_wait_say_so_and_lose_no_attempt() {
    let engine = TestEngine::start().await;
    let mut runner = TestRunner::connect(&engine.runner, "r", 1, vec![]).await;
    engine.policy.away(true);
    let id = engine.submit("once", "poll", "").await;
    // The second question comes after the first answer was taken note of.
    engine.policy.asked(2).await;
    let waiting = engine.job(&id).await;
    assert_eq!((waiting.status(), waiting.attempt), (JobStatus::Queued, 1));
    assert_eq!(waiting.waiting_for, "policy: the audit log does not answer");
    engine.policy.away(false);
    assert_eq!(runner.job().await.attempt, 1);
}

#[tokio::test]
async fn a_failure_is_tried_again_with_a_new_decision_until_the_job_is_dead() {
    let engine = TestEngine::start().await;
    let mut events = engine.events("job.*", -1).await;
    let mut runner = TestRunner::connect(&engine.runner, "r", 1, vec![]).await;
    let id = engine.submit("first", "poll", "").await;
    let mut decisions = Vec::new();
    for attempt in 1..=2 {
        let job = runner.job().await;
        assert_eq!(job.attempt, attempt);
        decisions.push(String::from_utf8(job.decision.clone().unwrap().payload.to_vec()).unwrap());
        runner
            .printed(&job, r#"{"status":"error","error":"no luck"}"#)
            .await;
    }
    let ended = engine.ended(&id).await;
    assert_eq!(
        (ended.status(), ended.last_error.as_str(), ended.attempt),
        (JobStatus::Dead, "no luck", 2)
    );
    assert!(all_different(&decisions));
    let retry = events.about("job.retry_scheduled", &id).await;
    assert_eq!(
        (&retry["attempt"], &retry["max_attempts"], &retry["reason"]),
        (&json!(1), &json!(2), &json!("plugin_error"))
    );
    events.about("job.retry_exhausted", &id).await;
    assert_eq!(engine.status().await.dead, 1);
}

#[tokio::test]
async fn what_is_not_to_be_tried_again_is_not() {
    let engine = TestEngine::start().await;
    let mut runner = TestRunner::connect(&engine.runner, "r", 1, vec![]).await;
    let refused = Outcome::Refused(wire::Refused {
        reason: "an older lock".into(),
    });
    let timed_out = Outcome::TimedOut(wire::TimedOut {
        killed: true,
        ..wire::TimedOut::default()
    });
    for (plugin, outcome, status, says) in [
        (
            "first",
            printed(r#"{"status":"error","error":"bad","retry":false}"#),
            JobStatus::Failed,
            "bad",
        ),
        ("first", refused, JobStatus::Failed, "an older lock"),
        (
            "once",
            timed_out,
            JobStatus::TimedOut,
            "timed out after 60s",
        ),
        (
            "once",
            printed("no json"),
            JobStatus::Failed,
            "decode response",
        ),
    ] {
        let id = engine.submit(plugin, "poll", "").await;
        let job = runner.job().await;
        runner.report(&job, outcome).await;
        let ended = engine.ended(&id).await;
        assert_eq!(ended.status(), status, "{ended:?}");
        assert!(ended.last_error.contains(says), "{}", ended.last_error);
    }
}

#[tokio::test]
async fn an_attempt_whose_cell_never_started_does_not_count() {
    let engine = TestEngine::start().await;
    let mut runner = TestRunner::connect(&engine.runner, "r", 1, vec![]).await;
    let id = engine.submit("once", "poll", "").await;
    let job = runner.job().await;
    runner
        .report(
            &job,
            Outcome::NotStarted(wire::NotStarted {
                reason: "docker is gone".into(),
            }),
        )
        .await;
    let waiting = engine.job(&id).await;
    assert_eq!((waiting.status(), waiting.attempt), (JobStatus::Queued, 1));
    assert_eq!(waiting.waiting_for, "docker is gone");
    let job = runner.job().await;
    runner
        .printed(&job, r#"{"status":"ok","result":"x"}"#)
        .await;
    assert_eq!(engine.ended(&id).await.status(), JobStatus::Succeeded);
}

#[tokio::test]
async fn a_report_counts_once() {
    let engine = TestEngine::start().await;
    let mut runner = TestRunner::connect(&engine.runner, "r", 1, vec![]).await;
    let id = engine.submit("first", "poll", "").await;
    let job = runner.job().await;
    runner
        .printed(&job, r#"{"status":"ok","result":"one"}"#)
        .await;
    runner
        .printed(&job, r#"{"status":"ok","result":"two"}"#)
        .await;
    let stranger = wire::Assignment { attempt: 7, ..job };
    runner
        .printed(&stranger, r#"{"status":"ok","result":"three"}"#)
        .await;
    assert_eq!(engine.ended(&id).await.result, "one");
}

#[tokio::test]
async fn state_is_merged_or_mirrored_and_reaches_the_next_call() {
    let engine = TestEngine::start().await;
    let mut runner = TestRunner::connect(&engine.runner, "r", 1, vec![]).await;
    for (command, before, updates) in [
        ("poll", json!({}), json!({"a": 1, "b": 1})),
        ("poll", json!({"a": 1, "b": 1}), json!({"b": 2})),
        ("snap", json!({"a": 1, "b": 2}), json!({"c": 3})),
        ("poll", json!({"c": 3}), json!({})),
    ] {
        let id = engine.submit("first", command, "").await;
        let job = runner.job().await;
        assert_eq!(engine.request(&job)["state"], before);
        let response = json!({"status": "ok", "result": "x", "state_updates": updates});
        runner.printed(&job, &response.to_string()).await;
        engine.ended(&id).await;
    }
    let id = engine.submit("first", "poll", "").await;
    let job = runner.job().await;
    let large = json!({"status": "ok", "result": "x", "state_updates": {"d": "x".repeat(1 << 20)}});
    runner.printed(&job, &large.to_string()).await;
    let ended = engine.ended(&id).await;
    assert_eq!(ended.status(), JobStatus::Failed);
    assert!(
        ended.last_error.contains("at most 1048576"),
        "{}",
        ended.last_error
    );
}

#[tokio::test]
async fn jobs_start_in_order_and_one_at_a_time_where_the_manifest_wants_it() {
    let engine = TestEngine::start().await;
    let serial_one = engine.submit("serial", "poll", "").await;
    let serial_two = engine.submit("serial", "poll", "").await;
    let free = engine.submit("first", "poll", "").await;
    let mut runner = TestRunner::connect(&engine.runner, "r", 3, vec![]).await;
    let (a, b) = (runner.job().await, runner.job().await);
    assert_eq!(
        (&a.job_id, &b.job_id),
        (&serial_one, &free),
        "the second waits, and keeps nobody waiting"
    );
    runner.printed(&b, r#"{"status":"ok","result":"x"}"#).await;
    runner.printed(&a, r#"{"status":"ok","result":"x"}"#).await;
    assert_eq!(runner.job().await.job_id, serial_two);
}

#[tokio::test]
async fn a_runner_in_trouble_gets_nothing_and_jobs_say_why() {
    let engine = TestEngine::start().await;
    let mut runner = TestRunner::connect(&engine.runner, "r", 1, vec![]).await;
    runner.beat(vec![], "docker: no answer").await;
    while engine.status().await.runner_trouble.is_empty() {}
    let id = engine.submit("first", "poll", "").await;
    while engine.job(&id).await.waiting_for != "the runner: docker: no answer" {}
    assert_eq!(engine.status().await.posture, "confined");
    runner.beat(vec![], "").await;
    let job = runner.job().await;
    assert_eq!((job.job_id.as_str(), job.attempt), (id.as_str(), 1));
}

#[tokio::test]
async fn a_lease_that_the_engine_does_not_know_is_cancelled() {
    let engine = TestEngine::start().await;
    let stranger = wire::HeldLease {
        job_id: bailey_types::JobId::new().to_string(),
        attempt: 1,
    };
    let mut runner = TestRunner::connect(&engine.runner, "r", 1, vec![stranger.clone()]).await;
    assert_eq!(runner.cancel().await.job_id, stranger.job_id);
    let id = engine.submit("first", "poll", "").await;
    let job = runner.job().await;
    runner.beat(vec![held(&job), stranger.clone()], "").await;
    assert_eq!(runner.cancel().await.job_id, stranger.job_id);
    runner
        .printed(&job, r#"{"status":"ok","result":"x"}"#)
        .await;
    assert_eq!(engine.ended(&id).await.status(), JobStatus::Succeeded);
}

#[tokio::test]
async fn a_secret_that_came_back_is_told_in_the_log_and_with_the_job_whatever_came_of_it() {
    let engine = TestEngine::start().await;
    let mut events = engine.events("plugin.secret_returned", -1).await;
    let mut runner = TestRunner::connect(&engine.runner, "r", 2, vec![]).await;
    for answer in [
        r#"{"status":"ok","result":"it is [secret:token]"}"#,
        r#"{"status":"error","error":"no","retry":false}"#,
    ] {
        let id = engine.submit("first", "poll", "{}").await;
        let job = runner.job().await;
        runner.returned = vec![wire::ReturnedSecret {
            secret: "token".into(),
            stream: wire::OutputStream::Stdout.into(),
            count: 3,
        }];

        runner.printed(&job, answer).await;

        let event = events.about("plugin.secret_returned", &id).await;
        assert_eq!(
            event,
            json!({
                "job_id": id, "plugin": "first", "command": "poll", "attempt": 1, "secret": "token", "stream": "stdout", "count": 3,
            })
        );
        let logs = engine.ended(&id).await.logs;
        let warned = |line: &LogLine| {
            line.level == "warn"
                && line
                    .message
                    .contains("its secret token to stdout 3 times, ")
        };
        assert_eq!(
            logs.iter().filter(|line| warned(line)).count(),
            1,
            "{logs:?}"
        );
    }
}

#[tokio::test]
async fn old_jobs_and_events_go_but_not_what_has_not_ended() {
    let engine = TestEngine::start().await;
    let mut runner = TestRunner::connect(&engine.runner, "r", 1, vec![]).await;
    let old = engine.submit("first", "poll", "").await;
    let job = runner.job().await;
    runner
        .printed(&job, r#"{"status":"ok","result":"x"}"#)
        .await;
    engine.ended(&old).await;
    let live = engine.submit("first", "poll", "").await;
    let future = i64::MAX;
    let prune = wire::PruneRequest {
        jobs_before_ms: future,
        events_before_ms: future,
        facts_before_ms: 0,
        limit: 100,
    };
    let pruned = engine.retention().prune(prune).await.unwrap().into_inner();
    assert_eq!(pruned.jobs, 1);
    assert!(pruned.events >= 3, "{pruned:?}");
    assert_eq!(
        engine.try_job(&old).await.unwrap_err().code(),
        tonic::Code::NotFound
    );
    assert!(engine.try_job(&live).await.is_ok());
}

#[tokio::test]
async fn what_a_plugin_wrote_around_its_answer_is_kept_once_its_job_has_ended() {
    let engine = TestEngine::start().await;
    let mut runner = TestRunner::connect(&engine.runner, "r", 2, vec![]).await;
    let id = engine.submit("first", "poll", "{}").await;
    let job = runner.job().await;

    // Before the report there is nothing to amend
    runner.amend(&job, "too early to count").await.unwrap();
    runner
        .printed(&job, r#"{"status":"ok","result":"done"}"#)
        .await;
    assert_eq!(engine.ended(&id).await.stderr, "a word");

    // What comes after it is kept; what tells less than is known, or is of another attempt, is not
    runner.amend(&job, "a word and another").await.unwrap();
    runner.amend(&job, "a word").await.unwrap();
    let other = wire::Assignment {
        attempt: 2,
        ..job.clone()
    };
    runner
        .amend(&other, "of an attempt that never was")
        .await
        .unwrap();
    let ended = engine.job(&id).await;
    assert_eq!(
        (ended.status(), ended.stderr.as_str()),
        (JobStatus::Succeeded, "a word and another")
    );
}

#[tokio::test]
async fn an_attempt_is_kept_with_how_it_began_and_how_long_it_took() {
    let engine = TestEngine::start().await;
    let mut runner = TestRunner::connect(&engine.runner, "r", 2, vec![]).await;
    let id = engine.submit("first", "poll", "{}").await;
    let job = runner.job().await;
    let running = engine.job(&id).await.attempts;
    assert_eq!((running.len(), running[0].ended_at_ms), (1, 0));
    runner
        .printed(&job, r#"{"status":"ok","result":"done"}"#)
        .await;
    let attempts = engine.ended(&id).await.attempts;
    assert_eq!(attempts.len(), 1);
    let timings = attempts[0].timings.unwrap();
    assert_eq!(
        (attempts[0].attempt, attempts[0].outcome.as_str()),
        (1, "succeeded")
    );
    assert!(attempts[0].ended_at_ms >= attempts[0].started_at_ms);
    assert_eq!(
        (timings.start_kind(), timings.run_us),
        (wire::StartKind::Warm, 7)
    );
}
