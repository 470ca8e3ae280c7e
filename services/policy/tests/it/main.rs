//! The policy service over its wire.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up must fail")]

mod drift;
mod peers;
mod pipelines;
mod services;
mod stack;

use std::time::Duration;

use bailey_proto::policy::v1::DecideRequest;
use bailey_proto::policy::v1::decide_request::AskedBy;
use bailey_proto::policy::v1::decision_service_client::DecisionServiceClient;
use bailey_trust::{Asked, DecisionOrigin};
use bailey_types::{Clock, JobId, Serial, Service, Sha256, Timestamp};
use tonic::Code;

use crate::peers::Mode;
use crate::stack::{TestPolicy, asked_call, lock, request};

fn again(request: &DecideRequest, attempt: u32) -> DecideRequest {
    DecideRequest {
        attempt,
        ..request.clone()
    }
}

/// The same question for another job.
fn for_another_job(request: &DecideRequest) -> DecideRequest {
    let job = JobId::new().to_string();
    let body = String::from_utf8(request.request.to_vec())
        .unwrap()
        .replace(&request.job_id, &job);
    DecideRequest {
        job_id: job,
        request: body.into_bytes().into(),
        ..request.clone()
    }
}

#[tokio::test]
async fn a_tokens_call_is_allowed_recorded_and_bound_to_its_bytes() {
    let policy = TestPolicy::start().await;
    let asked = policy.call("push", r#"{"a": 1}"#);
    let (decision, allowed) = policy.allowed(asked.clone()).await;

    let text = String::from_utf8(allowed.request.to_vec()).unwrap();
    assert!(
        text.starts_with(r#"{"config":{"greeting":"hello"},"protocol":2,"#),
        "{text}"
    );
    assert!(
        text.ends_with(&String::from_utf8(asked.request[1..].to_vec()).unwrap()),
        "{text}"
    );
    assert_eq!(
        (decision.principal.as_str(), decision.contract.as_str()),
        ("token:ops", "token:ops")
    );
    assert_eq!(
        (decision.broker_epoch.as_str(), decision.lock_serial),
        ("epoch-1", Serial(5))
    );
    assert_eq!(decision.account.as_str(), "default");
    assert!(matches!(
        decision.origin,
        DecisionOrigin::Root { step: None, .. }
    ));

    let entries = policy.audit.entries("decision.allowed");
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0]["fields"]["decision"], decision.id.to_string());
    assert_eq!(entries[0]["seq"], decision.audit_index);
    let recorded = entries[0].to_string();
    assert!(
        !recorded.contains(&decision.request_sha256.to_string()),
        "only a salted hash is recorded"
    );
    assert!(!recorded.contains(&decision.nonce));
}

#[tokio::test]
async fn without_a_record_nothing_is_allowed() {
    let policy = TestPolicy::start().await;
    let asked = policy.call("poll", "{}");
    policy.audit.set(Mode::Down);
    for attempt in 1..10 {
        let refused = policy.decide(again(&asked, attempt)).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    }
    // What was not given does not count, and policy recovers by itself.
    policy.audit.set(Mode::Good);
    policy.allowed(asked).await;
}

