//! Getting a certificate, and a new one in time.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bailey_error::Chain;
use bailey_proto::broker::v1::certificate_service_client::CertificateServiceClient;
use bailey_proto::broker::v1::enrolment_service_client::EnrolmentServiceClient;
use bailey_proto::broker::v1::{EnrolRequest, RenewRequest};
use bailey_service::{Context, Misconfigured, Stopped};
use bailey_types::{Service, Timestamp};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::watch;
use tonic::transport::Channel;
use zeroize::Zeroizing;

use crate::authority::Signer;
use crate::verify::Root;
use crate::{Authority, Error, Identity, KeyRequest, Mesh, channel, tls};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_CALL: Duration = Duration::from_secs(10);

/// Timers stand still while the machine sleeps, certificates do not: look at the clock at least this often.
const LOOK: Duration = Duration::from_secs(30);

/// What a service needs to get a certificate.
pub(crate) struct Enrolment {
    root: Arc<Root>,
    secret: Zeroizing<Vec<u8>>,
    channel: Channel,
}

/// Why an attempt at a certificate failed.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("{}", .0.message())]
    Answer(tonic::Status),
    #[error(transparent)]
    Certificate(#[from] Error),
    #[error("the broker did not answer within {LONGEST_CALL:?}")]
    TooLong,
}

impl Enrolment {
    pub(crate) fn new(ctx: &Context) -> anyhow::Result<Self> {
        let root = Root::from_pem(&ctx.trust.root_ca_pem)
            .map_err(|e| Misconfigured(Chain(&e).to_string()))?;
        let secret = secret(ctx)?;
        let config = tls::stranger(&root).context("configuring TLS")?;
        Ok(Self {
            root,
            secret,
            channel: channel::lazy(ctx.settings.enrol.clone(), config),
        })
    }

