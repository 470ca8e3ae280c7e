//! The rules for API tokens.

use std::collections::BTreeSet;

use bailey_types::{Blake3, Timestamp, TokenName};

use super::{Document, Token, room};
use crate::token::Scope;
use crate::vault::refused::Refused;

impl Document {
    /// Adds an API token by its hash.
    pub fn add_token(
        &mut self,
        name: TokenName,
        blake3: Blake3,
        scopes: BTreeSet<Scope>,
        now: Timestamp,
    ) -> Result<(), Refused> {
        if scopes.is_empty() {
            return Err(Refused::NoScopes);
        }
        if self.tokens.contains_key(&name) {
            return Err(Refused::TokenExists(name));
        }
        room("tokens", self.tokens.len())?;
        let token = Token {
            blake3,
            scopes,
            created_at: now,
        };
        self.tokens.insert(name, token);
        Ok(())
    }

    /// Forgets an API token: the next request with it is refused. Its name may be used again.
    pub fn revoke_token(&mut self, name: &TokenName) -> Result<(), Refused> {
        let revoked = self.tokens.remove(name);
        revoked.map_or_else(|| Err(Refused::NoSuchToken(name.clone())), |_| Ok(()))
    }
}
