//! What the handlers share.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bailey_mesh::{Mesh, MeshChannel};
use bailey_plugin::Catalogue;
use bailey_proto::broker::v1::presence_service_client::PresenceServiceClient;
use bailey_proto::broker::v1::token_service_client::TokenServiceClient;
use bailey_proto::engine::v1 as engine;
use bailey_proto::engine::v1::intake_service_client::IntakeServiceClient;
use bailey_proto::engine::v1::plugin_service_client::PluginServiceClient;
use bailey_proto::engine::v1::query_service_client::QueryServiceClient;
use bailey_proto::engine::v1::upstream_service_client::UpstreamServiceClient;
use bailey_trust::LockSource;
use bailey_types::{Clock, Serial, Service, Timestamp};
use http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::posture::Posture;
use crate::problem::Problem;
use crate::view::View;

/// How long a catalogue is shown before it is asked for again: it also says how services are.
const CATALOGUE_AGE: Duration = Duration::from_secs(1);

/// How long its names are used under one lock, which is what they come from; the engine may have seen that lock a moment later.
const NAMES_AGE: Duration = Duration::from_secs(30);

/// Largest body that waits for nobody, bytes.
const SMALL_BODY_BYTES: usize = 16 << 10;

/// Largest message from the engine, bytes: a job's result is bounded by the plugin protocol's 10 MiB.
const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// Shared by all handlers; cheap to clone.
#[derive(Clone)]
pub struct State(Arc<Inner>);

struct Inner {
    mesh: Mesh,
    lock: LockSource<Arc<View>>,
    limits: Limits,
    clock: Clock,
    started_at: Timestamp,
    catalogue: Mutex<Option<Kept>>,
    waiting: Arc<AtomicU32>,
    /// In KiB.
    bodies: Arc<Semaphore>,
    streaming: Arc<Semaphore>,
    metrics: Metrics,
    posture: Posture,
    shutdown: CancellationToken,
}

/// A catalogue that was asked for.
#[derive(Clone)]
struct Kept {
    at: Instant,
    /// Of the lock that the gateway saw then.
    serial: Option<Serial>,
    catalogue: Arc<Catalogue>,
}

impl State {
    /// The state of one gateway.
    pub fn new(
        mesh: Mesh,
        lock: LockSource<Arc<View>>,
        limits: Limits,
        clock: Clock,
        shutdown: CancellationToken,
    ) -> Self {
        let started_at = clock.now();
        Self(Arc::new(Inner {
            mesh,
            lock,
            waiting: Arc::default(),
            bodies: Arc::new(Semaphore::new(limits.all_bodies_bytes >> 10)),
            streaming: Arc::new(Semaphore::new(limits.concurrent_streams)),
            limits,
            clock,
            started_at,
            catalogue: Mutex::new(None),
            metrics: Metrics::default(),
            posture: Posture::default(),
            shutdown,
        }))
    }

