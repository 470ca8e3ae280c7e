//! Whether anybody may ask for anything (reference: ductile 7.4). The broker knows: it has the tokens.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Request, State as Shared};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use bailey_proto::broker::v1::RollRequest;
use http::StatusCode;

use crate::problem::Problem;
use crate::state::State;

/// What the broker says while there is no API token.
pub const MANAGEMENT_ONLY: &str = "management-only";
/// How long it is believed that there is a token. That there is none is never believed, but asked each time: the first token opens the
/// gateway at once.
const BELIEVED: Duration = Duration::from_secs(1);

/// When the broker last said that the gateway is to serve.
#[derive(Debug, Default)]
pub struct Posture(Mutex<Option<Instant>>);

impl Posture {
    /// Takes note of what the broker said.
    pub fn said(&self, posture: &str) {
        let serves = posture != MANAGEMENT_ONLY;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = serves.then(Instant::now);
    }

    fn is_fresh(&self) -> bool {
        let said = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.is_some_and(|at| at.elapsed() < BELIEVED)
    }
}

/// While there is no API token, `/healthz` is all that is served.
pub async fn guard(Shared(state): Shared<State>, request: Request, next: Next) -> Response {
    if request.uri().path() != "/healthz" && !state.posture().is_fresh() {
        // A broker that does not answer is no reason to refuse here: whatever needs a token asks it again, and is refused then.
        if let Ok(roll) = state.presence().roll(RollRequest {}).await {
            let said = roll.into_inner().posture;
            state.posture().said(&said);
            if said == MANAGEMENT_ONLY {
                return refusal().into_response();
            }
        }
    }
    next.run(request).await
}

fn refusal() -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        MANAGEMENT_ONLY,
        "there is no API token, so nothing but /healthz is served; `bailey token create` on the stack's host makes one",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_that_there_is_a_token_is_believed() {
        let posture = Posture::default();
        assert!(!posture.is_fresh());
        posture.said("gateway");
        assert!(posture.is_fresh());
        posture.said(MANAGEMENT_ONLY);
        assert!(!posture.is_fresh());
        posture.said("sealed");
        assert!(posture.is_fresh());
    }
}
