//! A service's place on the mesh.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use bailey_service::{Context, Settings};
use bailey_types::Service;
use rustls::server::ResolvesServerCert;
use tokio::sync::Notify;
use tonic::transport::Channel;

use crate::channel::{self, MeshChannel};
use crate::identity::Current;
use crate::verify::Root;
use crate::{Auditor, Authority, Identity, audit, presence, renewal, tls};

/// A service on the mesh: its identity, the ways to its peers. Cheap to clone.
#[derive(Clone)]
pub struct Mesh(Arc<Inner>);

struct Inner {
    identity: Arc<Current>,
    settings: Arc<Settings>,
    /// The channels of the current identity.
    channels: Mutex<BTreeMap<Service, Channel>>,
    auditor: Auditor,
    /// Told when the certificate must be renewed before its time.
    renewal: Notify,
    /// Told when it was.
    renewed: Notify,
}

impl Mesh {
    /// Enrols at the broker, however long that takes; then renews the certificate and beats presence for as long as the service lives.
    ///
    /// The only errors are a wrong configuration and [`bailey_service::Stopped`].
    pub async fn join(ctx: &Context) -> anyhow::Result<Self> {
        let enrolment = renewal::Enrolment::new(ctx)?;
        let identity = enrolment.first(ctx).await?;
        let mesh = Self::with_identity(ctx, identity);
        ctx.spawn("certificate", enrolment.renew(ctx.clone(), mesh.clone()));
        ctx.spawn("presence", presence::beat(ctx.clone(), mesh.clone()));
        Ok(mesh)
    }

    /// The broker's way in: it issues its own certificates. The caller keeps presence itself.
    pub fn with_authority(
        ctx: &Context,
        authority: Arc<Authority>,
        validity: Duration,
    ) -> anyhow::Result<Self> {
        // Before the first certificate: a rotation in between must not be missed.
        let intermediates = authority.intermediates();
        let first = authority
            .identity(ctx.service, validity, ctx.clock.now())
            .context("issuing our own certificate")?;
        let mesh = Self::with_identity(ctx, first);
        ctx.spawn(
            "certificate",
            renewal::renew_own(
                ctx.clone(),
                mesh.clone(),
                authority,
                intermediates,
                validity,
            ),
        );
        Ok(mesh)
    }

    /// A place with an identity that was made elsewhere and is not renewed.
    pub fn with_identity(ctx: &Context, identity: Identity) -> Self {
        let (auditor, queue) = Auditor::new();
        let mesh = Self(Arc::new(Inner {
            identity: Arc::new(Current::new(identity)),
            settings: Arc::clone(&ctx.settings),
            channels: Mutex::default(),
            auditor: auditor.clone(),
            renewal: Notify::new(),
            renewed: Notify::new(),
        }));
        ctx.spawn_last(
            "audit",
            audit::deliver(ctx.clone(), mesh.channel(Service::Audit), queue),
        );
        mesh
    }

    /// The way to `peer`, for generated clients.
    pub fn channel(&self, peer: Service) -> MeshChannel {
        MeshChannel::new(self.clone(), peer)
    }

    /// Appends to the audit log.
    pub fn auditor(&self) -> Auditor {
        self.0.auditor.clone().over(self.channel(Service::Audit))
    }

    /// Answers TLS handshakes with the certificate of the moment: for the gateway's own listener.
    pub fn certificate_resolver(&self) -> Arc<dyn ResolvesServerCert> {
        Arc::clone(&self.0.identity) as Arc<dyn ResolvesServerCert>
    }

    /// The identity of the moment.
    pub fn identity(&self) -> Arc<Identity> {
        self.0.identity.get()
    }

    /// Takes `identity` from now on. Calls that run end on their old connections.
    pub fn replace_identity(&self, identity: Identity) {
        let mut channels = self.channels();
        self.0.identity.replace(identity);
        channels.clear();
        self.0.renewed.notify_one();
    }

    /// Has the certificate renewed, unless that has happened since `used` was the identity of the moment.
    pub(crate) fn renew(&self, used: &Arc<Identity>) {
        if Arc::ptr_eq(used, &self.identity()) {
            self.0.renewal.notify_one();
        }
    }

    /// Waits until somebody wants the certificate renewed.
    pub(crate) async fn asked_to_renew(&self) {
        self.0.renewal.notified().await;
    }

    /// Waits until the identity is another one. For the one task that shows it to the broker.
    pub(crate) async fn renewed(&self) {
        self.0.renewed.notified().await;
    }

    pub(crate) fn root(&self) -> Arc<Root> {
        Arc::clone(&self.identity().root)
    }

    /// The channel to `peer` under the identity of the moment.
    pub(crate) fn connected(&self, peer: Service) -> Result<Channel, tonic::Status> {
        let mut channels = self.channels();
        if let Some(channel) = channels.get(&peer) {
            return Ok(channel.clone());
        }
        // Under the lock, so that a replaced identity never gets a channel.
        let config = tls::client(&self.identity(), peer).map_err(|e| {
            tracing::error!(error = %e, "configuring TLS failed");
            tonic::Status::internal("internal error")
        })?;
        let channel = channel::lazy(self.0.settings.peer(peer), config);
        channels.insert(peer, channel.clone());
        Ok(channel)
    }

    fn channels(&self) -> std::sync::MutexGuard<'_, BTreeMap<Service, Channel>> {
        self.0
            .channels
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
