//! The mesh: what engine and worker ask for.

use std::sync::Arc;

use bailey_mesh::Caller;
use bailey_proto::egress::v1::ExchangeRequest;
use bailey_proto::egress::v1::upstream_service_server::{UpstreamService, UpstreamServiceServer};
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use crate::upstream::{MESSAGE_LIMIT_BYTES, Told, Upstreams};

struct Service(Arc<Upstreams>);

/// Everything that is served on the mesh.
pub(crate) fn routes(upstreams: Arc<Upstreams>) -> Routes {
    let service = UpstreamServiceServer::new(Service(upstreams));
    Routes::new(service.max_decoding_message_size(MESSAGE_LIMIT_BYTES))
}

#[tonic::async_trait]
impl UpstreamService for Service {
    type ExchangeStream = ReceiverStream<Told>;

    async fn exchange(
        &self,
        request: Request<Streaming<ExchangeRequest>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let client = Caller::of(&request)?.service();
        let told = self.0.exchange(client, request.into_inner()).await;
        let told = told.map_err(|failure| bailey_error::status(&failure))?;
        Ok(Response::new(ReceiverStream::new(told)))
    }
}
