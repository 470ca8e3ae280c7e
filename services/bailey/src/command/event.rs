//! `bailey event`.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::payload;
use crate::api::Api;
use crate::cli::EmitArgs;
use crate::home::Home;
use crate::output::{Done, Out};

#[derive(Serialize)]
struct Event<'a> {
    r#type: &'a str,
    payload: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dedupe_key: Option<&'a str>,
}

#[derive(Deserialize, Serialize)]
struct Emitted {
    event_id: String,
    job_ids: Vec<String>,
    #[serde(default)]
    deduplicated: bool,
}

pub(super) async fn emit(home: &Home, args: &EmitArgs, out: &mut Out) -> anyhow::Result<Done> {
    let event = Event {
        r#type: args.event_type.as_str(),
        payload: payload::read(&args.payload)?,
        dedupe_key: args.dedupe_key.as_deref(),
    };
    let api = Api::with_token(home)?;
    let emitted: Emitted = api
        .post("/events", serde_json::to_vec(&event)?, Duration::ZERO)
        .await?
        .json()?;
    if home.json() {
        out.json(&emitted)?;
        return Ok(Done::Well);
    }
    out.line(format_args!(
        "event {}{}",
        emitted.event_id,
        if emitted.deduplicated {
            " (was there already)"
        } else {
            ""
        }
    ));
    for job in &emitted.job_ids {
        out.line(format_args!("job   {job}"));
    }
    if emitted.job_ids.is_empty() && !emitted.deduplicated {
        out.line(format_args!("no pipeline waits for {}", args.event_type));
    }
    Ok(Done::Well)
}
