//! The rules for secrets: `set` makes one or changes what is known of it, only `roll` changes a value, and revoked is for ever.

use std::collections::{BTreeMap, BTreeSet};

use bailey_types::{PrincipalName, SecretName, Timestamp};

use super::principal::near;
use super::{Document, Pattern, PrincipalKind, Recipe, RecipeChange, Secret, Status, room};
use crate::vault::refused::Refused;
use crate::vault::value::Value;

/// A secret, or a change of one, as asked for.
#[derive(Debug)]
pub struct SetSecret {
    /// Which.
    pub name: SecretName,
    /// Only for a new one, and only if the operator makes its values.
    pub value: Option<Value>,
    /// Who may have it: nobody but these. `None`: nobody if it is new, else as it is.
    pub grants: Option<BTreeSet<PrincipalName>>,
    /// `None`: manual if it is new, else as it is.
    pub pattern: Option<Pattern>,
    /// What of the default changes if it is new, else of what it is. `None`: nothing.
    pub recipe: Option<RecipeChange>,
    /// Empty: as it is.
    pub description: String,
}

/// What `set` did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetOutcome {
    /// The secret is new.
    Set,
    /// The secret was there; what is known of it is as asked, its value as it was.
    Changed,
}

/// What became of one secret of an import.
#[derive(Debug, PartialEq, Eq)]
pub struct Imported {
    /// Which.
    pub name: SecretName,
    /// Why it was left out, if it was.
    pub skipped: Option<Skipped>,
}

/// Why a secret of an import was left out.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Skipped {
    /// It is there, or cannot be: the others are imported without it.
    #[error(transparent)]
    Itself(Refused),
    /// Somebody to whom it is to be granted cannot be: then nothing is imported, or a part of the file would work and a part would not.
    #[error(transparent)]
    Principal(Refused),
}

impl Skipped {
    /// What it breaks.
    pub fn refused(&self) -> &Refused {
        match self {
            Self::Itself(refused) | Self::Principal(refused) => refused,
        }
    }
}

impl Document {
    /// As [`Document::set_secret`], and registers those of its grants whom the configuration names. Answers who was.
    pub fn set_secret_for(
        &mut self,
        asked: SetSecret,
        known: &BTreeMap<PrincipalName, PrincipalKind>,
        now: Timestamp,
    ) -> Result<(SetOutcome, Vec<PrincipalName>), Refused> {
        if let Some(secret) = self.secrets.get(&asked.name) {
            secret.check_change(&asked)?;
        }
        let registered = match &asked.grants {
            Some(grants) => self.admit(grants, known)?,
            None => Vec::new(),
        };
        Ok((self.set_secret(asked, now)?, registered))
    }

    /// Makes a secret, or changes what is known of one.
    pub fn set_secret(&mut self, asked: SetSecret, now: Timestamp) -> Result<SetOutcome, Refused> {
        not_reserved(&asked.name)?;
        if asked.description.len() > Self::DESCRIPTION_LIMIT_BYTES {
            return Err(Refused::DescriptionTooLong);
        }
        if let Some(secret) = self.secrets.get(&asked.name) {
            secret.check_change(&asked)?;
        }
        self.check_grants(asked.grants.as_ref())?;
        if let Some(secret) = self.secrets.get_mut(&asked.name) {
            secret.change(asked, now);
            return Ok(SetOutcome::Changed);
        }
        room("secrets", self.secrets.len())?;
        let name = asked.name.clone();
        self.secrets.insert(name, Secret::new(asked, now)?);
        Ok(SetOutcome::Set)
    }

    /// Replaces a secret's value: by the given one if the operator makes them, by a new one if the broker does. Answers how often it was.
    pub fn roll(
        &mut self,
        name: &SecretName,
        value: Option<Value>,
        now: Timestamp,
    ) -> Result<u32, Refused> {
        let secret = self.active(name)?;
        let value = next_value(name, secret.pattern, secret.recipe, value)?;
        secret.replace(value, now);
        Ok(secret.roll_count)
    }

    /// Revokes a secret for ever and forgets its value. `false`: it was revoked already.
    pub fn revoke(&mut self, name: &SecretName, now: Timestamp) -> Result<bool, Refused> {
        let secret = self.known(name)?;
        if secret.status == Status::Revoked {
            return Ok(false);
        }
        secret.status = Status::Revoked;
        secret.value = Value::default();
        secret.revoked_at = Some(now);
        secret.updated_at = now;
        Ok(true)
    }

    /// Makes every secret that can be made, and says of the others why not. One that is there already is left as it is. Of those who are granted
    /// something, whom the configuration names (`known`) is registered, and nobody for a secret that is left out.
    pub fn import(
        &mut self,
        asked: Vec<SetSecret>,
        known: &BTreeMap<PrincipalName, PrincipalKind>,
        now: Timestamp,
    ) -> (Vec<Imported>, Vec<PrincipalName>) {
        let mut registered = Vec::new();
        let one = |asked: SetSecret| {
            let name = asked.name.clone();
            let skipped = match self.import_one(asked, known, now) {
                Ok(admitted) => {
                    registered.extend(admitted);
                    None
                }
                Err(why) => Some(why),
            };
            Imported { name, skipped }
        };
        let imported = asked.into_iter().map(one).collect();
        (imported, registered)
    }

