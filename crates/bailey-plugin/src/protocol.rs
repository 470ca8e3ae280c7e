//! Protocol v2: what a plugin's output means (reference: ductile 1.4 and 1.5).

use std::fmt;

use bailey_types::EventType;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Most bytes of standard output; a byte more fails the job.
pub const MAX_STDOUT_BYTES: usize = 10 << 20;
/// Bytes of standard error that are kept.
pub const MAX_STDERR_BYTES: usize = 64 << 10;
/// Most bytes of a plugin's state.
pub const MAX_STATE_BYTES: usize = 1 << 20;
/// Exit code EX_CONFIG of sysexits.h: trying again is useless.
pub const EXIT_CONFIG: i64 = 78;

/// Longest line of a service, bytes.
pub const MAX_LINE_BYTES: usize = 1 << 20;

/// Most events of one response, and of one line of a service: lines come often, and each is applied while others wait.
const MAX_EVENTS: usize = 10_000;
const MAX_LINE_EVENTS: usize = 1000;
/// Most bytes of results in the payloads of events that have none of their own: each gets a copy.
const MAX_COPIED_BYTES: usize = 16 << 20;
/// Log lines that are kept, and characters of each.
const MAX_LOGS: usize = 1000;
const MAX_LOG_CHARS: usize = 8192;

/// What a call came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// `status: ok`, whatever the exit code.
    Succeeded(Success),
    /// Everything else.
    Failed(Failure),
}

/// A call that succeeded.
#[derive(Clone, Debug, PartialEq)]
pub struct Success {
    /// Never blank, but in a line of a service.
    pub result: String,
    /// In order; each payload has the result under `result` unless the plugin gave it another.
    pub events: Vec<OutEvent>,
    /// What becomes of the state is decided by the manifest's `fact_outputs`.
    pub state_updates: Option<Map<String, Value>>,
    /// For the job's log.
    pub logs: Vec<Log>,
}

/// An event that a plugin emits.
#[derive(Clone, Debug, PartialEq)]
pub struct OutEvent {
    /// Matched exactly by pipelines.
    pub event_type: EventType,
    /// Never more than an object.
    pub payload: Map<String, Value>,
    /// Not empty.
    pub dedupe_key: Option<String>,
}

impl Success {
    /// Whether it says nothing but that its plugin is there.
    pub fn is_heartbeat(&self) -> bool {
        self.result.is_empty()
            && self.events.is_empty()
            && self.state_updates.is_none()
            && self.logs.is_empty()
    }
}

/// A call that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Why, as the job's record has it.
    pub reason: Reason,
    /// Why, for people.
    pub error: String,
    /// For the job's log.
    pub logs: Vec<Log>,
}

impl Failure {
    /// A failure that is not the plugin's own words.
    pub fn new(reason: Reason, error: impl Into<String>) -> Self {
        Self {
            reason,
            error: error.into(),
            logs: Vec::new(),
        }
    }
}

/// Why a call failed: the tokens of the reference, section 1.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// `status: error`.
    PluginError,
    /// `status: error` with `retry: false`.
    PluginRetryFalse,
    /// Failed, and exited with [`EXIT_CONFIG`].
    #[serde(rename = "exit_code_78")]
    ExitCode78,
    /// Not finished in time.
    Timeout,
    /// It could not be started, or its output is not one response.
    SpawnError,
    /// It answered nothing.
    NilResponse,
    /// The last of its attempts failed.
    AttemptsExhausted,
}

impl Reason {
    /// Every reason.
    pub const ALL: &'static [Self] = &[
        Self::PluginError,
        Self::PluginRetryFalse,
        Self::ExitCode78,
        Self::Timeout,
        Self::SpawnError,
        Self::NilResponse,
        Self::AttemptsExhausted,
    ];

    /// The token.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PluginError => "plugin_error",
            Self::PluginRetryFalse => "plugin_retry_false",
            Self::ExitCode78 => "exit_code_78",
            Self::Timeout => "timeout",
            Self::SpawnError => "spawn_error",
            Self::NilResponse => "nil_response",
            Self::AttemptsExhausted => "attempts_exhausted",
        }
    }

    /// The reason of a token.
    pub fn from_token(token: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|reason| reason.as_str() == token)
    }

    /// Whether trying again may help.
    pub const fn is_retryable(self) -> bool {
        match self {
            Self::PluginError | Self::Timeout | Self::SpawnError | Self::NilResponse => true,
            Self::PluginRetryFalse | Self::ExitCode78 | Self::AttemptsExhausted => false,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A line that the plugin wants to be logged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// `info` where the plugin's word is unknown.
    pub level: LogLevel,
    /// At most 8192 characters.
    pub message: String,
}

/// `level` of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// For whoever looks for a fault.
    Debug,
    /// Normal operation.
    #[default]
    Info,
    /// May need attention.
    Warn,
    /// Needs attention.
    Error,
}

