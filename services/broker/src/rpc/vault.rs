//! `VaultService`, on the management socket. Whoever gets here has passed the gate.

mod asked;
mod listed;
mod told;

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
use serde_json::json;
use tonic::{Request, Response, Status};

use self::asked::{Bad, parsed};
use crate::change;
use crate::record::Record;
use crate::state::State;
use crate::token::{Bearer, Scope};
use crate::vault::{Deed, Document, Nonce, PrincipalKind, State as VaultState};

pub struct Vault {
    state: Arc<State>,
}

impl Vault {
    pub fn new(state: Arc<State>) -> Self {
        Self { state }
    }

    /// What was asked, or the answer to what nobody can do. That is recorded, too.
    fn asked<T>(&self, operation: &'static str, asked: Result<T, Bad>) -> Result<T, Status> {
        asked.map_err(|bad| match bad {
            Bad::Refused(why) => change::refused(&self.state, operation, &json!({}), &why),
            Bad::Malformed(why) => change::malformed(&self.state, operation, why),
        })
    }
}

#[tonic::async_trait]
impl VaultService for Vault {
    async fn init(&self, _: Request<InitRequest>) -> Result<Response<InitResponse>, Status> {
        let admin_token = Bearer::admin();
        let stack = self.state.trust.stack.clone();
        let mut genesis = Document::genesis(stack, admin_token.hash(), Nonce::generate());
        // The first vault is made before there is an audit log to tell.
        genesis.did_offline(Deed::Made, self.state.clock.now());
        self.state.vault.init(genesis).map_err(|e| status(&e))?;
        tracing::info!("made the vault");
        self.state.news.notify_one();
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
        let asked = self.asked("set", asked::set_secret(request.into_inner()))?;
        let (name, now) = (asked.name.clone(), self.state.clock.now());
        let fields = json!({ "secret": name });
        let set = change::asked(
            &self.state,
            "set",
            &fields,
            |document| {
                let outcome = document.set_secret(asked, now)?;
                let secret = document.secrets.get(&name).cloned();
                Ok((outcome, secret))
            },
            |(outcome, secret)| told::set(&fields, *outcome, secret.as_ref()),
        );
        let (outcome, _) = set.await?;
        let outcome = told::outcome(outcome).into();
        Ok(Response::new(SetSecretResponse { outcome }))
    }

    async fn roll_secret(
        &self,
        request: Request<RollSecretRequest>,
    ) -> Result<Response<RollSecretResponse>, Status> {
        let RollSecretRequest { name, value } = request.into_inner();
        let name: SecretName = self.asked("roll", parsed(&name))?;
        let value = self.asked("roll", asked::value(&value))?;
        let (fields, now) = (json!({ "secret": name }), self.state.clock.now());
        let rolled = change::asked(
            &self.state,
            "roll",
            &fields,
            |document| document.roll(&name, value, now),
            |count| vec![Record::new("secret.rolled", fields.clone()).with("roll_count", *count)],
        );
        Ok(Response::new(RollSecretResponse {
            roll_count: rolled.await?,
            outcome: "rolled".into(),
        }))
    }

    async fn revoke_secret(
        &self,
        request: Request<RevokeSecretRequest>,
    ) -> Result<Response<RevokeSecretResponse>, Status> {
        let name: SecretName = self.asked("revoke", parsed(&request.into_inner().name))?;
        let (fields, now) = (json!({ "secret": name }), self.state.clock.now());
        let revoked = change::asked(
            &self.state,
            "revoke",
            &fields,
            |document| document.revoke(&name, now),
            |revoked| told::once(*revoked, "secret.revoked", &fields),
        );
        revoked.await?;
        let outcome = "revoked".into();
        Ok(Response::new(RevokeSecretResponse { outcome }))
    }

