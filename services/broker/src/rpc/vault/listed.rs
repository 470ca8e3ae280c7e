//! What the document tells: everything but values.

use bailey_proto::management::v1::{
    ListResponse, PrincipalEntry, Recipe, SecretEntry, StatusResponse, TokenEntry,
};
use bailey_types::{PrincipalName, SecretName};

use crate::vault::{Document, Pattern, Principal, Secret};

/// How an open vault is.
pub(super) fn status(document: &Document) -> StatusResponse {
    StatusResponse {
        state: "open".into(),
        detail: String::new(),
        secrets: count(document.secrets.len()),
        principals: count(document.principals.len()),
        tokens: count(document.tokens.len()),
        lock_serial: document.lock.serial.0,
        revision: document.revision,
        unrecorded: count(document.unrecorded.len()),
        earlier: false,
    }
}

/// Names and what is known of them.
pub(super) fn all(document: &Document) -> ListResponse {
    let principals = document.principals.iter();
    let principals = principals.map(|(name, it)| principal(name, it));
    let tokens = document.tokens.iter().map(|(name, token)| TokenEntry {
        name: name.to_string(),
        scopes: token.scopes.iter().map(ToString::to_string).collect(),
        created_at_ms: token.created_at.0,
    });
    ListResponse {
        secrets: document.secrets.iter().map(secret).collect(),
        principals: principals.collect(),
        tokens: tokens.collect(),
    }
}

/// One that secrets are granted to.
pub(super) fn principal(name: &PrincipalName, principal: &Principal) -> PrincipalEntry {
    PrincipalEntry {
        name: name.to_string(),
        kind: principal.kind.to_string(),
        status: principal.status.to_string(),
    }
}

fn secret((name, secret): (&SecretName, &Secret)) -> SecretEntry {
    let granted_to = secret.authorized_principals.iter();
    let recipe = (secret.pattern == Pattern::Auto).then(|| Recipe {
        length: secret.recipe.length(),
        alphabet: secret.recipe.alphabet().to_string(),
    });
    SecretEntry {
        name: name.to_string(),
        status: secret.status.to_string(),
        granted_to: granted_to.map(ToString::to_string).collect(),
        description: secret.description.clone(),
        created_at_ms: secret.created_at.0,
        updated_at_ms: secret.updated_at.0,
        pattern: secret.pattern.to_string(),
        recipe,
        roll_count: secret.roll_count,
        revoked_at_ms: secret.revoked_at.map_or(0, |at| at.0),
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
