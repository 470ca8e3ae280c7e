//! The mesh: what engine and worker ask for.

use std::sync::Arc;

use bailey_mesh::{Caller, Windows};
use bailey_proto::egress::v1::ExchangeRequest;
use bailey_proto::egress::v1::upstream_service_server::{UpstreamService, UpstreamServiceServer};
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use crate::upstream::{MESSAGE_LIMIT_BYTES, Told, Upstreams};

/// A part of a body ahead, and half of a connection's exchanges: many bodies that an upstream does not take hold up no other exchange, and what all
/// connections of both clients hold stays small beside the container's memory.
pub(crate) const WINDOWS: Windows = Windows {
    call_bytes: 64 << 10,
    connection_bytes: 2 << 20,
};

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
        let told = told.map_err(|failure| failure.status())?;
        Ok(Response::new(ReceiverStream::new(told)))
    }
}
