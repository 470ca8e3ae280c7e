//! Ratings of what is locked, with what the vault grants.

use std::collections::BTreeMap;

use bailey_config::Config;
use bailey_plugin::rating::Rating;
use bailey_proto::management::v1::ListRequest;
use bailey_proto::management::v1::vault_service_client::VaultServiceClient;
use bailey_trust::rating::{Facts, Secrets};
use bailey_trust::{Lock, LockedPlugin};
use bailey_types::PluginName;

use crate::home::Home;
use crate::manage::{self, Admin};

/// How many secrets each principal gets; None while the vault does not say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Grants(Option<BTreeMap<String, usize>>);

impl Grants {
    /// As the vault lists them. A vault that is closed is no reason to show nothing: it is said, and grants are not counted.
    pub(crate) async fn ask(home: &Home, admin: &Admin) -> anyhow::Result<Self> {
        let mut vault = VaultServiceClient::new(manage::connect(home, "broker").await?)
            .max_decoding_message_size(manage::MAX_MESSAGE_BYTES);
        let listed = match vault.list(admin.request(ListRequest {})).await {
            Ok(listed) => listed.into_inner(),
            Err(status) => {
                let said = manage::refused("broker")(status);
                eprintln!("! secrets are not counted in the rating: {said:#}");
                return Ok(Self(None));
            }
        };
        let mut grants: BTreeMap<String, usize> = BTreeMap::new();
        for secret in listed
            .secrets
            .iter()
            .filter(|secret| secret.status == "active")
        {
            for principal in &secret.granted_to {
                *grants.entry(principal.clone()).or_default() += 1;
            }
        }
        Ok(Self(Some(grants)))
    }

    fn secrets(&self, config: Option<&Config>, name: &PluginName) -> Secrets {
        let plugin = config.and_then(|config| config.plugins.get(name));
        let principal = plugin.map_or_else(
            || name.to_string(),
            |plugin| plugin.vault_principal.to_string(),
        );
        match &self.0 {
            Some(grants) => Secrets::Granted(grants.get(&principal).copied().unwrap_or_default()),
            None if plugin.is_some_and(|plugin| plugin.requires_vault) => Secrets::Required,
            None => Secrets::Unknown,
        }
    }
}

/// A lock, and what may be said about its plugins.
pub(crate) struct Rated<'a> {
    pub(crate) lock: &'a Lock,
    config: Option<Config>,
    grants: &'a Grants,
}

impl<'a> Rated<'a> {
    pub(crate) fn of(lock: &'a Lock, grants: &'a Grants) -> Self {
        Self {
            lock,
            // A lock that an earlier version signed can hold a configuration that this one refuses; what it asks of the vault is not known then.
            config: bailey_config::parse(&lock.config_files).ok(),
            grants,
        }
    }

    /// How a plugin of the lock is rated, while its folder is what was sealed.
    pub(crate) fn rating(&self, name: &PluginName, plugin: &LockedPlugin) -> Rating {
        self.rating_of(name, plugin, false)
    }

    /// As [`Self::rating`]; `drifted`: its folder has changed.
    pub(crate) fn rating_of(
        &self,
        name: &PluginName,
        plugin: &LockedPlugin,
        drifted: bool,
    ) -> Rating {
        let facts = Facts {
            secrets: self.grants.secrets(self.config.as_ref(), name),
            drifted,
        };
        bailey_trust::rating(plugin, &facts)
    }

    /// The configuration of the lock, if this version can read it.
    pub(crate) fn config(&self) -> Option<&Config> {
        self.config.as_ref()
    }

    /// What the configuration of the lock allows and is worth saying.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.config
            .as_ref()
            .map(bailey_config::warnings)
            .unwrap_or_default()
    }
}

/// A rating in one line: the score, and what it costs.
pub(crate) fn line(rating: &Rating) -> String {
    let reasons = rating.reasons.iter().filter(|reason| reason.points > 0);
    let reasons: Vec<_> = reasons.map(|reason| reason.text.as_str()).collect();
    let score = format!("{} of {}", rating.score, Rating::BEST);
    if reasons.is_empty() {
        score
    } else {
        format!("{score}: {}", reasons.join("; "))
    }
}
