//! The protocol v2 request (reference: ductile 1.3) without what others add: policy splices in `config`, the broker `secrets`.
//!
//! The payload goes in byte for byte as it came: policy compares its hash with what the origin signed.

use std::collections::BTreeMap;

use bailey_types::{JobId, Timestamp};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use crate::event::Envelope;
use crate::job::{Input, Job};

/// The command that gets an event.
pub const HANDLE: &str = "handle";

/// What went wrong: the engine kept something that is not what it must be.
#[derive(Debug, thiserror::Error)]
#[error("building the request: the job's {part} is not what it must be")]
pub struct Error {
    part: &'static str,
    source: serde_json::Error,
}

#[derive(Serialize)]
struct Request<'a> {
    protocol: u8,
    job_id: JobId,
    command: &'a str,
    state: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a RawValue>,
    context: &'a BTreeMap<String, Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a Envelope<'a>>,
    /// A service has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline_at: Option<String>,
}

/// Builds the request for the next attempt of `job`.
pub fn build(
    job: &Job,
    input: &Input,
    state: &str,
    max_depth: Option<u32>,
    deadline: Option<Timestamp>,
) -> Result<Vec<u8>, Error> {
    let broken = |part| move |source| Error { part, source };
    let context = context(job, &input.context, max_depth)?;
    let merged;
    let event = if job.command.as_str() == HANDLE {
        let mut envelope: Envelope<'_> =
            serde_json::from_str(&input.payload).map_err(broken("event"))?;
        merged = merge(envelope.payload, &context)?;
        envelope.payload = &merged;
        Some(envelope)
    } else {
        None
    };
    let payload = (input.payload != "{}")
        .then(|| serde_json::from_str(&input.payload))
        .transpose();
    let request = Request {
        protocol: 2,
        job_id: job.id,
        command: job.command.as_str(),
        state: serde_json::from_str(state).map_err(broken("state"))?,
        payload: payload.map_err(broken("payload"))?,
        context: &context,
        event: event.as_ref(),
        deadline_at: deadline.map(Timestamp::to_rfc3339),
    };
    serde_json::to_vec(&request).map_err(broken("request"))
}

/// The baggage with the engine's own keys, which win.
fn context(
    job: &Job,
    baggage: &str,
    max_depth: Option<u32>,
) -> Result<BTreeMap<String, Box<RawValue>>, Error> {
    let broken = |source| Error {
        part: "context",
        source,
    };
    let mut context: BTreeMap<String, Box<RawValue>> =
        serde_json::from_str(baggage).map_err(broken)?;
    let place = job.place.as_ref().map(|place| {
        json!({
            "ductile_pipeline": place.pipeline,
            "ductile_step_id": place.step,
            "ductile_pipeline_instance_id": place.instance,
            "ductile_route_depth": job.route_depth,
            "ductile_route_max_depth": max_depth.unwrap_or(0),
        })
    });
    let own = [
        json!({ "ductile_plugin": job.plugin }),
        place.unwrap_or_default(),
    ];
    for (name, value) in own.iter().filter_map(Value::as_object).flatten() {
        context.insert(name.clone(), to_raw_value(value).map_err(broken)?);
    }
    Ok(context)
}

/// The payload with every member of `context` that it does not have itself; its own bytes stay as they are.
fn merge(
    payload: &RawValue,
    context: &BTreeMap<String, Box<RawValue>>,
) -> Result<Box<RawValue>, Error> {
    let broken = |source| Error {
        part: "event payload",
        source,
    };
    let own: BTreeMap<String, &RawValue> = serde_json::from_str(payload.get()).map_err(broken)?;
    let added: BTreeMap<&String, &Box<RawValue>> = context
        .iter()
        .filter(|(name, _)| !own.contains_key(*name))
        .collect();
    if added.is_empty() {
        return Ok(payload.to_owned());
    }
    let mut text = serde_json::to_string(&added).map_err(broken)?;
    if !own.is_empty() {
        text.pop();
        text.push(',');
        text.push_str(payload.get().strip_prefix('{').unwrap_or_default());
    }
    RawValue::from_string(text).map_err(broken)
}

#[cfg(test)]
mod tests;
