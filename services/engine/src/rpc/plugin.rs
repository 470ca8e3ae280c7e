//! PluginService.

use bailey_proto::engine::v1::plugin_service_server::PluginService;
use bailey_proto::engine::v1::{
    Clear, ClearPluginRequest, ClearPluginResponse, LeaseResponse, lease_response,
};
use bailey_types::PluginName;
use tonic::{Request, Response, Status};

use super::{Api, parse};
use crate::fleet::NotCleared;

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
        if principal.is_empty() || principal.len() > MAX_PRINCIPAL {
            return Err(Status::invalid_argument("principal must be 1 to 128 bytes"));
        }
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
        Ok(Response::new(ClearPluginResponse {}))
    }
}
