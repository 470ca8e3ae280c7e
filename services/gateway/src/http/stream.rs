//! `GET /events`: the log as server-sent events (WHATWG HTML, section 9.2).

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State as Shared};
use axum::response::sse::{self, KeepAlive, Sse};
use bailey_proto::engine::v1 as engine;
use bailey_types::Timestamp;
use futures::{Stream, StreamExt as _, stream};
use http::HeaderMap;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use utoipa::IntoParams;

use crate::auth::{self, scopes};
use crate::problem::Problem;
use crate::state::State;

/// The most patterns that one client may follow.
const MAX_PATTERNS: usize = 32;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct FollowQuery {
    /// Comma-separated patterns: `*` is one word, `>` the rest. All events if absent.
    types: Option<String>,
    /// Begin after this sequence number, as `Last-Event-ID` does; without either, only what is new comes.
    after: Option<i64>,
}

/// Follows the event log. The `id` of each event is its sequence number: a client that comes back with `Last-Event-ID` misses nothing.
#[utoipa::path(get, path = "/events", tag = "events", params(FollowQuery), responses(
    (status = 200, description = "A stream of `id`, `event` (the type) and `data` (an object)", content_type = "text/event-stream", body = String),
    (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem), (status = 503, body = Problem),
))]
pub async fn follow(
    Shared(state): Shared<State>,
    query: Result<Query<FollowQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>, Problem> {
    let Query(query) = query.map_err(|e| Problem::bad_request(e.body_text()))?;
    let cursor = cursor(&headers, query.after)?;
    let patterns: Vec<_> = query
        .types
        .as_deref()
        .unwrap_or(">")
        .split(',')
        .map(|p| p.trim().to_owned())
        .collect();
    if patterns.len() > MAX_PATTERNS {
        return Err(Problem::bad_request(format!(
            "at most {MAX_PATTERNS} patterns can be followed at once"
        )));
    }
    auth::reader(&state, &headers, scopes::EVENTS_READ).await?;
    let permit = state.stream_permit()?;
    let events = state
        .query()
        .subscribe(engine::SubscribeRequest { patterns, cursor })
        .await?
        .into_inner();
    let frames = events.filter_map(|next| async {
        let event = next
            .map_err(|status| tracing::info!(error = status.message(), "an event stream ended"))
            .ok()?;
        frame(event.event?)
    });
    // A stream ends when the engine goes away; the client comes back with its cursor.
    let stopped = state.shutdown().clone().cancelled_owned();
    let held = stream::once(async move {
        drop(permit);
        None
    });
    let frames = frames
        .map(Some)
        .take_until(stopped)
        .chain(held)
        .filter_map(async |frame| frame.map(Ok));
    Ok(Sse::new(frames).keep_alive(
        KeepAlive::new()
            .interval(Duration::from_secs(15))
            .text("still here"),
    ))
}

fn cursor(headers: &HeaderMap, after: Option<i64>) -> Result<i64, Problem> {
    let cursor = match headers.get("last-event-id") {
        Some(value) => value.to_str().ok().and_then(|text| text.parse().ok()),
        None => Some(after.unwrap_or(-1)),
    };
    let cursor = cursor.filter(|&cursor: &i64| cursor >= -1);
    cursor.ok_or_else(|| {
        Problem::bad_request("the sequence number to go on from must be a whole number")
    })
}

fn frame(event: engine::Event) -> Option<sse::Event> {
    // The engine stores only checked JSON; what cannot be read is left out rather than sent broken.
    let payload: Box<RawValue> = RawValue::from_string(event.payload_json)
        .map_err(|error| tracing::error!(%error, event.id = event.event_id, "an event's payload is not JSON"))
        .ok()?;
    let data = json!({
        "event_id": event.event_id,
        "type": event.r#type,
        "source": event.source,
        "payload": payload,
        "dedupe_key": event.dedupe_key,
        "job_id": event.job_id,
        "at": Timestamp(event.at_ms).to_rfc3339(),
    });
    Some(
        sse::Event::default()
            .id(event.seq.to_string())
            .event(event.r#type)
            .data(data.to_string()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_goes_on_where_it_was() {
        let with = |id: &str| {
            HeaderMap::from_iter([(
                http::HeaderName::from_static("last-event-id"),
                id.parse().unwrap(),
            )])
        };
        assert_eq!(cursor(&with("41"), Some(3)).unwrap(), 41);
        assert_eq!(cursor(&HeaderMap::new(), Some(3)).unwrap(), 3);
        assert_eq!(cursor(&HeaderMap::new(), None).unwrap(), -1);
        assert!(cursor(&with("abc"), None).is_err());
        assert!(cursor(&with("-2"), None).is_err());
    }
}
