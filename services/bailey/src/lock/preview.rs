//! What a lock would change, file by file.

use std::collections::{BTreeMap, BTreeSet};

use bailey_trust::{Lock, LockedPlugin, ProposedPlugin};
use bailey_types::{PluginName, Serial};
use serde::Serialize;
use serde_json::json;

use crate::output::Out;

/// How a thing differs from the one that is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Change {
    New,
    Changed,
    Removed,
}

impl Change {
    const fn mark(self) -> char {
        match self {
            Self::New => '+',
            Self::Changed => '~',
            Self::Removed => '-',
        }
    }

    fn of<T: PartialEq>(before: Option<&T>, after: Option<&T>) -> Option<Self> {
        match (before, after) {
            (None, Some(_)) => Some(Self::New),
            (Some(_), None) => Some(Self::Removed),
            (Some(before), Some(after)) if before != after => Some(Self::Changed),
            (Some(_), Some(_)) | (None, None) => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct PluginChange {
    change: Change,
    /// Its files.
    files: BTreeMap<String, Change>,
    /// What else is different, one line each.
    details: Vec<String>,
}

/// The differences between two locks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Preview {
    serial: Serial,
    plugins: BTreeMap<PluginName, PluginChange>,
    unchanged: usize,
    config_files: BTreeMap<String, Change>,
}

impl Preview {
    pub(super) fn of(before: Option<&Lock>, after: &Lock) -> Self {
        let none = BTreeMap::new();
        let old = before.map_or(&none, |lock| &lock.plugins);
        let names: BTreeSet<_> = old.keys().chain(after.plugins.keys()).collect();
        let count = names.len();
        let changes = names.into_iter().filter_map(|name| {
            Some((
                name.clone(),
                plugin(old.get(name), after.plugins.get(name))?,
            ))
        });
        let plugins: BTreeMap<_, _> = changes.collect();
        let no_files = BTreeMap::new();
        let config_files = differences(
            before.map_or(&no_files, |lock| &lock.config_files),
            &after.config_files,
        );
        Self {
            serial: after.serial,
            unchanged: count - plugins.len(),
            plugins,
            config_files,
        }
    }

    /// Whether signing it would change nothing but the serial.
    pub(super) fn is_empty(&self) -> bool {
        self.plugins.is_empty() && self.config_files.is_empty()
    }

    pub(super) fn to_json(&self, code: &str) -> serde_json::Value {
        let code = (!self.is_empty()).then_some(code);
        json!({ "code": code, "serial": self.serial, "plugins": self.plugins, "unchanged": self.unchanged, "config_files": self.config_files })
    }

    pub(super) fn show(&self, out: &mut Out) {
        if self.is_empty() {
            out.line(format_args!(
                "Nothing is different from the lock: {} plugins.",
                self.unchanged
            ));
            return;
        }
        out.line(format_args!("Lock {} would change:", self.serial));
        for (name, change) in &self.config_files {
            out.line(format_args!("{} configuration {name}", change.mark()));
        }
        for (name, plugin) in &self.plugins {
            out.line(format_args!("{} plugin {name}", plugin.change.mark()));
            for (file, change) in &plugin.files {
                out.line(format_args!("    {} {file}", change.mark()));
            }
            for detail in &plugin.details {
                out.line(format_args!("      {detail}"));
            }
        }
        if self.unchanged > 0 {
            out.line(format_args!("= {} plugins as they are", self.unchanged));
        }
    }
}

fn plugin(before: Option<&LockedPlugin>, after: Option<&LockedPlugin>) -> Option<PluginChange> {
    let change = Change::of(before, after)?;
    let none = BTreeMap::new();
    let files = |plugin: Option<&LockedPlugin>| plugin.map(|plugin| plugin.proposed.files.clone());
    let (old, new) = (files(before), files(after));
    let files = match change {
        // That it is gone says it all.
        Change::Removed => BTreeMap::new(),
        Change::New | Change::Changed => {
            differences(old.as_ref().unwrap_or(&none), new.as_ref().unwrap_or(&none))
        }
    };
    let details = after
        .map(|after| details(before, after))
        .unwrap_or_default();
    Some(PluginChange {
        change,
        files,
        details,
    })
}

fn differences<K: Ord + Clone, V: PartialEq>(
    before: &BTreeMap<K, V>,
    after: &BTreeMap<K, V>,
) -> BTreeMap<K, Change> {
    let names: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    names
        .into_iter()
        .filter_map(|name| Some((name.clone(), Change::of(before.get(name), after.get(name))?)))
        .collect()
}

/// What is granted, and what is different of it.
fn details(before: Option<&LockedPlugin>, after: &LockedPlugin) -> Vec<String> {
    let Some(before) = before else {
        return facts(after)
            .into_iter()
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
    };
    let pairs = facts(before).into_iter().zip(facts(after));
    let different = pairs.filter(|((_, old), (_, new))| old != new);
    different
        .map(|((name, old), (_, new))| format!("{name} {old} -> {new}"))
        .collect()
}

fn facts(plugin: &LockedPlugin) -> [(&'static str, String); 10] {
    let ProposedPlugin {
        manifest,
        image,
        base,
        entrypoint,
        source,
        account,
        limits,
        state,
        egress,
        ..
    } = &plugin.proposed;
    let list = |items: &[String]| {
        if items.is_empty() {
            "none".to_owned()
        } else {
            items.join(" ")
        }
    };
    let limits = format!(
        "{} MiB memory, {} millicores, {} pids, {} MiB /tmp",
        limits.memory_bytes >> 20,
        limits.millicpus,
        limits.pids,
        limits.tmp_bytes >> 20
    );
    [
        ("version", manifest.version.clone()),
        ("from", source.clone()),
        ("image", short(&image.to_string())),
        (
            "base",
            base.map_or_else(|| "none".to_owned(), |base| short(&base.to_string())),
        ),
        ("entrypoint", entrypoint.join(" ")),
        ("account", account.to_string()),
        ("limits", limits),
        ("state", format!("{state:?}").to_lowercase()),
        ("egress", list(egress)),
        ("uid", plugin.uid.to_string()),
    ]
}

/// Enough of an image id to compare by eye.
fn short(id: &str) -> String {
    id.get(..19).unwrap_or(id).to_owned()
}

#[cfg(test)]
mod tests;
