//! What the gateway makes of the lock, once for each.

use std::sync::Arc;

use bailey_config::Api;
use bailey_trust::Lock;

/// The gateway's part of the locked configuration; the defaults until something is locked.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// `api:`
    pub api: Api,
    /// What is worth saying of the configuration each time. It tells names of accounts, plugins and host paths.
    pub warnings: Vec<String>,
}

impl View {
    /// The error says why such a lock cannot be used.
    pub fn of(lock: &Lock) -> Result<Arc<Self>, String> {
        let config = bailey_config::parse(&lock.config_files).map_err(|e| e.to_string())?;
        Ok(Arc::new(Self {
            warnings: bailey_config::warnings(&config),
            api: config.api,
        }))
    }
}