impl LogLevel {
    /// As on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// What the output of a finished plugin means. `stdout` is what was read of it: [`MAX_STDOUT_BYTES`] + 1 bytes mean that there was more.
/// `exit_code` is unset where it was ended by a signal.
pub fn parse_response(stdout: &[u8], exit_code: Option<i64>) -> Outcome {
    match decode(stdout) {
        Ok(success) => Outcome::Succeeded(success),
        Err(mut failure) => {
            // The exit code counts in failure only: a plugin that says ok and exits with 1 has succeeded.
            if exit_code == Some(EXIT_CONFIG) {
                failure.reason = Reason::ExitCode78;
            }
            Outcome::Failed(failure)
        }
    }
}

/// What one line of a running service means: a response as any other, but that it need have no result. An empty line, and one that only
/// says `status: ok`, tells that the service is well.
pub fn parse_line(line: &[u8]) -> Outcome {
    if line.iter().all(u8::is_ascii_whitespace) {
        return Outcome::Succeeded(Success {
            result: String::new(),
            events: Vec::new(),
            state_updates: None,
            logs: Vec::new(),
        });
    }
    match document(line).and_then(|wire| judge(wire, Form::Line)) {
        Ok(success) => Outcome::Succeeded(success),
        Err(failure) => Outcome::Failed(failure),
    }
}

/// The response on the wire. What is not named here is ignored, `ductile_stopwatch_subs` too.
#[derive(Deserialize)]
struct Wire {
    status: Option<String>,
    result: Option<String>,
    error: Option<String>,
    retry: Option<bool>,
    events: Option<Vec<Object>>,
    state_updates: Option<Object>,
    logs: Option<Vec<Object>>,
}

type Object = Map<String, Value>;

fn undecodable(what: impl fmt::Display) -> Failure {
    Failure::new(Reason::SpawnError, format!("decode response: {what}"))
}

fn decode(stdout: &[u8]) -> Result<Success, Failure> {
    if stdout.len() > MAX_STDOUT_BYTES {
        return Err(undecodable(format_args!(
            "more than {MAX_STDOUT_BYTES} bytes on stdout"
        )));
    }
    if stdout.iter().all(u8::is_ascii_whitespace) {
        return Err(Failure::new(
            Reason::NilResponse,
            "decode response: nothing on stdout",
        ));
    }
    judge(document(stdout)?, Form::Answer)
}

/// The one document in these bytes.
fn document(stdout: &[u8]) -> Result<Wire, Failure> {
    // Bytes that are no UTF-8 become U+FFFD, as they do in the peer whose plugins we run.
    let text = String::from_utf8_lossy(stdout);
    // serde would take an array for a struct, field by field.
    if !text.trim_start().starts_with('{') {
        return Err(undecodable("expected an object"));
    }
    let mut documents = serde_json::Deserializer::from_str(&text).into_iter::<Wire>();
    let wire = documents
        .next()
        .ok_or_else(|| undecodable("nothing"))?
        .map_err(undecodable)?;
    let rest = text
        .get(documents.byte_offset()..)
        .unwrap_or_default()
        .trim_start();
    if !rest.is_empty() {
        let rest: String = rest.chars().take(40).collect();
        return Err(undecodable(format_args!(
            "trailing data after the response: {rest:?}"
        )));
    }
    Ok(wire)
}

/// What a response is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// All that a call says. Its result is needed.
    Answer,
    /// A line of a service.
    Line,
}