#[tokio::test]
async fn a_log_that_does_not_continue_the_known_one_allows_nothing_even_after_a_restart() {
    let mut policy = TestPolicy::start().await;
    policy.allowed(policy.call("poll", "{}")).await;
    policy.allowed(policy.call("poll", "{}")).await;
    policy.audit.set(Mode::Forked);
    let refused = policy.decide(policy.call("poll", "{}")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("does not continue"), "{refused}");
    policy.restart().await;
    let refused = policy.decide(policy.call("poll", "{}")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    policy.audit.set(Mode::Good);
    policy.allowed(policy.call("poll", "{}")).await;
}

#[tokio::test]
async fn policy_cosigns_the_log_when_it_starts() {
    let policy = TestPolicy::start().await;
    policy
        .audit
        .cosigned()
        .wait_for(|count| *count > 0)
        .await
        .unwrap();
}

#[tokio::test]
async fn an_origin_stands_for_one_job_and_its_retries() {
    let mut policy = TestPolicy::start().await;
    let asked = policy.call("poll", "{}");
    policy.allowed(asked.clone()).await;
    policy.allowed(again(&asked, 2)).await;
    policy.restart().await;
    assert_eq!(policy.denied(for_another_job(&asked)).await, "origin_used");
    // Two attempts are configured, and each may have to be started three times.
    for attempt in 3..=6 {
        policy.allowed(again(&asked, attempt)).await;
    }
    assert_eq!(policy.denied(again(&asked, 7)).await, "attempts_used_up");
}

#[tokio::test]
async fn a_decision_that_waits_for_the_broker_keeps_no_other_waiting() {
    let policy = TestPolicy::start().await;
    policy.allowed(policy.call("poll", "{}")).await;
    let has_come = policy.broker.ignore_next();
    let mut stuck = std::pin::pin!(policy.decide(policy.call("poll", "{}")));
    let others = async {
        has_come.await;
        policy.allowed(policy.event()).await;
        policy.allowed(policy.call("poll", "{}")).await;
    };
    tokio::select! {
        ended = &mut stuck => assert!(ended.is_ok(), "the others waited for it"),
        () = others => {}
    }
    // It is neither forgotten nor decided without an epoch.
    assert_eq!(stuck.await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn what_follows_from_a_job_may_although_the_clock_was_set_back_while_it_was_decided() {
    let mut policy = TestPolicy::start().await;
    let now = Clock::system().now();
    let clock = Clock::fixed(now);
    policy.restart_by(clock.clone()).await;
    policy.audit.set_clock(&clock, Timestamp(now.0 - 5_000));
    let (decision, parent) = policy.allowed(policy.event()).await;
    assert_eq!(decision.issued_at, now);
    clock.set(now);
    policy.allowed(TestPolicy::second(&parent)).await;
}

#[tokio::test]
async fn policy_forgets_what_is_over_by_itself_and_refuses_it_then() {
    let mut policy = TestPolicy::start().await;
    let asked = policy.call("poll", "{}");
    policy.allowed(asked.clone()).await;
    let used_until = Clock::system().now();
    let later = used_until.plus(Duration::from_hours(31 * 24));
    policy.restart_by(Clock::fixed(later)).await;
    let pruned = policy.audit.recorded("ledger.pruned", 1).await;
    assert_eq!(pruned[0]["fields"]["jobs"], 1);
    let until = pruned[0]["fields"]["before_ms"].as_i64().unwrap();
    assert!(until <= used_until.0, "{until} {used_until:?}");
    // No certificate is valid then, so the question is asked now.
    policy.restart().await;
    assert_eq!(policy.denied(for_another_job(&asked)).await, "too_old");
    assert_eq!(policy.denied(again(&asked, 2)).await, "too_old");
    policy.allowed(policy.call("poll", "{}")).await;
}

#[tokio::test]
async fn the_payload_is_the_one_that_was_asked_for() {
    let policy = TestPolicy::start().await;
    let asked = policy.call("poll", r#"{"a":1}"#);
    let other = policy.call("poll", r#"{"a":2}"#);
    let body = String::from_utf8(other.request.to_vec())
        .unwrap()
        .replace(&other.job_id, &asked.job_id);
    let forged = DecideRequest {
        request: body.into_bytes().into(),
        ..asked
    };
    assert_eq!(policy.denied(forged).await, "payload_differs");

    let mut forged = policy.event();
    let body = String::from_utf8(forged.request.to_vec()).unwrap();
    forged.request = body.replacen("\"me\"", "\"you\"", 1).into_bytes().into();
    assert_eq!(policy.denied(forged).await, "payload_differs");
}

#[tokio::test]
async fn an_origin_must_be_signed_by_the_one_who_saw_its_principal() {
    let policy = TestPolicy::start().await;
    let call = |signer, principal: &str| {
        let origin = policy.origin(signer, principal, &["*"], asked_call("poll", "{}"));
        request(
            JobId::new(),
            "echo",
            "poll",
            "\"payload\":{}",
            AskedBy::Origin(origin),
        )
    };
    policy.allowed(call(Service::Broker, "token:ops")).await;
    for (signer, principal) in [
        (Service::Audit, "token:ops"),
        (Service::Policy, "token:ops"),
        (Service::Scheduler, "token:ops"),
        (Service::Broker, "schedule:echo:hourly"),
    ] {
        assert_eq!(
            policy.denied(call(signer, principal)).await,
            "origin_invalid",
            "{signer} {principal}"
        );
    }
    // Another command, or another plugin, than the one that was asked for.
    let origin = policy.origin(
        Service::Broker,
        "token:ops",
        &["*"],
        asked_call("poll", "{}"),
    );
    let other = request(
        JobId::new(),
        "echo",
        "push",
        "\"payload\":{}",
        AskedBy::Origin(origin.clone()),
    );
    assert_eq!(policy.denied(other).await, "origin_invalid");
    let other = request(
        JobId::new(),
        "greet",
        "poll",
        "\"payload\":{}",
        AskedBy::Origin(origin),
    );
    assert_eq!(policy.denied(other).await, "origin_invalid");
}

#[tokio::test]
async fn scopes_must_cover_the_command() {
    let policy = TestPolicy::start().await;
    let call = |scope: &str, command: &str| {
        let origin = policy.origin(
            Service::Broker,
            "token:ops",
            &[scope],
            asked_call(command, "{}"),
        );
        request(
            JobId::new(),
            "echo",
            command,
            "\"payload\":{}",
            AskedBy::Origin(origin),
        )
    };
    policy.allowed(call("plugin:invoke:ro", "poll")).await;
    policy.allowed(call("*", "push")).await;
    assert_eq!(
        policy.denied(call("plugin:invoke:ro", "push")).await,
        "scope_missing"
    );
    assert_eq!(
        policy.denied(call("jobs:rw", "poll")).await,
        "scope_missing"
    );

    let mut event = policy.event();
    let payload_sha256 = Sha256::of(b"{\"who\":\"me\"}");
    let asked = Asked::Event {
        event_type: "door.opened".parse().unwrap(),
        payload_sha256,
    };
    event.asked_by = Some(AskedBy::Origin(policy.origin(
        Service::Broker,
        "token:ops",
        &["events:ro"],
        asked,
    )));
    assert_eq!(policy.denied(event).await, "scope_missing");
}

#[tokio::test]
async fn a_check_of_an_upstream_starts_nothing() {
    let policy = TestPolicy::start().await;
    let asked_for = |asked| {
        let origin = policy.origin(Service::Broker, "token:ops", &["*"], asked);
        let asked_by = AskedBy::Origin(origin);
        request(JobId::new(), "echo", "poll", "\"payload\":{}", asked_by)
    };
    let upstream = "model".parse().unwrap();
    let check = Asked::Check { upstream };
    assert_eq!(policy.denied(asked_for(check)).await, "no_contract");
    policy.allowed(asked_for(asked_call("poll", "{}"))).await;
}

#[tokio::test]
async fn a_schedule_runs_what_was_locked_and_nothing_else() {
    let policy = TestPolicy::start().await;
    let call = |id: &str, command: &str, payload: &str| {
        let principal = format!("schedule:echo:{id}");
        let origin = policy.origin(
            Service::Scheduler,
            &principal,
            &[],
            asked_call(command, payload),
        );
        request(
            JobId::new(),
            "echo",
            command,
            &format!("\"payload\":{payload}"),
            AskedBy::Origin(origin),
        )
    };
    let (decision, _) = policy.allowed(call("hourly", "poll", r#"{"a":1}"#)).await;
    assert_eq!(decision.contract, "schedule:echo:hourly");
    assert_eq!(
        policy.denied(call("hourly", "push", r#"{"a":1}"#)).await,
        "no_contract"
    );
    assert_eq!(
        policy.denied(call("daily", "poll", r#"{"a":1}"#)).await,
        "no_contract"
    );
    assert_eq!(
        policy.denied(call("hourly", "poll", r#"{"a":2}"#)).await,
        "payload_differs"
    );
}

#[tokio::test]
async fn plugins_accounts_and_commands_are_those_of_the_lock() {
    let policy = TestPolicy::start().await;
    let call = |plugin: &str, command: &str| {
        let origin = policy.origin(
            Service::Broker,
            "token:ops",
            &["*"],
            asked_call("poll", "{}"),
        );
        request(
            JobId::new(),
            plugin,
            command,
            "\"payload\":{}",
            AskedBy::Origin(origin),
        )
    };
    assert_eq!(
        policy.denied(call("unknown", "poll")).await,
        "plugin_not_locked"
    );
    assert_eq!(
        policy.denied(call("moved", "poll")).await,
        "not_locked_account"
    );
    assert_eq!(
        policy.denied(call("echo", "health")).await,
        "no_such_command"
    );
}

#[tokio::test]
async fn a_request_that_parsers_read_differently_is_bad() {
    let policy = TestPolicy::start().await;
    let origin = policy.origin(
        Service::Broker,
        "token:ops",
        &["*"],
        asked_call("poll", "{}"),
    );
    for rest in [
        r#""payload":{},"payload":{}"#,
        r#""payload":{"a":NaN}"#,
        r#""payload":{"a":9007199254740993}"#,
        r#""payload":{},"config":{}"#,
        r#""payload":{},"\u0073ecrets":{}"#,
        r#""payload":{},"more":{}"#,
    ] {
        let asked = request(
            JobId::new(),
            "echo",
            "poll",
            rest,
            AskedBy::Origin(origin.clone()),
        );
        assert_eq!(policy.denied(asked).await, "bad_request", "{rest}");
    }
    let mut nameless = policy.call("poll", "{}");
    nameless.job_id = "no id".into();
    assert_eq!(
        policy.decide(nameless).await.unwrap_err().code(),
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn without_a_valid_lock_nothing_is_allowed_and_an_older_one_never_again() {
    let mut policy = TestPolicy::start_unlocked().await;
    assert_eq!(
        policy.denied(policy.call("poll", "{}")).await,
        "lock_missing"
    );
    policy.stack.write_lock(&lock(5));
    policy.allowed(policy.call("poll", "{}")).await;
    policy.stack.write_lock(&lock(4));
    assert_eq!(policy.denied(policy.call("poll", "{}")).await, "lock_older");
    policy.restart().await;
    assert_eq!(policy.denied(policy.call("poll", "{}")).await, "lock_older");
    let mut foreign = lock(9);
    foreign.stack = "away".parse().unwrap();
    policy.stack.write_lock(&foreign);
    assert_eq!(
        policy.denied(policy.call("poll", "{}")).await,
        "lock_refused"
    );
    policy.stack.write_lock(&lock(6));
    policy.allowed(policy.call("poll", "{}")).await;
}

#[tokio::test]
async fn while_the_broker_holds_nothing_is_decided_and_nothing_used_up() {
    let policy = TestPolicy::start().await;
    policy.broker.hold("management-only: there is no API token");
    let call = policy.call("poll", "{}");
    let held = policy.decide(call.clone()).await.unwrap_err();
    assert_eq!(held.code(), Code::Unavailable);
    assert!(held.message().contains("management-only"), "{held}");
    // The same question, with the same origin, is answered as if it were the first.
    policy.broker.hold("");
    policy.allowed(call).await;
}

#[tokio::test]
async fn only_the_engine_may_ask() {
    let policy = TestPolicy::start().await;
    for service in Service::ALL
        .iter()
        .filter(|service| **service != Service::Engine)
    {
        let mesh = policy.stack.mesh(*service);
        let mut client = DecisionServiceClient::new(mesh.channel(Service::Policy));
        let refused = client.decide(policy.call("poll", "{}")).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{service}");
    }
}
