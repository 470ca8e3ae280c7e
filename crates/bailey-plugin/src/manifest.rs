//! `manifest.yaml` (reference: ductile 1.8), with the `container:` block that a cell needs.

mod yaml;

use bailey_types::{CommandName, EventType, PluginName};
use serde::{Deserialize, Serialize};

pub use crate::Container;

/// A plugin's manifest, checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The plugin's own name.
    pub name: PluginName,
    /// Its version; for people.
    pub version: String,
    /// One line; for people.
    pub description: String,
    /// The executable, relative to the plugin's directory.
    pub entrypoint: String,
    /// Whether several of its jobs may run at once.
    pub concurrency_safe: bool,
    /// At least one.
    pub commands: Vec<Command>,
    /// Rules that turn state updates into facts.
    pub fact_outputs: Vec<FactOutput>,
    /// Configuration keys it needs and knows.
    pub config_keys: ConfigKeys,
    /// What a container needs to know; the operator's configuration wins over it.
    pub container: Container,
}

/// Why a text is not a manifest, with the line and column.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct Error(#[from] pub bailey_yaml::Error);

impl Manifest {
    /// Reads the text of a `manifest.yaml`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        yaml::parse(text)
    }

    /// The entrypoint as the key of [`crate::tree::Tree::files`].
    pub fn entrypoint_path(&self) -> &str {
        self.entrypoint
            .strip_prefix("./")
            .unwrap_or(&self.entrypoint)
    }

    /// A command by its name.
    pub fn command(&self, name: &CommandName) -> Option<&Command> {
        self.commands.iter().find(|command| command.name == *name)
    }
}

/// The keys of a manifest's text that mean nothing here, as paths: they are tolerated, because published plugins have such keys, but a
/// misspelt one should not go unseen.
pub fn unknown_keys(text: &str) -> Vec<String> {
    yaml::unknown_keys(text)
}

/// One command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// Its name.
    pub name: CommandName,
    /// Whether it changes anything outside.
    pub access: Access,
    /// One line; for people.
    pub description: String,
    /// Hint: calling twice is like calling once.
    pub idempotent: bool,
    /// Hint: may be tried again after a failure.
    pub retry_safe: bool,
    /// JSON Schema of the payload, if it gives one (the compact form is expanded).
    pub input_schema: Option<serde_json::Value>,
    /// JSON Schema of the result, if it gives one.
    pub output_schema: Option<serde_json::Value>,
}

/// `type:` of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// No external side effect.
    Read,
    /// Side effects.
    Write,
}

/// One rule of `fact_outputs`: each `state_updates` of the command becomes a fact and replaces the state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FactOutput {
    /// The declared command.
    pub command: CommandName,
    /// Type of the fact.
    pub fact_type: EventType,
}

/// `config_keys:`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigKeys {
    /// Must be configured.
    pub required: Vec<String>,
    /// May be configured.
    pub optional: Vec<String>,
}

#[cfg(test)]
mod tests;
