//! What the broker makes of the lock: which secrets it lets go where.

use std::collections::BTreeMap;

use bailey_config::Upstream;
use bailey_trust::Lock;
use bailey_types::UpstreamName;

use crate::ticket::{self, Deliveries};
use crate::upstream;
use crate::vault::Document;

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

    /// What plugins and upstreams ask for and would not get, one sentence each.
    pub fn missing(&self, document: &Document) -> Vec<String> {
        let mut missing = ticket::missing(document, &self.deliveries);
        missing.extend(upstream::missing(document, &self.upstreams));
        missing
    }
}
