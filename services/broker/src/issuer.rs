//! Who issues certificates: the intermediate in use, those before it, and what each service shows.
//!
//! A rotation fails no call: peers are verified against the root, so certificates of the old intermediate are good until they end, and each
//! service is told with its next beat to fetch one from the new.

mod keeper;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bailey_error::{Chain, Classify, Kind};
use bailey_mesh::{CaCertificate, Mesh, Peer};
use bailey_service::Context;
use bailey_trust::SealError;
use bailey_types::{Service, Timestamp};
use serde_json::json;

pub use self::keeper::{Keeper, Retired};

use crate::durable::Failed;
use crate::record::{NotRecorded, Record};
use crate::state::State;

const DAY: Duration = Duration::from_hours(24);

/// An intermediate that ends within this time is replaced, unless the root itself ends with it.
const EARLY: Duration = DAY.saturating_mul(90);

/// How long before its end the root is spoken of: it is not replaced without the operator.
const ROOT_WARNING: Duration = DAY.saturating_mul(365);

/// From here on the stack is degraded by a root that ends.
const ROOT_TROUBLE: Duration = DAY.saturating_mul(30);

/// Longest that a service may take to renew after a rotation: a few beats.
const RENEWED_WITHIN: Duration = Duration::from_mins(1);

/// How long a rotation that was recorded and then failed is left alone.
const RECORDED: Duration = Duration::from_hours(1);

/// Longest that it may take to keep a new intermediate: so long the old one is still issued from.
const KEPT_WITHIN: Duration = Duration::from_mins(1);

/// How often it is looked whether the intermediate must be replaced.
const LOOK: Duration = Duration::from_secs(10);

