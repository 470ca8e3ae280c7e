//! The request that a plugin is to get (protocol v2), as the engine made it: without `config` and `secrets`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bailey_trust::strict_json;
use bailey_types::{CommandName, JobId, Sha256};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::denial::{Denial, Reason};

/// Largest request, bytes.
pub(crate) const LIMIT_BYTES: usize = 10 << 20;

/// The command that events are handed to.
pub(crate) const HANDLE: &str = "handle";

/// What the engine itself says in `context` of the place that a job has (reference: ductile 1.3).
const PLACE: [&str; 6] = [
    "ductile_plugin",
    "ductile_pipeline",
    "ductile_step_id",
    "ductile_pipeline_instance_id",
    "ductile_route_depth",
    "ductile_route_max_depth",
];

/// Members of a request. No others: policy hashes what it has understood.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Members<'a> {
    protocol: u32,
    #[serde(borrow)]
    job_id: Cow<'a, str>,
    #[serde(borrow)]
    command: Cow<'a, str>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
    #[serde(borrow, default)]
    event: Option<&'a RawValue>,
    #[serde(borrow, default)]
    context: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "state")]
    _state: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "deadline_at")]
    _deadline_at: Option<&'a RawValue>,
}

/// An object by its members' exact texts.
type Object<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

impl<'a> Members<'a> {
    /// Reads a request that must be for this job and command.
    pub(crate) fn read(bytes: &'a [u8], job: JobId, command: &CommandName) -> Result<Self, Denial> {
        let bad = |detail: String| Reason::BadRequest.because(detail);
        if bytes.len() > LIMIT_BYTES {
            return Err(bad(format!(
                "the request has {} bytes; at most {LIMIT_BYTES} are allowed",
                bytes.len()
            )));
        }
        strict_json::check_object(bytes, &["config", "secrets"])
            .map_err(|e| bad(format!("the request: {e}")))?;
        let members: Self =
            serde_json::from_slice(bytes).map_err(|e| bad(format!("the request: {e}")))?;
        if members.protocol != 2 {
            return Err(bad(format!(
                "the request is of protocol {}, not 2",
                members.protocol
            )));
        }
        if members.job_id != job.to_string() || members.command != command.as_str() {
            return Err(bad("the request is for another job or command".into()));
        }
        Ok(members)
    }

    /// The payload as JSON text; without the member it is empty.
    pub(crate) fn payload(&self) -> &str {
        self.payload.map_or("{}", RawValue::get)
    }

    /// Checks that what the plugin gets is what was asked for: the payload of a command, or of the event that `handle` gets.
    pub(crate) fn check_payload(
        &self,
        wanted: Sha256,
        command: &CommandName,
    ) -> Result<(), Denial> {
        let carried = if command.as_str() == HANDLE {
            self.event_payload()?
        } else {
            self.payload()
        };
        if Sha256::of(carried.as_bytes()) == wanted {
            return Ok(());
        }
        Err(Reason::PayloadDiffers
            .because("the request carries another payload than the one that was asked for"))
    }

    /// Checks that a call which an origin asks for brings nothing beside its payload: there are no earlier steps whose baggage it could
    /// carry, and only `handle` gets an event.
    pub(crate) fn check_nothing_added(&self, command: &CommandName) -> Result<(), Denial> {
        let context = object(self.context.map_or("{}", RawValue::get), "context")?;
        if let Some(name) = context.keys().find(|name| !PLACE.contains(&&***name)) {
            let name: String = name.chars().take(80).collect();
            return Err(Reason::PayloadDiffers.because(format!(
                "the context brings {name:?}, which nobody asked for"
            )));
        }
        if self.event.is_some() && command.as_str() != HANDLE {
            return Err(Reason::PayloadDiffers.because(format!(
                "the request carries an event, which {command} does not get"
            )));
        }
        Ok(())
    }

    /// The type of the event that `handle` gets.
    pub(crate) fn event_type(&self) -> Result<String, Denial> {
        let envelope = object(self.payload(), "payload")?;
        let text = envelope
            .get("type")
            .map(|raw| raw.get())
            .unwrap_or_default();
        serde_json::from_str(text).map_err(|_| Reason::BadRequest.because("the event has no type"))
    }

    /// The payload of the event, once it is sure that `event` says nothing but what `payload` and `context` say (reference: ductile 1.3,
    /// merge rule: members of the context appear in the event's payload where it has none of that name).
    fn event_payload(&self) -> Result<&'a str, Denial> {
        let differs = |what: &str| {
            Reason::PayloadDiffers.because(format!("the event's {what} is not what was asked for"))
        };
        let envelope = object(self.payload.map_or("{}", RawValue::get), "payload")?;
        let event = object(self.event.map_or("{}", RawValue::get), "event")?;
        let context = object(self.context.map_or("{}", RawValue::get), "context")?;
        let (asked, given) = (envelope.get("payload"), event.get("payload"));
        let (Some(asked), Some(given)) = (asked, given) else {
            return Err(differs("payload"));
        };
        let others = |object: &Object<'a>| -> Vec<_> {
            object
                .iter()
                .filter(|(name, _)| *name != "payload")
                .map(|(name, raw)| (name.clone(), raw.get()))
                .collect()
        };
        if others(&envelope) != others(&event) {
            return Err(differs("envelope"));
        }
        let (wanted, merged) = (
            object(asked.get(), "payload")?,
            object(given.get(), "payload")?,
        );
        let kept = wanted
            .iter()
            .all(|(name, raw)| text(&merged, name) == Some(raw.get()));
        let added = merged.iter().all(|(name, raw)| {
            wanted.contains_key(name) || text(&context, name) == Some(raw.get())
        });
        if kept && added {
            Ok(asked.get())
        } else {
            Err(differs("payload"))
        }
    }
}

fn text<'a>(object: &Object<'a>, name: &str) -> Option<&'a str> {
    object.get(name).map(|raw| raw.get())
}

fn object<'a>(text: &'a str, what: &str) -> Result<Object<'a>, Denial> {
    serde_json::from_str(text)
        .map_err(|_| Reason::BadRequest.because(format!("{what} is not an object")))
}

#[cfg(test)]
mod tests;
