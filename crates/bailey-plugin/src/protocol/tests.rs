//! Vectors from the reference, sections 1.4 to 1.6.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn success(stdout: &str) -> Success {
    match parse_response(stdout.as_bytes(), Some(0)) {
        Outcome::Succeeded(success) => success,
        Outcome::Failed(failure) => panic!("{failure:?}"),
    }
}

fn failure(stdout: &str, exit_code: Option<i64>) -> Failure {
    match parse_response(stdout.as_bytes(), exit_code) {
        Outcome::Succeeded(success) => panic!("{success:?}"),
        Outcome::Failed(failure) => failure,
    }
}

#[test]
fn the_full_response_is_read() {
    let stdout = json!({
        "status": "ok",
        "result": "text",
        "events": [{"type": "x.y", "payload": {"n": 1}, "dedupe_key": "k"}, {"type": "x.z"}],
        "state_updates": {"cursor": 5},
        "logs": [{"level": "warn", "message": "m"}, {"level": "shout"}],
        "ductile_stopwatch_subs": [{"name": "plug.phase", "dur_ns": 1, "status": "ok", "bytes": 0, "count": 0}],
        "unknown": [1, 2],
    });
    let success = success(&format!(" {stdout}\n\n"));
    assert_eq!(success.result, "text");
    assert_eq!(
        Value::Object(success.events[0].payload.clone()),
        json!({"n": 1, "result": "text"})
    );
    assert_eq!(
        (
            success.events[0].event_type.as_str(),
            success.events[0].dedupe_key.as_deref()
        ),
        ("x.y", Some("k"))
    );
    assert_eq!(
        Value::Object(success.events[1].payload.clone()),
        json!({"result": "text"})
    );
    assert_eq!(success.state_updates.unwrap()["cursor"], 5);
    assert_eq!(
        success.logs[0],
        Log {
            level: LogLevel::Warn,
            message: "m".into()
        }
    );
    assert_eq!(
        success.logs[1],
        Log {
            level: LogLevel::Info,
            message: String::new()
        }
    );
}

#[test]
fn a_result_of_the_plugins_own_stays_in_the_payload() {
    let stdout = r#"{"status":"ok","result":"a","events":[{"type":"x","payload":{"result":"b"}}]}"#;
    assert_eq!(success(stdout).events[0].payload["result"], "b");
}

