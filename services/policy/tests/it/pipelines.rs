//! What follows from events: pipelines, edges, parents.

use bailey_proto::policy::v1::decide_request::AskedBy;
use bailey_trust::{Asked, DecisionOrigin, sign};
use bailey_types::{JobId, Service, Sha256};

use crate::for_another_job;
use crate::stack::{TestPolicy, asked_call, event_body, request, step};

#[tokio::test]
async fn a_pipeline_runs_from_its_event_along_its_edges() {
    let policy = TestPolicy::start().await;
    let (first, first_allowed) = policy.allowed(policy.event()).await;
    assert_eq!(first.contract, "pipeline:welcome");
    let (second, second_allowed) = policy.allowed(TestPolicy::second(&first_allowed)).await;
    assert_eq!(second.principal, "token:ops", "inherited");
    assert!(matches!(second.origin, DecisionOrigin::Step { parent, .. } if parent == first.id));

    // The same event cannot lead there twice, nor the last step anywhere.
    assert_eq!(
        policy.denied(TestPolicy::second(&first_allowed)).await,
        "edge_used_up"
    );
    assert_eq!(
        policy.denied(TestPolicy::second(&second_allowed)).await,
        "no_such_edge"
    );
    // Another event of the same result may.
    let mut another = TestPolicy::second(&first_allowed);
    another.pipeline_step = Some(step("welcome", "second", "greet.done", 1));
    policy.allowed(another).await;
    // Steps do not jump between instances, plugins and commands.
    let mut other = TestPolicy::second(&first_allowed);
    if let Some(step) = &mut other.pipeline_step {
        step.instance_id = "instance-2".into();
    }
    assert_eq!(policy.denied(other).await, "no_such_edge");
    let mut other = TestPolicy::second(&first_allowed);
    other.plugin = "greet".into();
    assert_eq!(policy.denied(other).await, "no_such_edge");
    let mut other = TestPolicy::second(&first_allowed);
    other.pipeline_step = None;
    assert_eq!(policy.denied(other).await, "no_such_edge");
}

#[tokio::test]
async fn a_jobs_event_starts_the_pipelines_that_wait_for_it() {
    let policy = TestPolicy::start().await;
    let (_, greet) = policy.allowed(policy.event()).await;
    let (_, echo) = policy.allowed(TestPolicy::second(&greet)).await;
    let mut started = TestPolicy::second(&greet);
    let mut place = step("afterwards", "only", "greet.done", 0);
    place.instance_id = "instance-9".into();
    started.pipeline_step = Some(place.clone());
    let (decision, _) = policy.allowed(started.clone()).await;
    assert_eq!(decision.contract, "pipeline:afterwards");

    // `from_plugin: greet`: not from echo; and not with another event.
    let mut from_echo = TestPolicy::second(&echo);
    from_echo.pipeline_step = Some(place.clone());
    assert_eq!(policy.denied(from_echo).await, "no_such_edge");
    place.event_type = "greet.failed".into();
    started.pipeline_step = Some(place);
    assert_eq!(
        policy.denied(for_another_job(&started)).await,
        "no_such_edge"
    );
}

#[tokio::test]
async fn an_event_from_outside_starts_only_the_entries_of_pipelines_on_it() {
    let policy = TestPolicy::start().await;
    let asked = policy.event();
    let mut jump = asked.clone();
    jump.pipeline_step = Some(step("welcome", "second", "door.opened", 0));
    jump.plugin = "echo".into();
    assert_eq!(policy.denied(jump).await, "no_contract");
    let mut other = asked.clone();
    other.pipeline_step = Some(step("afterwards", "only", "door.opened", 0));
    other.plugin = "echo".into();
    assert_eq!(policy.denied(other).await, "no_contract");
    let mut none = asked.clone();
    none.pipeline_step = None;
    assert_eq!(policy.denied(none).await, "no_contract");
    policy.allowed(asked.clone()).await;
    assert_eq!(policy.denied(for_another_job(&asked)).await, "origin_used");
    // A call of `handle` is an event of one type only, and starts no pipeline.
    let origin = policy.origin(
        Service::Broker,
        "token:ops",
        &["*"],
        asked_call("handle", "{}"),
    );
    let forged = request(
        JobId::new(),
        "echo",
        "handle",
        &event_body("greet.done", "{}"),
        AskedBy::Origin(origin),
    );
    assert_eq!(policy.denied(forged).await, "payload_differs");
    let origin = policy.origin(
        Service::Broker,
        "token:ops",
        &["*"],
        asked_call("handle", "{}"),
    );
    let mut call = request(
        JobId::new(),
        "echo",
        "handle",
        &event_body("api.trigger", "{}"),
        AskedBy::Origin(origin),
    );
    policy.allowed(call.clone()).await;
    call.pipeline_step = Some(step("afterwards", "only", "greet.done", 0));
    assert_eq!(policy.denied(call).await, "no_contract");
}