    async fn import_secrets(
        &self,
        request: Request<ImportSecretsRequest>,
    ) -> Result<Response<ImportSecretsResponse>, Status> {
        let import = self.asked("import", asked::import(request.into_inner()))?;
        let now = self.state.clock.now();
        let lock = self.state.lock.current().ok();
        let view = lock.as_ref().map(|lock| &lock.view);
        if !import.apply {
            // The same on a copy: what a preview says is what would happen.
            let document = self.state.vault.document().map_err(|e| status(&e))?;
            let mut copy = Document::clone(&document);
            let outcome = import.run(&mut copy, view, now).map_err(|e| status(&e))?;
            return Ok(Response::new(outcome.into()));
        }
        let fields = json!({});
        let done = change::asked(
            &self.state,
            "import",
            &fields,
            |document| import.run(document, view, now),
            told::imported,
        );
        let outcome = done.await?;
        for imported in &outcome.secrets {
            if let Some(why) = &imported.skipped {
                let fields = json!({ "secret": imported.name });
                change::left_out(&self.state, "import", &fields, why);
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
        let name: PrincipalName = self.asked("register", parsed(&name))?;
        let kind = kind.parse::<PrincipalKind>().map_err(Bad::from);
        let kind = self.asked("register", kind)?;
        let fields = json!({ "principal": name, "kind": kind });
        let registered = change::asked(
            &self.state,
            "register",
            &fields,
            |document| document.register(name.clone(), kind),
            |registered| told::once(*registered, "principal.registered", &fields),
        );
        let outcome = if registered.await? {
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
        let name = parsed(&request.into_inner().name);
        let name: PrincipalName = self.asked("revoke_principal", name)?;
        let fields = json!({ "principal": name });
        let revoked = change::asked(
            &self.state,
            "revoke_principal",
            &fields,
            |document| document.revoke_principal(&name),
            |revoked| told::once(*revoked, "principal.revoked", &fields),
        );
        revoked.await?;
        let outcome = "principal_revoked".into();
        Ok(Response::new(RevokePrincipalResponse { outcome }))
    }

    async fn purge_principal(
        &self,
        request: Request<PurgePrincipalRequest>,
    ) -> Result<Response<PurgePrincipalResponse>, Status> {
        let name = parsed(&request.into_inner().name);
        let name: PrincipalName = self.asked("purge_principal", name)?;
        let (fields, now) = (json!({ "principal": name }), self.state.clock.now());
        let purged = change::asked(
            &self.state,
            "purge_principal",
            &fields,
            |document| document.purge_principal(&name, now),
            |stripped| Record::new("principal.purged", fields.clone()).naming("secrets", stripped),
        );
        let stripped = purged.await?;
        Ok(Response::new(PurgePrincipalResponse {
            outcome: "principal_purged".into(),
            stripped: stripped.iter().map(ToString::to_string).collect(),
        }))
    }

    async fn roll_principal(
        &self,
        request: Request<RollPrincipalRequest>,
    ) -> Result<Response<RollPrincipalResponse>, Status> {
        let name = parsed(&request.into_inner().name);
        let name: PrincipalName = self.asked("roll_principal", name)?;
        let (fields, now) = (json!({ "principal": name }), self.state.clock.now());
        let rolled = change::asked(
            &self.state,
            "roll_principal",
            &fields,
            |document| document.roll_principal(&name, now),
            |outcome| told::rolled(&fields, outcome),
        );
        let outcome = rolled.await?;
        let names = |names: &[SecretName]| names.iter().map(ToString::to_string).collect();
        Ok(Response::new(RollPrincipalResponse {
            name: name.to_string(),
            rolled: names(&outcome.rolled),
            skipped: names(&outcome.skipped),
        }))
    }

    async fn create_token(
        &self,
        request: Request<CreateTokenRequest>,
    ) -> Result<Response<CreateTokenResponse>, Status> {
        let CreateTokenRequest { name, scopes } = request.into_inner();
        let name: TokenName = self.asked("create_token", parsed(&name))?;
        let scopes: Result<BTreeSet<Scope>, Bad> =
            scopes.iter().map(|scope| parsed(scope)).collect();
        let scopes = self.asked("create_token", scopes)?;
        let (token, now) = (Bearer::api(), self.state.clock.now());
        let fields = json!({ "token": name, "scopes": scopes });
        let created = change::asked(
            &self.state,
            "create_token",
            &fields,
            |document| document.add_token(name, token.hash(), scopes, now),
            |()| vec![Record::new("token.created", fields.clone())],
        );
        created.await?;
        Ok(Response::new(CreateTokenResponse {
            token: token.expose().to_owned(),
        }))
    }

    async fn revoke_token(
        &self,
        request: Request<RevokeTokenRequest>,
    ) -> Result<Response<RevokeTokenResponse>, Status> {
        let name: TokenName = self.asked("revoke_token", parsed(&request.into_inner().name))?;
        let fields = json!({ "token": name });
        let revoked = change::asked(
            &self.state,
            "revoke_token",
            &fields,
            |document| document.revoke_token(&name),
            |()| vec![Record::new("token.revoked", fields.clone())],
        );
        revoked.await?;
        let outcome = "token_revoked".into();
        Ok(Response::new(RevokeTokenResponse { outcome }))
    }
}
