use bailey_proto::trust::v1::Signed;
use bailey_types::JobId;

use super::*;
use crate::job::{AskedBy, Place, Status};

fn job(command: &str, place: Option<Place>) -> Job {
    Job {
        id: JobId::new(),
        plugin: "greet".parse().unwrap(),
        command: command.parse().unwrap(),
        status: Status::Queued,
        attempt: 1,
        uncounted: 0,
        max_attempts: 4,
        submitted_by: "api".into(),
        dedupe_key: String::new(),
        created_at: Timestamp(0),
        started_at: None,
        completed_at: None,
        next_retry_at: None,
        waiting_for: String::new(),
        result: None,
        last_error: None,
        stderr: None,
        logs: Vec::new(),
        parent: None,
        source_event: None,
        place,
        route_depth: 1,
        generation: 0,
        principal: "token:ops".into(),
        decision: None,
        runner: None,
    }
}

fn input(payload: &str) -> Input {
    Input {
        payload: payload.into(),
        context: "{}".into(),
        asked_by: AskedBy::Origin(Signed::default()),
    }
}

fn build_text(job: &Job, payload: &str) -> String {
    let request = build(
        job,
        &input(payload),
        r#"{"n":1}"#,
        Some(3),
        Some(Timestamp(0)),
    )
    .unwrap();
    String::from_utf8(request).unwrap()
}

#[test]
fn a_call_carries_its_payload_byte_for_byte() {
    let job = job("poll", None);
    let text = build_text(&job, r#"{ "b" : 1.50, "a":"\u0041" }"#);
    assert_eq!(
        text,
        format!(
            r#"{{"protocol":2,"job_id":"{}","command":"poll","state":{{"n":1}},"payload":{{ "b" : 1.50, "a":"\u0041" }},"#,
            job.id
        ) + r#""context":{"ductile_plugin":"greet"},"deadline_at":"1970-01-01T00:00:00.000Z"}"#
    );
}

#[test]
fn an_empty_payload_is_left_out_and_config_and_secrets_are_never_there() {
    let value: Value = serde_json::from_str(&build_text(&job("poll", None), "{}")).unwrap();
    let names: Vec<&str> = value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    for absent in ["payload", "event", "config", "secrets"] {
        assert!(!names.contains(&absent), "{absent}");
    }
}

#[test]
fn an_event_gets_the_context_that_its_payload_does_not_have() {
    let place = Place {
        pipeline: "p".parse().unwrap(),
        step: "s".parse().unwrap(),
        instance: "i".into(),
        event_type: "a.b".parse().unwrap(),
        event_index: 0,
    };
    let envelope = r#"{"type":"a.b","payload":{"ductile_plugin":"mine", "x":1},"dedupe_key":"","source":"api","timestamp":"t","event_id":"e"}"#;
    let text = build_text(&job("handle", Some(place)), envelope);
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        value["event"]["payload"],
        json!({
            "ductile_plugin": "mine", "x": 1, "ductile_pipeline": "p", "ductile_step_id": "s",
            "ductile_pipeline_instance_id": "i", "ductile_route_depth": 1, "ductile_route_max_depth": 3,
        })
    );
    assert_eq!(
        value["payload"]["payload"],
        json!({"ductile_plugin": "mine", "x": 1})
    );
    assert_eq!(value["context"]["ductile_plugin"], json!("greet"));
    assert!(
        text.contains(envelope),
        "the envelope itself stays as it is"
    );
    assert!(
        text.contains(r#","ductile_plugin":"mine", "x":1}"#),
        "{text}"
    );
}

#[test]
fn an_empty_event_payload_becomes_the_context() {
    let envelope = r#"{"type":"api.trigger","payload":{},"dedupe_key":"","source":"api","timestamp":"t","event_id":"e"}"#;
    let value: Value = serde_json::from_str(&build_text(&job("handle", None), envelope)).unwrap();
    assert_eq!(
        value["event"]["payload"],
        json!({"ductile_plugin": "greet"})
    );
}
