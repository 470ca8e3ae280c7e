//! Where the intermediate is kept: as `init` made it, until the first rotation; from then on in a file of the broker's own.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bailey_mesh::{Authority, CaCertificate, Successor};
use bailey_service::Settings;
use bailey_trust::{SealError, SealingKey, TrustFile};
use bailey_types::{Service, Sha256, Timestamp};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::Error;
use crate::age_key::{self, INTERMEDIATE, ROOT_KEY, SEALED_LIMIT_BYTES};
use crate::durable::{self, Like};
use crate::vault::WipingBuffer;

/// Most intermediates that may still be in use beside the current one: that many certificates fit into what is read again.
pub(super) const RETIRED_LIMIT: usize = 32;

/// What the file holds.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    /// The root that it is under, by the hash of its certificate.
    root: Sha256,
    /// PEM.
    certificate: String,
    /// PEM.
    #[serde(with = "wiped")]
    key: Zeroizing<String>,
    /// Youngest first.
    retired: Vec<Former>,
}

/// Text that is wiped when it is dropped.
mod wiped {
    use serde::{Deserialize as _, Deserializer, Serializer};
    use zeroize::Zeroizing;

    pub(super) fn serialize<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Zeroizing<String>, D::Error> {
        String::deserialize(deserializer).map(Zeroizing::new)
    }
}

/// An intermediate that is no longer used.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Former {
    /// PEM.
    certificate: String,
    retired_at: Timestamp,
    last_certificate: Timestamp,
}

/// An intermediate that is no longer issued from, but may still be in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retired {
    /// It.
    pub certificate: CaCertificate,
    /// When another took its place.
    pub since: Timestamp,
    /// When the last certificate of it ends.
    pub last_certificate: Timestamp,
}

/// An intermediate that was just made.
pub struct Made {
    successor: Successor,
    certificate: String,
    key: Zeroizing<String>,
}

impl Made {
    /// What it says of itself.
    pub fn certificate(&self) -> CaCertificate {
        self.successor.certificate()
    }
}

/// Keeps the intermediate.
pub struct Keeper {
    data_dir: PathBuf,
    age_key: PathBuf,
    root_key: PathBuf,
    trust: Arc<TrustFile>,
    authority: Arc<Authority>,
    in_use: Mutex<InUse>,
}

/// What is written again with the next intermediate.
struct InUse {
    certificate: String,
    retired: Vec<Former>,
}

impl Keeper {
    /// Opens the intermediate: the broker's own, or, where there is none of this root, that of `init`.
    pub fn open(settings: &Settings, trust: &Arc<TrustFile>) -> Result<Self, Error> {
        let age_key = settings.secret_path("age.key");
        let key = age_key::read(&age_key, &trust.vault).map_err(Error::Sealed)?;
        let path = settings.data_dir.join(INTERMEDIATE);
        durable::clear(&path).map_err(Error::Write)?;
        let (authority, in_use) = match document(&path, trust, &key)? {
            Some(document) => {
                let authority = Authority::open(trust, &document.certificate, &document.key)
                    .map_err(Error::Certificate)?;
                let in_use = InUse {
                    certificate: document.certificate,
                    retired: document.retired,
                };
                (authority, in_use)
            }
            None => of_init(settings, trust, &key)?,
        };
        Ok(Self {
            data_dir: settings.data_dir.clone(),
            root_key: settings.secret_path(ROOT_KEY),
            age_key,
            trust: Arc::clone(trust),
            authority: Arc::new(authority),
            in_use: Mutex::new(in_use),
        })
    }

    /// Tries the intermediate: refused if peers would refuse what is issued from it. age does not say who sealed a file, but an intermediate
    /// that somebody put in place is not under the root.
    pub fn tried(self, now: Timestamp) -> Result<Self, Error> {
        let tried = self
            .authority
            .identity(Service::Broker, Authority::VALIDITY, now);
        tried.map(|_| self).map_err(Error::Certificate)
    }

    /// What is issued from.
    pub fn authority(&self) -> Arc<Authority> {
        Arc::clone(&self.authority)
    }

    /// Those from which certificates may still be in use at `now`, youngest first.
    pub fn retired(&self, now: Timestamp) -> Vec<Retired> {
        let in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        let former = in_use
            .retired
            .iter()
            .filter(|former| former.last_certificate > now);
        former
            .filter_map(|former| {
                Some(Retired {
                    certificate: CaCertificate::from_pem(&former.certificate).ok()?,
                    since: former.retired_at,
                    last_certificate: former.last_certificate,
                })
            })
            .collect()
    }

