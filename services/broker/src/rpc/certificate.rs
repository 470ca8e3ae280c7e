//! `CertificateService`.

use std::sync::Arc;

use bailey_error::status;
use bailey_mesh::{Authority, Caller};
use bailey_proto::broker::v1::certificate_service_server::CertificateService;
use bailey_proto::broker::v1::{RenewRequest, RenewResponse};
use serde_json::json;
use tonic::{Request, Response, Status};

use crate::state::State;

pub struct Renewal {
    state: Arc<State>,
    authority: Arc<Authority>,
}

impl Renewal {
    pub fn new(state: Arc<State>, authority: Arc<Authority>) -> Self {
        Self { state, authority }
    }
}

#[tonic::async_trait]
impl CertificateService for Renewal {
    async fn renew(
        &self,
        request: Request<RenewRequest>,
    ) -> Result<Response<RenewResponse>, Status> {
        let service = Caller::of(&request)?.service();
        let (csr, now) = (request.into_inner().csr, self.state.clock.now());
        let chain = self
            .authority
            .issue(service, &csr, self.state.lifetime, now);
        let chain = chain.map_err(|e| status(&e))?;
        self.state
            .records
            .note("certificate.renewed", &json!({ "service": service }));
        Ok(Response::new(RenewResponse {
            chain: chain.into_iter().map(Into::into).collect(),
        }))
    }
}
