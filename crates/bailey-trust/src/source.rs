//! The lock as a service reads it: from its own read-only mount, whenever it needs it, never from a peer.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use bailey_proto::trust::v1::Signed;
use bailey_types::{Serial, StackId};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::keys::VerifyingKey;
use crate::lock::Lock;
use crate::statement::{Statement as _, verify};
use crate::strict_json;

/// Why there is no usable lock.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LockSourceError {
    /// Nothing was locked yet.
    #[error("nothing is locked yet: run `bailey plugin lock --all`")]
    Missing,
    /// The file cannot be read.
    #[error("reading {path}: {reason}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// Not made by the broker, or changed since.
    #[error("{path} is refused: {reason}")]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A lock that was replaced has come back.
    #[error("{path} is refused: its serial {found} is older than {seen}, which was seen before")]
    Older {
        /// The file.
        path: PathBuf,
        /// Its serial.
        found: Serial,
        /// The newest serial seen.
        seen: Serial,
    },
}

/// A lock whose signature and serial were checked, and what the service makes of it.
#[derive(Debug)]
pub struct Loaded<T> {
    /// The lock.
    pub lock: Lock,
    /// The service's own view of it, made once per lock.
    pub view: T,
}

type Parse<T> = Box<dyn Fn(&Lock) -> Result<T, String> + Send + Sync>;

/// Reads `bailey.lock` again when the file has changed; a look costs one `stat`.
pub struct LockSource<T> {
    path: PathBuf,
    key: VerifyingKey,
    stack: StackId,
    parse: Parse<T>,
    cached: Mutex<Cached<T>>,
}

struct Cached<T> {
    /// Size, modification time and inode of the file that `loaded` is of.
    mark: Option<Mark>,
    loaded: Result<Arc<Loaded<T>>, LockSourceError>,
    seen: Serial,
}

type Mark = (u64, SystemTime, u64);

impl<T> LockSource<T> {
    /// A source for the file at `path`. `seen` is the newest serial that the service remembers ([`Serial`] 0 where it remembers none); `parse`
    /// makes the service's view of a lock, its error says why such a lock cannot be used.
    pub fn new(
        path: &Path,
        key: VerifyingKey,
        stack: StackId,
        seen: Serial,
        parse: impl Fn(&Lock) -> Result<T, String> + Send + Sync + 'static,
    ) -> Self {
        let cached = Cached {
            mark: None,
            loaded: Err(LockSourceError::Missing),
            seen,
        };
        Self {
            path: path.to_owned(),
            key,
            stack,
            parse: Box::new(parse),
            cached: Mutex::new(cached),
        }
    }

    /// The lock as it is now.
    pub fn current(&self) -> Result<Arc<Loaded<T>>, LockSourceError> {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        let mark = match mark(&self.path) {
            Ok(mark) => mark,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(LockSourceError::Missing);
            }
            Err(e) => {
                return Err(LockSourceError::Read {
                    path: self.path.clone(),
                    reason: e.to_string(),
                });
            }
        };
        if cached.mark != Some(mark) {
            cached.loaded = self.load(cached.seen).map(Arc::new);
            if let Ok(loaded) = &cached.loaded {
                cached.seen = loaded.lock.serial;
            }
            // A read that failed says nothing about the file: the next look reads it again.
            let failed = matches!(cached.loaded, Err(LockSourceError::Read { .. }));
            cached.mark = (!failed).then_some(mark);
        }
        cached.loaded.clone()
    }

    fn load(&self, seen: Serial) -> Result<Loaded<T>, LockSourceError> {
        let refused = |reason: String| LockSourceError::Refused {
            path: self.path.clone(),
            reason,
        };
        let text = std::fs::read(&self.path).map_err(|e| LockSourceError::Read {
            path: self.path.clone(),
            reason: e.to_string(),
        })?;
        let signed = from_file_text(&text).map_err(refused)?;
        let lock = verify::<Lock>(&signed, &self.key)
            .map_err(|e| refused(e.to_string()))?
            .statement;
        if lock.version != 1 {
            return Err(refused(format!("version {} is not 1", lock.version)));
        }
        if lock.stack != self.stack {
            return Err(refused(format!(
                "it is for the stack {}, this is {}",
                lock.stack, self.stack
            )));
        }
        if lock.serial < seen {
            return Err(LockSourceError::Older {
                path: self.path.clone(),
                found: lock.serial,
                seen,
            });
        }
        let view = (self.parse)(&lock).map_err(refused)?;
        Ok(Loaded { lock, view })
    }
}

fn mark(path: &Path) -> std::io::Result<Mark> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = std::fs::metadata(path)?;
    Ok((metadata.len(), metadata.modified()?, metadata.ino()))
}

/// A signed lock as file text: JSON of the payload and signature, both base64.
pub fn to_file_text(signed: &Signed) -> String {
    let (payload, signature) = (
        STANDARD.encode(&signed.payload),
        STANDARD.encode(&signed.signature),
    );
    format!("{{\n  \"payload\": \"{payload}\",\n  \"signature\": \"{signature}\"\n}}\n")
}

/// Reads what [`to_file_text`] wrote; the signature is not checked here.
pub fn from_file_text(text: &[u8]) -> Result<Signed, String> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        payload: String,
        signature: String,
    }

    if text.len() > Lock::LIMIT_BYTES * 2 {
        return Err(format!(
            "it is {} bytes; at most {} are allowed",
            text.len(),
            Lock::LIMIT_BYTES * 2
        ));
    }
    strict_json::check(text).map_err(|e| e.to_string())?;
    let file: File = serde_json::from_slice(text).map_err(|e| e.to_string())?;
    let decode = |text: &str| STANDARD.decode(text).map_err(|e| e.to_string());
    Ok(Signed {
        payload: decode(&file.payload)?.into(),
        signature: decode(&file.signature)?.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SigningKey;

    #[test]
    fn a_read_that_failed_is_tried_again_though_the_file_has_not_changed() {
        // Given a file that can be looked at and not be read, as when no file descriptor is left
        let dir = tempfile::tempdir().unwrap();
        let key = SigningKey::generate().verifying_key();
        let source = LockSource::new(dir.path(), key, "home".parse().unwrap(), Serial(0), |_| {
            Ok(())
        });
        let error = source.current().unwrap_err();
        assert!(matches!(error, LockSourceError::Read { .. }), "{error}");
        // Then the error is not kept as what the file is
        assert_eq!(source.cached.lock().unwrap().mark, None);
    }

    #[test]
    fn a_file_that_was_refused_is_not_read_again_until_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bailey.lock");
        std::fs::write(&path, "no lock").unwrap();
        let key = SigningKey::generate().verifying_key();
        let source = LockSource::new(&path, key, "home".parse().unwrap(), Serial(0), |_| Ok(()));
        assert!(matches!(
            source.current(),
            Err(LockSourceError::Refused { .. })
        ));
        assert!(source.cached.lock().unwrap().mark.is_some());
    }
}
