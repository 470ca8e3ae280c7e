//! Which secrets a plugin gets (reference: ductile 7.7).

use std::collections::BTreeMap;

use bailey_config::PluginConfig;
use bailey_trust::Lock;
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
}

/// Takes the deliveries out of a lock's configuration. The error is for the operator.
pub fn of_lock(lock: &Lock) -> Result<Deliveries, String> {
    let config = bailey_config::parse(&lock.config_files).map_err(|e| e.to_string())?;
    let delivery = |(name, plugin): (&PluginName, &PluginConfig)| {
        let PluginConfig {
            vault_principal,
            requires_vault,
            ..
        } = plugin;
        let principal = vault_principal.clone();
        (
            name.clone(),
            Delivery {
                principal,
                requires_vault: *requires_vault,
            },
        )
    };
    Ok(config.enabled_plugins().map(delivery).collect())
}

/// What is delivered, and what is not although it was granted.
#[derive(Debug, Default)]
pub struct Delivered<'a> {
    /// By name.
    pub secrets: BTreeMap<&'a SecretName, &'a Value>,
    /// Granted, but revoked.
    pub withheld: Vec<&'a SecretName>,
}

/// What a plugin gets whose folder has changed since it was sealed: nothing.
pub fn of_untrusted(delivery: &Delivery) -> Result<Delivered<'static>, (Reason, String)> {
    if delivery.requires_vault {
        let why = "the plugin requires the vault, and gets nothing of it since its folder has changed: lock it again";
        return Err((Reason::RequiresVault, why.into()));
    }
    Ok(Delivered::default())
}

/// Decides what a plugin gets. `document` is `None` where there is no vault; a sealed vault is not that, and never gets here.
pub fn decide<'a>(
    document: Option<&'a Document>,
    delivery: &Delivery,
) -> Result<Delivered<'a>, (Reason, String)> {
    let name = &delivery.principal;
    let found = document.and_then(|vault| Some((vault, vault.principals.get(name)?)));
    let Some((vault, principal)) = found else {
        if delivery.requires_vault {
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
    Ok(delivered)
}
