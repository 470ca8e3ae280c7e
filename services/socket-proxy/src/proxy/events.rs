//! The engine's events, cut down to what happened to our own containers.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};
use futures::Stream;
use http::{Method, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;

use super::Proxy;
use crate::answer::set_json;
use crate::engine::Body;
use crate::error::Error;
use crate::registry::{ContainerId, identify};

/// Longest event: names, labels and ids of one container.
const MAX_EVENT_BYTES: usize = 64 << 10;
/// What the runner hears of; the engine is asked for no more.
const ACTIONS: [&str; 4] = ["start", "die", "oom", "destroy"];

type StreamError = Box<dyn std::error::Error + Send + Sync>;

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "Type", default)]
    kind: String,
    #[serde(rename = "Action", default)]
    action: String,
    #[serde(rename = "Actor")]
    actor: Actor,
    #[serde(rename = "timeNano", default)]
    time_nano: i64,
}

#[derive(Deserialize)]
struct Actor {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Attributes", default)]
    attributes: HashMap<String, String>,
}

impl Proxy {
    pub(super) async fn events(&self) -> Result<Response<Body>, Error> {
        let full = || Error::NotNow("too many readers of events are there already".into());
        let place = self.room().listener().ok_or_else(full)?;
        // {"type":["container"],"event":[…],"label":["bailey.stack=<stack>"]}
        let quoted = ACTIONS.map(|action| format!("%22{action}%22")).join("%2C");
        let filters = format!(
            "%7B%22type%22%3A%5B%22container%22%5D%2C%22event%22%3A%5B{quoted}%5D%2C%22label%22%3A%5B%22bailey.stack%3D{}%22%5D%7D",
            self.stack
        );
        // From this moment on, though the engine subscribes a little later.
        let now = self.parts.clock.now().0;
        let since = format!("{}.{:03}", now.div_euclid(1000), now.rem_euclid(1000));
        let path = format!("/events?since={since}&filters={filters}");
        let answer = self.engine().call(Method::GET, &path, None).await?;
        let stack = self.stack.clone();
        let keep = move |line: &[u8]| {
            let event: Event = serde_json::from_slice(line).ok()?;
            let name = event.actor.attributes.get("name")?;
            identify(&stack, name, &event.actor.attributes)?;
            cut(&event)
        };
        let body = StreamBody::new(lines(answer.into_body(), keep, place)).boxed_unsync();
        let mut answer = Response::new(body);
        set_json(&mut answer);
        Ok(answer)
    }
}

/// The event in our own words: nothing of the engine's text is handed on.
fn cut(event: &Event) -> Option<Value> {
    let id: ContainerId = event.actor.id.parse().ok()?;
    let action = ACTIONS.iter().find(|action| **action == event.action)?;
    if event.kind != "container" {
        return None;
    }
    let exit_code = event.actor.attributes.get("exitCode");
    let exit_code = exit_code.and_then(|code| code.parse::<i64>().ok());
    let mut attributes = serde_json::Map::new();
    attributes.extend(exit_code.map(|code| ("exitCode".to_owned(), code.to_string().into())));
    Some(json!({
        "Type": "container", "Action": action, "scope": "local",
        "Actor": { "ID": id.as_str(), "Attributes": attributes },
        "time": event.time_nano / 1_000_000_000, "timeNano": event.time_nano,
    }))
}

/// The kept lines of the engine's stream, as they come. The place is held until its end.
fn lines(
    body: Incoming,
    keep: impl Fn(&[u8]) -> Option<Value> + Send + 'static,
    place: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Frame<Bytes>, StreamError>> + Send {
    let state = (body, BytesMut::new(), keep, place);
    futures::stream::unfold(Some(state), |state| async move {
        let (mut body, mut pending, keep, place) = state?;
        loop {
            if let Some(end) = pending.iter().position(|b| *b == b'\n') {
                let line = pending.split_to(end + 1);
                let Some(event) = keep(&line) else {
                    continue;
                };
                let line = Bytes::from(format!("{event}\n"));
                return Some((Ok(Frame::data(line)), Some((body, pending, keep, place))));
            }
            if pending.len() > MAX_EVENT_BYTES {
                return Some((Err("an event of the engine is too long".into()), None));
            }
            match body.frame().await? {
                Ok(frame) => pending.extend_from_slice(frame.data_ref()?),
                Err(error) => return Some((Err(error.into()), None)),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(change: impl FnOnce(&mut Value)) -> Option<Value> {
        let mut event = json!({
            "status": "die", "id": "a".repeat(64), "from": "sha256:x", "Type": "container", "Action": "die",
            "Actor": { "ID": "a".repeat(64), "Attributes": { "exitCode": "78", "name": "x", "bailey.stack": "home", "image": "secret" } },
            "scope": "local", "time": 1_700_000_000, "timeNano": 1_700_000_000_123_456_789_i64,
        });
        change(&mut event);
        cut(&serde_json::from_value(event).unwrap())
    }

    #[test]
    fn an_event_says_what_happened_to_whom_and_no_more() {
        let expected = json!({
            "Type": "container", "Action": "die", "scope": "local",
            "Actor": { "ID": "a".repeat(64), "Attributes": { "exitCode": "78" } },
            "time": 1_700_000_000, "timeNano": 1_700_000_000_123_456_789_i64,
        });
        assert_eq!(event(|_| ()), Some(expected));
        assert_eq!(event(|e| e["Type"] = "network".into()), None);
        assert_eq!(event(|e| e["Action"] = "exec_create: sh".into()), None);
        assert_eq!(event(|e| e["Actor"]["ID"] = "a".into()), None);
    }
}
