//! UpstreamService.

use bailey_config::Upstream;
use bailey_proto::engine::v1 as wire;
use bailey_proto::engine::v1::upstream_service_server::UpstreamService;
use bailey_proto::engine::v1::{
    CheckUpstreamRequest, CheckUpstreamResponse, ListUpstreamsRequest, ListUpstreamsResponse,
};
use bailey_types::UpstreamName;
use tonic::{Request, Response, Status};

use super::{Api, parse};
use crate::upstream::{self, Checked, Unchecked};

/// Seconds, as in HTTP.
const RETRY_AFTER: &str = "retry-after";

#[tonic::async_trait]
impl UpstreamService for Api {
    async fn list_upstreams(
        &self,
        _: Request<ListUpstreamsRequest>,
    ) -> Result<Response<ListUpstreamsResponse>, Status> {
        let locked = self.state.locked();
        let locked = locked.map_err(|e| Status::failed_precondition(e.to_string()))?;
        let upstreams = locked.view.config.upstreams.iter();
        Ok(Response::new(ListUpstreamsResponse {
            upstreams: upstreams.map(shown).collect(),
        }))
    }

    #[tracing::instrument(name = "upstream.check", skip_all, fields(upstream.name = request.get_ref().name))]
    async fn check_upstream(
        &self,
        request: Request<CheckUpstreamRequest>,
    ) -> Result<Response<CheckUpstreamResponse>, Status> {
        let CheckUpstreamRequest { name, origin } = request.into_inner();
        let name: UpstreamName = parse(&name).map_err(|e| *e)?;
        let origin = origin.ok_or_else(|| Status::invalid_argument("origin is missing"))?;
        let checked = upstream::check(&self.state, &name, origin).await;
        let Checked {
            status,
            took,
            key_sent,
            secret,
            received_bytes,
            failure,
        } = checked.map_err(|e| unchecked(&e))?;
        Ok(Response::new(CheckUpstreamResponse {
            status: status.map_or(0, |status| status.as_u16().into()),
            duration_ms: i64::try_from(took.as_millis()).unwrap_or(i64::MAX),
            key_sent,
            received_bytes,
            failure: failure.unwrap_or_default(),
            secret: secret.map_or_else(String::new, |secret| secret.to_string()),
        }))
    }
}

/// With what egress-proxy says of when to try again.
fn unchecked(error: &Unchecked) -> Status {
    let mut status = bailey_error::status(error);
    if let Unchecked::Refused(refused) = error
        && let Some(after) = refused.metadata().get(RETRY_AFTER)
    {
        status.metadata_mut().insert(RETRY_AFTER, after.clone());
    }
    status
}

fn shown((name, upstream): (&UpstreamName, &Upstream)) -> wire::Upstream {
    let key = upstream.key.as_ref();
    let clients = upstream.clients.iter();
    wire::Upstream {
        name: name.to_string(),
        url: upstream.url.to_string(),
        secret: key.map_or_else(String::new, |key| key.secret.to_string()),
        principal: key.map_or_else(String::new, |key| key.principal.to_string()),
        header: key.map_or_else(String::new, |key| key.header.to_string()),
        address: upstream
            .address
            .map_or_else(String::new, |at| at.to_string()),
        clients: clients.map(|client| client.service().to_string()).collect(),
        timeout_ms: i64::try_from(upstream.timeout.as_millis()).unwrap_or(i64::MAX),
        max_concurrent: upstream.max_concurrent,
        rate: upstream.rate.to_string(),
        check: upstream.check.clone(),
        own_ca: upstream.ca.is_some(),
    }
}
