//! `VaultService`, on the management socket. Whoever gets here has passed the gate.

use std::collections::BTreeSet;
use std::sync::Arc;

use bailey_error::status;
use bailey_proto::management::v1::vault_service_server::VaultService;
use bailey_proto::management::v1::{
    CreateTokenRequest, CreateTokenResponse, InitRequest, InitResponse, ListRequest, ListResponse,
    PrincipalEntry, RegisterPrincipalRequest, RegisterPrincipalResponse, SecretEntry,
    SetSecretRequest, SetSecretResponse, StatusRequest, StatusResponse, TokenEntry,
};
use bailey_types::PrincipalName;
use serde_json::json;
use tonic::{Request, Response, Status};
use zeroize::Zeroizing;

use crate::state::State;
use crate::token::{BadScope, Bearer, Scope};
use crate::vault::{
    Document, Grants, Nonce, PrincipalKind, Refused, SetOutcome, SetSecret, State as VaultState,
    Value,
};

pub struct Vault {
    state: Arc<State>,
}

impl Vault {
    pub fn new(state: Arc<State>) -> Self {
        Self { state }
    }
}

#[tonic::async_trait]
impl VaultService for Vault {
    async fn init(&self, _: Request<InitRequest>) -> Result<Response<InitResponse>, Status> {
        let admin_token = Bearer::admin();
        let stack = self.state.trust.stack.clone();
        let genesis = Document::genesis(stack, admin_token.hash(), Nonce::generate());
        self.state.vault.init(genesis).map_err(|e| status(&e))?;
        tracing::info!("made the vault");
        self.state.records.note("vault.made", &json!({}));
        Ok(Response::new(InitResponse {
            admin_token: admin_token.expose().to_owned(),
        }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let empty = StatusResponse::default();
        Ok(Response::new(match self.state.vault.state() {
            VaultState::NoVault => StatusResponse {
                state: "no_vault".into(),
                ..empty
            },
            VaultState::Sealed(detail) => StatusResponse {
                state: "sealed".into(),
                detail,
                ..empty
            },
            VaultState::Open(document) => StatusResponse {
                state: "open".into(),
                detail: String::new(),
                secrets: count(document.secrets.len()),
                principals: count(document.principals.len()),
                tokens: count(document.tokens.len()),
                lock_serial: document.lock.serial.0,
            },
        }))
    }

    async fn set_secret(
        &self,
        request: Request<SetSecretRequest>,
    ) -> Result<Response<SetSecretResponse>, Status> {
        let asked = set_secret_of(request.into_inner())?;
        let (name, now) = (asked.name.clone(), self.state.clock.now());
        let (outcome, grants) = self
            .state
            .vault
            .change(|document| {
                let outcome = document.set_secret(asked, now)?;
                let secret = document.secrets.get(&name);
                let grants = secret.map(|secret| secret.authorized_principals.clone());
                Ok((outcome, grants.unwrap_or_default()))
            })
            .map_err(|e| status(&e))?;
        let outcome = match outcome {
            SetOutcome::Set => "set",
            SetOutcome::Granted => "granted",
        };
        let fields = json!({ "secret": name, "outcome": outcome, "granted_to": grants });
        self.state.records.note("secret.set", &fields);
        Ok(Response::new(SetSecretResponse {
            outcome: outcome.into(),
        }))
    }

    async fn list(&self, _: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let document = self.state.vault.document().map_err(|e| status(&e))?;
        Ok(Response::new(listed(&document)))
    }

    async fn register_principal(
        &self,
        request: Request<RegisterPrincipalRequest>,
    ) -> Result<Response<RegisterPrincipalResponse>, Status> {
        let RegisterPrincipalRequest { name, kind } = request.into_inner();
        let name: PrincipalName = name.parse().map_err(invalid)?;
        let kind: PrincipalKind = kind.parse().map_err(|e: Refused| status(&e))?;
        let registered = self
            .state
            .vault
            .change(|document| document.register(name.clone(), kind));
        if !registered.map_err(|e| status(&e))? {
            return Ok(Response::new(RegisterPrincipalResponse {
                outcome: "exists".into(),
            }));
        }
        let fields = json!({ "principal": name, "kind": kind });
        self.state.records.note("principal.registered", &fields);
        let outcome = "principal_registered".into();
        Ok(Response::new(RegisterPrincipalResponse { outcome }))
    }

    async fn create_token(
        &self,
        request: Request<CreateTokenRequest>,
    ) -> Result<Response<CreateTokenResponse>, Status> {
        let CreateTokenRequest { name, scopes } = request.into_inner();
        let name: bailey_types::TokenName = name.parse().map_err(invalid)?;
        let scopes: Result<BTreeSet<Scope>, BadScope> =
            scopes.iter().map(|scope| scope.parse()).collect();
        let scopes = scopes.map_err(invalid)?;
        let (token, now) = (Bearer::api(), self.state.clock.now());
        let fields = json!({ "token": name, "scopes": scopes });
        self.state
            .vault
            .change(|document| document.add_token(name, token.hash(), scopes, now))
            .map_err(|e| status(&e))?;
        self.state.records.note("token.created", &fields);
        Ok(Response::new(CreateTokenResponse {
            token: token.expose().to_owned(),
        }))
    }
}

fn set_secret_of(request: SetSecretRequest) -> Result<SetSecret, Status> {
    let SetSecretRequest {
        name,
        value,
        grant_to,
        replace_grants,
        description,
    } = request;
    let refused = |refused: Refused| status(&refused);
    let value = match value.as_ref() {
        [] => None,
        bytes if bytes.len() > Value::LIMIT_BYTES => return Err(refused(Refused::ValueTooLarge)),
        bytes => {
            let text = std::str::from_utf8(bytes).map_err(|_| refused(Refused::ValueNotText))?;
            Some(Value::from(Zeroizing::new(text.to_owned())))
        }
    };
    let grants: Result<BTreeSet<PrincipalName>, _> =
        grant_to.iter().map(|name| name.parse()).collect();
    let grants = grants.map_err(invalid)?;
    Ok(SetSecret {
        name: name.parse().map_err(invalid)?,
        value,
        grants: if replace_grants {
            Grants::Replace(grants)
        } else {
            Grants::Given(grants)
        },
        description,
    })
}

fn listed(document: &Document) -> ListResponse {
    let secrets = document.secrets.iter().map(|(name, secret)| SecretEntry {
        name: name.to_string(),
        status: secret.status.to_string(),
        granted_to: secret
            .authorized_principals
            .iter()
            .map(ToString::to_string)
            .collect(),
        description: secret.description.clone(),
        created_at_ms: secret.created_at.0,
        updated_at_ms: secret.updated_at.0,
    });
    let principals = document
        .principals
        .iter()
        .map(|(name, principal)| PrincipalEntry {
            name: name.to_string(),
            kind: principal.kind.to_string(),
            status: principal.status.to_string(),
        });
    let tokens = document.tokens.iter().map(|(name, token)| TokenEntry {
        name: name.to_string(),
        scopes: token.scopes.iter().map(ToString::to_string).collect(),
        created_at_ms: token.created_at.0,
    });
    ListResponse {
        secrets: secrets.collect(),
        principals: principals.collect(),
        tokens: tokens.collect(),
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn invalid(error: impl std::error::Error) -> Status {
    Status::invalid_argument(error.to_string())
}
