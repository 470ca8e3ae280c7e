//! What the broker makes of the lock: which secrets it lets go where.

use std::collections::BTreeMap;

use bailey_config::Upstream;
use bailey_trust::Lock;
use bailey_types::{PrincipalName, UpstreamName};

use crate::ticket::{self, Deliveries};
use crate::upstream;
use crate::vault::{Document, PrincipalKind};

/// The broker's part of the locked configuration.
#[derive(Debug, Default)]
pub struct View {
    /// The secrets of each plugin.
    pub deliveries: Deliveries,
    /// The upstreams, with the names of their keys.
    pub upstreams: BTreeMap<UpstreamName, Upstream>,
}

impl View {
    /// The view of a lock. The error is for the operator.
    pub fn of(lock: &Lock) -> Result<Self, String> {
        let config = bailey_config::parse(&lock.config_files).map_err(|e| e.to_string())?;
        Ok(Self {
            deliveries: ticket::deliveries(&config),
            upstreams: config.upstreams,
        })
    }

    /// Whom the configuration names as somebody that secrets are granted to, and what he is.
    pub fn principals(&self) -> BTreeMap<PrincipalName, PrincipalKind> {
        let consumers = self.upstreams.values().filter_map(|it| it.key.as_ref());
        let consumers = consumers.map(|key| (key.principal.clone(), PrincipalKind::Consumer));
        let plugins = self.deliveries.values();
        let plugins = plugins.map(|it| (it.principal.clone(), PrincipalKind::Plugin));
        consumers.chain(plugins).collect()
    }

    /// What plugins and upstreams ask for and would not get, one sentence each.
    pub fn missing(&self, document: &Document) -> Vec<String> {
        let mut missing = ticket::missing(document, &self.deliveries);
        missing.extend(upstream::missing(document, &self.upstreams));
        missing
    }
}
