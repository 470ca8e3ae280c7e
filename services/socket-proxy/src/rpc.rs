//! The management socket: sealing, for the CLI alone.

use std::sync::Arc;
use std::time::Duration;

use bailey_error::{Classify, Kind};
use bailey_proto::management::v1::engine_service_server::{EngineService, EngineServiceServer};
use bailey_proto::management::v1::seal_request::Message;
use bailey_proto::management::v1::seal_service_server::{SealService, SealServiceServer};
use bailey_proto::management::v1::{
    CollectRequest, CollectResponse, DescribeEngineRequest, DescribeEngineResponse,
    InspectImageRequest, InspectImageResponse, SealHeader, SealRequest, SealResponse,
};
use bailey_service::Process;
use bailey_types::{Blake3, Sha256};
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use http::StatusCode;
use serde_json::json;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tonic::transport::Server;
use tonic::{Response, Status, Streaming};

use crate::error::Error;
use crate::proxy::Proxy;
use crate::{engine, http as docker_http, seal};

/// How long the next piece of a tar may take.
const CHUNK_TIME: Duration = Duration::from_secs(30);
const MAX_CHUNK_BYTES: usize = 1 << 20;
/// A chunk and what protobuf adds.
const MAX_MESSAGE_BYTES: usize = MAX_CHUNK_BYTES + (64 << 10);

impl Classify for seal::Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Invalid(_) | Self::Tar(_) => Kind::InvalidArgument,
            Self::Image { .. } => Kind::FailedPrecondition,
            Self::Engine(error) => error.kind(),
        }
    }
}

impl Classify for engine::Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Unreachable(_) | Self::TooOld(_) => Kind::Unavailable,
            Self::Answered {
                status: StatusCode::NOT_FOUND,
                ..
            } => Kind::NotFound,
            // What the engine said about an image is for the operator, who is the only caller.
            Self::Answered { .. } | Self::Unreadable(_) => Kind::FailedPrecondition,
        }
    }
}

impl Classify for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Refused(_) => Kind::PermissionDenied,
            Self::NoSuchContainer | Self::NoState => Kind::NotFound,
            Self::NotNow(_) => Kind::FailedPrecondition,
            Self::Engine(error) => error.kind(),
        }
    }
}

/// Serves the CLI until the service stops.
pub async fn serve(
    proxy: Arc<Proxy>,
    listener: UnixListener,
    cli_uid: u32,
    process: Process,
) -> anyhow::Result<()> {
    let shutdown = proxy.shutdown().clone();
    let incoming = peers(listener, Arc::clone(&proxy), cli_uid);
    let tidy = EngineServiceServer::new(Tidy {
        proxy: Arc::clone(&proxy),
    });
    let service = SealServiceServer::new(Seals { proxy, process })
        .max_decoding_message_size(MAX_MESSAGE_BYTES);
    let server = Server::builder()
        .concurrency_limit_per_connection(4)
        .add_service(service)
        .add_service(tidy);
    Ok(server
        .serve_with_incoming_shutdown(incoming, shutdown.cancelled_owned())
        .await?)
}

/// Connections of the CLI; all others are closed.
fn peers(
    listener: UnixListener,
    proxy: Arc<Proxy>,
    uid: u32,
) -> impl Stream<Item = std::io::Result<UnixStream>> {
    futures::stream::unfold((listener, proxy), move |(listener, proxy)| async move {
        loop {
            let accepted = listener.accept().await.map(|(stream, _)| stream);
            match accepted {
                Ok(stream) if !docker_http::is_peer(&stream, uid, &proxy, "manage.sock") => {}
                accepted => return Some((accepted, (listener, proxy))),
            }
        }
    })
}

struct Seals {
    proxy: Arc<Proxy>,
    process: Process,
}

#[tonic::async_trait]
impl SealService for Seals {
    async fn seal(
        &self,
        request: tonic::Request<Streaming<SealRequest>>,
    ) -> Result<Response<SealResponse>, Status> {
        let mut messages = request.into_inner();
        let header = match timeout(CHUNK_TIME, messages.message()).await {
            Ok(first) => first?.and_then(|request| request.message),
            Err(_) => return Err(Status::deadline_exceeded("the header did not come in time")),
        };
        let Some(Message::Header(header)) = header else {
            return Err(Status::invalid_argument(
                "the first message must be the header",
            ));
        };
        let request = read_header(header)?;
        // A task of its own: when the caller leaves, the container must still be removed.
        let (done, sealed) = oneshot::channel();
        let proxy = Arc::clone(&self.proxy);
        self.process.spawn("seal", async move {
            let outcome = seal(&proxy, &request, chunks(messages)).await;
            if done.send(outcome).is_err() {
                tracing::debug!("the caller of a seal left before its end");
            }
            Ok(())
        });
        let sealed = sealed
            .await
            .map_err(|_| Status::unavailable("the service stops"))?;
        let sealed = sealed.map_err(|e| bailey_error::status(&e))?;
        let tar_sha256 = Bytes::copy_from_slice(&sealed.tar_sha256.0);
        Ok(Response::new(SealResponse {
            image_id: sealed.image.to_string(),
            tar_sha256,
        }))
    }

