#![doc = include_str!("../README.md")]

use std::io::{Read as _, Write as _};
use std::process::ExitCode;

use serde_json::{Map, Value, json};

/// No request is larger; what is, was not made by Bailey.
const REQUEST_LIMIT_BYTES: u64 = 16 << 20;

fn main() -> ExitCode {
    let mut request = Vec::new();
    let read = std::io::stdin()
        .lock()
        .take(REQUEST_LIMIT_BYTES)
        .read_to_end(&mut request);
    let response = match read {
        Ok(_) => respond(&request),
        Err(e) => failure(&format!("reading the request: {e}")),
    };
    // A response that nobody can read is no response: the exit code has to say it.
    match writeln!(std::io::stdout().lock(), "{response}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// The response to one request.
fn respond(request: &[u8]) -> Value {
    let request: Map<String, Value> = match serde_json::from_slice(request) {
        Ok(request) => request,
        Err(e) => return failure(&format!("the request is not a JSON object: {e}")),
    };
    match request.get("command").and_then(Value::as_str) {
        Some("health") => json!({"status": "ok", "result": "echo is well"}),
        Some("poll") => echo(&request, request.get("payload"), None),
        Some("handle") => {
            let event = request.get("event");
            let kind = event
                .and_then(|e| e.get("type"))
                .and_then(Value::as_str)
                .unwrap_or("");
            echo(&request, event.and_then(|e| e.get("payload")), Some(kind))
        }
        Some(other) => failure(&format!("echo has no command {other:?}")),
        None => failure("the request names no command"),
    }
}

fn echo(request: &Map<String, Value>, payload: Option<&Value>, event_type: Option<&str>) -> Value {
    let echoed = payload
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    let mut keys: Vec<&str> = echoed.keys().map(String::as_str).collect();
    keys.sort_unstable();
    let listed = if keys.is_empty() {
        "an empty payload".to_owned()
    } else {
        keys.join(", ")
    };
    let result = event_type.map_or_else(
        || format!("echo got {listed}"),
        |kind| format!("echo got the event {kind} with {listed}"),
    );
    let secrets = request.get("secrets").and_then(Value::as_object);
    let secret_names: Vec<&str> = secrets
        .into_iter()
        .flat_map(Map::keys)
        .map(String::as_str)
        .collect();
    let mut done = json!({"keys": keys, "echoed": echoed, "secret_names": secret_names});
    if let (Some(kind), Some(done)) = (event_type, done.as_object_mut()) {
        done.insert("event_type".to_owned(), json!(kind));
    }
    json!({
        "status": "ok",
        "result": result,
        "events": [{"type": "echo.done", "payload": done}],
        "logs": [{"level": "info", "message": result}],
    })
}

/// Trying again would not help: the same request gets the same answer.
fn failure(error: &str) -> Value {
    json!({"status": "error", "error": error, "retry": false})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn respond_to(request: &Value) -> Value {
        respond(request.to_string().as_bytes())
    }

    #[test]
    fn a_poll_echoes_its_payload() {
        let response =
            respond_to(&json!({"protocol": 2, "command": "poll", "payload": {"b": 1, "a": [2]}}));
        assert_eq!(response["status"], "ok");
        assert_eq!(response["result"], "echo got a, b");
        assert_eq!(response["events"][0]["type"], "echo.done");
        assert_eq!(
            response["events"][0]["payload"]["echoed"],
            json!({"b": 1, "a": [2]})
        );
    }

    #[test]
    fn a_poll_without_a_payload_is_answered() {
        let response = respond_to(&json!({"protocol": 2, "command": "poll"}));
        assert_eq!(response["result"], "echo got an empty payload");
    }

    #[test]
    fn an_event_is_echoed_with_its_type() {
        let event = json!({"type": "greet.done", "payload": {"proof": "ab"}});
        let response = respond_to(&json!({"protocol": 2, "command": "handle", "event": event}));
        assert_eq!(
            response["result"],
            "echo got the event greet.done with proof"
        );
        assert_eq!(response["events"][0]["payload"]["event_type"], "greet.done");
    }

    #[test]
    fn secrets_are_named_but_never_echoed() {
        let request = json!({"command": "poll", "secrets": {"demo_key": "hunter2"}});
        let response = respond_to(&request);
        assert_eq!(
            response["events"][0]["payload"]["secret_names"],
            json!(["demo_key"])
        );
        assert!(!response.to_string().contains("hunter2"));
    }

    #[test]
    fn bad_requests_are_answered_and_not_retried() {
        for request in ["", "[]", "{}", r#"{"command":"dance"}"#] {
            let response = respond(request.as_bytes());
            assert_eq!(
                (&response["status"], &response["retry"]),
                (&json!("error"), &json!(false)),
                "{request}"
            );
        }
    }
}
