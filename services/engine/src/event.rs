//! What an event is, while it is in hand.

use std::borrow::Cow;

use bailey_types::{EventId, EventType, JobId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Source of the events with which the engine tells of jobs. No plugin and no caller can have it: plugin names hold no dot.
pub const OWN_SOURCE: &str = "bailey.engine";

/// An event as it is kept.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its identity.
    pub id: EventId,
    /// Its place in the log.
    pub seq: i64,
    /// Its type.
    pub kind: EventType,
    /// Who emitted it.
    pub source: String,
    /// JSON object text.
    pub payload: String,
    /// Empty: none.
    pub dedupe_key: String,
    /// When.
    pub at: Timestamp,
    /// The job it came of or tells of.
    pub job: Option<JobId>,
}

/// An event that is about to be kept.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// Its identity.
    pub id: EventId,
    /// Its type.
    pub kind: EventType,
    /// Who emits it.
    pub source: String,
    /// JSON object text.
    pub payload: String,
    /// Empty: none.
    pub dedupe_key: String,
    /// When.
    pub at: Timestamp,
    /// The job it comes of or tells of.
    pub job: Option<JobId>,
}

/// An event as a plugin's `handle` gets it (reference: ductile 1.3). The payload's bytes are passed on untouched.
#[derive(Debug, Serialize, Deserialize)]
pub struct Envelope<'a> {
    /// Its type.
    #[serde(rename = "type", borrow)]
    pub kind: Cow<'a, str>,
    /// JSON object text.
    #[serde(borrow)]
    pub payload: &'a RawValue,
    /// Empty: none.
    #[serde(borrow)]
    pub dedupe_key: Cow<'a, str>,
    /// Who emitted it.
    #[serde(borrow)]
    pub source: Cow<'a, str>,
    /// RFC 3339.
    #[serde(borrow)]
    pub timestamp: Cow<'a, str>,
    /// Its identity.
    #[serde(borrow)]
    pub event_id: Cow<'a, str>,
}

impl NewEvent {
    /// The text of the envelope in which the event reaches a plugin, with `payload` in place of its own.
    pub fn envelope(&self, payload: &RawValue) -> serde_json::Result<String> {
        serde_json::to_string(&Envelope {
            kind: self.kind.as_str().into(),
            payload,
            dedupe_key: self.dedupe_key.as_str().into(),
            source: self.source.as_str().into(),
            timestamp: self.at.to_rfc3339().into(),
            event_id: self.id.to_string().into(),
        })
    }
}
