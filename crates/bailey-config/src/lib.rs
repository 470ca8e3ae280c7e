#![doc = include_str!("../README.md")]

pub mod account;
mod assemble;
mod error;
mod files;
mod pipeline;
mod plugin;
mod raw;
mod service;
pub mod starter;
mod unsupported;
pub mod upstream;
mod warning;

use std::collections::BTreeMap;
use std::path::PathBuf;

use bailey_types::{AccountName, EventType, PluginName, UpstreamName};
use serde::Serialize;

pub use account::{Account, Ids, Mount};
pub use error::{Error, Errors};
pub use files::{Files, MAX_FILES, ROOT, read_dir};
pub use pipeline::{ExecutionMode, Pipeline, Step};
pub use plugin::{
    CatchUp, CircuitBreaker, IfRunning, PluginConfig, Retry, SECRET_REF, Schedule, Timeouts, When,
};
pub use service::{Api, LogLevel, ServiceConfig};
pub use upstream::Upstream;
pub use warning::warnings;

/// The configuration, checked: what refers to something refers to something that exists.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Config {
    /// `service:`
    pub service: ServiceConfig,
    /// `accounts:`
    pub accounts: BTreeMap<AccountName, Account>,
    /// `plugin_roots:`, searched in this order.
    pub plugin_roots: Vec<PathBuf>,
    /// `plugins:`, those that are not enabled too.
    pub plugins: BTreeMap<PluginName, PluginConfig>,
    /// `pipelines:`
    pub pipelines: Vec<Pipeline>,
    /// `upstreams:`
    pub upstreams: BTreeMap<UpstreamName, Upstream>,
    /// `api:`
    pub api: Api,
}

impl Config {
    /// The plugins that are enabled.
    pub fn enabled_plugins(&self) -> impl Iterator<Item = (&PluginName, &PluginConfig)> {
        self.plugins.iter().filter(|(_, plugin)| plugin.enabled)
    }

    /// Names of the enabled plugins that run as this account.
    pub fn plugins_of<'a>(
        &'a self,
        account: &'a AccountName,
    ) -> impl Iterator<Item = &'a PluginName> {
        self.enabled_plugins()
            .filter(move |(_, plugin)| plugin.run_as == *account)
            .map(|(name, _)| name)
    }

    /// A plugin, if it is configured and enabled.
    pub fn enabled_plugin(&self, name: &PluginName) -> Option<&PluginConfig> {
        self.plugins.get(name).filter(|plugin| plugin.enabled)
    }

    /// The pipelines that an event of this type starts, if it comes from `source` (a plugin) or from outside.
    pub fn pipelines_on<'a>(
        &'a self,
        event: &'a EventType,
        source: Option<&'a PluginName>,
    ) -> impl Iterator<Item = &'a Pipeline> {
        self.pipelines.iter().filter(move |pipeline| {
            pipeline.on == *event
                && (pipeline.from_plugin.is_none() || pipeline.from_plugin.as_ref() == source)
        })
    }
}

/// Makes the configuration of its files' texts, by their path relative to `config/`. [`ROOT`] must be among them, and every other one
/// must be included.
pub fn parse(files: &BTreeMap<String, String>) -> Result<Config, Errors> {
    assemble::assemble(files)
}

#[cfg(test)]
mod tests;
