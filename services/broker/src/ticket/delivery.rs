//! Which secrets a plugin gets (reference: ductile 7.7).

use std::collections::{BTreeMap, BTreeSet};

use bailey_config::{Config, PluginConfig};
use bailey_types::{PluginName, PrincipalName, SecretName};

use super::Reason;
use crate::vault::{Document, PrincipalKind, Status, Value};

/// What the locked configuration says about the secrets of each plugin.
pub type Deliveries = BTreeMap<PluginName, Delivery>;

/// What the locked configuration says about a plugin's secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Whose secrets it gets.
    pub principal: PrincipalName,
    /// Whether it must not run without a vault that knows it.
    pub requires_vault: bool,
    /// The secrets that its `config` refers to. It does not run without any of them.
    pub config_refs: BTreeSet<SecretName>,
}

/// What a configuration says of them.
pub fn deliveries(config: &Config) -> Deliveries {
    let delivery = |(name, plugin): (&PluginName, &PluginConfig)| {
        let delivery = Delivery {
            principal: plugin.vault_principal.clone(),
            requires_vault: plugin.requires_vault,
            config_refs: plugin.secret_refs(),
        };
        (name.clone(), delivery)
    };
    config.enabled_plugins().map(delivery).collect()
}

/// What is delivered, and what is not although it was granted.
#[derive(Debug, Default)]
pub struct Delivered<'a> {
    /// By name.
    ///
    /// Invariant: what the plugin's `config` refers to is among them. Socket-proxy takes out of a cell's output what stands here, wherever else it stands.
    pub secrets: BTreeMap<&'a SecretName, &'a Value>,
    /// Granted, but not delivered.
    pub withheld: Vec<&'a SecretName>,
    /// Why they are not.
    pub withheld_for: Withheld,
}

/// Why granted secrets are not delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Withheld {
    /// They were revoked.
    #[default]
    SecretRevoked,
    /// The plugin's folder has changed since it was sealed.
    FingerprintMismatch,
}

impl Withheld {
    /// The stable token for the audit.
    pub const fn token(self) -> &'static str {
        match self {
            Self::SecretRevoked => "secret_revoked",
            Self::FingerprintMismatch => "fingerprint_mismatch",
        }
    }
}

type Denial = (Reason, String);

/// What a plugin gets whose folder has changed since it was sealed: nothing.
pub fn of_untrusted<'a>(
    document: Option<&'a Document>,
    delivery: &Delivery,
) -> Result<Delivered<'a>, Denial> {
    if delivery.requires_vault {
        let why = "the plugin requires the vault, and gets nothing of it since its folder has changed: lock it again";
        return Err((Reason::RequiresVault, why.into()));
    }
    if let Some(secret) = delivery.config_refs.first() {
        let why = format!(
            "the plugin's config refers to {secret}, and it gets no secret since its folder has changed: lock it again"
        );
        return Err((Reason::FingerprintMismatch, why));
    }
    let granted = |vault: &'a Document| {
        let secrets = vault.secrets.iter().filter(|(_, secret)| {
            secret.status == Status::Active
                && secret.authorized_principals.contains(&delivery.principal)
        });
        secrets.map(|(name, _)| name).collect()
    };
    Ok(Delivered {
        withheld: document.map(granted).unwrap_or_default(),
        withheld_for: Withheld::FingerprintMismatch,
        ..Delivered::default()
    })
}

/// Decides what a plugin gets. `document` is `None` where there is no vault; a sealed vault is not that, and never gets here.
pub fn decide<'a>(
    document: Option<&'a Document>,
    delivery: &Delivery,
) -> Result<Delivered<'a>, Denial> {
    let name = &delivery.principal;
    let found = document.and_then(|vault| Some((vault, vault.principals.get(name)?)));
    let Some((vault, principal)) = found else {
        if delivery.requires_vault || !delivery.config_refs.is_empty() {
            let why = format!("the plugin requires a vault that knows the principal {name}");
            return Err((Reason::RequiresVault, why));
        }
        return Ok(Delivered::default());
    };
    if principal.status == Status::Revoked {
        return Err((
            Reason::PrincipalRevoked,
            format!("the principal {name} was revoked"),
        ));
    }
    if principal.kind != PrincipalKind::Plugin {
        // A plugin that is called like another kind of principal does not inherit what that one has.
        let why = format!("the principal {name} is a {}, not a plugin", principal.kind);
        return Err((Reason::WrongPrincipal, why));
    }
    let mut delivered = Delivered::default();
    for (secret_name, secret) in &vault.secrets {
        if !secret.authorized_principals.contains(name) {
            continue;
        }
        match secret.status {
            Status::Active => {
                delivered.secrets.insert(secret_name, &secret.value);
            }
            Status::Revoked => delivered.withheld.push(secret_name),
        }
    }
    for secret in &delivery.config_refs {
        referred(vault, name, secret)?;
    }
    Ok(delivered)
}

/// A secret that a plugin's `config` refers to: the plugin cannot do without it, so that withholding it is a denial.
fn referred(vault: &Document, principal: &PrincipalName, name: &SecretName) -> Result<(), Denial> {
    let Some(secret) = vault.secrets.get(name) else {
        let why = format!("the plugin's config refers to the secret {name}, which does not exist");
        return Err((Reason::NoSuchSecret, why));
    };
    if !secret.authorized_principals.contains(principal) {
        let why = format!(
            "the plugin's config refers to the secret {name}, which is not granted to {principal}"
        );
        return Err((Reason::PrincipalNotAuthorized, why));
    }
    match secret.status {
        Status::Active => Ok(()),
        Status::Revoked => {
            let why = format!("the plugin's config refers to the secret {name}, which was revoked");
            Err((Reason::SecretRevoked, why))
        }
    }
}

/// What the locked plugins ask for and would not get, one sentence each.
pub fn missing(document: &Document, deliveries: &Deliveries) -> Vec<String> {
    let one = |(plugin, delivery): (&PluginName, &Delivery)| {
        let mut missing = Vec::new();
        let principal = &delivery.principal;
        let usable = document
            .principals
            .get(principal)
            .is_some_and(|known| known.status == Status::Active);
        if delivery.requires_vault && !usable {
            missing.push(format!(
                "{plugin} requires the principal {principal}, which is not registered or was revoked"
            ));
        }
        for secret in &delivery.config_refs {
            if let Err((_, why)) = referred(document, principal, secret) {
                missing.push(format!("{plugin}: {why}"));
            }
        }
        missing
    };
    deliveries.iter().flat_map(one).collect()
}
