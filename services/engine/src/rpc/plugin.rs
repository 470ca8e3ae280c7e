//! PluginService.

use bailey_proto::engine::v1::plugin_service_server::PluginService;
use bailey_proto::engine::v1::{
    Clear, ClearPluginRequest, ClearPluginResponse, LeaseResponse, RestartPluginRequest,
    RestartPluginResponse, lease_response,
};
use bailey_types::PluginName;
use tonic::{Request, Response, Status};

use super::{Api, parse};
use crate::fleet::NotCleared;
use crate::service;

/// Longest principal, bytes.
const MAX_PRINCIPAL: usize = 128;

#[tonic::async_trait]
impl PluginService for Api {
    #[tracing::instrument(name = "plugin.clear", skip_all, fields(plugin.name = request.get_ref().plugin))]
    async fn clear_plugin(
        &self,
        request: Request<ClearPluginRequest>,
    ) -> Result<Response<ClearPluginResponse>, Status> {
        let ClearPluginRequest { plugin, principal } = request.into_inner();
        let plugin: PluginName = parse(&plugin).map_err(|e| *e)?;
        check_principal(&principal)?;
        let message = LeaseResponse {
            message: Some(lease_response::Message::Clear(Clear {
                plugin: plugin.to_string(),
                principal,
            })),
        };
        let cleared = self.state.fleet.clear(plugin.as_str(), &message);
        cleared.map_err(|error| match error {
            NotCleared::NoRunner => Status::unavailable(error.to_string()),
            NotCleared::NotQuarantined => Status::not_found(error.to_string()),
        })?;
        service::cleared(&self.state, &plugin)
            .await
            .map_err(|e| bailey_error::status(&e))?;
        Ok(Response::new(ClearPluginResponse {}))
    }

    #[tracing::instrument(name = "plugin.restart", skip_all, fields(plugin.name = request.get_ref().plugin))]
    async fn restart_plugin(
        &self,
        request: Request<RestartPluginRequest>,
    ) -> Result<Response<RestartPluginResponse>, Status> {
        let RestartPluginRequest { plugin, principal } = request.into_inner();
        let plugin: PluginName = parse(&plugin).map_err(|e| *e)?;
        check_principal(&principal)?;
        let job = service::restart(&self.state, &plugin, &principal).await;
        let job = job.map_err(|e| bailey_error::status(&e))?;
        Ok(Response::new(RestartPluginResponse {
            job_id: job.to_string(),
        }))
    }
}

fn check_principal(principal: &str) -> Result<(), Status> {
    if principal.is_empty() || principal.len() > MAX_PRINCIPAL {
        return Err(Status::invalid_argument("principal must be 1 to 128 bytes"));
    }
    Ok(())
}
