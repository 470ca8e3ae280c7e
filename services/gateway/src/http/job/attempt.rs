//! One try of a job.

use bailey_proto::engine::v1 as engine;
use bailey_types::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::some;

/// One try of a job, with the time that each of its phases took, microseconds.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AttemptView {
    attempt: u32,
    started_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
    /// What became of it; absent while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<String>,
    /// How its cell came to be: `cold`, `held` (in a network namespace that was there) or `warm` (it stood ready).
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<&'static str>,
    create_us: i64,
    ticket_us: i64,
    start_us: i64,
    run_us: i64,
}

impl From<engine::Attempt> for AttemptView {
    fn from(attempt: engine::Attempt) -> Self {
        let timings = attempt.timings.unwrap_or_default();
        let ended = attempt.ended_at_ms;
        Self {
            attempt: attempt.attempt,
            started_at: Timestamp(attempt.started_at_ms).to_rfc3339(),
            ended_at: (ended != 0).then(|| Timestamp(ended).to_rfc3339()),
            outcome: some(attempt.outcome),
            start: match timings.start_kind() {
                engine::StartKind::Unspecified => None,
                engine::StartKind::Cold => Some("cold"),
                engine::StartKind::Held => Some("held"),
                engine::StartKind::Warm => Some("warm"),
            },
            create_us: timings.create_us,
            ticket_us: timings.ticket_us,
            start_us: timings.start_us,
            run_us: timings.run_us,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_says_how_it_began_and_what_is_not_known_is_absent() {
        let timings = engine::Timings {
            run_us: 2500,
            start_kind: engine::StartKind::Held.into(),
            ..engine::Timings::default()
        };
        let attempt = engine::Attempt {
            attempt: 1,
            started_at_ms: 1,
            timings: Some(timings),
            ..engine::Attempt::default()
        };
        let running = serde_json::to_value(AttemptView::from(attempt)).unwrap();
        assert_eq!(
            (&running["start"], &running["run_us"]),
            (&"held".into(), &2500.into())
        );
        assert!(running.get("ended_at").is_none() && running.get("outcome").is_none());
    }
}
