//! What a change of the vault's document can break.

use bailey_error::{Classify, Kind};
use bailey_types::{PrincipalName, SecretName, TokenName};

use super::document::{Alphabet, Document, PrincipalKind, Recipe, Status};
use super::recipients;
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
    /// A grant to somebody whom neither vault nor configuration knows.
    #[error(
        "the principal {name} is not registered, and no plugin or upstream that is locked has it{}; lock what is to have it first, or register it: `bailey vault register-principal {name} --kind plugin` (or consumer)",
        did_you_mean(.near)
    )]
    Stranger {
        /// The name.
        name: PrincipalName,
        /// Names that are there and nearly the same.
        near: Vec<PrincipalName>,
    },
    /// An import that names somebody who cannot be one whom something is granted.
    #[error("nothing is imported: {}", listed(.0))]
    NotAdmitted(Vec<String>),
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
    /// A manual secret without a value.
    #[error("a secret needs a value, and an empty one is none")]
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
    /// A value for a secret whose values the broker makes.
    #[error("the values of {0} are made by the broker; give none")]
    ValueNotWanted(SecretName),
    /// Nothing of that name was ever set.
    #[error("there is no secret {name}{}; `bailey vault list` lists them", did_you_mean(.near))]
    NoSuchSecret {
        /// The name.
        name: SecretName,
        /// Names that are there and nearly the same.
        near: Vec<SecretName>,
    },
    /// Neither of the two patterns.
    #[error("{0:?} is not a pattern: manual or auto")]
    NoSuchPattern(String),
    /// Not an alphabet.
    #[error(
        "{0:?} is not an alphabet; there are: {known}",
        known = Alphabet::ALL.map(|alphabet| alphabet.to_string()).join(" ")
    )]
    NoSuchAlphabet(String),
    /// Too short to be a secret, or too long to be one.
    #[error(
        "a made value has {shortest} to {longest} characters, not {0}",
        shortest = Recipe::LENGTHS.start(),
        longest = Recipe::LENGTHS.end()
    )]
    BadLength(u32),
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
    /// No token has that name.
    #[error("there is no token {0}")]
    NoSuchToken(TokenName),
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
    /// About who can open the vault.
    #[error(transparent)]
    Recipient(#[from] recipients::Refused),
    /// The vault's lock state is not the one that was proposed on.
    #[error("another lock was signed since this one was proposed; propose it again")]
    LockMoved,
}

impl Refused {
    /// The reason as a stable token, for the audit: of what was sent it repeats nothing.
    pub const fn token(&self) -> &'static str {
        match self {
            Self::Reserved(_) => "reserved",
            Self::NoSuchKind(_) => "no_such_kind",
            Self::NoSuchPrincipal(_) | Self::Stranger { .. } => "no_such_principal",
            Self::NotAdmitted(_) => "not_admitted",
            Self::PrincipalDiffers { .. } => "principal_differs",
            Self::NoValue => "no_value",
            Self::ValueTooLarge => "value_too_large",
            Self::ValueNotText => "value_not_text",
            Self::ValueExists(_) => "value_exists",
            Self::ValueNotWanted(_) => "value_not_wanted",
            Self::NoSuchSecret { .. } => "no_such_secret",
            Self::NoSuchPattern(_) => "no_such_pattern",
            Self::NoSuchAlphabet(_) => "no_such_alphabet",
            Self::BadLength(_) => "bad_length",
            Self::SecretRevoked(_) => "secret_revoked",
            Self::DescriptionTooLong => "description_too_long",
            Self::TokenExists(_) => "token_exists",
            Self::NoSuchToken(_) => "no_such_token",
            Self::NoScopes => "no_scopes",
            Self::Full { .. } => "full",
            Self::Recipient(_) => "recipient",
            Self::LockMoved => "lock_moved",
        }
    }
}

impl Classify for Refused {
    fn kind(&self) -> Kind {
        match self {
            Self::Reserved(_)
            | Self::NoSuchKind(_)
            | Self::NoValue
            | Self::ValueTooLarge
            | Self::ValueNotText
            | Self::ValueNotWanted(_)
            | Self::NoSuchPattern(_)
            | Self::NoSuchAlphabet(_)
            | Self::BadLength(_)
            | Self::DescriptionTooLong
            | Self::NoScopes => Kind::InvalidArgument,
            Self::NoSuchSecret { .. } | Self::NoSuchToken(_) => Kind::NotFound,
            Self::NoSuchPrincipal(_)
            | Self::Stranger { .. }
            | Self::NotAdmitted(_)
            | Self::ValueExists(_)
            | Self::SecretRevoked(_)
            | Self::LockMoved => Kind::FailedPrecondition,
            Self::PrincipalDiffers { .. } | Self::TokenExists(_) => Kind::AlreadyExists,
            Self::Full { .. } => Kind::ResourceExhausted,
            Self::Recipient(refused) => refused.kind(),
        }
    }
}

/// As much as an answer has room for.
fn listed(reasons: &[String]) -> String {
    const MOST: usize = 8;
    let mut listed: Vec<_> = reasons.iter().take(MOST).cloned().collect();
    if let Some(more @ 1..) = reasons.len().checked_sub(MOST) {
        listed.push(format!("and {more} more"));
    }
    listed.join("; ")
}

fn did_you_mean(near: &[impl ToString]) -> String {
    let near: Vec<_> = near.iter().map(ToString::to_string).collect();
    if near.is_empty() {
        String::new()
    } else {
        format!(" (did you mean {}?)", near.join(" or "))
    }
}
