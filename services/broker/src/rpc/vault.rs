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
use crate::change::Verb;
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

    fn verb(&self, operation: &'static str) -> Verb<'_> {
        Verb::new(&self.state, operation)
    }
}

impl Verb<'_> {
    /// What was asked, or the answer to what nobody can do.
    fn understood<T>(&self, asked: Result<T, Bad>) -> Result<T, Status> {
        asked.map_err(|bad| match bad {
            Bad::Refused(why) => self.refused(&why),
            Bad::Malformed(why) => self.malformed(why),
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
                detail: self.state.lost_vault().unwrap_or_default().into(),
                ..empty
            },
            VaultState::Sealed(detail) => match self.state.vault.unproven() {
                Some(document) => StatusResponse {
                    detail: format!("nothing is given from it yet: {detail}"),
                    ..listed::status(&document)
                },
                None => StatusResponse {
                    state: "sealed".into(),
                    detail,
                    earlier: self.state.vault.is_earlier(),
                    ..empty
                },
            },
            VaultState::Open(document) => StatusResponse {
                detail: self.state.vault.changed_outside().unwrap_or_default(),
                ..listed::status(&document)
            },
        }))
    }

    async fn set_secret(
        &self,
        request: Request<SetSecretRequest>,
    ) -> Result<Response<SetSecretResponse>, Status> {
        let verb = self.verb("set");
        let request = request.into_inner();
        let existing = request.existing;
        let asked = verb.understood(asked::set_secret(request))?;
        let name = asked.name.clone();
        let verb = verb.of(json!({ "secret": name }));
        let known = self.state.lock.current().ok();
        let known = known.map(|lock| lock.view.principals()).unwrap_or_default();
        let set = verb.does(
            |document, now| {
                if existing {
                    document.must_have(&name)?;
                }
                let (outcome, registered) = document.set_secret_for(asked, &known, now)?;
                let secret = document.secrets.get(&name).cloned();
                let registered = registered.into_iter().filter_map(|name| {
                    let principal = document.principals.get(&name)?.clone();
                    Some((name, principal))
                });
                Ok((outcome, secret, registered.collect::<Vec<_>>()))
            },
            |fields, (outcome, secret, registered)| {
                told::set(fields, *outcome, secret.as_ref(), registered)
            },
        );
        let (outcome, _, registered) = set.await?;
        let registered = registered.iter();
        let registered = registered.map(|(name, principal)| listed::principal(name, principal));
        Ok(Response::new(SetSecretResponse {
            outcome: told::outcome(outcome).into(),
            registered: registered.collect(),
        }))
    }

    async fn roll_secret(
        &self,
        request: Request<RollSecretRequest>,
    ) -> Result<Response<RollSecretResponse>, Status> {
        let RollSecretRequest { name, value } = request.into_inner();
        let verb = self.verb("roll");
        let name: SecretName = verb.understood(parsed(&name))?;
        let value = verb.understood(asked::value(&value))?;
        let rolled = verb.of(json!({ "secret": name })).does(
            |document, now| document.roll(&name, value, now),
            |fields, count| {
                vec![Record::new("secret.rolled", fields.clone()).with("roll_count", *count)]
            },
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
        let verb = self.verb("revoke");
        let name: SecretName = verb.understood(parsed(&request.into_inner().name))?;
        let verb = verb.of(json!({ "secret": name }));
        verb.does(
            |document, now| document.revoke(&name, now),
            |fields, revoked| told::once(*revoked, "secret.revoked", fields),
        )
        .await?;
        let outcome = "revoked".into();
        Ok(Response::new(RevokeSecretResponse { outcome }))
    }

    async fn import_secrets(
        &self,
        request: Request<ImportSecretsRequest>,
    ) -> Result<Response<ImportSecretsResponse>, Status> {
        let verb = self.verb("import");
        let import = verb.understood(asked::import(request.into_inner()))?;
        let lock = self.state.lock.current().ok();
        let view = lock.as_ref().map(|lock| &lock.view);
        if !import.apply {
            // The same on a copy: what a preview says is what would happen.
            let document = self.state.vault.document().map_err(|e| status(&e))?;
            let mut copy = Document::clone(&document);
            let now = self.state.clock.now();
            let outcome = import.run(&mut copy, view, now).map_err(|e| status(&e))?;
            return Ok(Response::new(outcome.into()));
        }
        let done = verb.does(
            |document, now| import.run(document, view, now),
            |_, outcome| told::imported(outcome),
        );
        let outcome = done.await?;
        for imported in &outcome.secrets {
            if let Some(why) = &imported.skipped {
                let skipped = self.verb("import").of(json!({ "secret": imported.name }));
                skipped.left_out(why.refused());
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
        let verb = self.verb("register");
        let name: PrincipalName = verb.understood(parsed(&name))?;
        let kind = verb.understood(kind.parse::<PrincipalKind>().map_err(Bad::from))?;
        let registered = verb
            .of(json!({ "principal": name, "kind": kind }))
            .does(
                |document, _| document.register(name, kind),
                |fields, registered| told::once(*registered, "principal.registered", fields),
            )
            .await?;
        let outcome = if registered {
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
        let verb = self.verb("revoke_principal");
        let name: PrincipalName = verb.understood(parsed(&request.into_inner().name))?;
        let verb = verb.of(json!({ "principal": name }));
        verb.does(
            |document, _| document.revoke_principal(&name),
            |fields, revoked| told::once(*revoked, "principal.revoked", fields),
        )
        .await?;
        let outcome = "principal_revoked".into();
        Ok(Response::new(RevokePrincipalResponse { outcome }))
    }

    async fn purge_principal(
        &self,
        request: Request<PurgePrincipalRequest>,
    ) -> Result<Response<PurgePrincipalResponse>, Status> {
        let verb = self.verb("purge_principal");
        let name: PrincipalName = verb.understood(parsed(&request.into_inner().name))?;
        let purged = verb.of(json!({ "principal": name })).does(
            |document, now| document.purge_principal(&name, now),
            |fields, stripped| {
                Record::new("principal.purged", fields.clone()).naming("secrets", stripped)
            },
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
        let verb = self.verb("roll_principal");
        let name: PrincipalName = verb.understood(parsed(&request.into_inner().name))?;
        let rolled = verb.of(json!({ "principal": name })).does(
            |document, now| document.roll_principal(&name, now),
            told::rolled,
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
        let verb = self.verb("create_token");
        let name: TokenName = verb.understood(parsed(&name))?;
        let scopes: Result<BTreeSet<Scope>, Bad> =
            scopes.iter().map(|scope| parsed(scope)).collect();
        let scopes = verb.understood(scopes)?;
        let token = Bearer::api();
        let verb = verb.of(json!({ "token": name, "scopes": scopes }));
        verb.does(
            |document, now| document.add_token(name, token.hash(), scopes, now),
            |fields, ()| vec![Record::new("token.created", fields.clone())],
        )
        .await?;
        Ok(Response::new(CreateTokenResponse {
            token: token.expose().to_owned(),
        }))
    }

    async fn revoke_token(
        &self,
        request: Request<RevokeTokenRequest>,
    ) -> Result<Response<RevokeTokenResponse>, Status> {
        let verb = self.verb("revoke_token");
        let name: TokenName = verb.understood(parsed(&request.into_inner().name))?;
        let verb = verb.of(json!({ "token": name }));
        verb.does(
            |document, _| document.revoke_token(&name),
            |fields, ()| vec![Record::new("token.revoked", fields.clone())],
        )
        .await?;
        let outcome = "token_revoked".into();
        Ok(Response::new(RevokeTokenResponse { outcome }))
    }
}
