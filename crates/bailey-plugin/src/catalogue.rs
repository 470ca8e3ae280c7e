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
        }
    }
}