    fn import_one(
        &mut self,
        asked: SetSecret,
        known: &BTreeMap<PrincipalName, PrincipalKind>,
        now: Timestamp,
    ) -> Result<Vec<PrincipalName>, Skipped> {
        let name = asked.name.clone();
        match self.secrets.get(&name).map(|secret| secret.status) {
            Some(Status::Revoked) => return Err(Skipped::Itself(Refused::SecretRevoked(name))),
            Some(Status::Active) => return Err(Skipped::Itself(Refused::ValueExists(name))),
            None => {}
        }
        let grants = asked.grants.iter().flatten();
        // Whoever is revoked may be granted something, as by `set`: it is given once he is there again.
        let strangers = grants.filter(|name| !self.principals.contains_key(*name));
        let admitted = self.admit(&strangers.cloned().collect(), known);
        let admitted = admitted.map_err(Skipped::Principal)?;
        if let Err(why) = self.set_secret(asked, now) {
            for name in &admitted {
                self.principals.remove(name);
            }
            return Err(Skipped::Itself(why));
        }
        Ok(admitted)
    }

    fn active(&mut self, name: &SecretName) -> Result<&mut Secret, Refused> {
        let secret = self.known(name)?;
        match secret.status {
            Status::Active => Ok(secret),
            Status::Revoked => Err(Refused::SecretRevoked(name.clone())),
        }
    }

    fn known(&mut self, name: &SecretName) -> Result<&mut Secret, Refused> {
        not_reserved(name)?;
        let near = self.near_secrets(name);
        let secret = self.secrets.get_mut(name);
        let name = name.clone();
        secret.ok_or(Refused::NoSuchSecret { name, near })
    }

    /// Refuses the name of a secret that was never set.
    pub fn must_have(&self, name: &SecretName) -> Result<(), Refused> {
        if self.secrets.contains_key(name) {
            return Ok(());
        }
        let near = self.near_secrets(name);
        let name = name.clone();
        Err(Refused::NoSuchSecret { name, near })
    }

    /// What somebody may have meant by a name that nothing has.
    fn near_secrets(&self, name: &SecretName) -> Vec<SecretName> {
        if self.secrets.contains_key(name) {
            return Vec::new();
        }
        near(name.as_str(), self.secrets.keys(), SecretName::as_str)
    }

    fn check_grants(&self, grants: Option<&BTreeSet<PrincipalName>>) -> Result<(), Refused> {
        let unknown = grants
            .into_iter()
            .flatten()
            .find(|name| !self.principals.contains_key(*name));
        unknown.map_or(Ok(()), |name| Err(Refused::NoSuchPrincipal(name.clone())))
    }
}

impl Secret {
    fn new(asked: SetSecret, now: Timestamp) -> Result<Self, Refused> {
        let pattern = asked.pattern.unwrap_or(Pattern::Manual);
        let recipe = asked.recipe.unwrap_or_default().of(Recipe::default());
        let value = next_value(&asked.name, pattern, recipe, asked.value)?;
        Ok(Self {
            value,
            authorized_principals: asked.grants.unwrap_or_default(),
            status: Status::Active,
            pattern,
            recipe,
            roll_count: 0,
            created_at: now,
            updated_at: now,
            revoked_at: None,
            description: asked.description,
        })
    }

    /// Whether it can be changed so, whoever is granted it.
    fn check_change(&self, asked: &SetSecret) -> Result<(), Refused> {
        if self.status == Status::Revoked {
            return Err(Refused::SecretRevoked(asked.name.clone()));
        }
        if asked.value.is_some() {
            // Even the same value: whether a guess is right is nothing that `set` tells.
            return Err(Refused::ValueExists(asked.name.clone()));
        }
        Ok(())
    }

    fn change(&mut self, asked: SetSecret, now: Timestamp) {
        let before = self.clone();
        if let Some(grants) = asked.grants {
            self.authorized_principals = grants;
        }
        self.pattern = asked.pattern.unwrap_or(self.pattern);
        self.recipe = asked.recipe.unwrap_or_default().of(self.recipe);
        if !asked.description.is_empty() {
            self.description = asked.description;
        }
        // The time moves only if something does, so that a repeated command writes nothing.
        if *self != before {
            self.updated_at = now;
        }
    }

    /// A new value. Whoever calls this has seen that the secret is active.
    pub(super) fn replace(&mut self, value: Value, now: Timestamp) {
        self.value = value;
        self.roll_count = self.roll_count.saturating_add(1);
        self.updated_at = now;
    }
}

/// Whoever makes a secret's values, the operator or the broker, makes each of them.
fn next_value(
    name: &SecretName,
    pattern: Pattern,
    recipe: Recipe,
    value: Option<Value>,
) -> Result<Value, Refused> {
    match (pattern, value) {
        (Pattern::Auto, None) => Ok(recipe.make()),
        (Pattern::Auto, Some(_)) => Err(Refused::ValueNotWanted(name.clone())),
        (Pattern::Manual, Some(value)) if !value.expose().is_empty() => Ok(value),
        (Pattern::Manual, _) => Err(Refused::NoValue),
    }
}

fn not_reserved(name: &SecretName) -> Result<(), Refused> {
    if name.as_str() == Document::ADMIN_TOKEN {
        return Err(Refused::Reserved(name.to_string()));
    }
    Ok(())
}
