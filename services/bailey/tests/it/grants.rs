//! The vault's place on the management socket: it answers as the broker does, and notes what it is asked to do.

use std::sync::{Arc, Mutex};

use bailey_proto::management::v1::vault_service_server::VaultService;
use bailey_proto::management::v1::{
    CreateTokenRequest, CreateTokenResponse, ImportSecretsRequest, ImportSecretsResponse,
    InitRequest, InitResponse, ListRequest, ListResponse, PrincipalEntry, PurgePrincipalRequest,
    PurgePrincipalResponse, Recipe, RegisterPrincipalRequest, RegisterPrincipalResponse,
    RevokePrincipalRequest, RevokePrincipalResponse, RevokeSecretRequest, RevokeSecretResponse,
    RevokeTokenRequest, RevokeTokenResponse, RollPrincipalRequest, RollPrincipalResponse,
    RollSecretRequest, RollSecretResponse, SecretEntry, SetSecretRequest, SetSecretResponse,
    StatusRequest, StatusResponse,
};
use tonic::{Request, Response, Status};

/// Whom the vault knows: name, kind, status.
const PRINCIPALS: [(&str, &str, &str); 3] = [
    ("core", "gateway", "active"),
    ("shop", "consumer", "active"),
    ("gone", "plugin", "revoked"),
];

/// A vault in which `greet` may have one secret, and had another one. It notes what it is asked to do.
pub(crate) struct Grants {
    pub(crate) asked: Asked,
    pub(crate) state: State,
}

pub(crate) type Asked = Arc<Mutex<Vec<String>>>;

/// What the vault says it is, and why.
pub(crate) type State = Arc<Mutex<(&'static str, &'static str)>>;

impl Grants {
    fn asked(&self, what: String) {
        self.asked.lock().unwrap().push(what);
    }
}

#[tonic::async_trait]
impl VaultService for Grants {
    async fn list(&self, _: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let secret = |name: &str, status: &str, pattern: &str| SecretEntry {
            name: name.to_owned(),
            status: status.to_owned(),
            pattern: pattern.to_owned(),
            recipe: Some(Recipe {
                length: 48,
                alphabet: "base64url".to_owned(),
            }),
            granted_to: vec!["greet".to_owned()],
            ..SecretEntry::default()
        };
        Ok(Response::new(ListResponse {
            secrets: vec![
                secret("one", "active", "auto"),
                secret("two", "revoked", "auto"),
                SecretEntry {
                    granted_to: Vec::new(),
                    ..secret("typed", "active", "manual")
                },
            ],
            principals: PRINCIPALS
                .map(|(name, kind, status)| PrincipalEntry {
                    name: name.to_owned(),
                    kind: kind.to_owned(),
                    status: status.to_owned(),
                })
                .into(),
            ..ListResponse::default()
        }))
    }

    async fn init(&self, _: Request<InitRequest>) -> Result<Response<InitResponse>, Status> {
        Err(Status::unimplemented("init"))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let (state, detail) = *self.state.lock().unwrap();
        Ok(Response::new(StatusResponse {
            state: state.to_owned(),
            detail: detail.to_owned(),
            unrecorded: 1,
            ..StatusResponse::default()
        }))
    }

    async fn set_secret(
        &self,
        request: Request<SetSecretRequest>,
    ) -> Result<Response<SetSecretResponse>, Status> {
        let asked = request.into_inner();
        let recipe = asked
            .recipe
            .map(|it| format!(" {}:{}", it.length, it.alphabet));
        let (name, grants) = (asked.name, asked.grant_to.join(","));
        let existing = if asked.existing {
            " if it is there"
        } else {
            ""
        };
        self.asked(format!(
            "set {name} for {grants}{}{existing}",
            recipe.unwrap_or_default()
        ));
        if name == "one" && !asked.value.is_empty() {
            return Err(Status::failed_precondition("the secret one exists"));
        }
        // As the broker does: it knows from the lock what it registers.
        let strangers = asked.grant_to.iter().filter(|name| *name == "new");
        let registered = strangers.map(|name| PrincipalEntry {
            name: name.clone(),
            kind: "consumer".to_owned(),
            status: "active".to_owned(),
        });
        Ok(Response::new(SetSecretResponse {
            outcome: "set".to_owned(),
            registered: registered.collect(),
        }))
    }

    async fn register_principal(
        &self,
        request: Request<RegisterPrincipalRequest>,
    ) -> Result<Response<RegisterPrincipalResponse>, Status> {
        let asked = request.into_inner();
        // As the broker does: whoever is there is not registered as something else, nor is whoever was revoked.
        if PRINCIPALS.iter().any(|(name, ..)| *name == asked.name) {
            return Err(Status::already_exists("registered already"));
        }
        self.asked(format!("register {} {}", asked.name, asked.kind));
        let outcome = "principal_registered".to_owned();
        Ok(Response::new(RegisterPrincipalResponse { outcome }))
    }

    async fn create_token(
        &self,
        _: Request<CreateTokenRequest>,
    ) -> Result<Response<CreateTokenResponse>, Status> {
        Err(Status::unimplemented("create_token"))
    }

    async fn roll_secret(
        &self,
        request: Request<RollSecretRequest>,
    ) -> Result<Response<RollSecretResponse>, Status> {
        let asked = request.into_inner();
        let value = if asked.value.is_empty() {
            ""
        } else {
            " to a value"
        };
        self.asked(format!("roll {}{value}", asked.name));
        Ok(Response::new(RollSecretResponse {
            outcome: "rolled".to_owned(),
            roll_count: 1,
        }))
    }

    async fn revoke_secret(
        &self,
        _: Request<RevokeSecretRequest>,
    ) -> Result<Response<RevokeSecretResponse>, Status> {
        let outcome = "revoked".to_owned();
        Ok(Response::new(RevokeSecretResponse { outcome }))
    }

    async fn import_secrets(
        &self,
        _: Request<ImportSecretsRequest>,
    ) -> Result<Response<ImportSecretsResponse>, Status> {
        Ok(Response::new(ImportSecretsResponse::default()))
    }

    async fn revoke_principal(
        &self,
        _: Request<RevokePrincipalRequest>,
    ) -> Result<Response<RevokePrincipalResponse>, Status> {
        let outcome = "principal_revoked".to_owned();
        Ok(Response::new(RevokePrincipalResponse { outcome }))
    }

    async fn purge_principal(
        &self,
        _: Request<PurgePrincipalRequest>,
    ) -> Result<Response<PurgePrincipalResponse>, Status> {
        Ok(Response::new(PurgePrincipalResponse {
            outcome: "principal_purged".to_owned(),
            stripped: vec!["one".to_owned()],
        }))
    }

    async fn roll_principal(
        &self,
        _: Request<RollPrincipalRequest>,
    ) -> Result<Response<RollPrincipalResponse>, Status> {
        Ok(Response::new(RollPrincipalResponse {
            name: "one".to_owned(),
            rolled: vec!["made".to_owned()],
            skipped: vec!["typed".to_owned()],
        }))
    }

    async fn revoke_token(
        &self,
        _: Request<RevokeTokenRequest>,
    ) -> Result<Response<RevokeTokenResponse>, Status> {
        let outcome = "token_revoked".to_owned();
        Ok(Response::new(RevokeTokenResponse { outcome }))
    }
}