impl Form {
    const fn max_events(self) -> usize {
        match self {
            Self::Answer => MAX_EVENTS,
            Self::Line => MAX_LINE_EVENTS,
        }
    }
}

fn judge(wire: Wire, form: Form) -> Result<Success, Failure> {
    let logs = logs(wire.logs.unwrap_or_default());
    match wire.status.as_deref() {
        Some("ok") => {
            let result = wire.result.filter(|result| !result.trim().is_empty());
            let result = match (result, form) {
                (Some(result), _) => result,
                (None, Form::Line) => String::new(),
                (None, Form::Answer) => {
                    return Err(undecodable("status is ok, but result is missing or blank"));
                }
            };
            let events = events(wire.events.unwrap_or_default(), &result, form.max_events())?;
            Ok(Success {
                result,
                events,
                state_updates: wire.state_updates,
                logs,
            })
        }
        Some("error") => {
            let error = wire.error.filter(|error| !error.is_empty());
            let error = error
                .ok_or_else(|| undecodable("status is error, but error is missing or empty"))?;
            let reason = if wire.retry == Some(false) {
                Reason::PluginRetryFalse
            } else {
                Reason::PluginError
            };
            Err(Failure {
                reason,
                error,
                logs,
            })
        }
        Some(other) => {
            let other: String = other.chars().take(40).collect();
            Err(undecodable(format_args!(
                "status is {other:?}; it must be ok or error"
            )))
        }
        None => Err(undecodable("status is missing")),
    }
}

fn events(wire: Vec<Object>, result: &str, max: usize) -> Result<Vec<OutEvent>, Failure> {
    if wire.len() > max {
        return Err(undecodable(format_args!(
            "{} events; at most {max} are allowed",
            wire.len()
        )));
    }
    let without = wire.iter().filter(|event| !has_result(event)).count();
    if result.len().saturating_mul(without) > MAX_COPIED_BYTES {
        return Err(undecodable(format_args!(
            "{without} events without a result of their own, and a result of {} bytes for each: together at most {MAX_COPIED_BYTES} bytes are allowed",
            result.len()
        )));
    }
    let event = |(nth, wire): (usize, Object)| {
        event(wire, result).map_err(|problem| undecodable(format_args!("events[{nth}]: {problem}")))
    };
    wire.into_iter().enumerate().map(event).collect()
}

fn has_result(event: &Object) -> bool {
    let payload = event.get("payload").and_then(Value::as_object);
    payload.is_some_and(|payload| payload.contains_key("result"))
}

fn event(mut wire: Object, result: &str) -> Result<OutEvent, String> {
    let event_type = text(wire.remove("type"), "type")?.unwrap_or_default();
    let event_type = event_type
        .parse()
        .map_err(|e: bailey_types::BadName| e.to_string())?;
    let mut payload = match wire.remove("payload") {
        None | Some(Value::Null) => Object::new(),
        Some(Value::Object(payload)) => payload,
        Some(Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
            return Err("payload must be an object".to_owned());
        }
    };
    if !result.is_empty() {
        payload.entry("result").or_insert_with(|| result.into());
    }
    let dedupe_key = text(wire.remove("dedupe_key"), "dedupe_key")?.filter(|key| !key.is_empty());
    Ok(OutEvent {
        event_type,
        payload,
        dedupe_key,
    })
}

fn text(value: Option<Value>, name: &str) -> Result<Option<String>, String> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            Err(format!("{name} must be a string"))
        }
    }
}

/// A log line is worth keeping whatever its shape: what is no string is empty.
fn logs(wire: Vec<Object>) -> Vec<Log> {
    let log = |line: Object| Log {
        level: match line
            .get("level")
            .and_then(Value::as_str)
            .map(str::to_ascii_lowercase)
            .as_deref()
        {
            Some("debug") => LogLevel::Debug,
            Some("warn" | "warning") => LogLevel::Warn,
            Some("error") => LogLevel::Error,
            Some(_) | None => LogLevel::Info,
        },
        message: line
            .get("message")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .chars()
            .take(MAX_LOG_CHARS)
            .collect(),
    };
    wire.into_iter().take(MAX_LOGS).map(log).collect()
}

#[cfg(test)]
mod tests;
