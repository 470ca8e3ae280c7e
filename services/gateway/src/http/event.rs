//! `POST /events`: an event for the log, which starts the pipelines that wait for it.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State as Shared;
use bailey_proto::engine::v1 as engine;
use bailey_types::EventType;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::auth;
use crate::problem::Problem;
use crate::state::State;

/// An event.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// Its type, e.g. `backup.ready`.
    r#type: String,
    /// Its payload, an object; `{}` if absent.
    #[schema(value_type = Option<Object>)]
    payload: Option<Box<RawValue>>,
    /// Events with the same key are one event.
    dedupe_key: Option<String>,
}

/// What the event started.
#[derive(Serialize, ToSchema)]
pub struct Emitted {
    /// The event.
    event_id: String,
    /// One job per pipeline that begins with it.
    job_ids: Vec<String>,
    /// The event existed already, by its dedupe key.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    deduplicated: bool,
}

/// Emits an event.
#[utoipa::path(post, path = "/events", tag = "events", request_body = Event, responses(
    (status = 202, description = "The event is in the log", body = Emitted),
    (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem), (status = 413, body = Problem),
))]
pub async fn emit(
    Shared(state): Shared<State>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<(StatusCode, Json<Emitted>), Problem> {
    let event: Event = serde_json::from_slice(&body).map_err(|e| {
        Problem::bad_request(format!(
            "the body must be {{\"type\": \"…\", \"payload\": {{...}}}}: {e}"
        ))
    })?;
    let event_type: EventType = event
        .r#type
        .parse()
        .map_err(|e| Problem::bad_request(format!("{e}")))?;
    let payload = event
        .payload
        .as_ref()
        .map_or("{}", |raw| raw.get())
        .as_bytes();
    bailey_trust::strict_json::check_object(payload, &[])
        .map_err(|e| Problem::bad_request(format!("the payload is refused: {e}")))?;
    let origin = auth::emitter(&state, &headers, event_type.as_str(), payload).await?;
    let request = engine::EmitEventRequest {
        origin: Some(origin),
        r#type: event_type.to_string(),
        payload: payload.to_vec().into(),
        dedupe_key: event.dedupe_key.unwrap_or_default(),
        source: "api".into(),
    };
    let engine::EmitEventResponse {
        event_id,
        job_ids,
        deduplicated,
    } = state.intake().emit_event(request).await?.into_inner();
    Ok((
        StatusCode::ACCEPTED,
        Json(Emitted {
            event_id,
            job_ids,
            deduplicated,
        }),
    ))
}
