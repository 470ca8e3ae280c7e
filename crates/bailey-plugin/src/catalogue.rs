//! The plugins as `GET /plugins` lists them.

use bailey_types::{CommandName, PluginName};
use serde::{Deserialize, Serialize};

use crate::Manifest;
use crate::manifest::Access;
use crate::rating::Rating;

/// `{"plugins": […]}`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Catalogue {
    /// Sorted by name.
    pub plugins: Vec<Entry>,
}

/// One plugin or alias.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name in the configuration.
    pub name: PluginName,
    /// Of the manifest.
    pub version: String,
    /// Of the manifest.
    pub description: String,
    /// Its commands.
    pub commands: Vec<CommandEntry>,
    /// How much it could do if it were hostile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rating: Option<Rating>,
    /// How its service is, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Service>,
}

/// How a service is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// In a word.
    pub state: ServiceState,
    /// Its job; unset before there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<String>,
    /// Since when the cell runs, RFC 3339; unset where none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_since: Option<String>,
    /// How often it was started again.
    pub restarts: u64,
    /// Why it does not run, or why it was last started again; empty where nothing happened.
    pub detail: String,
}

/// What a service does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceState {
    /// Nobody has started it yet.
    Absent,
    /// It is about to run, or to run again.
    Waiting,
    /// A cell runs.
    Running,
    /// Its cell is being ended.
    Stopping,
    /// It ended too often, and waits for the operator.
    Quarantined,
}

impl ServiceState {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Quarantined => "quarantined",
        }
    }
}

/// One command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommandEntry {
    /// Its name.
    pub name: CommandName,
    /// Whether it changes anything outside.
    #[serde(rename = "type")]
    pub access: Access,
    /// Of the manifest.
    pub description: String,
    /// JSON Schema of the payload, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_schema: Option<serde_json::Value>,
    /// JSON Schema of the result, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<serde_json::Value>,
}

impl Catalogue {
    /// Lists plugins under the names that the configuration gives them.
    pub fn of<'a>(plugins: impl IntoIterator<Item = (&'a PluginName, &'a Manifest)>) -> Self {
        let mut plugins: Vec<_> = plugins
            .into_iter()
            .map(|(name, manifest)| Entry::of(name, manifest))
            .collect();
        plugins.sort_by(|a, b| a.name.cmp(&b.name));
        Self { plugins }
    }
}

impl Entry {
    /// One plugin under the name that the configuration gives it, not rated.
    pub fn of(name: &PluginName, manifest: &Manifest) -> Self {
        let commands = manifest.commands.iter().map(|command| CommandEntry {
            name: command.name.clone(),
            access: command.access,
            description: command.description.clone(),
            input_schema: command.input_schema.clone(),
            output_schema: command.output_schema.clone(),
        });
        Self {
            name: name.clone(),
            version: manifest.version.clone(),
            description: manifest.description.clone(),
            commands: commands.collect(),
            rating: None,
            service: None,
        }
    }
}
