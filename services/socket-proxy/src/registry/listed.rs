//! The engine's list, cut down to what the runner sees, and which of it is ours.

use std::collections::HashMap;

use bailey_cell::Identity;
use bailey_types::StackId;
use serde::{Deserialize, Serialize};

use super::{ContainerId, Record};

/// Labels as the engine has them.
pub type Labels = HashMap<String, String>;

/// One entry of the engine's list, and all of it that the runner sees.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Listed {
    id: String,
    #[serde(default)]
    names: Vec<String>,
    #[serde(rename = "ImageID")]
    image_id: String,
    #[serde(default)]
    labels: Labels,
    #[serde(default)]
    state: String,
    #[serde(default)]
    created: i64,
}

impl Listed {
    /// Its id.
    pub fn id(&self) -> Option<ContainerId> {
        self.id.parse().ok()
    }

    /// What it is, if it is ours.
    pub(super) fn record(&self, stack: &StackId) -> Option<(ContainerId, Record)> {
        let mut names = self.names.iter().filter_map(|name| name.strip_prefix('/'));
        let identity = names.find_map(|name| identify(stack, name, &self.labels))?;
        let record = Record {
            identity,
            image: self.image_id.parse().ok()?,
            // It is never fed again, so nobody asks.
            egress: false,
        };
        Some((self.id()?, record))
    }
}

/// Ours is what has the stack's labels *and* the name that belongs to them.
pub fn identify(stack: &StackId, name: &str, labels: &Labels) -> Option<Identity> {
    let identity = Identity::from_labels(stack, labels).ok()?;
    (identity.name(stack) == name).then_some(identity)
}
