//! `config/trust.json`: every public key of the stack. Made once by `bailey init`, read by every service, written by none.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bailey_types::{Blake3, Service, StackId};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

use crate::keys::VerifyingKey;
use crate::seal::SealingRecipient;
use crate::strict_json;

/// Why `trust.json` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustFileError {
    /// It cannot be read.
    #[error("reading {path}; `bailey init` makes it")]
    Read {
        /// Where it should be.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is not what `bailey init` wrote.
    #[error("{path}: {reason}; it was made by `bailey init` and must not be edited")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the line.
        reason: String,
    },
}

/// The public roots of trust.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustFile {
    /// Always 1.
    pub version: u32,
    /// Which stack this is.
    pub stack: StackId,
    /// Certificate of the root CA, PEM.
    pub root_ca_pem: String,
    /// Keys that statements are checked against.
    pub signing: SigningKeys,
    /// Launch tickets are sealed to this key of socket-proxy.
    pub socket_proxy: SealingRecipient,
    /// The vault is encrypted to this key (the public half of `age.key`).
    pub vault: SealingRecipient,
    /// BLAKE3 of each service's enrolment secret.
    pub enrolment: BTreeMap<Service, Blake3>,
}

/// Public keys of the services that sign.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SigningKeys {
    /// Origins of API tokens, tickets, locks, co-signatures.
    pub broker: VerifyingKey,
    /// Decisions, co-signatures.
    pub policy: VerifyingKey,
    /// Checkpoints.
    pub audit: VerifyingKey,
    /// Origins of schedules.
    pub scheduler: VerifyingKey,
}

impl TrustFile {
    /// Reads and checks the file.
    pub fn read(path: &Path) -> Result<Self, TrustFileError> {
        let bytes = std::fs::read(path).map_err(|source| TrustFileError::Read {
            path: path.to_owned(),
            source,
        })?;
        let malformed = |reason: String| TrustFileError::Malformed {
            path: path.to_owned(),
            reason,
        };
        strict_json::check(&bytes).map_err(|e| malformed(e.to_string()))?;
        let file: Self = serde_json::from_slice(&bytes).map_err(|e| malformed(e.to_string()))?;
        if file.version != 1 {
            return Err(malformed(format!("version {} is not 1", file.version)));
        }
        Ok(file)
    }

    /// Whether `secret` is the enrolment secret of `service`. Takes the same time for every wrong secret.
    pub fn enrolment_secret_matches(&self, service: Service, secret: &[u8]) -> bool {
        let given = blake3::hash(secret);
        let kept = self.enrolment.get(&service).map_or([0; 32], |hash| hash.0);
        let equal: bool = given.as_bytes().ct_eq(&kept).into();
        equal && self.enrolment.contains_key(&service)
    }
}
