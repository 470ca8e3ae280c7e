//! The rules for principals.

use std::collections::{BTreeMap, BTreeSet};

use bailey_types::{PrincipalName, SecretName, Timestamp};

use super::{Document, Pattern, Principal, PrincipalKind, Status, room};
use crate::vault::refused::Refused;

/// How alike names are, from 0 to 1, of which one may have been meant by the other; and how many of them are named.
const ALIKE: f64 = 0.8;
const NEAR: usize = 3;

/// What rolling a principal's secrets did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Rolled {
    /// These have new values.
    pub rolled: Vec<SecretName>,
    /// These only the operator can give new values.
    pub skipped: Vec<SecretName>,
}

/// Those of `names` that somebody may have meant by `name`, nearest first.
pub(super) fn near<'a, N: Clone + 'a>(
    name: &str,
    names: impl IntoIterator<Item = &'a N>,
    text: impl Fn(&N) -> &str,
) -> Vec<N> {
    let likeness = |other: &N| strsim::jaro_winkler(name, text(other));
    let names = names.into_iter();
    let mut near: Vec<_> = names.filter(|other| likeness(other) > ALIKE).collect();
    near.sort_by(|one, other| likeness(other).total_cmp(&likeness(one)));
    near.into_iter().take(NEAR).cloned().collect()
}

impl Document {
    /// Makes a principal. `false`: it was there already.
    pub fn register(&mut self, name: PrincipalName, kind: PrincipalKind) -> Result<bool, Refused> {
        not_core(&name)?;
        match self.principals.get(&name) {
            Some(same) if same.kind == kind && same.status == Status::Active => return Ok(false),
            Some(&Principal { kind, status }) => {
                return Err(Refused::PrincipalDiffers { name, kind, status });
            }
            None => room("principals", self.principals.len())?,
        }
        let status = Status::Active;
        self.principals.insert(name, Principal { kind, status });
        Ok(true)
    }

    /// Registers those of `grants` that are not there yet, if the configuration says what they are (`known`). Answers who was.
    pub fn admit(
        &mut self,
        grants: &BTreeSet<PrincipalName>,
        known: &BTreeMap<PrincipalName, PrincipalKind>,
    ) -> Result<Vec<PrincipalName>, Refused> {
        let mut registered = Vec::new();
        // Looked at first: of a refusal nothing stays.
        for name in grants {
            if let Some(&Principal { kind, status }) = self.principals.get(name) {
                if status == Status::Revoked {
                    let name = name.clone();
                    return Err(Refused::PrincipalDiffers { name, kind, status });
                }
                continue;
            }
            let Some(kind) = known.get(name) else {
                let (name, near) = (name.clone(), self.near(name, known));
                return Err(Refused::Stranger { name, near });
            };
            registered.push((name.clone(), *kind));
        }
        for (more, (name, _)) in registered.iter().enumerate() {
            not_core(name)?;
            room("principals", self.principals.len() + more)?;
        }
        for (name, kind) in &registered {
            self.register(name.clone(), *kind)?;
        }
        Ok(registered.into_iter().map(|(name, _)| name).collect())
    }

    /// The names that somebody may have meant by `name`, nearest first.
    fn near(
        &self,
        name: &PrincipalName,
        known: &BTreeMap<PrincipalName, PrincipalKind>,
    ) -> Vec<PrincipalName> {
        let names: BTreeSet<_> = self.principals.keys().chain(known.keys()).collect();
        near(name.as_str(), names, PrincipalName::as_str)
    }

    /// From now on the principal gets nothing, and what runs in its name fails. `false`: it was revoked already.
    pub fn revoke_principal(&mut self, name: &PrincipalName) -> Result<bool, Refused> {
        not_core(name)?;
        let principal = self.principals.get_mut(name);
        let principal = principal.ok_or_else(|| Refused::NoSuchPrincipal(name.clone()))?;
        let was_active = principal.status == Status::Active;
        principal.status = Status::Revoked;
        Ok(was_active)
    }

    /// Forgets a principal and takes back every grant to it. Answers which secrets it could have had.
    pub fn purge_principal(
        &mut self,
        name: &PrincipalName,
        now: Timestamp,
    ) -> Result<Vec<SecretName>, Refused> {
        not_core(name)?;
        let purged = self.principals.remove(name);
        purged.ok_or_else(|| Refused::NoSuchPrincipal(name.clone()))?;
        let mut stripped = Vec::new();
        for (secret_name, secret) in &mut self.secrets {
            if secret.authorized_principals.remove(name) {
                secret.updated_at = now;
                stripped.push(secret_name.clone());
            }
        }
        Ok(stripped)
    }

    /// Gives a new value to every active secret of a principal that the broker makes values for.
    ///
    /// A revoked principal's too: that is when it is needed most.
    pub fn roll_principal(
        &mut self,
        name: &PrincipalName,
        now: Timestamp,
    ) -> Result<Rolled, Refused> {
        if !self.principals.contains_key(name) {
            return Err(Refused::NoSuchPrincipal(name.clone()));
        }
        let mut outcome = Rolled::default();
        let granted = self.secrets.iter_mut().filter(|(_, secret)| {
            secret.status == Status::Active && secret.authorized_principals.contains(name)
        });
        for (secret_name, secret) in granted {
            match secret.pattern {
                Pattern::Auto => {
                    let value = secret.recipe.make();
                    secret.replace(value, now);
                    outcome.rolled.push(secret_name.clone());
                }
                Pattern::Manual => outcome.skipped.push(secret_name.clone()),
            }
        }
        Ok(outcome)
    }
}

fn not_core(name: &PrincipalName) -> Result<(), Refused> {
    if name.as_str() == Document::CORE {
        return Err(Refused::Reserved(name.to_string()));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
