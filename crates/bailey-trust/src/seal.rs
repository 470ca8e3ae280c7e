//! Sealing bytes to their readers, as age files (https://age-encryption.org/v1): X25519 recipients only.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::str::FromStr;

use age::secrecy::ExposeSecret as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

/// Why bytes cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The key file cannot be read.
    #[error("reading the key file {path}")]
    Read {
        /// Where it should be.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not an age X25519 key.
    #[error("{0}")]
    BadKey(String),
    /// The message is not for this key, or was changed.
    #[error("opening the sealed bytes: {0}")]
    Open(String),
    /// Encryption failed.
    #[error("sealing: {0}")]
    Seal(String),
    /// The plaintext is larger than the reader allows.
    #[error("the sealed bytes hold more than {0} bytes")]
    TooLarge(usize),
}

/// The public half: `age1…`. Ordered as its text is.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SealingRecipient(age::x25519::Recipient);

/// The private half: `AGE-SECRET-KEY-1…`, in a file of its own.
#[derive(Clone)]
pub struct SealingKey(age::x25519::Identity);

impl SealingKey {
    /// A new key from the operating system's randomness.
    pub fn generate() -> Self {
        Self(age::x25519::Identity::generate())
    }

    /// Reads an age identity file: comments and exactly one X25519 identity.
    pub fn read(path: &Path) -> Result<Self, SealError> {
        let text = std::fs::read_to_string(path).map_err(|source| SealError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&Zeroizing::new(text), &path.display().to_string())
    }

    /// Reads the text of an age identity file; `source` says in errors where it came from.
    pub fn parse(text: &str, source: &str) -> Result<Self, SealError> {
        let mut keys = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let bad = |why: &str| SealError::BadKey(format!("{source} {why}"));
        let key = keys
            .next()
            .ok_or_else(|| bad("is empty; an age identity (AGE-SECRET-KEY-1…) is needed"))?;
        if keys.next().is_some() {
            return Err(bad("holds more than one identity; one is needed"));
        }
        key.parse()
            .map(Self)
            .map_err(|_| bad("does not hold an age identity (AGE-SECRET-KEY-1…)"))
    }

    /// What [`SealingKey::read`] and the standard `age` tool read.
    pub fn to_file_text(&self) -> Zeroizing<String> {
        let key = self.0.to_string();
        // Large enough from the start: a string that grows leaves its old memory as it was.
        let mut text = Zeroizing::new(String::with_capacity(256));
        text.push_str("# public key: ");
        text.push_str(&self.0.to_public().to_string());
        text.push('\n');
        text.push_str(key.expose_secret());
        text.push('\n');
        text
    }

    /// The public half.
    pub fn recipient(&self) -> SealingRecipient {
        SealingRecipient(self.0.to_public())
    }

    /// A key for one other purpose, which `context` names (BLAKE3's key derivation): from it nobody learns this one.
    pub fn derive(&self, context: &'static str) -> Zeroizing<[u8; 32]> {
        let key = self.0.to_string();
        Zeroizing::new(blake3::derive_key(context, key.expose_secret().as_bytes()))
    }

    /// Opens what was sealed to this key; the plaintext may have at most `limit_bytes`.
    pub fn open(&self, sealed: &[u8], limit_bytes: usize) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let open = |e: String| SealError::Open(e);
        let decryptor = age::Decryptor::new_buffered(sealed).map_err(|e| open(e.to_string()))?;
        let identity: &dyn age::Identity = &self.0;
        let reader = decryptor
            .decrypt(std::iter::once(identity))
            .map_err(|e| open(e.to_string()))?;
        // One more than the limit, so that what is too long is found without growing.
        let room = sealed.len().min(limit_bytes.saturating_add(1));
        let mut plain = Zeroizing::new(Vec::with_capacity(room));
        let limit = u64::try_from(limit_bytes)
            .unwrap_or(u64::MAX)
            .saturating_add(1);
        reader
            .take(limit)
            .read_to_end(&mut plain)
            .map_err(|e| open(e.to_string()))?;
        if plain.len() > limit_bytes {
            return Err(SealError::TooLarge(limit_bytes));
        }
        Ok(plain)
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingKey(public {})", self.0.to_public())
    }
}

impl SealingRecipient {
    /// Seals `plain` so that only the holder of the key can read it.
    pub fn seal(&self, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        seal_to(std::slice::from_ref(self), plain)
    }
}

