//! `manifest.yaml` (reference: ductile 1.8), with the `container:` block that a cell needs.

use bailey_types::{CommandName, EventType, PluginName};
use serde::{Deserialize, Serialize};

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

/// `container:`; what is unset is decided by configuration, account or default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Container {
    /// Base image for a directory plugin: `none`, `python`, `tools`, or a reference.
    pub image: Option<String>,
    /// Overrides the entrypoint.
    pub entrypoint: Option<Vec<String>>,
    /// Bytes.
    pub memory_bytes: Option<u64>,
    /// Thousandths of a core.
    pub millicpus: Option<u32>,
    /// Processes and threads.
    pub pids: Option<u32>,
    /// Bytes.
    pub tmp_bytes: Option<u64>,
    /// Hosts it asks for.
    pub egress: Vec<String>,
}
