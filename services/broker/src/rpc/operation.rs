//! `OperationService`.

use std::sync::Arc;

use bailey_error::status;
use bailey_mesh::Caller;
use bailey_proto::broker::v1::operation_service_server::OperationService;
use bailey_proto::broker::v1::{
    SignHmacRequest, SignHmacResponse, VerifyHmacRequest, VerifyHmacResponse,
};
use bailey_types::BadName;
use serde_json::json;
use tonic::{Request, Response, Status};

use crate::operation::{self, Asked, CODE_BYTES, Denied};
use crate::state::State;

pub struct Operations {
    state: Arc<State>,
}

impl Operations {
    pub fn new(state: Arc<State>) -> Self {
        Self { state }
    }

    fn denied(
        &self,
        operation: &str,
        Asked { secret, principal }: &Asked,
        denied: Denied,
    ) -> Status {
        let reason = denied.token();
        tracing::warn!(
            secret.name = %secret,
            "refused to {operation} with the secret {secret} for {principal}: {reason}"
        );
        let fields = json!({ "operation": operation, "secret": secret, "principal": principal, "reason": reason });
        self.state.records.refusal("hmac.refused", &fields);
        status(&denied)
    }
}

#[tonic::async_trait]
impl OperationService for Operations {
    async fn verify_hmac(
        &self,
        request: Request<VerifyHmacRequest>,
    ) -> Result<Response<VerifyHmacResponse>, Status> {
        let request = request.into_inner();
        let asked = asked(&request.secret, &request.principal)?;
        let code: &[u8; CODE_BYTES] = request
            .code
            .as_ref()
            .try_into()
            .map_err(|_| Status::invalid_argument("a code has 32 bytes"))?;
        let document = self.state.proven().await.map_err(|e| status(&e))?;
        let valid = operation::verify(&document, &asked, &request.message, code)
            .map_err(|denied| self.denied("verify", &asked, denied))?;
        if !valid {
            let fields = json!({ "operation": "verify", "secret": asked.secret, "principal": asked.principal, "reason": "wrong_code" });
            self.state.records.refusal("hmac.refused", &fields);
        }
        Ok(Response::new(VerifyHmacResponse { valid }))
    }

    async fn sign_hmac(
        &self,
        request: Request<SignHmacRequest>,
    ) -> Result<Response<SignHmacResponse>, Status> {
        let caller = Caller::of(&request)?.service();
        let request = request.into_inner();
        let asked = asked(&request.secret, &request.principal)?;
        let document = self.state.proven().await.map_err(|e| status(&e))?;
        let code = operation::sign(&document, &asked, &request.message)
            .map_err(|denied| self.denied("sign", &asked, denied))?;
        let fields =
            json!({ "caller": caller, "secret": asked.secret, "principal": asked.principal });
        let recorded = self.state.records.before("hmac.signed", &fields).await;
        recorded.map_err(|e| status(&e))?;
        Ok(Response::new(SignHmacResponse {
            code: code.to_vec().into(),
        }))
    }
}

fn asked(secret: &str, principal: &str) -> Result<Asked, Status> {
    let bad = |e: BadName| Status::invalid_argument(e.to_string());
    Ok(Asked {
        secret: secret.parse().map_err(bad)?,
        principal: principal.parse().map_err(bad)?,
    })
}
