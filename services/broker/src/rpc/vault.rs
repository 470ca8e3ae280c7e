//! `VaultService`, on the management socket. Whoever gets here has passed the gate.

mod asked;
mod listed;

use std::collections::BTreeSet;
use std::sync::Arc;

use bailey_error::status;
use bailey_proto::management::v1::vault_service_server::VaultService;
use bailey_proto::management::v1::{
    CreateTokenRequest, CreateTokenResponse, ImportSecretsRequest, ImportSecretsResponse,
    InitRequest, InitResponse, ListRequest, ListResponse, PurgePrincipalRequest,
    PurgePrincipalResponse, RegisterPrincipalRequest, RegisterPrincipalResponse,
    RevokePrincipalRequest, RevokePrincipalResponse, RevokeSecretRequest, RevokeSecretResponse,
    RevokeTokenRequest, RevokeTokenResponse, RollPrincipalRequest, RollPrincipalResponse,
    RollSecretRequest, RollSecretResponse, SetSecretRequest, SetSecretResponse, StatusRequest,
    StatusResponse,
};
use bailey_types::{PrincipalName, SecretName, TokenName};
use serde_json::{Value as Json, json};
use tonic::{Request, Response, Status};

use self::asked::invalid;
use super::change;
use crate::state::State;
use crate::token::{BadScope, Bearer, Scope};
use crate::vault::{Document, Nonce, PrincipalKind, Refused, SetOutcome, State as VaultState};

pub struct Vault {
    state: Arc<State>,
}

impl Vault {
    pub fn new(state: Arc<State>) -> Self {
        Self { state }
    }

