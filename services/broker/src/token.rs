//! Bearer tokens: the admin token of the management socket, and the API tokens of the gateway.
//!
//! The vault keeps hashes only, and every comparison runs over all of them in the same time.

pub mod scope;

use std::collections::BTreeSet;
use std::fmt;

use bailey_error::{Classify, Kind};
use bailey_trust::{Asked, Origin, SigningKey, StatementError};
use bailey_types::{Blake3, OriginId, Timestamp, TokenName};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::{ConditionallySelectable as _, ConstantTimeEq as _};
use zeroize::Zeroizing;

pub use scope::{BadScope, Scope};

use crate::vault::Document;

/// A token in the clear, while it is made or checked. Wiped on drop, never printed.
pub struct Bearer(Zeroizing<String>);

impl Bearer {
    /// Longest token that is looked at, bytes.
    pub const LIMIT_BYTES: usize = 256;

    /// A new API token: 256 random bits.
    pub fn api() -> Self {
        Self::generate("bly_")
    }

    /// A new admin token. It looks different, so that neither is taken for the other.
    pub fn admin() -> Self {
        Self::generate("blyadmin_")
    }

    fn generate(prefix: &str) -> Self {
        let random = Zeroizing::new(rand::random::<[u8; 32]>());
        let text = Zeroizing::new(URL_SAFE_NO_PAD.encode(random.as_slice()));
        Self(Zeroizing::new([prefix, text.as_str()].concat()))
    }

    /// What the vault keeps.
    pub fn hash(&self) -> Blake3 {
        Blake3(blake3::hash(self.0.as_bytes()).into())
    }

    /// The token for the one answer that shows it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Bearer {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bearer(…)")
    }
}

/// Why a token does not open the door.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody's token.
    #[error("the token is not known")]
    Unknown,
    /// A token without the right scope.
    #[error("the token {name} needs one of the scopes {needed}")]
    MissingScope {
        /// Whose.
        name: TokenName,
        /// Any of these would do.
        needed: String,
    },
    /// The origin could not be signed.
    #[error("signing the origin")]
    Sign(#[source] StatementError),
}

impl Classify for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Unknown => Kind::Unauthenticated,
            Self::MissingScope { .. } => Kind::PermissionDenied,
            Self::Sign(_) => Kind::Internal,
        }
    }
}

/// A token that was recognised and may do what was asked.
#[derive(Debug)]
pub struct Known {
    /// Its name.
    pub name: TokenName,
    /// Its scopes, expanded.
    pub scopes: BTreeSet<Scope>,
}

/// Whether `bearer` is the admin token.
pub fn is_admin(document: &Document, bearer: &Bearer) -> bool {
    bearer.hash().0.ct_eq(&document.admin_token.0).into()
}

/// Recognises an API token that has one of the scopes `any_of`; none given: every token will do.
pub fn verify(
    document: &Document,
    bearer: &Bearer,
    any_of: &BTreeSet<Scope>,
) -> Result<Known, Error> {
    let given = bearer.hash();
    let mut found = u32::MAX;
    for (index, token) in (0..).zip(document.tokens.values()) {
        // No early way out: the time says neither whether nor where it was found.
        found.conditional_assign(&index, given.0.ct_eq(&token.blake3.0));
    }
    let index = usize::try_from(found).map_err(|_| Error::Unknown)?;
    let (name, token) = document.tokens.iter().nth(index).ok_or(Error::Unknown)?;
    let scopes = Scope::expand(&token.scopes);
    if !any_of.is_empty() && scopes.is_disjoint(any_of) {
        let needed = any_of
            .iter()
            .map(|scope| scope.name())
            .collect::<Vec<_>>()
            .join(", ");
        return Err(Error::MissingScope {
            name: name.clone(),
            needed,
        });
    }
    Ok(Known {
        name: name.clone(),
        scopes,
    })
}

/// States that the token's owner asked for this.
pub fn origin(
    known: &Known,
    asked: Asked,
    key: &SigningKey,
    now: Timestamp,
) -> Result<bailey_proto::trust::v1::Signed, Error> {
    let origin = Origin {
        id: OriginId::new(),
        principal: format!("token:{}", known.name),
        asked,
        scopes: known.scopes.iter().map(ToString::to_string).collect(),
        issued_at: now,
    };
    bailey_trust::sign(&origin, key).map_err(Error::Sign)
}

#[cfg(test)]
mod tests;
