//! What lasts: started by the lock and by nothing else, for as long as it is locked.

use bailey_proto::policy::v1::DecideRequest;
use bailey_proto::policy::v1::decide_request::AskedBy;
use bailey_trust::{Asked, Lock, ServiceTerms};
use bailey_types::{JobId, Service};

use crate::again;
use crate::stack::{TestPolicy, event_body, lock, request, step};

/// A lock in which `greet` is a service.
fn with_service(serial: u64) -> Lock {
    let mut lock = lock(serial);
    for name in ["greet", "echo"] {
        let plugin = lock.plugins.get_mut(&name.parse().unwrap()).unwrap();
        let manifest = &mut plugin.proposed.manifest;
        let mut serve = manifest.commands.first().unwrap().clone();
        serve.name = "serve".parse().unwrap();
        manifest.commands.push(serve);
    }
    let greet = lock.plugins.get_mut(&"greet".parse().unwrap()).unwrap();
    greet.proposed.walls.service = Some(ServiceTerms::default());
    lock
}

async fn start() -> TestPolicy {
    let policy = TestPolicy::start_unlocked().await;
    policy.stack.write_lock(&with_service(5));
    policy
}

/// A call of `plugin.command` that `signer` says `principal` asks for.
fn asked(
    policy: &TestPolicy,
    (signer, principal): (Service, &str),
    (plugin, command): (&str, &str),
    payload: &str,
) -> DecideRequest {
    let call = Asked::Call {
        plugin: plugin.parse().unwrap(),
        command: command.parse().unwrap(),
        payload_sha256: bailey_types::Sha256::of(payload.as_bytes()),
    };
    let origin = policy.origin(signer, principal, &["*"], call);
    let body = format!("\"payload\":{payload}");
    let by = AskedBy::Origin(origin);
    request(JobId::new(), plugin, command, &body, by)
}

const SCHEDULER: Service = Service::Scheduler;
const GREET: (&str, &str) = ("greet", "serve");

#[tokio::test]
async fn a_locked_service_is_started_again_without_end() {
    let policy = start().await;
    let by = (SCHEDULER, "service:greet");
    let serve = asked(&policy, by, GREET, "{}");
    // More often than any call has attempts.
    for attempt in 1..=20 {
        let (decision, _) = policy.allowed(again(&serve, attempt)).await;
        assert_eq!(
            (decision.principal.as_str(), decision.contract.as_str()),
            ("service:greet", "service:greet")
        );
    }
}

#[tokio::test]
async fn nobody_else_starts_a_service_and_it_starts_nothing_else() {
    let policy = start().await;
    let service = (SCHEDULER, "service:greet");
    let cases = [
        // By a token, whatever its scopes, and by a schedule.
        ((Service::Broker, "token:ops"), GREET, "{}", "lasts"),
        ((SCHEDULER, "schedule:greet:default"), GREET, "{}", "lasts"),
        // The broker stands for no service, the scheduler for no token.
        (
            (Service::Broker, "service:greet"),
            GREET,
            "{}",
            "origin_invalid",
        ),
        ((SCHEDULER, "service:echo"), GREET, "{}", "no_contract"),
        (service, ("greet", "poll"), "{}", "no_contract"),
        (service, ("echo", "serve"), "{}", "no_contract"),
        // `echo` has the command, and is no service.
        (
            (SCHEDULER, "service:echo"),
            ("echo", "serve"),
            "{}",
            "no_contract",
        ),
        (service, GREET, r#"{"a":1}"#, "payload_differs"),
    ];
    for (by, call, payload, reason) in cases {
        let request = asked(&policy, by, call, payload);
        assert_eq!(policy.denied(request).await, reason, "{by:?} {call:?}");
    }
    // The permitted neighbours.
    policy.allowed(asked(&policy, service, GREET, "{}")).await;
    let token = (Service::Broker, "token:ops");
    policy
        .allowed(asked(&policy, token, ("greet", "poll"), "{}"))
        .await;
    policy
        .allowed(asked(&policy, token, ("echo", "serve"), "{}"))
        .await;
}

#[tokio::test]
async fn a_lock_without_the_service_denies_it() {
    let policy = start().await;
    let by = (SCHEDULER, "service:greet");
    let serve = asked(&policy, by, GREET, "{}");
    policy.allowed(serve.clone()).await;
    let mut without = with_service(6);
    let greet = without.plugins.get_mut(&"greet".parse().unwrap()).unwrap();
    greet.proposed.walls.service = None;
    policy.stack.write_lock(&without);
    assert_eq!(policy.denied(again(&serve, 2)).await, "no_contract");
}

#[tokio::test]
async fn the_events_of_a_service_start_pipelines_without_end_and_those_of_a_call_do_not() {
    let policy = start().await;
    let follow = |parent: &bailey_proto::policy::v1::Allowed, index| {
        let body = event_body("greet.done", "{}");
        let by = AskedBy::ParentDecision(parent.decision.clone().unwrap());
        let mut follow = request(JobId::new(), "echo", "handle", &body, by);
        follow.pipeline_step = Some(step("afterwards", "only", "greet.done", index));
        follow
    };
    let by = (SCHEDULER, "service:greet");
    let serve = asked(&policy, by, GREET, "{}");
    let (_, service) = policy.allowed(serve.clone()).await;
    for index in [0, 9_999, 10_000, 4_000_000_000] {
        let (decision, _) = policy.allowed(follow(&service, index)).await;
        assert_eq!(decision.contract, "pipeline:afterwards");
        assert_eq!(decision.principal, "service:greet", "inherited");
    }
    // Each leads there once, in the whole life of the job.
    let (_, next) = policy.allowed(again(&serve, 2)).await;
    assert_eq!(policy.denied(follow(&next, 9_999)).await, "edge_used_up");
    policy.allowed(follow(&next, 1)).await;

    let token = (Service::Broker, "token:ops");
    let call = asked(&policy, token, ("greet", "poll"), "{}");
    let (_, call) = policy.allowed(call).await;
    policy.allowed(follow(&call, 9_999)).await;
    assert_eq!(policy.denied(follow(&call, 10_000)).await, "edge_used_up");
}