    fn note(&self, kind: &'static str, fields: &Json) {
        self.state.records.note(kind, fields);
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
        self.note("vault.made", &json!({}));
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
            VaultState::Open(document) => listed::status(&document),
        }))
    }

    async fn set_secret(
        &self,
        request: Request<SetSecretRequest>,
    ) -> Result<Response<SetSecretResponse>, Status> {
        let asked = asked::set_secret(request.into_inner())?;
        let (name, now) = (asked.name.clone(), self.state.clock.now());
        let fields = json!({ "secret": name });
        let (outcome, (grants, pattern)) = change(&self.state, "set", &fields, |document| {
            let outcome = document.set_secret(asked, now)?;
            let secret = document.secrets.get(&name);
            let recorded = secret.map(|s| (s.authorized_principals.clone(), s.pattern));
            Ok((outcome, recorded.unzip()))
        })?;
        let outcome = match outcome {
            SetOutcome::Set => "set",
            SetOutcome::Changed => "changed",
        };
        let fields =
            json!({ "secret": name, "outcome": outcome, "granted_to": grants, "pattern": pattern });
        self.note("secret.set", &fields);
        let outcome = outcome.into();
        Ok(Response::new(SetSecretResponse { outcome }))
    }

    async fn roll_secret(
        &self,
        request: Request<RollSecretRequest>,
    ) -> Result<Response<RollSecretResponse>, Status> {
        let RollSecretRequest { name, value } = request.into_inner();
        let name: SecretName = name.parse().map_err(invalid)?;
        let value = asked::value(&value)?;
        let now = self.state.clock.now();
        let roll_count = change(
            &self.state,
            "roll",
            &json!({ "secret": name }),
            |document| document.roll(&name, value, now),
        )?;
        let fields = json!({ "secret": name, "roll_count": roll_count });
        self.note("secret.rolled", &fields);
        Ok(Response::new(RollSecretResponse {
            outcome: "rolled".into(),
            roll_count,
        }))
    }

    async fn revoke_secret(
        &self,
        request: Request<RevokeSecretRequest>,
    ) -> Result<Response<RevokeSecretResponse>, Status> {
        let name: SecretName = request.into_inner().name.parse().map_err(invalid)?;
        let now = self.state.clock.now();
        let fields = json!({ "secret": name });
        if change(&self.state, "revoke", &fields, |document| {
            document.revoke(&name, now)
        })? {
            self.note("secret.revoked", &fields);
        }
        let outcome = "revoked".into();
        Ok(Response::new(RevokeSecretResponse { outcome }))
    }

    async fn import_secrets(
        &self,
        request: Request<ImportSecretsRequest>,
    ) -> Result<Response<ImportSecretsResponse>, Status> {
        let import = asked::import(request.into_inner())?;
        let (apply, now) = (import.apply, self.state.clock.now());
        let lock = self.state.lock.current().ok();
        let deliveries = lock.as_ref().map(|lock| &lock.view);
        let outcome = if apply {
            change(&self.state, "import", &json!({}), |document| {
                import.run(document, deliveries, now)
            })?
        } else {
            // The same on a copy: what a preview says is what would happen.
            let document = self.state.vault.document().map_err(|e| status(&e))?;
            let mut copy = Document::clone(&document);
            import
                .run(&mut copy, deliveries, now)
                .map_err(|e| status(&e))?
        };
        if apply {
            for name in &outcome.registered {
                self.note("principal.registered", &json!({ "principal": name }));
            }
            for imported in outcome.secrets.iter().filter(|s| s.skipped.is_none()) {
                let fields = json!({ "secret": imported.name, "outcome": "imported" });
                self.note("secret.set", &fields);
            }
        }
        Ok(Response::new(outcome.into()))
    }

    async fn list(&self, _: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let document = self.state.vault.document().map_err(|e| status(&e))?;
        Ok(Response::new(listed::all(&document)))
    }

    async fn register_principal(
        &self,
        request: Request<RegisterPrincipalRequest>,
    ) -> Result<Response<RegisterPrincipalResponse>, Status> {
        let RegisterPrincipalRequest { name, kind } = request.into_inner();
        let name: PrincipalName = name.parse().map_err(invalid)?;
        let kind: PrincipalKind = kind.parse().map_err(|e: Refused| status(&e))?;
        let fields = json!({ "principal": name, "kind": kind });
        let registered = change(&self.state, "register", &fields, |document| {
            document.register(name.clone(), kind)
        })?;
        let outcome = if registered {
            self.note("principal.registered", &fields);
            "principal_registered"
        } else {
            "exists"
        };
        let outcome = outcome.into();
        Ok(Response::new(RegisterPrincipalResponse { outcome }))
    }

    async fn revoke_principal(
        &self,
        request: Request<RevokePrincipalRequest>,
    ) -> Result<Response<RevokePrincipalResponse>, Status> {
        let name: PrincipalName = request.into_inner().name.parse().map_err(invalid)?;
        let fields = json!({ "principal": name });
        if change(&self.state, "revoke_principal", &fields, |document| {
            document.revoke_principal(&name)
        })? {
            self.note("principal.revoked", &fields);
        }
        let outcome = "principal_revoked".into();
        Ok(Response::new(RevokePrincipalResponse { outcome }))
    }

    async fn purge_principal(
        &self,
        request: Request<PurgePrincipalRequest>,
    ) -> Result<Response<PurgePrincipalResponse>, Status> {
        let name: PrincipalName = request.into_inner().name.parse().map_err(invalid)?;
        let now = self.state.clock.now();
        let stripped = change(
            &self.state,
            "purge_principal",
            &json!({ "principal": name }),
            |document| document.purge_principal(&name, now),
        )?;
        let fields = json!({ "principal": name, "secrets": stripped });
        self.note("principal.purged", &fields);
        Ok(Response::new(PurgePrincipalResponse {
            outcome: "principal_purged".into(),
            stripped: stripped.iter().map(ToString::to_string).collect(),
        }))
    }

    async fn roll_principal(
        &self,
        request: Request<RollPrincipalRequest>,
    ) -> Result<Response<RollPrincipalResponse>, Status> {
        let name: PrincipalName = request.into_inner().name.parse().map_err(invalid)?;
        let now = self.state.clock.now();
        let outcome = change(
            &self.state,
            "roll_principal",
            &json!({ "principal": name }),
            |document| document.roll_principal(&name, now),
        )?;
        let (rolled, skipped) = (&outcome.rolled, &outcome.skipped);
        let fields = json!({ "principal": name, "rolled": rolled, "skipped": skipped });
        self.note("principal.rolled", &fields);
        Ok(Response::new(RollPrincipalResponse {
            name: name.to_string(),
            rolled: rolled.iter().map(ToString::to_string).collect(),
            skipped: skipped.iter().map(ToString::to_string).collect(),
        }))
    }

    async fn create_token(
        &self,
        request: Request<CreateTokenRequest>,
    ) -> Result<Response<CreateTokenResponse>, Status> {
        let CreateTokenRequest { name, scopes } = request.into_inner();
        let name: TokenName = name.parse().map_err(invalid)?;
        let scopes: Result<BTreeSet<Scope>, BadScope> =
            scopes.iter().map(|scope| scope.parse()).collect();
        let scopes = scopes.map_err(invalid)?;
        let (token, now) = (Bearer::api(), self.state.clock.now());
        let fields = json!({ "token": name, "scopes": scopes });
        change(&self.state, "create_token", &fields, |document| {
            document.add_token(name, token.hash(), scopes, now)
        })?;
        self.note("token.created", &fields);
        Ok(Response::new(CreateTokenResponse {
            token: token.expose().to_owned(),
        }))
    }

    async fn revoke_token(
        &self,
        request: Request<RevokeTokenRequest>,
    ) -> Result<Response<RevokeTokenResponse>, Status> {
        let name: TokenName = request.into_inner().name.parse().map_err(invalid)?;
        let fields = json!({ "token": name });
        change(&self.state, "revoke_token", &fields, |document| {
            document.revoke_token(&name)
        })?;
        self.note("token.revoked", &fields);
        let outcome = "token_revoked".into();
        Ok(Response::new(RevokeTokenResponse { outcome }))
    }
}
