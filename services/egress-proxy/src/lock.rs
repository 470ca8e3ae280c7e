//! What this service makes of a lock: who may reach what, and which upstreams there are.

use std::collections::BTreeMap;

use bailey_config::Upstream;
use bailey_trust::Lock;
use bailey_types::UpstreamName;

use crate::grant::Grants;

/// See the module.
pub(crate) struct View {
    pub(crate) grants: Grants,
    pub(crate) upstreams: BTreeMap<UpstreamName, Upstream>,
}

impl View {
    /// Reads a lock, whose signature has been checked.
    pub(crate) fn of(lock: &Lock) -> Result<Self, String> {
        let config = bailey_config::parse(&lock.config_files);
        let config = config.map_err(|e| format!("its configuration: {e}"))?;
        Ok(Self {
            grants: Grants::of(lock)?,
            upstreams: config.upstreams,
        })
    }
}