/// Seals `plain` to several readers, each of whom can open it alone.
pub fn seal_to(recipients: &[SealingRecipient], plain: &[u8]) -> Result<Vec<u8>, SealError> {
    let recipients = recipients.iter().map(|r| -> &dyn age::Recipient { &r.0 });
    let encryptor =
        age::Encryptor::with_recipients(recipients).map_err(|e| SealError::Seal(e.to_string()))?;
    let mut sealed = Vec::with_capacity(plain.len() + 512);
    let mut writer = encryptor
        .wrap_output(&mut sealed)
        .map_err(|e| SealError::Seal(e.to_string()))?;
    writer
        .write_all(plain)
        .map_err(|e| SealError::Seal(e.to_string()))?;
    writer
        .finish()
        .map_err(|e| SealError::Seal(e.to_string()))?;
    Ok(sealed)
}

impl Ord for SealingRecipient {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.to_string().cmp(&other.0.to_string())
    }
}

impl PartialOrd for SealingRecipient {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl FromStr for SealingRecipient {
    type Err = SealError;

    fn from_str(text: &str) -> Result<Self, SealError> {
        // Somebody who takes the wrong half must not find it in an error's text, and so in a log.
        if text.to_ascii_uppercase().contains("SECRET") {
            let why = "a private key was given where the public one (age1…) belongs".to_owned();
            return Err(SealError::BadKey(why));
        }
        text.parse()
            .map(Self)
            .map_err(|e| SealError::BadKey(format!("{text:?} is not an age recipient: {e}")))
    }
}

impl fmt::Display for SealingRecipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for SealingRecipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingRecipient({})", self.0)
    }
}

impl Serialize for SealingRecipient {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SealingRecipient {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_key_it_was_sealed_to_opens_it() {
        let (key, other) = (SealingKey::generate(), SealingKey::generate());
        let sealed = key.recipient().seal(b"hunter2").unwrap();
        assert_eq!(*key.open(&sealed, 100).unwrap(), b"hunter2");
        assert!(matches!(other.open(&sealed, 100), Err(SealError::Open(_))));
    }

    #[test]
    fn a_changed_byte_is_noticed() {
        let key = SealingKey::generate();
        let mut sealed = key.recipient().seal(b"hunter2").unwrap();
        *sealed.last_mut().unwrap() ^= 1;
        assert!(key.open(&sealed, 100).is_err());
    }

    #[test]
    fn the_plaintext_is_bounded() {
        let key = SealingKey::generate();
        let sealed = key.recipient().seal(&[7; 101]).unwrap();
        assert!(matches!(
            key.open(&sealed, 100),
            Err(SealError::TooLarge(100))
        ));
        assert_eq!(key.open(&sealed, 101).unwrap().len(), 101);
    }

    #[test]
    fn each_of_several_readers_opens_it_alone() {
        let (key, paper, other) = (
            SealingKey::generate(),
            SealingKey::generate(),
            SealingKey::generate(),
        );
        let sealed = seal_to(&[key.recipient(), paper.recipient()], b"hunter2").unwrap();
        assert_eq!(*key.open(&sealed, 100).unwrap(), b"hunter2");
        assert_eq!(*paper.open(&sealed, 100).unwrap(), b"hunter2");
        assert!(other.open(&sealed, 100).is_err());
    }

    #[test]
    fn a_derived_key_is_the_same_for_one_key_and_purpose_and_for_no_other() {
        let (key, other) = (SealingKey::generate(), SealingKey::generate());
        let again = SealingKey::parse(&key.to_file_text(), "the file").unwrap();
        assert_eq!(key.derive("test 1"), again.derive("test 1"));
        assert_ne!(key.derive("test 1"), key.derive("test 2"));
        assert_ne!(key.derive("test 1"), other.derive("test 1"));
    }

    #[test]
    fn a_private_key_in_the_wrong_place_is_not_quoted() {
        let text = SealingKey::generate().to_file_text();
        let secret = text.lines().last().unwrap();
        let refused = secret.parse::<SealingRecipient>().unwrap_err().to_string();
        assert!(!refused.contains(&secret[20..30]), "{refused}");
    }

    #[test]
    fn a_key_survives_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("age.key");
        let key = SealingKey::generate();
        std::fs::write(&path, key.to_file_text().as_bytes()).unwrap();
        let sealed = key.recipient().seal(b"x").unwrap();
        assert_eq!(
            *SealingKey::read(&path).unwrap().open(&sealed, 1).unwrap(),
            b"x"
        );
        std::fs::write(&path, "").unwrap();
        assert!(
            SealingKey::read(&path)
                .unwrap_err()
                .to_string()
                .contains("is empty")
        );
    }
}