/// Why there is no new intermediate. The one in use stays in use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The age key cannot be read.
    #[error("{0}")]
    Sealed(String),
    /// A file cannot be read.
    #[error("reading {path}")]
    Read {
        /// The file.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is sealed to another key, or was changed.
    #[error("opening {0}")]
    Open(&'static str, #[source] SealError),
    /// The broker's own file is sealed to another key.
    #[error(
        "opening {0}: if the key that it was sealed to is lost and the roots of trust are new, remove that file (docs/how-to/recovery.md)"
    )]
    OpenOwn(std::path::PathBuf, #[source] SealError),
    /// A file does not hold what it should.
    #[error("{0} is malformed")]
    Malformed(&'static str),
    /// The intermediate could not be made.
    #[error("making an intermediate")]
    Make(#[source] bailey_roots::Error),
    /// The intermediate cannot be used.
    #[error("using the intermediate")]
    Certificate(#[source] bailey_mesh::Error),
    /// Too many intermediates are in use beside the current one.
    #[error(
        "{} intermediates were retired and may still be in use: the next one can be made on {}, when the last certificate of one of them has ended",
        keeper::RETIRED_LIMIT,
        .0.to_rfc3339()
    )]
    TooOften(Timestamp),
    /// Without a record it must not happen.
    #[error("{0}; nothing was changed: try again")]
    NotRecorded(#[from] NotRecorded),
    /// Encryption failed.
    #[error("sealing the intermediate")]
    Seal(#[source] SealError),
    /// It cannot be written as JSON.
    #[error("writing the intermediate as JSON")]
    Encode(#[source] serde_json::Error),
    /// It could not be made durable.
    #[error("keeping the intermediate: {}", Chain(.0))]
    Write(#[source] Failed),
}

impl Error {
    /// How long to wait before it is tried again unasked. Each try that got as far as its record leaves one.
    fn pause(&self) -> Duration {
        match self {
            Self::Write(_) | Self::Seal(_) | Self::Encode(_) => RECORDED,
            Self::Sealed(_)
            | Self::Read { .. }
            | Self::Open(..)
            | Self::OpenOwn(..)
            | Self::Malformed(_)
            | Self::Make(_)
            | Self::Certificate(_)
            | Self::TooOften(_)
            | Self::NotRecorded(_) => Duration::ZERO,
        }
    }
}

impl Classify for Error {
    fn kind(&self) -> Kind {
        match self {
            // The operator stands at the socket: what is wrong with the files is for him.
            Self::Sealed(_)
            | Self::Read { .. }
            | Self::Open(..)
            | Self::OpenOwn(..)
            | Self::Write(_) => Kind::Unavailable,
            Self::TooOften(_) => Kind::ResourceExhausted,
            Self::NotRecorded(error) => error.kind(),
            Self::Malformed(_)
            | Self::Make(_)
            | Self::Certificate(_)
            | Self::Seal(_)
            | Self::Encode(_) => Kind::Internal,
        }
    }
}

/// Why there is a new intermediate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// `bailey pki rotate`.
    Asked,
    /// The old one ends soon.
    EndsSoon,
}

impl Reason {
    fn name(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::EndsSoon => "ends_soon",
        }
    }
}

/// What a rotation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotated {
    /// The intermediate in use now.
    pub current: CaCertificate,
    /// The one before it.
    pub replaced: CaCertificate,
    /// When the last certificate of that one ends.
    pub last_certificate: Timestamp,
}

/// The issuer of the stack's certificates.
pub struct Issuer {
    keeper: Keeper,
    mesh: Mesh,
    lifetime: Duration,
    /// One rotation at a time.
    rotating: tokio::sync::Mutex<()>,
    /// What each service last showed, since this broker started.
    shown: Mutex<BTreeMap<Service, Peer>>,
}

impl Issuer {
    /// Issues what `keeper` holds; `mesh` is the broker's own place.
    pub fn new(keeper: Keeper, mesh: Mesh, lifetime: Duration) -> Self {
        Self {
            keeper,
            mesh,
            lifetime,
            rotating: tokio::sync::Mutex::default(),
            shown: Mutex::default(),
        }
    }

    /// Notes what a service shows. Whether it should renew, because that is from an intermediate which is no longer used.
    pub fn seen(&self, peer: Peer) -> bool {
        self.shown().insert(peer.service, peer);
        !self.is_current(peer)
    }

    /// Makes a new intermediate under the same root, keeps it, and issues from it.
    pub async fn rotate(&self, state: &State, reason: Reason) -> Result<Rotated, Error> {
        let _alone = self.rotating.lock().await;
        let made = self.keeper.make(state.clock.now())?;
        let (current, replaced) = (made.certificate(), self.current());
        let fields = json!({
            "serial": current.serial.to_string(),
            "replaced": replaced.serial.to_string(),
            "not_after": current.not_after.to_rfc3339(),
            "reason": reason.name(),
        });
        let rotation = Record::new("pki.rotated", fields);
        let attempt = state.records.about_to_rotate(rotation).await?;
        // The old one is issued from until the new one is kept.
        let now = state.clock.now();
        let rotated = Rotated {
            current,
            replaced,
            last_certificate: last_certificate(&replaced, self.lifetime, now),
        };
        match self.keeper.install(made, now, rotated.last_certificate) {
            Ok(()) => attempt.done(),
            Err(error @ Error::Write(Failed { replaced: true, .. })) => {
                // It is issued from by the next broker, if the disk keeps it.
                attempt.maybe_done();
                return Err(error);
            }
            // Dropped, it counts as not done.
            Err(error) => return Err(error),
        }
        tracing::info!(
            "issuing from the intermediate {} now, until {}",
            rotated.current.serial,
            rotated.current.not_after
        );
        Ok(rotated)
    }

    /// The intermediate in use.
    pub fn current(&self) -> CaCertificate {
        self.keeper.authority().intermediate()
    }

    /// The root.
    pub fn root(&self) -> CaCertificate {
        self.keeper.authority().root()
    }

    /// Those from which certificates may still be in use at `now`, youngest first.
    pub fn retired(&self, now: Timestamp) -> Vec<Retired> {
        self.keeper.retired(now)
    }

    /// Every service with the certificate that it shows; `None`: it was not heard of since this broker started.
    pub fn services(&self) -> Vec<(Service, Option<Peer>)> {
        let mut shown = self.shown().clone();
        shown.insert(Service::Broker, self.mesh.identity().peer());
        let one = |service: &Service| (*service, shown.get(service).copied());
        Service::ALL.iter().map(one).collect()
    }

    /// Whether a certificate is from the intermediate in use.
    pub fn is_current(&self, peer: Peer) -> bool {
        peer.issuer == Some(self.current().key)
    }

    /// Whether the intermediate should be replaced now.
    pub fn is_due(&self, now: Timestamp) -> bool {
        is_due(&self.root(), &self.current(), now)
    }

    /// What ends soon, or is not as it should be after a rotation: one sentence each.
    pub fn warnings(&self, now: Timestamp) -> Vec<String> {
        let mut warnings = Vec::new();
        let (root, current) = (self.root(), self.current());
        if root.not_after.since(now) <= ROOT_WARNING {
            warnings.push(ends(&root, now));
        }
        if self.is_due(now) {
            warnings.push(format!(
                "the intermediate {} ends on {} and was not replaced yet: `bailey pki rotate` says why",
                current.serial,
                day(current.not_after)
            ));
        }
        let rotated = self.retired(now).first().map(|last| last.since);
        let late = rotated.is_some_and(|rotated| now.since(rotated) > RENEWED_WITHIN);
        for (service, peer) in self.services() {
            let Some(peer) = peer else { continue };
            if peer.not_after <= now {
                let end = day(peer.not_after);
                warnings.push(format!(
                    "the certificate that {service} last showed ended on {end}"
                ));
            } else if late && !self.is_current(peer) {
                warnings.push(format!(
                    "{service} has not renewed its certificate since the rotation"
                ));
            }
        }
        warnings
    }

    fn shown(&self) -> MutexGuard<'_, BTreeMap<Service, Peer>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Replaces the intermediate in time, and says when the root ends.
pub async fn watch(ctx: Context, state: std::sync::Arc<State>) -> anyhow::Result<()> {
    // Why the last try failed, and when the next one may be.
    let mut failed: Option<(String, Timestamp)> = None;
    while let Some(issuer) = state.issuer.get() {
        let now = state.clock.now();
        if !issuer.is_due(now) {
            failed = None;
        } else if failed.as_ref().is_none_or(|(_, next)| *next <= now) {
            let rotated = issuer.rotate(&state, Reason::EndsSoon).await;
            failed = rotated.err().map(|error| {
                let (end, why) = (day(issuer.current().not_after), Chain(&error));
                let why = format!("the intermediate ends on {end} and cannot be replaced: {why}");
                (why, now.plus(error.pause()))
            });
        }
        let mut trouble = failed.as_ref().map(|(why, _)| why.clone());
        let root = issuer.root();
        if root.not_after.since(now) <= ROOT_TROUBLE {
            trouble = Some(ends(&root, now));
        }
        ctx.trouble("issuer", trouble);
        tokio::select! {
            () = ctx.shutdown.cancelled() => break,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
    Ok(())
}

/// When the last certificate of an intermediate ends that is being replaced `now`.
fn last_certificate(replaced: &CaCertificate, lifetime: Duration, now: Timestamp) -> Timestamp {
    now.plus(KEPT_WITHIN).plus(lifetime).min(replaced.not_after)
}

/// A new intermediate helps only if it lasts longer than the one in use: none outlives the root.
fn is_due(root: &CaCertificate, current: &CaCertificate, now: Timestamp) -> bool {
    current.not_after.since(now) <= EARLY && root.not_after.since(current.not_after) > DAY
}

fn ends(root: &CaCertificate, now: Timestamp) -> String {
    let ends = if root.not_after <= now {
        "ended"
    } else {
        "ends"
    };
    let end = day(root.not_after);
    format!("the root CA {ends} on {end}: make a new one (docs/how-to/certificates.md)")
}

fn day(at: Timestamp) -> String {
    at.to_utc().format("%Y-%m-%d").to_string()
}