#[tokio::test]
async fn a_parents_decision_must_be_one_that_policy_gave() {
    let policy = TestPolicy::start().await;
    let (decision, allowed) = policy.allowed(policy.event()).await;
    for signer in [Service::Broker, Service::Policy] {
        let mut forged = decision.clone();
        if signer == Service::Policy {
            // Signed by the right key, but about a job that was never decided about: the ledger is another one than then.
            forged.job = JobId::new();
        }
        let mut asked = TestPolicy::second(&allowed);
        asked.asked_by = Some(AskedBy::ParentDecision(
            sign(&forged, &policy.stack.signing_key(signer)).unwrap(),
        ));
        assert_eq!(policy.denied(asked).await, "parent_invalid", "{signer}");
    }
}

#[tokio::test]
async fn a_schedule_emits_no_events() {
    // A captured scheduler signs whatever it likes, its own scopes included.
    let policy = TestPolicy::start().await;
    let asked = || Asked::Event {
        event_type: "door.opened".parse().unwrap(),
        payload_sha256: Sha256::of(b"{\"who\":\"me\"}"),
    };
    let mut event = policy.event();
    let forged = policy.origin(Service::Scheduler, "schedule:echo:hourly", &["*"], asked());
    event.asked_by = Some(AskedBy::Origin(forged));
    assert_eq!(policy.denied(event.clone()).await, "no_contract");
    let token = policy.origin(Service::Broker, "token:ops", &["*"], asked());
    event.asked_by = Some(AskedBy::Origin(token));
    policy.allowed(event).await;
}

#[tokio::test]
async fn the_engine_adds_nothing_to_what_an_origin_asked_for() {
    let policy = TestPolicy::start().await;
    let with = |request: &bailey_proto::policy::v1::DecideRequest, more: &str| {
        let mut changed = request.clone();
        let body = String::from_utf8(request.request.to_vec()).unwrap();
        changed.request = body
            .replacen("\"state\":{}", &format!("\"state\":{{}},{more}"), 1)
            .into_bytes()
            .into();
        changed
    };
    // A context of the engine's own making, which the plugin reads beside its payload, or as part of its event's.
    let call = policy.call("poll", "{}");
    let forged = with(&call, r#""context":{"path":"/etc"}"#);
    assert_eq!(policy.denied(forged).await, "payload_differs");
    let event = policy.event();
    let mut forged = with(&event, r#""context":{"path":"/etc"}"#);
    let body = String::from_utf8(forged.request.to_vec()).unwrap();
    let (head, merged) = body.rsplit_once(r#"{"who":"me"}"#).unwrap();
    forged.request = format!(r#"{head}{{"path":"/etc","who":"me"}}{merged}"#)
        .into_bytes()
        .into();
    assert_eq!(policy.denied(forged).await, "payload_differs");
    // An event for a command that has none.
    let forged = with(&call, r#""event":{"type":"door.opened","payload":{}}"#);
    assert_eq!(policy.denied(forged).await, "payload_differs");
    // What the engine does say of a first step: its place.
    policy
        .allowed(with(&call, r#""context":{"ductile_plugin":"echo"}"#))
        .await;
    let place = r#""context":{"ductile_pipeline":"welcome","ductile_pipeline_instance_id":"instance-1","ductile_plugin":"greet","ductile_route_depth":0,"ductile_route_max_depth":0,"ductile_step_id":"first"}"#;
    policy.allowed(with(&event, place)).await;
}