    /// The engine's intake.
    pub fn intake(&self) -> IntakeServiceClient<MeshChannel> {
        // What was waited for comes with the answer.
        IntakeServiceClient::new(self.0.mesh.channel(Service::Engine))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// The engine's queries.
    pub fn query(&self) -> QueryServiceClient<MeshChannel> {
        QueryServiceClient::new(self.0.mesh.channel(Service::Engine))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// What an operator does to plugins, at the engine.
    pub fn plugins(&self) -> PluginServiceClient<MeshChannel> {
        PluginServiceClient::new(self.0.mesh.channel(Service::Engine))
    }

    /// What the engine knows of upstreams.
    pub fn upstreams(&self) -> UpstreamServiceClient<MeshChannel> {
        UpstreamServiceClient::new(self.0.mesh.channel(Service::Engine))
    }

    /// The broker's tokens.
    pub fn tokens(&self) -> TokenServiceClient<MeshChannel> {
        TokenServiceClient::new(self.0.mesh.channel(Service::Broker))
    }

    /// The broker's roll of services.
    pub fn presence(&self) -> PresenceServiceClient<MeshChannel> {
        PresenceServiceClient::new(self.0.mesh.channel(Service::Broker))
    }

    /// Whether anybody may ask for anything.
    pub fn posture(&self) -> &Posture {
        &self.0.posture
    }

    /// The limits that no configuration moves.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// The locked configuration now. A request looks once, and goes by that to its end.
    pub fn view(&self) -> Arc<View> {
        let current = self.0.lock.current();
        current
            .map(|loaded| Arc::clone(&loaded.view))
            .unwrap_or_default()
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

    /// The plugins that are locked, at most a second old, and of no earlier lock.
    pub async fn catalogue(&self) -> Result<Arc<Catalogue>, Problem> {
        let serial = self.serial();
        match self.kept_catalogue() {
            Some(kept) if kept.at.elapsed() < CATALOGUE_AGE && kept.serial == serial => {
                Ok(kept.catalogue)
            }
            Some(_) | None => self.ask_catalogue().await,
        }
    }

    /// The plugins that are locked, for their names and commands: a call does not wait for the engine to list them again. Policy decides by
    /// its own lock, whatever is found here.
    pub async fn names(&self) -> Result<Arc<Catalogue>, Problem> {
        let serial = self.serial();
        match self.kept_catalogue() {
            Some(kept) if kept.at.elapsed() < NAMES_AGE && kept.serial == serial => {
                Ok(kept.catalogue)
            }
            Some(_) | None => self.ask_catalogue().await,
        }
    }

    async fn ask_catalogue(&self) -> Result<Arc<Catalogue>, Problem> {
        // Before the engine is asked: what it answers is of this lock or of a newer one, or soon will be.
        let serial = self.serial();
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
        let kept = Kept {
            at: Instant::now(),
            serial,
            catalogue: Arc::clone(&catalogue),
        };
        *self.catalogue_place() = Some(kept);
        Ok(catalogue)
    }

    fn kept_catalogue(&self) -> Option<Kept> {
        self.catalogue_place().clone()
    }

    fn catalogue_place(&self) -> MutexGuard<'_, Option<Kept>> {
        let place = self.0.catalogue.lock();
        place.unwrap_or_else(PoisonError::into_inner)
    }

    fn serial(&self) -> Option<Serial> {
        let current = self.0.lock.current();
        current.ok().map(|loaded| loaded.lock.serial)
    }

    /// A place among those who wait for a job: at most `limit` (`api.max_concurrent_sync`) at a time.
    pub fn wait_permit(&self, limit: u32) -> Result<WaitPermit, Problem> {
        let taken = self.0.waiting.fetch_add(1, Ordering::SeqCst);
        // Made before the check, so that what was counted is counted out again.
        let permit = WaitPermit(Arc::clone(&self.0.waiting));
        if taken < limit {
            return Ok(permit);
        }
        let detail = format!(
            "{limit} requests wait for jobs already (api.max_concurrent_sync); call without ?wait and read /job/{{id}}"
        );
        Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too-many-waiting",
            detail,
        ))
    }

    /// Room for a body of at most `bytes` among all that are in memory; waits for it as long as a body may take. A small body needs none.
    pub async fn body_room(&self, bytes: usize) -> Result<Option<OwnedSemaphorePermit>, Problem> {
        if bytes <= SMALL_BODY_BYTES {
            return Ok(None);
        }
        let all = self.0.limits.all_bodies_bytes >> 10;
        let kib = u32::try_from(bytes.div_ceil(1024).min(all)).unwrap_or(u32::MAX);
        let acquire = Arc::clone(&self.0.bodies).acquire_many_owned(kib);
        let acquired = tokio::time::timeout(self.0.limits.body_timeout, acquire).await;
        acquired.ok().and_then(Result::ok).map(Some).ok_or_else(|| {
            let detail = "too many large requests at once; try again";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too-much", detail)
        })
    }

    /// A place among those who follow the event stream.
    pub fn stream_permit(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let full = |_| {
            Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "too-many-streams",
                "too many clients follow the event stream",
            )
        };
        Arc::clone(&self.0.streaming)
            .try_acquire_owned()
            .map_err(full)
    }
}

/// One of those who wait, until it is dropped.
pub struct WaitPermit(Arc<AtomicU32>);

impl Drop for WaitPermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
