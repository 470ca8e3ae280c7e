//! The channel to a peer, whatever is below it.

use tonic::body::Body;
use tonic::client::GrpcService;
use tower::ServiceExt as _;
use tower::util::BoxCloneSyncService;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// A way to call a peer's methods.
pub type Channel = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, tonic::Status>;

/// Wraps the mesh's channel, or a test's.
pub fn channel<S, B>(inner: S) -> Channel
where
    S: tower::Service<http::Request<Body>, Response = http::Response<B>>,
    S: GrpcService<Body> + Clone + Send + Sync + 'static,
    <S as tower::Service<http::Request<Body>>>::Error: Into<Error>,
    <S as tower::Service<http::Request<Body>>>::Future: Send,
    B: tonic::transport::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<Error>,
{
    let inner = inner.map_response(|response| response.map(Body::new));
    BoxCloneSyncService::new(inner.map_err(|error| tonic::Status::from_error(error.into())))
}
