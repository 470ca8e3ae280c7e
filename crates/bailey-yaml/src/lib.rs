#![doc = include_str!("../README.md")]

mod entries;
mod error;
mod quantity;
mod value;

use serde::Deserialize;
use serde::de::DeserializeOwned;

pub use entries::Entries;
pub use error::{Error, Place, UnknownKey};
pub use quantity::{BadQuantity, Cpus, Rate, Size, Span};
pub use value::{Object, object_problem};

/// Largest text that is parsed, bytes: what people write by hand is far smaller.
pub const MAX_BYTES: usize = 1 << 20;

/// A value and where it was written.
#[derive(Clone, Debug)]
pub struct At<T> {
    /// Where.
    pub place: Place,
    /// What.
    pub value: T,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = serde_saphyr::Spanned::<T>::deserialize(deserializer)?;
        Ok(Self {
            place: spanned.referenced.into(),
            value: spanned.value,
        })
    }
}

/// Parses one document. `T` must refuse unknown fields itself.
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    if text.len() > MAX_BYTES {
        let message = format!(
            "the file has {} bytes; at most {MAX_BYTES} are allowed",
            text.len()
        );
        return Err(Error {
            place: Place { line: 1, column: 1 },
            unknown_key: None,
            message,
        });
    }
    let options = serde_saphyr::options! {
        strict_booleans: true,
        merge_keys: serde_saphyr::MergeKeyPolicy::Error,
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::Error,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|e| Error::from_saphyr(&e))
}
