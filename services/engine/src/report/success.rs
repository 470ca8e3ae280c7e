//! A good response: what it changes, checked before anything is written.

use bailey_plugin::protocol::{MAX_STATE_BYTES, OutEvent, Success};
use bailey_types::{EventId, EventType};
use serde_json::{Map, Value, json};

use super::Error;
use crate::event::NewEvent;
use crate::job::{AskedBy, Job};
use crate::outcome::{Failed, MAX_EVENT_PAYLOAD_BYTES};
use crate::spawn::Cause;
use crate::state::State;
use crate::view::Locked;
use crate::work::Work;
use crate::{db, route, spawn};

/// Everything that a success writes.
pub(super) struct Prepared {
    result: String,
    events: Vec<NewEvent>,
    memory: Option<Memory>,
    locked: Option<Locked>,
    /// Whose decision stands for what follows from the events; nobody's where there are none.
    asked_by: Option<AskedBy>,
}

impl Prepared {
    /// How many events it has.
    pub(super) fn events(&self) -> usize {
        self.events.len()
    }
}

/// What the plugin remembers from now on.
struct Memory {
    state: String,
    /// The facts that this update is, by type, and its text.
    facts: (Vec<EventType>, String),
}

/// Checks a good response against what is kept. The inner error is the job's failure, and nothing is written yet.
pub(super) async fn prepare(
    state: &State,
    work: &mut Work,
    job: &Job,
    success: Success,
) -> Result<Result<Prepared, Failed>, Error> {
    // Without a lock nothing is routed: what the operator has not locked has no say.
    let locked = state.locked().ok();
    let memory = match success.state_updates {
        Some(updates) => match remember(work, job, locked.as_ref(), updates).await? {
            Ok(memory) => Some(memory),
            Err(failed) => return Ok(Err(failed)),
        },
        None => None,
    };
    let mut events = success.events;
    if events.is_empty() && job.place.is_some() {
        // So that the next step runs (reference: ductile 1.4).
        events.push(OutEvent {
            event_type: "ductile.step.succeeded".parse().map_err(db::corrupt)?,
            payload: Map::from_iter([("result".to_owned(), json!(success.result))]),
            dedupe_key: None,
        });
    }
    let mut prepared = Vec::new();
    for event in events {
        let payload = Value::Object(event.payload).to_string();
        if payload.len() > MAX_EVENT_PAYLOAD_BYTES {
            let error = format!(
                "the payload of its event {} is larger than 4 MiB",
                event.event_type
            );
            return Ok(Err(Failed::for_good("event_too_large", error)));
        }
        prepared.push(NewEvent {
            id: EventId::new(),
            kind: event.event_type,
            source: job.plugin.to_string(),
            payload,
            dedupe_key: event.dedupe_key.unwrap_or_default(),
            at: work.now(),
            job: Some(job.id),
        });
    }
    let asked_by = if prepared.is_empty() {
        None
    } else {
        let decision = db::attempt::decision(work.db(), job.id, job.attempt).await?;
        let Some(decision) = decision else {
            let error = "the attempt has no decision".to_owned();
            return Ok(Err(Failed::for_good("no_decision", error)));
        };
        Some(AskedBy::ParentDecision(decision))
    };
    Ok(Ok(Prepared {
        result: success.result,
        events: prepared,
        memory,
        locked,
        asked_by,
    }))
}

/// What becomes of the state (reference: ductile 1.7): facts replace it as a whole, else the update is merged into it.
async fn remember(
    work: &mut Work,
    job: &Job,
    locked: Option<&Locked>,
    updates: Map<String, Value>,
) -> Result<Result<Memory, Failed>, Error> {
    let manifest = locked
        .and_then(|locked| locked.lock.plugins.get(&job.plugin))
        .map(|p| &p.proposed.manifest);
    let rules = manifest
        .map(|manifest| manifest.fact_outputs.as_slice())
        .unwrap_or_default();
    let facts: Vec<EventType> = rules
        .iter()
        .filter(|rule| rule.command == job.command)
        .map(|rule| rule.fact_type.clone())
        .collect();
    let fact = serde_json::to_string(&updates)?;
    let state = if facts.is_empty() {
        let kept = db::plugin::state(work.db(), &job.plugin).await?;
        // No runner may be told to try again: nothing mends this by itself.
        let mut kept: Map<String, Value> = match serde_json::from_str(&kept) {
            Ok(kept) => kept,
            Err(problem) => {
                let error = format!("the state that is kept of it is no JSON object: {problem}");
                return Ok(Err(Failed::for_good("state_broken", error)));
            }
        };
        kept.extend(updates);
        serde_json::to_string(&kept)?
    } else {
        fact.clone()
    };
    if state.len() > MAX_STATE_BYTES {
        let error = format!(
            "its state would be {} bytes; at most {MAX_STATE_BYTES} are allowed",
            state.len()
        );
        return Ok(Err(Failed::for_good("state_too_large", error)));
    }
    Ok(Ok(Memory {
        state,
        facts: (facts, fact),
    }))
}

/// Writes all of it; answers the result. Its events are numbered from `first_index` on.
pub(super) async fn apply(
    work: &mut Work,
    job: &Job,
    prepared: Prepared,
    first_index: u32,
) -> Result<String, Error> {
    let now = work.now();
    if let Some(memory) = prepared.memory {
        let (facts, fact) = memory.facts;
        for fact_type in facts {
            let by = (job.id, &job.command);
            db::plugin::append_fact(work.db(), &job.plugin, &fact_type, by, &fact, now).await?;
        }
        db::plugin::replace_state(work.db(), &job.plugin, &memory.state, now).await?;
    }
    // In this order: a range may not go past the last number, not even for no event.
    for (event, index) in prepared.events.iter().zip(first_index..) {
        work.emit(event).await?;
        let (Some(locked), Some(asked_by)) = (&prepared.locked, &prepared.asked_by) else {
            tracing::warn!(event.id = %event.id, "the event {} is not routed: there is no valid lock", event.id);
            continue;
        };
        let config = &locked.view.config;
        let cause = Cause {
            event,
            parent: Some(job),
            asked_by: asked_by.clone(),
            principal: &job.principal,
        };
        let routes = route::from_job(config, job, &event.kind, index);
        spawn::start(work, config, routes, &cause).await?;
    }
    Ok(prepared.result)
}