    async fn inspect_image(
        &self,
        request: tonic::Request<InspectImageRequest>,
    ) -> Result<Response<InspectImageResponse>, Status> {
        let image = request.into_inner().image;
        let inspected = seal::inspect(self.proxy.engine(), &image).await;
        let image_id = inspected.map_err(|e| bailey_error::status(&e))?.to_string();
        Ok(Response::new(InspectImageResponse { image_id }))
    }
}

struct Tidy {
    proxy: Arc<Proxy>,
}

#[tonic::async_trait]
impl EngineService for Tidy {
    async fn describe_engine(
        &self,
        _: tonic::Request<DescribeEngineRequest>,
    ) -> Result<Response<DescribeEngineResponse>, Status> {
        let described = self.proxy.engine().describe().await;
        let described = described.map_err(|e| bailey_error::status(&e))?;
        Ok(Response::new(DescribeEngineResponse {
            runtimes: described.runtimes,
            security_options: described.security,
            version: described.version,
        }))
    }

    async fn collect(
        &self,
        request: tonic::Request<CollectRequest>,
    ) -> Result<Response<CollectResponse>, Status> {
        let age = Duration::from_secs(request.into_inner().older_than_seconds.into());
        let collected = self.proxy.collect(age).await;
        let collected = collected.map_err(|e| bailey_error::status(&e))?;
        let image_ids = collected.images.iter().map(ToString::to_string).collect();
        Ok(Response::new(CollectResponse {
            image_ids,
            volumes: collected.volumes,
        }))
    }
}

async fn seal(
    proxy: &Proxy,
    request: &seal::Request,
    tar: impl Stream<Item = Result<Bytes, String>> + Send + 'static,
) -> Result<seal::Sealed, seal::Error> {
    let sealing = seal::seal(proxy.engine(), proxy.stack(), request, tar);
    let late = |_| seal::Error::Tar(format!("sealing took longer than {:?}", seal::SEAL_TIME));
    let sealed = timeout(seal::SEAL_TIME, sealing).await.map_err(late)??;
    tracing::info!(plugin = %request.plugin, image = %sealed.image, "sealed {}", request.plugin);
    let fields = json!({ "plugin": request.plugin, "image": sealed.image, "tree": request.tree, "tar": sealed.tar_sha256 });
    proxy.audit().record("plugin.sealed", fields, false);
    Ok(sealed)
}

fn read_header(header: SealHeader) -> Result<seal::Request, Status> {
    let hash = |bytes: &[u8], what: &str| {
        let hash: Result<[u8; 32], _> = bytes.try_into();
        hash.map_err(|_| Status::invalid_argument(format!("{what} has 32 bytes")))
    };
    Ok(seal::Request {
        plugin: header
            .plugin
            .parse()
            .map_err(|e| Status::invalid_argument(format!("{e}")))?,
        tar_sha256: Sha256(hash(&header.tar_sha256, "a SHA-256")?),
        tree: Blake3(hash(&header.tree_blake3, "a BLAKE3")?),
        base_image: header.base_image,
        entrypoint: header.entrypoint,
    })
}

/// The tar's pieces; whatever is wrong with one is the last.
fn chunks(messages: Streaming<SealRequest>) -> impl Stream<Item = Result<Bytes, String>> + Send {
    futures::stream::unfold(messages, |mut messages| async move {
        let chunk = match timeout(CHUNK_TIME, messages.next()).await {
            Ok(None) => return None,
            Ok(Some(Ok(SealRequest {
                message: Some(Message::Chunk(chunk)),
            }))) if chunk.len() <= MAX_CHUNK_BYTES => Ok(chunk),
            Ok(Some(Ok(_))) => Err("after the header come chunks of at most 1 MiB".to_owned()),
            Ok(Some(Err(status))) => Err(format!("the tar ends early: {}", status.message())),
            Err(_) => Err(format!(
                "the next piece of the tar took longer than {CHUNK_TIME:?}"
            )),
        };
        Some((chunk, messages))
    })
}