    /// The first certificate: tries until there is one, or until the shutdown.
    pub(crate) async fn first(&self, ctx: &Context) -> anyhow::Result<Identity> {
        let mut pause = FIRST_PAUSE;
        loop {
            let failed = tokio::select! {
                enrolled = self.enrol(ctx) => match enrolled {
                    Ok(identity) => {
                        ctx.trouble("certificate", None);
                        return Ok(identity);
                    }
                    Err(failed) => failed,
                },
                () = ctx.shutdown.cancelled() => return Err(Stopped.into()),
            };
            tracing::debug!(error = %Chain(&failed), "no certificate yet");
            ctx.trouble(
                "certificate",
                Some(format!("no certificate yet: {}", Chain(&failed))),
            );
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
                () = ctx.shutdown.cancelled() => return Err(Stopped.into()),
            }
        }
    }

    /// Renews at half-life, or when the broker wants it, for ever. If that fails until the certificate has expired, enrols again.
    pub(crate) async fn renew(self, ctx: Context, mesh: Mesh) -> anyhow::Result<()> {
        let mut due = half_life(&mesh, ctx.clock.now());
        let mut pause = FIRST_PAUSE;
        loop {
            tokio::select! {
                goes_on = wait_until(&ctx, due) => if !goes_on {
                    return Ok(());
                },
                () = mesh.asked_to_renew() => {}
            }
            let expired = ctx.clock.now() >= mesh.identity().not_after();
            let renewed = if expired {
                self.enrol(&ctx).await
            } else {
                self.renew_once(&ctx, &mesh).await
            };
            match renewed {
                Ok(identity) => {
                    install(&ctx, &mesh, identity);
                    due = half_life(&mesh, ctx.clock.now());
                    pause = FIRST_PAUSE;
                }
                Err(failed) => {
                    let until = mesh.identity().not_after();
                    tracing::warn!(error = %Chain(&failed), "the certificate, valid until {until}, was not renewed: {}", Chain(&failed));
                    ctx.trouble(
                        "certificate",
                        Some(format!(
                            "the certificate was not renewed: {}",
                            Chain(&failed)
                        )),
                    );
                    due = ctx.clock.now().plus(pause);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    async fn enrol(&self, ctx: &Context) -> Result<Identity, Failed> {
        let request = KeyRequest::new()?;
        let message = EnrolRequest {
            service: ctx.service.name().to_owned(),
            secret: self.secret.to_vec().into(),
            csr: request.csr().to_vec().into(),
        };
        let mut client = EnrolmentServiceClient::new(self.channel.clone());
        let answer = tokio::time::timeout(LONGEST_CALL, client.enrol(message)).await;
        let chain = answer
            .map_err(|_| Failed::TooLong)?
            .map_err(answered)?
            .into_inner()
            .chain;
        self.certified(ctx, request, chain)
    }

    async fn renew_once(&self, ctx: &Context, mesh: &Mesh) -> Result<Identity, Failed> {
        let request = KeyRequest::new()?;
        let message = RenewRequest {
            csr: request.csr().to_vec().into(),
        };
        let mut client = CertificateServiceClient::new(mesh.channel(Service::Broker));
        let answer = tokio::time::timeout(LONGEST_CALL, client.renew(message)).await;
        let chain = answer
            .map_err(|_| Failed::TooLong)?
            .map_err(answered)?
            .into_inner()
            .chain;
        self.certified(ctx, request, chain)
    }

    fn certified(
        &self,
        ctx: &Context,
        request: KeyRequest,
        chain: Vec<impl Into<Vec<u8>>>,
    ) -> Result<Identity, Failed> {
        let chain = chain.into_iter().map(Into::into).collect();
        Ok(request.certified(chain, ctx.service, &self.root, ctx.clock.now())?)
    }
}

/// A transport error's own text is "transport error"; its sources tell what happened.
fn answered(status: tonic::Status) -> Failed {
    let Some(source) = std::error::Error::source(&status) else {
        return Failed::Answer(status);
    };
    let text = Chain(source).to_string();
    Failed::Answer(tonic::Status::new(status.code(), text))
}

/// The broker's own renewal: nobody has to be asked.
pub(crate) async fn renew_own(
    ctx: Context,
    mesh: Mesh,
    authority: Arc<Authority>,
    mut intermediates: watch::Receiver<Arc<Signer>>,
    validity: Duration,
) -> anyhow::Result<()> {
    let mut due = half_life(&mesh, ctx.clock.now());
    loop {
        tokio::select! {
            goes_on = wait_until(&ctx, due) => if !goes_on {
                return Ok(());
            },
            changed = intermediates.changed() => changed.context("watching the intermediate")?,
        }
        let identity = authority
            .identity(ctx.service, validity, ctx.clock.now())
            .context("issuing our own certificate")?;
        install(&ctx, &mesh, identity);
        due = half_life(&mesh, ctx.clock.now());
    }
}

fn install(ctx: &Context, mesh: &Mesh, identity: Identity) {
    tracing::info!(
        "the certificate was renewed, until {}",
        identity.not_after()
    );
    mesh.replace_identity(identity);
    ctx.trouble("certificate", None);
}

/// The middle of the time that the certificate still has.
fn half_life(mesh: &Mesh, now: Timestamp) -> Timestamp {
    now.plus(mesh.identity().not_after().since(now) / 2)
}

/// Waits until `due`; `false` at the shutdown.
async fn wait_until(ctx: &Context, due: Timestamp) -> bool {
    loop {
        let left = due.since(ctx.clock.now());
        if left.is_zero() {
            return !ctx.shutdown.is_cancelled();
        }
        tokio::select! {
            () = tokio::time::sleep(left.min(LOOK)) => {}
            () = ctx.shutdown.cancelled() => return false,
        }
    }
}

fn secret(ctx: &Context) -> Result<Zeroizing<Vec<u8>>, Misconfigured> {
    let path = ctx.settings.secret_path(&format!("enroll-{}", ctx.service));
    let text = std::fs::read_to_string(&path).map(Zeroizing::new);
    let text = text.map_err(|e| {
        Misconfigured(format!(
            "reading the enrolment secret {}: {e}",
            path.display()
        ))
    })?;
    let secret = STANDARD
        .decode(text.trim())
        .map(Zeroizing::new)
        .ok()
        .filter(|secret| secret.len() == 32);
    let secret = secret.ok_or_else(|| {
        Misconfigured(format!(
            "{} does not hold 32 base64-encoded bytes",
            path.display()
        ))
    })?;
    if !ctx.trust.enrolment_secret_matches(ctx.service, &secret) {
        let service = ctx.service;
        return Err(Misconfigured(format!(
            "{} is not the enrolment secret that trust.json has for {service}",
            path.display()
        )));
    }
    Ok(secret)
}
