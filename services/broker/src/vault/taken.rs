//! What only takes away: after it nobody can do anything that he could not do before.
//!
//! Such a change must not wait for anybody, or whoever keeps the audit log away, or fills it, keeps what was stolen good. It is recognised by
//! what it does and not by its name, so that no change that gives something can pass as one.

use std::collections::BTreeMap;

use super::document::{Document, Principal, Secret, Status};

impl Document {
    /// Whether this is `before`, less something.
    pub fn only_takes_from(&self, before: &Self) -> bool {
        // Named one by one: what is added to the document must be thought of here.
        let Self {
            version,
            stack,
            revision: _,
            admin_token,
            nonce,
            secrets,
            principals,
            tokens,
            lock,
            recipients,
            unrecorded,
        } = self;
        *version == before.version
            && *stack == before.stack
            && *admin_token == before.admin_token
            && *nonce == before.nonce
            && *lock == before.lock
            && *unrecorded == before.unrecorded
            && secrets.len() == before.secrets.len()
            && each_was(secrets, &before.secrets, Secret::only_takes_from)
            && each_was(principals, &before.principals, Principal::only_takes_from)
            && each_was(tokens, &before.tokens, PartialEq::eq)
            && each_was(recipients, &before.recipients, PartialEq::eq)
    }
}

fn each_was<K: Ord, V>(
    now: &BTreeMap<K, V>,
    before: &BTreeMap<K, V>,
    same_or_less: impl Fn(&V, &V) -> bool,
) -> bool {
    now.iter().all(|(name, it)| {
        let was = before.get(name);
        was.is_some_and(|was| same_or_less(it, was))
    })
}

impl Secret {
    fn only_takes_from(&self, before: &Self) -> bool {
        let less = Self {
            authorized_principals: before.authorized_principals.clone(),
            updated_at: before.updated_at,
            ..self.clone()
        };
        let narrowed = self
            .authorized_principals
            .is_subset(&before.authorized_principals);
        let revoked = self.status == Status::Revoked && before.status == Status::Active;
        let same = if revoked {
            let unrevoked = Self {
                status: before.status,
                value: before.value.clone(),
                revoked_at: before.revoked_at,
                ..less
            };
            self.value.expose().is_empty() && unrevoked == *before
        } else {
            less == *before
        };
        narrowed && same
    }
}

impl Principal {
    fn only_takes_from(&self, before: &Self) -> bool {
        self.kind == before.kind && (self.status == before.status || self.status == Status::Revoked)
    }
}

#[cfg(test)]
mod tests;
