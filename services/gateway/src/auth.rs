//! Bearer tokens. The gateway only carries them: the broker knows them.

use bailey_proto::broker::v1 as broker;
use bailey_proto::broker::v1::verify_token_request::Asked;
use bailey_proto::trust::v1::Signed;
use bailey_types::Sha256;
use http::{HeaderMap, StatusCode, header};

use crate::problem::Problem;
use crate::state::State;

/// The longest `Authorization` value that is looked at, bytes.
const MAX_TOKEN_BYTES: usize = 256;

/// Scopes of which any one lets a request pass (reference: ductile 6.2).
pub mod scopes {
    /// Any valid token.
    pub const ANY: &[&str] = &[];
    /// Reading one plugin's detail.
    pub const CATALOGUE: &[&str] = &["plugin:catalog:ro", "plugin:rw", "*"];
    /// Calling a command that only reads.
    pub const INVOKE_READ: &[&str] = &["plugin:invoke:ro", "plugin:rw", "*"];
    /// Calling a command that writes.
    pub const INVOKE_WRITE: &[&str] = &["plugin:rw", "*"];
    /// Letting cells of a quarantined plugin be kept ready again.
    pub const CLEAR: &[&str] = &["plugin:rw", "*"];
    /// Starting a service again.
    pub const RESTART: &[&str] = &["plugin:rw", "*"];
    /// Reading jobs.
    pub const JOBS: &[&str] = &["jobs:status:ro", "jobs:rw", "*"];
    /// Reading what jobs answered.
    pub const RESULTS: &[&str] = &["jobs:result:ro", "jobs:rw", "*"];
    /// Reading the tree of a job.
    pub const TREE: &[&str] = &["jobs:tree:ro", "jobs:rw", "*"];
    /// Reading the event stream.
    pub const EVENTS_READ: &[&str] = &["events:ro", "events:rw", "*"];
    /// Emitting events.
    pub const EVENTS_WRITE: &[&str] = &["events:rw", "plugin:rw", "*"];
    /// Reading figures of the system.
    pub const SYSTEM: &[&str] = &["system:ro", "system:rw", "*"];
    /// Having an upstream asked, with its key.
    pub const UPSTREAM_CHECK: &[&str] = &["system:rw", "*"];
}

/// A token that the broker has verified.
#[derive(Debug)]
pub struct Token {
    /// Its name, for the log.
    pub name: String,
    scopes: Vec<String>,
}

impl Token {
    /// Whether the token has one of `any_of`, as the broker expanded them.
    pub fn has(&self, any_of: &[&str]) -> bool {
        any_of
            .iter()
            .any(|wanted| self.scopes.iter().any(|scope| scope == wanted))
    }
}

/// Verifies the token of a request that only reads.
pub async fn reader(state: &State, headers: &HeaderMap, any_of: &[&str]) -> Result<Token, Problem> {
    verify(state, headers, any_of, Asked::Read(broker::ReadAsked {}))
        .await
        .map(|(token, _)| token)
}

/// Verifies the token of a call, and has the broker state who asks for it.
pub async fn caller(
    state: &State,
    headers: &HeaderMap,
    any_of: &[&str],
    (plugin, command): (&str, &str),
    payload: &[u8],
) -> Result<Signed, Problem> {
    let payload_sha256 = Sha256::of(payload).0.to_vec().into();
    let asked = broker::CallAsked {
        plugin: plugin.into(),
        command: command.into(),
        payload_sha256,
    };
    origin(verify(state, headers, any_of, Asked::Call(asked)).await?)
}

/// Verifies the token of somebody who emits an event, and has the broker state who it is.
pub async fn emitter(
    state: &State,
    headers: &HeaderMap,
    event_type: &str,
    payload: &[u8],
) -> Result<Signed, Problem> {
    let payload_sha256 = Sha256::of(payload).0.to_vec().into();
    let asked = broker::EventAsked {
        event_type: event_type.into(),
        payload_sha256,
    };
    origin(verify(state, headers, scopes::EVENTS_WRITE, Asked::Event(asked)).await?)
}

/// Verifies the token of somebody who has an upstream checked, and has the broker state who it is.
pub async fn checker(
    state: &State,
    headers: &HeaderMap,
    upstream: &str,
) -> Result<Signed, Problem> {
    let asked = broker::CheckAsked {
        upstream: upstream.into(),
    };
    origin(verify(state, headers, scopes::UPSTREAM_CHECK, Asked::Check(asked)).await?)
}

fn origin((token, signed): (Token, Option<Signed>)) -> Result<Signed, Problem> {
    signed.ok_or_else(|| {
        tracing::error!(
            token = token.name,
            "the broker verified a token without an origin"
        );
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the broker gave no origin",
        )
    })
}

async fn verify(
    state: &State,
    headers: &HeaderMap,
    any_of: &[&str],
    asked: Asked,
) -> Result<(Token, Option<Signed>), Problem> {
    let request = broker::VerifyTokenRequest {
        token: bearer(headers)?.to_owned(),
        any_of_scopes: any_of.iter().map(|&scope| scope.to_owned()).collect(),
        asked: Some(asked),
    };
    let answer = state.tokens().verify_token(request).await?.into_inner();
    Ok((
        Token {
            name: answer.token_name,
            scopes: answer.scopes,
        },
        answer.origin,
    ))
}

fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let unauthorized = |detail: &str| Problem::new(StatusCode::UNAUTHORIZED, "no-token", detail);
    let value = headers.get(header::AUTHORIZATION).ok_or_else(|| {
        unauthorized(
            "send an API token: Authorization: Bearer <token>; `bailey token create` makes one",
        )
    })?;
    let text = value
        .to_str()
        .map_err(|_| unauthorized("the Authorization header is not ASCII"))?;
    match text.split_once(' ') {
        Some((scheme, token))
            if scheme.eq_ignore_ascii_case("bearer")
                && !token.is_empty()
                && token.len() <= MAX_TOKEN_BYTES =>
        {
            Ok(token)
        }
        _ => Err(unauthorized(
            "the Authorization header must be: Bearer <token>",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_token_is_taken_from_its_header_only_in_that_form() {
        let with =
            |value: &str| HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]);
        assert_eq!(bearer(&with("Bearer abc")).unwrap(), "abc");
        assert_eq!(bearer(&with("bearer abc")).unwrap(), "abc");
        for bad in [
            "abc",
            "Basic abc",
            "Bearer ",
            &format!("Bearer {}", "a".repeat(257)),
        ] {
            assert_eq!(bearer(&with(bad)).unwrap_err().status, 401, "{bad}");
        }
        assert_eq!(bearer(&HeaderMap::new()).unwrap_err().status, 401);
    }
}
