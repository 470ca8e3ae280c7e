//! What the vault holds (reference: ductile 7.1), and the rules for changing it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use bailey_types::{
    Blake3, PluginName, PrincipalName, SecretName, Serial, StackId, Timestamp, TokenName,
};
use serde::{Deserialize, Serialize};

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
            _ => Err(Refused::NoSuchKind(text.chars().take(80).collect())),
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

/// A change of a secret, as asked for.
#[derive(Debug)]
pub struct SetSecret {
    /// Which.
    pub name: SecretName,
    /// Only for a new one.
    pub value: Option<Value>,
    /// Who may have it.
    pub grants: Grants,
    /// Empty: keep.
    pub description: String,
}

/// Who may have a secret, as asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Grants {
    /// A new secret's first grants; for an existing one only if empty, and then they stay.
    Given(BTreeSet<PrincipalName>),
    /// Exactly these from now on.
    Replace(BTreeSet<PrincipalName>),
}

/// What `set` did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetOutcome {
    /// The secret is new.
    Set,
    /// The secret was there; its grants and description are as asked.
    Granted,
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
        }
    }

    /// Makes a secret, or changes grants and description of one.
    pub fn set_secret(&mut self, asked: SetSecret, now: Timestamp) -> Result<SetOutcome, Refused> {
        if asked.name.as_str() == Self::ADMIN_TOKEN {
            return Err(Refused::Reserved(asked.name.to_string()));
        }
        if asked.description.len() > Self::DESCRIPTION_LIMIT_BYTES {
            return Err(Refused::DescriptionTooLong);
        }
        let (Grants::Given(granted) | Grants::Replace(granted)) = &asked.grants;
        if let Some(unknown) = granted
            .iter()
            .find(|name| !self.principals.contains_key(*name))
        {
            return Err(Refused::NoSuchPrincipal(unknown.clone()));
        }
        if let Some(secret) = self.secrets.get_mut(&asked.name) {
            return secret.set(asked, now);
        }
        room("secrets", self.secrets.len())?;
        self.secrets
            .insert(asked.name.clone(), Secret::new(asked, now)?);
        Ok(SetOutcome::Set)
    }

    /// Makes a principal. `false`: it was there already.
    pub fn register(&mut self, name: PrincipalName, kind: PrincipalKind) -> Result<bool, Refused> {
        if name.as_str() == Self::CORE {
            return Err(Refused::Reserved(name.to_string()));
        }
        match self.principals.get(&name) {
            Some(same) if same.kind == kind && same.status == Status::Active => return Ok(false),
            Some(&Principal { kind, status }) => {
                return Err(Refused::PrincipalDiffers { name, kind, status });
            }
            None => room("principals", self.principals.len())?,
        }
        self.principals.insert(
            name,
            Principal {
                kind,
                status: Status::Active,
            },
        );
        Ok(true)
    }

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
        self.tokens.insert(
            name,
            Token {
                blake3,
                scopes,
                created_at: now,
            },
        );
        Ok(())
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

impl Secret {
    fn new(asked: SetSecret, now: Timestamp) -> Result<Self, Refused> {
        let (Grants::Given(granted) | Grants::Replace(granted)) = asked.grants;
        Ok(Self {
            value: asked.value.ok_or(Refused::NoValue)?,
            authorized_principals: granted,
            status: Status::Active,
            pattern: Pattern::Manual,
            roll_count: 0,
            created_at: now,
            updated_at: now,
            revoked_at: None,
            description: asked.description,
        })
    }

    fn set(&mut self, asked: SetSecret, now: Timestamp) -> Result<SetOutcome, Refused> {
        if self.status == Status::Revoked {
            return Err(Refused::SecretRevoked(asked.name));
        }
        if asked.value.is_some() {
            // Even the same value: whether a guess is right is nothing that `set` tells.
            return Err(Refused::ValueExists(asked.name));
        }
        let granted = match asked.grants {
            Grants::Replace(granted) => granted,
            Grants::Given(granted) if granted.is_empty() => self.authorized_principals.clone(),
            Grants::Given(_) => return Err(Refused::GrantsUnclear(asked.name)),
        };
        let description = if asked.description.is_empty() {
            self.description.clone()
        } else {
            asked.description
        };
        // The time moves only if something does, so that a repeated command writes nothing.
        if granted != self.authorized_principals || description != self.description {
            self.authorized_principals = granted;
            self.description = description;
            self.updated_at = now;
        }
        Ok(SetOutcome::Granted)
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
