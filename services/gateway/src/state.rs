//! What the handlers share.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bailey_mesh::{Mesh, MeshChannel};
use bailey_plugin::Catalogue;
use bailey_proto::broker::v1::presence_service_client::PresenceServiceClient;
use bailey_proto::broker::v1::token_service_client::TokenServiceClient;
use bailey_proto::engine::v1 as engine;
use bailey_proto::engine::v1::intake_service_client::IntakeServiceClient;
use bailey_proto::engine::v1::query_service_client::QueryServiceClient;
use bailey_types::{Clock, Service, Timestamp};
use http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::problem::Problem;

/// How long a catalogue is used before it is asked for again.
const CATALOGUE_AGE: Duration = Duration::from_secs(1);

/// Largest message from the engine, bytes: a job's result is bounded by the plugin protocol's 10 MiB.
const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// Shared by all handlers; cheap to clone.
#[derive(Clone)]
pub struct State(Arc<Inner>);

struct Inner {
    mesh: Mesh,
    limits: Limits,
    clock: Clock,
    started_at: Timestamp,
    catalogue: Mutex<Option<(Instant, Arc<Catalogue>)>>,
    waiting: Arc<Semaphore>,
    streaming: Arc<Semaphore>,
    metrics: Metrics,
    shutdown: CancellationToken,
}

impl State {
    /// The state of one gateway.
    pub fn new(mesh: Mesh, limits: Limits, clock: Clock, shutdown: CancellationToken) -> Self {
        let started_at = clock.now();
        Self(Arc::new(Inner {
            mesh,
            waiting: Arc::new(Semaphore::new(limits.concurrent_waits)),
            streaming: Arc::new(Semaphore::new(limits.concurrent_streams)),
            limits,
            clock,
            started_at,
            catalogue: Mutex::new(None),
            metrics: Metrics::default(),
            shutdown,
        }))
    }

    /// The engine's intake.
    pub fn intake(&self) -> IntakeServiceClient<MeshChannel> {
        IntakeServiceClient::new(self.0.mesh.channel(Service::Engine))
    }

    /// The engine's queries.
    pub fn query(&self) -> QueryServiceClient<MeshChannel> {
        QueryServiceClient::new(self.0.mesh.channel(Service::Engine))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// The broker's tokens.
    pub fn tokens(&self) -> TokenServiceClient<MeshChannel> {
        TokenServiceClient::new(self.0.mesh.channel(Service::Broker))
    }

    /// The broker's roll of services.
    pub fn presence(&self) -> PresenceServiceClient<MeshChannel> {
        PresenceServiceClient::new(self.0.mesh.channel(Service::Broker))
    }

    /// The limits in force.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// The counters.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    /// How long this gateway has been running.
    pub fn uptime(&self) -> Duration {
        self.now().since(self.0.started_at)
    }

    /// Cancelled when the gateway stops; long answers end then.
    pub fn shutdown(&self) -> &CancellationToken {
        &self.0.shutdown
    }

    /// The plugins that are locked, at most a second old.
    pub async fn catalogue(&self) -> Result<Arc<Catalogue>, Problem> {
        let kept = self
            .0
            .catalogue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some((at, catalogue)) = kept
            && at.elapsed() < CATALOGUE_AGE
        {
            return Ok(catalogue);
        }
        let answer = self
            .query()
            .catalogue(engine::CatalogueRequest {})
            .await?
            .into_inner();
        let catalogue: Catalogue =
            serde_json::from_str(&answer.catalogue_json).map_err(|error| {
                tracing::error!(%error, "the engine's catalogue cannot be read");
                Problem::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "internal",
                    "the engine's catalogue cannot be read",
                )
            })?;
        let catalogue = Arc::new(catalogue);
        let fresh = Some((Instant::now(), Arc::clone(&catalogue)));
        *self
            .0
            .catalogue
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(catalogue)
    }

    /// A place among those who wait for a job.
    pub fn wait_permit(&self) -> Result<OwnedSemaphorePermit, Problem> {
        permit(
            &self.0.waiting,
            "too many requests wait for jobs; call without ?wait and read /job/{id}",
        )
    }

    /// A place among those who follow the event stream.
    pub fn stream_permit(&self) -> Result<OwnedSemaphorePermit, Problem> {
        permit(
            &self.0.streaming,
            "too many clients follow the event stream",
        )
    }
}

fn permit(semaphore: &Arc<Semaphore>, full: &str) -> Result<OwnedSemaphorePermit, Problem> {
    Arc::clone(semaphore)
        .try_acquire_owned()
        .map_err(|_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too-many-waiting", full))
}
