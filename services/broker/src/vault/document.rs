//! What the vault holds (reference: ductile 7.1), and the rules for changing it.

mod principal;
mod recipe;
mod secret;
#[cfg(test)]
mod tests;
mod token;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use bailey_trust::SealingRecipient;
use bailey_types::{
    Blake3, PluginName, PrincipalName, SecretName, Serial, StackId, Timestamp, TokenName,
};
use serde::{Deserialize, Serialize};

use super::offline::Offline;
use super::recipients::Recipient;
pub use principal::Rolled;
pub use recipe::{Alphabet, Recipe, RecipeChange};
pub use secret::{Imported, SetOutcome, SetSecret, Skipped};

use super::refused::Refused;
use super::value::{Nonce, Value};
use crate::token::Scope;

/// The decrypted vault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// Always 1.
    pub version: u32,
    /// The stack it belongs to.
    pub stack: StackId,
    /// How often it was changed. The audit log has the same number with the record of each change, so that an older vault in its place shows.
    #[serde(default)]
    pub revision: u64,
    /// BLAKE3 of the admin token.
    pub admin_token: Blake3,
    /// Keys the MACs of plugin trees.
    pub nonce: Nonce,
    /// By name; a revoked one stays, so that its name is not used again.
    pub secrets: BTreeMap<SecretName, Secret>,
    /// Who may be granted secrets.
    pub principals: BTreeMap<PrincipalName, Principal>,
    /// API tokens, as hashes.
    pub tokens: BTreeMap<TokenName, Token>,
    /// What locks were signed.
    pub lock: LockState,
    /// Who else can open the vault.
    #[serde(default)]
    pub recipients: BTreeMap<SealingRecipient, Recipient>,
    /// What was done when there was no way to the audit log, until that has it.
    #[serde(default)]
    pub unrecorded: Vec<Offline>,
}

/// One secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secret {
    /// Empty once revoked.
    pub value: Value,
    /// Who may have it.
    pub authorized_principals: BTreeSet<PrincipalName>,
    /// Whether it may be used.
    pub status: Status,
    /// Who makes its values.
    pub pattern: Pattern,
    /// How the broker makes them, where it does. Remembered even while the operator does, so that changing the pattern back finds it.
    #[serde(default)]
    pub recipe: Recipe,
    /// How often its value was replaced.
    pub roll_count: u32,
    /// When it was set.
    pub created_at: Timestamp,
    /// When anything of it was last changed.
    pub updated_at: Timestamp,
    /// When it was revoked, if it was.
    pub revoked_at: Option<Timestamp>,
    /// For people.
    pub description: String,
}

/// Who makes a secret's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pattern {
    /// The operator.
    Manual,
    /// The broker.
    Auto,
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Manual => "manual",
            Self::Auto => "auto",
        })
    }
}

impl FromStr for Pattern {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        match text {
            "manual" => Ok(Self::Manual),
            "auto" => Ok(Self::Auto),
            _ => Err(Refused::NoSuchPattern(short(text))),
        }
    }
}

/// Whether something may be used. Revoked is terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It may.
    Active,
    /// It may not, ever again.
    Revoked,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Active => "active",
            Self::Revoked => "revoked",
        })
    }
}

/// Who can be granted secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Principal {
    /// What it is.
    pub kind: PrincipalKind,
    /// Whether it may still have anything.
    pub status: Status,
}

/// What a principal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrincipalKind {
    /// A plugin: gets its secrets in a launch ticket.
    Plugin,
    /// Something outside of the stack.
    Consumer,
    /// The stack itself.
    Gateway,
}

impl fmt::Display for PrincipalKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plugin => "plugin",
            Self::Consumer => "consumer",
            Self::Gateway => "gateway",
        })
    }
}

impl FromStr for PrincipalKind {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        match text {
            "plugin" => Ok(Self::Plugin),
            "consumer" => Ok(Self::Consumer),
            "gateway" => Ok(Self::Gateway),
            _ => Err(Refused::NoSuchKind(short(text))),
        }
    }
}

/// An API token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// BLAKE3 of the token. A hash without salt or stretching will do: the token is 256 random bits.
    pub blake3: Blake3,
    /// As they were granted, not expanded.
    pub scopes: BTreeSet<Scope>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// What the broker must remember of the locks it signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockState {
    /// Serial of the last signed lock; 0: none.
    pub serial: Serial,
    /// The next uid to give. Only grows.
    pub next_uid: u32,
    /// Uids given so far; those of plugins that are gone stay theirs.
    pub uids: BTreeMap<PluginName, Uids>,
}

/// A plugin's uids, and which of its state volumes is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Uids {
    /// Of its cells.
    pub uid: u32,
    /// Of its holders.
    pub holder_uid: u32,
    /// How often its state was reset. Kept here for the same reason: a plugin that comes back must not find what it once left behind.
    #[serde(default)]
    pub state_generation: u32,
}

impl Document {
    /// Longest description of a secret, bytes.
    pub const DESCRIPTION_LIMIT_BYTES: usize = 512;
    /// Most secrets, principals or tokens.
    pub const ENTRY_LIMIT: usize = 1000;
    /// First uid given to a plugin; below are the services' and the host's.
    pub const FIRST_UID: u32 = 20_000;
    const CORE: &'static str = "core";
    const ADMIN_TOKEN: &'static str = "core-admin-token";

    /// A new vault with the principal `core` and nothing else.
    pub fn genesis(stack: StackId, admin_token: Blake3, nonce: Nonce) -> Self {
        let core = Principal {
            kind: PrincipalKind::Gateway,
            status: Status::Active,
        };
        let core = Self::CORE
            .parse()
            .ok()
            .map(|name: PrincipalName| (name, core));
        Self {
            version: 1,
            stack,
            revision: 0,
            admin_token,
            nonce,
            secrets: BTreeMap::new(),
            principals: core.into_iter().collect(),
            tokens: BTreeMap::new(),
            lock: LockState {
                serial: Serial(0),
                next_uid: Self::FIRST_UID,
                uids: BTreeMap::new(),
            },
            recipients: BTreeMap::new(),
            unrecorded: Vec::new(),
        }
    }

    /// Remembers that a lock was signed on top of `base`.
    pub fn advance_lock(&mut self, base: &LockState, next: LockState) -> Result<(), Refused> {
        if self.lock != *base {
            return Err(Refused::LockMoved);
        }
        self.lock = next;
        Ok(())
    }
}

fn room(what: &'static str, there: usize) -> Result<(), Refused> {
    let limit = Document::ENTRY_LIMIT;
    if there < limit {
        Ok(())
    } else {
        Err(Refused::Full { what, limit })
    }
}

/// What somebody sent, for a message: it may be megabytes long.
fn short(text: &str) -> String {
    text.chars().take(80).collect()
}
