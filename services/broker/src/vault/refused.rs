//! What a change of the vault's document can break.

use bailey_error::{Classify, Kind};
use bailey_types::{PrincipalName, SecretName, TokenName};

use super::document::{Document, PrincipalKind, Status};
use super::value::Value;

/// What a change breaks.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refused {
    /// `core` and `core-admin-token`.
    #[error("the name {0:?} is reserved")]
    Reserved(String),
    /// Not one of the three kinds.
    #[error("{0:?} is not a kind of principal: plugin, consumer or gateway")]
    NoSuchKind(String),
    /// A grant to somebody unknown.
    #[error("the principal {0} is not registered")]
    NoSuchPrincipal(PrincipalName),
    /// Registered before, as something else.
    #[error("the principal {name} is registered already, as a {kind} ({status})")]
    PrincipalDiffers {
        /// Its name.
        name: PrincipalName,
        /// What it is.
        kind: PrincipalKind,
        /// Whether it is active.
        status: Status,
    },
    /// A new secret without a value.
    #[error("a new secret needs a value")]
    NoValue,
    /// More than [`Value::LIMIT_BYTES`].
    #[error("a value may have at most {} bytes", Value::LIMIT_BYTES)]
    ValueTooLarge,
    /// It could not be a JSON string.
    #[error("a value must be UTF-8 text: a plugin gets it as a JSON string; encode binary values")]
    ValueNotText,
    /// `set` on an existing secret changes grants and description only.
    #[error("the secret {0} exists; its value is changed by `roll`, not by `set`")]
    ValueExists(SecretName),
    /// Grants for an existing secret that do not say that they replace the present ones.
    #[error("the secret {0} exists; say that the grants replace those it has")]
    GrantsUnclear(SecretName),
    /// Revoked is terminal, and the name is not used again.
    #[error("the secret {0} was revoked; its name cannot be used again")]
    SecretRevoked(SecretName),
    /// Longer than [`Document::DESCRIPTION_LIMIT_BYTES`].
    #[error(
        "a description may have at most {} bytes",
        Document::DESCRIPTION_LIMIT_BYTES
    )]
    DescriptionTooLong,
    /// A token's name is taken.
    #[error("a token named {0} exists")]
    TokenExists(TokenName),
    /// A token that could do nothing.
    #[error("a token needs at least one scope")]
    NoScopes,
    /// Too many of something.
    #[error("the vault holds {limit} {what} already; that is the limit")]
    Full {
        /// Of what.
        what: &'static str,
        /// How many.
        limit: usize,
    },
    /// The vault's lock state is not the one that was proposed on.
    #[error("another lock was signed since this one was proposed; propose it again")]
    LockMoved,
}

impl Classify for Refused {
    fn kind(&self) -> Kind {
        match self {
            Self::Reserved(_)
            | Self::NoSuchKind(_)
            | Self::NoValue
            | Self::ValueTooLarge
            | Self::ValueNotText
            | Self::GrantsUnclear(_)
            | Self::DescriptionTooLong
            | Self::NoScopes => Kind::InvalidArgument,
            Self::NoSuchPrincipal(_)
            | Self::ValueExists(_)
            | Self::SecretRevoked(_)
            | Self::LockMoved => Kind::FailedPrecondition,
            Self::PrincipalDiffers { .. } | Self::TokenExists(_) => Kind::AlreadyExists,
            Self::Full { .. } => Kind::ResourceExhausted,
        }
    }
}