#[test]
fn null_is_absent() {
    let stdout = r#"{"status":"ok","result":"a","error":null,"retry":null,"events":null,"state_updates":null,"logs":null}"#;
    let success = success(stdout);
    assert!(
        success.events.is_empty() && success.state_updates.is_none() && success.logs.is_empty()
    );
    assert_eq!(
        failure(r#"{"status":"error","error":"e","retry":null}"#, Some(1)).reason,
        Reason::PluginError
    );
}

#[test]
fn the_exit_code_counts_in_failure_only() {
    for exit_code in [Some(0), Some(1), Some(78), Some(137), None] {
        let outcome = parse_response(br#"{"status":"ok","result":"a"}"#, exit_code);
        assert!(matches!(outcome, Outcome::Succeeded(_)), "{exit_code:?}");
    }
    assert_eq!(
        failure(r#"{"status":"error","error":"e"}"#, Some(78)).reason,
        Reason::ExitCode78
    );
    assert_eq!(failure("garbage", Some(78)).reason, Reason::ExitCode78);
    assert_eq!(failure("", Some(78)).reason, Reason::ExitCode78);
}

#[test]
fn only_an_explicit_false_stops_retries() {
    for (stdout, reason, retryable) in [
        (
            r#"{"status":"error","error":"e"}"#,
            Reason::PluginError,
            true,
        ),
        (
            r#"{"status":"error","error":"e","retry":true}"#,
            Reason::PluginError,
            true,
        ),
        (
            r#"{"status":"error","error":"e","retry":false}"#,
            Reason::PluginRetryFalse,
            false,
        ),
    ] {
        let failure = failure(stdout, Some(1));
        assert_eq!(
            (
                failure.reason,
                failure.reason.is_retryable(),
                failure.error.as_str()
            ),
            (reason, retryable, "e")
        );
    }
}

#[test]
fn what_is_not_one_response_is_a_retryable_spawn_error() {
    for (stdout, reason) in [
        ("not json", "expected"),
        ("[]", "expected an object"),
        (
            r#"["ok","a",null,null,null,null,null]"#,
            "expected an object",
        ),
        ("null", "expected an object"),
        ("5", "expected an object"),
        ("{\"status\":\"ok\",\"result\":\"a\"", "EOF"),
        ("{\"status\":\"ok\",\"result\":\"a\"}{}", "trailing data"),
        (
            "{\"status\":\"ok\",\"result\":\"a\"}\n{\"status\":\"ok\",\"result\":\"b\"}",
            "trailing data",
        ),
        ("{\"status\":\"ok\",\"result\":\"a\"} x", "trailing data"),
        ("log line\n{\"status\":\"ok\",\"result\":\"a\"}", "expected"),
        ("{}", "status is missing"),
        ("{\"status\":\"done\",\"result\":\"a\"}", "\"done\""),
        ("{\"status\":\"OK\",\"result\":\"a\"}", "\"OK\""),
        ("{\"status\":\"ok\"}", "result is missing"),
        ("{\"status\":\"ok\",\"result\":\" \\n\"}", "blank"),
        ("{\"status\":\"ok\",\"result\":5}", "invalid type"),
        ("{\"status\":\"error\"}", "error is missing"),
        ("{\"status\":\"error\",\"error\":\"\"}", "empty"),
        (
            "{\"status\":\"ok\",\"result\":\"a\",\"retry\":\"no\"}",
            "invalid type",
        ),
        (
            "{\"status\":\"ok\",\"result\":\"a\",\"events\":{}}",
            "invalid type",
        ),
        (
            "{\"status\":\"ok\",\"result\":\"a\",\"events\":[{}]}",
            "events[0]",
        ),
        (
            "{\"status\":\"ok\",\"result\":\"a\",\"events\":[[\"x\"]]}",
            "invalid type",
        ),
        (
            "{\"status\":\"ok\",\"result\":\"a\",\"events\":[{\"type\":5}]}",
            "type must be",
        ),
        (
            "{\"status\":\"ok\",\"result\":\"a\",\"events\":[{\"type\":\"a b\"}]}",
            "event type",
        ),
        (
            "{\"status\":\"ok\",\"result\":\"a\",\"events\":[{\"type\":\"a\",\"payload\":[]}]}",
            "payload must be",
        ),
        (
            "{\"status\":\"ok\",\"result\":\"a\",\"state_updates\":[]}",
            "invalid type",
        ),
    ] {
        let failure = failure(stdout, Some(0));
        assert_eq!(failure.reason, Reason::SpawnError, "{stdout}: {failure:?}");
        assert!(
            failure.error.starts_with("decode response: ") && failure.error.contains(reason),
            "{stdout}: {failure:?}"
        );
        assert!(failure.reason.is_retryable());
    }
}

#[test]
fn silence_is_a_nil_response() {
    for stdout in ["", "\n", "  \t\r\n"] {
        assert_eq!(failure(stdout, Some(0)).reason, Reason::NilResponse);
        assert_eq!(failure(stdout, None).reason, Reason::NilResponse);
    }
}

#[test]
fn ten_mebibytes_pass_and_one_byte_more_does_not() {
    let response = |padding: usize| {
        format!(
            "{{\"status\":\"ok\",\"result\":\"{}\"}}",
            "x".repeat(padding)
        )
    };
    let overhead = response(0).len();
    assert_eq!(
        success(&response(MAX_STDOUT_BYTES - overhead)).result.len(),
        MAX_STDOUT_BYTES - overhead
    );
    let failure = failure(&response(MAX_STDOUT_BYTES - overhead + 1), Some(0));
    assert_eq!(failure.reason, Reason::SpawnError);
    assert!(failure.error.contains("10485760 bytes"));
}

#[test]
fn bytes_that_are_no_utf_8_are_replaced() {
    let outcome = parse_response(b"{\"status\":\"ok\",\"result\":\"a\xffb\"}", Some(0));
    assert!(matches!(outcome, Outcome::Succeeded(success) if success.result == "a\u{fffd}b"));
}

#[test]
fn tokens_are_those_of_the_reference() {
    let tokens: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    let expected = [
        "plugin_error",
        "plugin_retry_false",
        "exit_code_78",
        "timeout",
        "spawn_error",
        "nil_response",
        "attempts_exhausted",
    ];
    assert_eq!(tokens, expected);
    for reason in Reason::ALL {
        assert_eq!(Reason::from_token(reason.as_str()), Some(*reason));
        assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
    }
}

proptest! {
    #[test]
    fn no_output_makes_the_parser_panic(stdout in prop::collection::vec(any::<u8>(), 0..200), exit_code in any::<Option<i64>>()) {
        let _ = parse_response(&stdout, exit_code);
    }
}

#[test]
fn a_line_of_a_service_need_have_no_result() {
    let heard = |line: &str| match parse_line(line.as_bytes()) {
        Outcome::Succeeded(success) => success,
        Outcome::Failed(failure) => panic!("{line}: {failure:?}"),
    };
    for beat in [
        "",
        " \r",
        r#"{"status":"ok"}"#,
        r#"{"status":"ok","result":""}"#,
    ] {
        assert!(heard(beat).is_heartbeat(), "{beat}");
    }
    let said = heard(r#"{"status":"ok","events":[{"type":"disk.full","payload":{"free":0}}]}"#);
    assert!(!said.is_heartbeat());
    assert_eq!(said.events[0].payload.get("result"), None);
    let told = heard(r#"{"status":"ok","result":"full","events":[{"type":"disk.full"}]}"#);
    assert_eq!(told.events[0].payload["result"], "full");
    for bad in [
        "x",
        "[]",
        "{}",
        r#"{"status":"ok"} {}"#,
        r#"{"status":"fine"}"#,
    ] {
        assert!(
            matches!(parse_line(bad.as_bytes()), Outcome::Failed(_)),
            "{bad}"
        );
    }
    // The neighbour: an answer to a call needs one.
    let call = parse_response(br#"{"status":"ok"}"#, Some(0));
    assert!(matches!(call, Outcome::Failed(_)));
}

fn with_events(result_bytes: usize, events: usize, event: &str) -> String {
    let events = vec![event; events].join(",");
    let result = "r".repeat(result_bytes);
    format!(r#"{{"status":"ok","result":"{result}","events":[{events}]}}"#)
}

#[test]
fn a_result_is_not_copied_into_more_events_than_memory_holds() {
    let bare = r#"{"type":"x.y"}"#;
    let refused = failure(&with_events(880_000, 10_000, bare), Some(0));
    assert_eq!(refused.reason, Reason::SpawnError);
    assert!(
        refused.error.contains("events without a result"),
        "{refused:?}"
    );
    let line = with_events(880_000, 1000, bare);
    assert!(matches!(parse_line(line.as_bytes()), Outcome::Failed(_)));
    // The neighbours: as much as is allowed, and events that have one of their own.
    let allowed = success(&with_events(MAX_COPIED_BYTES / 10_000, 10_000, bare));
    assert_eq!(allowed.events.len(), 10_000);
    let own = r#"{"type":"x.y","payload":{"result":null}}"#;
    let own = success(&with_events(880_000, 10_000, own));
    assert_eq!(own.events[9_999].payload["result"], Value::Null);
}

#[test]
fn a_line_has_fewer_events_than_an_answer() {
    let many = |events| with_events(1, events, r#"{"type":"x.y"}"#);
    let heard = |events| match parse_line(many(events).as_bytes()) {
        Outcome::Succeeded(success) => Ok(success.events.len()),
        Outcome::Failed(failure) => Err(failure.error),
    };
    assert_eq!(heard(1000), Ok(1000));
    let refused = "decode response: 1001 events; at most 1000 are allowed";
    assert_eq!(heard(1001), Err(refused.to_owned()));
    assert_eq!(success(&many(1001)).events.len(), 1001);
}
