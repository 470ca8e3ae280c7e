//! `TokenService`.

use std::sync::Arc;

use bailey_error::status;
use bailey_proto::broker::v1::token_service_server::TokenService;
use bailey_proto::broker::v1::verify_token_request::Asked as WireAsked;
use bailey_proto::broker::v1::{VerifyTokenRequest, VerifyTokenResponse};
use bailey_trust::Asked;
use bailey_types::Sha256;
use serde_json::json;
use tonic::{Request, Response, Status};

use crate::state::State;
use crate::token::{self, Bearer};
use crate::vault;

pub struct Tokens {
    state: Arc<State>,
}

impl Tokens {
    pub fn new(state: Arc<State>) -> Self {
        Self { state }
    }

    fn refused(&self, error: &token::Error) -> Status {
        let fields = match error {
            token::Error::Unknown => json!({ "reason": "unknown" }),
            token::Error::MissingScope { name, needed } => {
                json!({ "reason": "missing_scope", "token": name, "needed": needed })
            }
            token::Error::Sign(_) => return status(error),
        };
        self.state.records.refusal("token.refused", &fields);
        status(error)
    }
}

#[tonic::async_trait]
impl TokenService for Tokens {
    async fn verify_token(
        &self,
        request: Request<VerifyTokenRequest>,
    ) -> Result<Response<VerifyTokenResponse>, Status> {
        let VerifyTokenRequest {
            token,
            any_of_scopes,
            asked,
        } = request.into_inner();
        let too_long = token.len() > Bearer::LIMIT_BYTES;
        let bearer = Bearer::from(token);
        let any_of = any_of_scopes
            .iter()
            .map(|scope| scope.parse())
            .collect::<Result<_, _>>();
        let any_of =
            any_of.map_err(|e: token::BadScope| Status::invalid_argument(e.to_string()))?;
        let document = match self.state.proven().await {
            Ok(document) => document,
            // Without a vault there are no tokens: whoever brings one is unknown.
            Err(vault::Error::NoVault) => return Err(self.refused(&token::Error::Unknown)),
            Err(error) => return Err(status(&error)),
        };
        if too_long {
            return Err(self.refused(&token::Error::Unknown));
        }
        let known = token::verify(&document, &bearer, &any_of).map_err(|e| self.refused(&e))?;
        // Afterwards: a stranger learns nothing but that he is one.
        let asked = asked_of(asked)?;
        let now = self.state.clock.now();
        let origin = asked.map(|asked| token::origin(&known, asked, &self.state.key, now));
        Ok(Response::new(VerifyTokenResponse {
            origin: origin.transpose().map_err(|e| status(&e))?,
            scopes: known.scopes.iter().map(ToString::to_string).collect(),
            token_name: known.name.to_string(),
        }))
    }
}

/// What was asked; `None` for reads, which need no origin.
fn asked_of(asked: Option<WireAsked>) -> Result<Option<Asked>, Status> {
    let bad = |e: bailey_types::BadName| Status::invalid_argument(e.to_string());
    match asked {
        None => Err(Status::invalid_argument("what is asked must be said")),
        Some(WireAsked::Read(_)) => Ok(None),
        Some(WireAsked::Call(call)) => Ok(Some(Asked::Call {
            plugin: call.plugin.parse().map_err(bad)?,
            command: call.command.parse().map_err(bad)?,
            payload_sha256: sha256(&call.payload_sha256)?,
        })),
        Some(WireAsked::Event(event)) => Ok(Some(Asked::Event {
            event_type: event.event_type.parse().map_err(bad)?,
            payload_sha256: sha256(&event.payload_sha256)?,
        })),
        Some(WireAsked::Check(check)) => Ok(Some(Asked::Check {
            upstream: check.upstream.parse().map_err(bad)?,
        })),
    }
}

fn sha256(bytes: &[u8]) -> Result<Sha256, Status> {
    let hash = bytes.try_into().map(Sha256);
    hash.map_err(|_| Status::invalid_argument("a SHA-256 has 32 bytes"))
}
