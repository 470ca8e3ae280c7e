//! What gets in, and what does not.

use bailey_proto::engine::v1 as wire;
use bailey_trust::Asked;
use bailey_types::{Service, Sha256};
use tonic::Code;

use crate::runner::TestRunner;
use crate::stack::{TestEngine, lock};

#[tokio::test]
async fn the_same_origin_again_is_the_same_job() {
    let engine = TestEngine::start().await;
    let request = engine.call("first", "poll", r#"{"a":1}"#);
    let first = engine
        .intake()
        .submit_job(request.clone())
        .await
        .unwrap()
        .into_inner();
    let again = engine
        .intake()
        .submit_job(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!((first.job_id, first.deduplicated), (again.job_id, false));
    assert!(again.deduplicated);
    assert_eq!(engine.status().await.queued, 1);
}

#[tokio::test]
async fn a_call_may_wait_for_its_end_and_no_longer_than_it_says() {
    let engine = TestEngine::start().await;
    let mut runner = TestRunner::connect(&engine.runner, "r", 1, vec![]).await;
    let waiting = wire::SubmitJobRequest {
        wait_ms: 20_000,
        ..engine.call("first", "poll", "")
    };
    let mut intake = engine.intake();
    let (answer, ()) = tokio::join!(intake.submit_job(waiting.clone()), async {
        let assignment = runner.job().await;
        runner
            .printed(&assignment, r#"{"status":"ok","result":"done"}"#)
            .await;
    });
    let answer = answer.unwrap().into_inner();
    let job = answer.job.unwrap();
    assert_eq!((job.job_id, job.result.as_str()), (answer.job_id, "done"));
    assert_eq!((job.transitions.len(), job.attempts.len()), (3, 1));

    // The same call again is the same job, which has ended.
    let again = engine.intake().submit_job(waiting).await.unwrap();
    let again = again.into_inner();
    assert!(again.deduplicated);
    assert_eq!(again.job.unwrap().result, "done");

    let impatient = wire::SubmitJobRequest {
        wait_ms: 1,
        ..engine.call("first", "poll", "")
    };
    let answer = engine.intake().submit_job(impatient).await.unwrap();
    let job = answer.into_inner().job.unwrap();
    assert_eq!(job.completed_at_ms, 0);

    let for_ever = wire::SubmitJobRequest {
        wait_ms: i64::MAX,
        ..engine.call("first", "poll", "")
    };
    let refused = engine.intake().submit_job(for_ever).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn an_origin_counts_only_for_what_it_asks_and_from_whom_it_should_come() {
    let engine = TestEngine::start().await;
    let good = engine.call("first", "poll", r#"{"a":1}"#);

    let other_payload = wire::SubmitJobRequest {
        payload: r#"{"a":2}"#.into(),
        ..good.clone()
    };
    let other_command = wire::SubmitJobRequest {
        command: "handle".into(),
        ..good.clone()
    };
    let mut forged = good.clone();
    let asked = Asked::Call {
        plugin: "first".parse().unwrap(),
        command: "poll".parse().unwrap(),
        payload_sha256: Sha256::of(br#"{"a":1}"#),
    };
    forged.origin = Some(engine.origin(Service::Policy, asked));
    let none = wire::SubmitJobRequest {
        origin: None,
        ..good.clone()
    };
    for (request, code) in [
        (other_payload, Code::InvalidArgument),
        (other_command, Code::InvalidArgument),
        (forged, Code::PermissionDenied),
        (none, Code::InvalidArgument),
    ] {
        let refused = engine.intake().submit_job(request).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused:?}");
    }
    // The scheduler speaks for schedules only.
    let refused = engine
        .scheduled_intake()
        .submit_job(good)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_command_that_is_not_there_is_refused_with_what_there_is() {
    let engine = TestEngine::start().await;
    for (plugin, command, says) in [
        (
            "first",
            "nothing",
            "no command nothing; it has poll, handle, snap",
        ),
        ("nobody", "poll", "there is no plugin nobody"),
        ("off", "poll", "off is not enabled"),
        ("first", "no such", "not a valid command name"),
    ] {
        let asked = engine.call("first", "poll", "");
        let mut request = asked;
        if let Ok(name) = command.parse() {
            let asked = Asked::Call {
                plugin: plugin.parse().unwrap(),
                command: name,
                payload_sha256: Sha256::of(b"{}"),
            };
            request.origin = Some(engine.origin(Service::Broker, asked));
        }
        (request.plugin, request.command) = (plugin.to_owned(), command.to_owned());
        let refused = engine.intake().submit_job(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains(says), "{}", refused.message());
    }
}

#[tokio::test]
async fn a_payload_that_parsers_read_differently_is_refused() {
    let engine = TestEngine::start().await;
    for payload in [
        r#"{"a":1,"a":2}"#,
        "[]",
        " {}",
        "{",
        r#"{"n":9007199254740993}"#,
    ] {
        let request = engine.call("first", "poll", payload);
        let refused = engine.intake().submit_job(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{payload}");
    }
    let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(1 << 20));
    let refused = engine
        .intake()
        .submit_job(engine.call("first", "poll", &large))
        .await
        .unwrap_err();
    assert!(
        refused.message().contains("at most 1048576"),
        "{}",
        refused.message()
    );
}

#[tokio::test]
async fn without_a_lock_nothing_is_taken_in_and_with_one_it_is() {
    let engine = TestEngine::unlocked().await;
    let refused = engine
        .intake()
        .submit_job(engine.call("first", "poll", ""))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(
        refused.message().contains("bailey plugin lock"),
        "{}",
        refused.message()
    );
    let status = engine.status().await;
    assert!(
        status.lock_trouble.contains("nothing is locked yet"),
        "{status:?}"
    );

    engine.stack.write_lock(&lock(3));

    engine.submit("first", "poll", "").await;
    let status = engine.status().await;
    assert_eq!(
        (
            status.lock_serial,
            status.lock_trouble.as_str(),
            status.queued
        ),
        (3, "", 1)
    );
}

#[tokio::test]
async fn an_event_repeats_nothing_and_may_not_pass_for_the_engines_own() {
    let engine = TestEngine::start().await;
    let mut request = engine.event("thing.seen", "{}");
    request.dedupe_key = "once".into();
    let first = engine
        .intake()
        .emit_event(request.clone())
        .await
        .unwrap()
        .into_inner();
    let mut equal = engine.event("thing.seen", "{}");
    equal.dedupe_key = "once".into();
    for repeated in [request, equal] {
        let again = engine
            .intake()
            .emit_event(repeated)
            .await
            .unwrap()
            .into_inner();
        assert!(again.deduplicated);
        assert_eq!(
            (&again.event_id, &again.job_ids),
            (&first.event_id, &first.job_ids)
        );
    }
    assert_eq!(first.job_ids.len(), 1);

    let mut posing = engine.event("job.completed", "{}");
    posing.source = "bailey.engine".into();
    let refused = engine.intake().emit_event(posing).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_dedupe_key_counts_against_waiting_jobs_only_for_as_long_as_it_says() {
    let engine = TestEngine::start().await;
    let submit = async |ttl: i64| {
        let request = wire::SubmitJobRequest {
            dedupe_key: "k".into(),
            dedupe_ttl_ms: ttl,
            ..engine.call("first", "poll", "")
        };
        engine
            .intake()
            .submit_job(request)
            .await
            .unwrap()
            .into_inner()
    };
    let first = submit(60_000).await;
    let second = submit(60_000).await;
    assert_eq!(
        (second.job_id, second.deduplicated),
        (first.job_id.clone(), true)
    );
    let third = submit(0).await;
    assert!(
        !third.deduplicated,
        "it has not succeeded, and the key says nothing about waiting jobs"
    );
}

#[tokio::test]
async fn the_scheduler_hears_of_its_own_jobs_only() {
    let engine = TestEngine::start().await;
    engine.submit("first", "poll", "").await;
    let asked = Asked::Call {
        plugin: "first".parse().unwrap(),
        command: "poll".parse().unwrap(),
        payload_sha256: Sha256::of(b"{}"),
    };
    let mut request = engine.call("first", "poll", "");
    request.origin = Some(engine.origin(Service::Scheduler, asked));
    request.submitted_by = "schedule:default".into();
    engine.scheduled_intake().submit_job(request).await.unwrap();
    let request = wire::OutstandingJobsRequest {
        plugin: "first".into(),
        command: "poll".into(),
    };
    assert_eq!(
        engine
            .schedule()
            .outstanding_jobs(request)
            .await
            .unwrap()
            .into_inner()
            .count,
        1
    );
}

#[tokio::test]
async fn the_catalogue_rates_each_plugin_by_what_is_locked() {
    let engine = TestEngine::start().await;
    let answer = engine.query().catalogue(wire::CatalogueRequest {}).await;
    let catalogue: bailey_plugin::Catalogue =
        serde_json::from_str(&answer.unwrap().into_inner().catalogue_json).unwrap();
    let score = |name: &str| {
        let entry = catalogue.plugins.iter().find(|e| e.name.as_str() == name);
        entry.unwrap().rating.as_ref().unwrap().score
    };
    assert_eq!((score("first"), score("once")), (8, 7));
}
