//! Ed25519 keys (RFC 8032) as files and as base64.

use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::Signer as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("reading the signing key {path}")]
    Read {
        /// Where it should be.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file does not hold 32 base64-encoded bytes.
    #[error(
        "the signing key {path} is not 32 base64-encoded bytes; it was made by `bailey init` and must not be edited"
    )]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

/// A service's private signing key. Zeroised on drop (ed25519-dalek); never printed.
#[derive(Clone)]
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// A new key from the operating system's randomness.
    pub fn generate() -> Self {
        Self(ed25519_dalek::SigningKey::generate(&mut rand::rngs::OsRng))
    }

    /// The key from a file that `bailey init` made: 32 bytes, base64, one line.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let text = std::fs::read_to_string(path).map_err(|source| KeyError::Read {
            path: path.to_owned(),
            source,
        })?;
        let text = Zeroizing::new(text);
        let malformed = || KeyError::Malformed {
            path: path.to_owned(),
        };
        let bytes = Zeroizing::new(STANDARD.decode(text.trim()).map_err(|_| malformed())?);
        let seed: &[u8; 32] = bytes.as_slice().try_into().map_err(|_| malformed())?;
        Ok(Self(ed25519_dalek::SigningKey::from_bytes(seed)))
    }

    /// What [`SigningKey::read`] reads.
    pub fn to_file_text(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.0.as_bytes()) + "\n")
    }

    /// The public half.
    pub fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey(self.0.verifying_key())
    }

    /// The key for crates that sign notes (C2SP signed-note).
    pub fn dalek(&self) -> &ed25519_dalek::SigningKey {
        &self.0
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "SigningKey(public {})",
            STANDARD.encode(self.0.verifying_key().as_bytes())
        )
    }
}

/// A public signing key; base64 in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyingKey(ed25519_dalek::VerifyingKey);

impl VerifyingKey {
    /// The key for crates that verify notes (C2SP signed-note).
    pub fn dalek(&self) -> &ed25519_dalek::VerifyingKey {
        &self.0
    }

    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        // `verify_strict` refuses small-order keys and non-canonical points (RFC 8032 section 8.4 leaves them open).
        ed25519_dalek::Signature::from_slice(signature)
            .is_ok_and(|signature| self.0.verify_strict(message, &signature).is_ok())
    }
}

impl Serialize for VerifyingKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(self.0.as_bytes()))
    }
}

impl<'de> Deserialize<'de> for VerifyingKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wrong = || serde::de::Error::custom("a public key must be 32 base64-encoded bytes");
        let bytes = STANDARD
            .decode(String::deserialize(deserializer)?)
            .map_err(|_| wrong())?;
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| wrong())?;
        ed25519_dalek::VerifyingKey::from_bytes(&bytes)
            .map(Self)
            .map_err(|_| wrong())
    }
}
