//! The lock as the engine sees it: what may be asked for, and with which settings.

use std::sync::Arc;

use bailey_config::{Config, PluginConfig};
use bailey_trust::{Loaded, Lock};
use bailey_types::{CommandName, PluginName};

/// The locked configuration.
#[derive(Debug)]
pub struct View {
    /// Parsed from the text that the lock carries.
    pub config: Config,
}

/// A checked lock with the engine's view of it.
pub type Locked = Arc<Loaded<View>>;

/// Makes the view of a lock.
pub fn parse(lock: &Lock) -> Result<View, String> {
    let config =
        bailey_config::parse(&lock.config_files).map_err(|e| format!("its configuration: {e}"))?;
    Ok(View { config })
}

/// Why something cannot be asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Absent {
    /// Neither configured nor known.
    #[error("there is no plugin {0}")]
    Plugin(PluginName),
    /// Configured, but switched off.
    #[error("the plugin {0} is not enabled")]
    Disabled(PluginName),
    /// Configured, but not sealed.
    #[error("the plugin {0} is not locked: run `bailey plugin lock {0}`")]
    Unlocked(PluginName),
    /// The manifest has no such command.
    #[error("the plugin {plugin} has no command {command}; it has {known}")]
    Command {
        /// The plugin.
        plugin: PluginName,
        /// The command that was asked for.
        command: CommandName,
        /// Those that there are.
        known: String,
    },
}

/// Finds a command among what is locked; answers how its plugin is configured.
pub fn find<'a>(
    loaded: &'a Loaded<View>,
    plugin: &PluginName,
    command: &CommandName,
) -> Result<&'a PluginConfig, Absent> {
    let config = loaded
        .view
        .config
        .plugins
        .get(plugin)
        .ok_or_else(|| Absent::Plugin(plugin.clone()))?;
    if !config.enabled {
        return Err(Absent::Disabled(plugin.clone()));
    }
    let locked = loaded
        .lock
        .plugins
        .get(plugin)
        .ok_or_else(|| Absent::Unlocked(plugin.clone()))?;
    let commands = &locked.proposed.manifest.commands;
    if commands.iter().any(|known| known.name == *command) {
        return Ok(config);
    }
    let known = commands
        .iter()
        .map(|known| known.name.as_str())
        .collect::<Vec<_>>()
        .join(", ");
    Err(Absent::Command {
        plugin: plugin.clone(),
        command: command.clone(),
        known,
    })
}

/// Most jobs of a plugin that may run at once.
pub fn parallelism(loaded: &Loaded<View>, plugin: &PluginName) -> u32 {
    let workers = loaded.view.config.service.max_workers;
    let Some(config) = loaded.view.config.enabled_plugin(plugin) else {
        return workers;
    };
    let safe = loaded
        .lock
        .plugins
        .get(plugin)
        .is_none_or(|locked| locked.proposed.manifest.concurrency_safe);
    config.parallelism.unwrap_or(if safe { workers } else { 1 })
}