    /// Makes an intermediate and opens it. The root's key is in memory for as long as this takes.
    pub fn make(&self, now: Timestamp) -> Result<Made, Error> {
        self.room(now)?;
        let key = age_key::read(&self.age_key, &self.trust.vault).map_err(Error::Sealed)?;
        let root_key = open(&self.root_key, &key, ROOT_KEY, |e| Error::Open(ROOT_KEY, e))?;
        let root = self.authority.root();
        let validity = bailey_roots::INTERMEDIATE_VALIDITY.min(root.not_after.since(now));
        let (stack, pem) = (&self.trust.stack, &self.trust.root_ca_pem);
        let made = bailey_roots::intermediate(stack, pem, &root_key, validity, now)
            .map_err(Error::Make)?;
        let successor = self.authority.successor(&made.certificate, &made.key, now);
        Ok(Made {
            successor: successor.map_err(Error::Certificate)?,
            certificate: made.certificate,
            key: made.key,
        })
    }

    /// Whether there is room for one more that is no longer used.
    fn room(&self, now: Timestamp) -> Result<(), Error> {
        let retired = self.retired(now);
        let ends = retired.iter().map(|former| former.last_certificate).min();
        match ends.filter(|_| retired.len() >= RETIRED_LIMIT) {
            Some(ends) => Err(Error::TooOften(ends)),
            None => Ok(()),
        }
    }

    /// Keeps `made`, then issues from it. After an error the intermediate is the old one.
    pub fn install(
        &self,
        made: Made,
        now: Timestamp,
        last_certificate: Timestamp,
    ) -> Result<(), Error> {
        let mut in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        let former = Former {
            certificate: in_use.certificate.clone(),
            retired_at: now,
            last_certificate,
        };
        // What has no certificate left is forgotten: the audit log remembers it.
        let still = in_use
            .retired
            .iter()
            .filter(|former| former.last_certificate > now);
        let retired: Vec<_> = std::iter::once(former).chain(still.cloned()).collect();
        let document = Document {
            version: 1,
            root: self.authority.root().sha256,
            certificate: made.certificate,
            key: made.key,
            retired,
        };
        let mut plain = WipingBuffer::new();
        serde_json::to_writer(&mut plain, &document).map_err(Error::Encode)?;
        let sealed = self
            .trust
            .vault
            .seal(plain.as_slice())
            .map_err(Error::Seal)?;
        let like = Like {
            mode: 0o600,
            owner_of: &self.data_dir,
        };
        durable::replace(&self.data_dir.join(INTERMEDIATE), &sealed, like).map_err(Error::Write)?;
        *in_use = InUse {
            certificate: document.certificate,
            retired: document.retired,
        };
        self.authority.replace(made.successor);
        Ok(())
    }
}

/// The broker's own file; `None` if there is none, or one of another root.
fn document(path: &Path, trust: &TrustFile, key: &SealingKey) -> Result<Option<Document>, Error> {
    if !path.try_exists().map_err(read(path))? {
        return Ok(None);
    }
    let plain = open(path, key, INTERMEDIATE, |e| {
        Error::OpenOwn(path.to_owned(), e)
    })?;
    let document: Document =
        serde_json::from_str(&plain).map_err(|_| Error::Malformed(INTERMEDIATE))?;
    if document.version != 1 {
        return Err(Error::Malformed(INTERMEDIATE));
    }
    let root = CaCertificate::from_pem(&trust.root_ca_pem).map_err(Error::Certificate)?;
    if document.root != root.sha256 {
        tracing::info!(
            "{INTERMEDIATE} is of another root: using the intermediate that was made with this one"
        );
        return Ok(None);
    }
    Ok(Some(document))
}

fn of_init(
    settings: &Settings,
    trust: &TrustFile,
    key: &SealingKey,
) -> Result<(Authority, InUse), Error> {
    let authority =
        Authority::read(trust, &settings.secrets_dir, key).map_err(Error::Certificate)?;
    let path = settings.secrets_dir.join("intermediate.pem");
    let certificate = std::fs::read_to_string(&path).map_err(read(&path))?;
    let in_use = InUse {
        certificate,
        retired: Vec::new(),
    };
    Ok((authority, in_use))
}

/// Reads and opens a sealed text. What it holds is wiped when it is dropped.
fn open(
    path: &Path,
    key: &SealingKey,
    name: &'static str,
    refused: impl FnOnce(SealError) -> Error,
) -> Result<Zeroizing<String>, Error> {
    let sealed = std::fs::read(path).map_err(read(path))?;
    let plain = key.open(&sealed, SEALED_LIMIT_BYTES).map_err(refused)?;
    let text = std::str::from_utf8(&plain).map_err(|_| Error::Malformed(name))?;
    Ok(Zeroizing::new(text.to_owned()))
}

fn read(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Read { path, source }
}
