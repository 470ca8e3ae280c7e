//! What is wrong with a text, and where.

use std::fmt;

/// A position in a text, both counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: u64,
    /// The column, in characters.
    pub column: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

impl From<serde_saphyr::Location> for Place {
    fn from(location: serde_saphyr::Location) -> Self {
        // A location that is not known is 0:0; the start of the file is the nearest true thing to say.
        Self {
            line: location.line().max(1),
            column: location.column().max(1),
        }
    }
}

/// The first thing that is wrong with a text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message}")]
pub struct Error {
    /// Where.
    pub place: Place,
    /// Set if the matter is a key that is not known there.
    pub unknown_key: Option<UnknownKey>,
    /// What.
    pub message: String,
}

/// A key that is not known where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownKey {
    /// The key.
    pub key: String,
    /// What is known there.
    pub known: Vec<&'static str>,
}

impl Error {
    pub(crate) fn from_saphyr(error: &serde_saphyr::Error) -> Self {
        let error = error.without_snippet();
        let place = error
            .location()
            .map_or(Place { line: 1, column: 1 }, Place::from);
        if let serde_saphyr::Error::SerdeUnknownField {
            field, expected, ..
        } = error
        {
            let field: String = field.chars().take(80).collect();
            let message = format!("unknown key {field:?}; known here: {}", expected.join(", "));
            let unknown_key = Some(UnknownKey {
                key: field,
                known: expected.clone(),
            });
            return Self {
                place,
                unknown_key,
                message,
            };
        }
        Self {
            place,
            unknown_key: None,
            message: message(error, place),
        }
    }
}

/// The error's text on one line, without the place that Display would add.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "every other kind says itself what it is"
)]
fn message(error: &serde_saphyr::Error, place: Place) -> String {
    let mut text = match error {
        serde_saphyr::Error::Message { msg, .. } => msg.clone(),
        serde_saphyr::Error::SerdeMissingField { field, .. } => {
            format!("the key {field:?} is missing")
        }
        serde_saphyr::Error::DuplicateMappingKey { key: Some(key), .. } => {
            format!("the key {key:?} appears twice")
        }
        serde_saphyr::Error::MergeKeyNotAllowed { .. } => {
            "merge keys (<<) are not allowed".to_owned()
        }
        serde_saphyr::Error::InvalidBooleanStrict { .. } => "expected true or false".to_owned(),
        other => other.to_string(),
    };
    for suffix in [
        format!(" at line {}, column {}", place.line, place.column),
        format!("line {} column {}: ", place.line, place.column),
    ] {
        text = text.replace(&suffix, "");
    }
    text.replace('\n', " ").chars().take(400).collect()
}
