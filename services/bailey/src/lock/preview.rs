//! What a lock would change, file by file.

mod upstream;

use std::collections::{BTreeMap, BTreeSet};

use bailey_plugin::rating::Rating;
use bailey_plugin::{Limits, StateKind};
use bailey_trust::{Lock, LockedPlugin, Mode, ProposedPlugin, ServiceTerms};
use bailey_types::{PluginName, Serial, UpstreamName};
use serde::Serialize;
use serde_json::json;

use crate::output::{Out, count, plain};
use crate::rated::{self, Rated};
use upstream::UpstreamChange;

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
    /// How it would be rated.
    #[serde(skip_serializing_if = "Option::is_none")]
    rating: Option<Rating>,
}

/// The differences between two locks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Preview {
    serial: Serial,
    apart: Option<Apart>,
    plugins: BTreeMap<PluginName, PluginChange>,
    unchanged: usize,
    config_files: BTreeMap<String, Change>,
    upstreams: BTreeMap<UpstreamName, UpstreamChange>,
    warnings: Vec<String>,
}

/// The lock that is there is not the last one that the vault knows of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Apart {
    present: Serial,
    known: Serial,
}

impl Apart {
    fn of(present: Option<&Lock>, known: Serial) -> Option<Self> {
        let present = present?.serial;
        (present != known).then_some(Self { present, known })
    }

    fn sentence(self) -> String {
        let Self { present, known } = self;
        if present < known {
            format!(
                "bailey.lock is lock {present}, but {known} was signed, so every job waits: it was not written, or somebody put an earlier one in its place. What {known} has and {present} has not is not shown here."
            )
        } else {
            format!(
                "bailey.lock is lock {present}, but the vault knows of {known} only: an earlier vault was put in place. If you did not restore a copy, somebody else did (`bailey vault audit`)."
            )
        }
    }
}

/// A plugin of a lock, with its rating.
struct Side<'a> {
    plugin: &'a LockedPlugin,
    rating: Rating,
}

impl<'a> Side<'a> {
    fn of(rated: &Rated<'a>, name: &PluginName) -> Option<Self> {
        let plugin = rated.lock.plugins.get(name)?;
        Some(Self {
            plugin,
            rating: rated.rating(name, plugin),
        })
    }
}

impl Preview {
    /// The broker says which lock the vault knows of, and what it would not give under this one.
    pub(super) fn of(
        before: Option<&Rated<'_>>,
        rated: &Rated<'_>,
        (known, missing): (Serial, Vec<String>),
    ) -> Self {
        let (before, old, after) = (before.map(|rated| rated.lock), before, rated.lock);
        let names: BTreeSet<_> = before
            .into_iter()
            .chain([after])
            .flat_map(|lock| lock.plugins.keys())
            .collect();
        let all = names.len();
        let changes = names.into_iter().filter_map(|name| {
            let before = old.and_then(|rated| Side::of(rated, name));
            let change = plugin(name, before.as_ref(), Side::of(rated, name).as_ref())?;
            Some((name.clone(), change))
        });
        let plugins: BTreeMap<_, _> = changes.collect();
        let no_files = BTreeMap::new();
        let config_files = differences(
            before.map_or(&no_files, |lock| &lock.config_files),
            &after.config_files,
        );
        let mut warnings = [rated.warnings(), missing].concat();
        let unreadable = old.is_some_and(|old| old.config().is_none());
        if unreadable && !config_files.is_empty() {
            warnings.push("this version cannot read the configuration that is locked: its upstreams are shown as if they were new".to_owned());
        }
        Self {
            serial: after.serial,
            apart: Apart::of(before, known),
            unchanged: all - plugins.len(),
            plugins,
            upstreams: upstream::changes(old.and_then(Rated::config), rated.config()),
            config_files,
            warnings,
        }
    }

    /// Whether signing it would change nothing but the serial, and the serial need not change.
    pub(super) fn is_empty(&self) -> bool {
        self.is_same() && self.apart.is_none()
    }

    fn is_same(&self) -> bool {
        self.plugins.is_empty() && self.config_files.is_empty()
    }

    pub(super) fn to_json(&self, code: &str) -> serde_json::Value {
        let code = (!self.is_empty()).then_some(code);
        let signed = self.apart.map(|apart| apart.known);
        json!({ "code": code, "serial": self.serial, "signed": signed, "plugins": self.plugins, "unchanged": self.unchanged, "config_files": self.config_files, "upstreams": self.upstreams, "warnings": self.warnings })
    }

    pub(super) fn show(&self, out: &mut Out) {
        if self.is_empty() {
            out.line(format_args!(
                "Nothing is different from the lock: {}.",
                count(self.unchanged, "plugin")
            ));
            return;
        }
        if let Some(apart) = self.apart {
            out.line(format_args!("! {}", apart.sentence()));
        }
        if self.is_same() {
            let serial = self.serial;
            out.line(format_args!("Lock {serial} would be the same anew:"));
        } else {
            out.line(format_args!("Lock {} would change:", self.serial));
        }
        for (name, change) in &self.config_files {
            out.line(format_args!("{} configuration {name}", change.mark()));
        }
        for (name, upstream) in &self.upstreams {
            out.line(format_args!("{} upstream {name}", upstream.change.mark()));
            for detail in &upstream.details {
                out.line(format_args!("      {}", plain(detail)));
            }
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
            let how = if self.unchanged == 1 {
                "as it is"
            } else {
                "as they are"
            };
            out.line(format_args!("= {} {how}", count(self.unchanged, "plugin")));
        }
        for warning in &self.warnings {
            out.line(format_args!("! {warning}"));
        }
    }
}

fn plugin(
    name: &PluginName,
    before: Option<&Side<'_>>,
    after: Option<&Side<'_>>,
) -> Option<PluginChange> {
    let locked = |side: Option<&Side<'_>>| side.map(|side| side.plugin.clone());
    let change = Change::of(locked(before).as_ref(), locked(after).as_ref())?;
    let files = |side: Option<&Side<'_>>| {
        side.map(|side| side.plugin.proposed.files.clone())
            .unwrap_or_default()
    };
    let files = match change {
        // That it is gone says it all.
        Change::Removed => BTreeMap::new(),
        Change::New | Change::Changed => differences(&files(before), &files(after)),
    };
    let details = after
        .map(|after| details(name, before, after))
        .unwrap_or_default();
    Some(PluginChange {
        change,
        files,
        details,
        rating: after.map(|after| after.rating.clone()),
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
fn details(name: &PluginName, before: Option<&Side<'_>>, after: &Side<'_>) -> Vec<String> {
    let Some(before) = before else {
        let all = facts(after).into_iter();
        return all.map(|(name, value)| format!("{name} {value}")).collect();
    };
    let pairs = facts(before).into_iter().zip(facts(after));
    let different = pairs.filter(|((_, old), (_, new))| old != new);
    let mut details: Vec<_> = different
        .map(|((name, old), (_, new))| format!("{name} {old} -> {new}"))
        .collect();
    let (old, new) = (before.plugin, after.plugin);
    for path in &new.proposed.host_paths {
        let same_name = old.proposed.host_paths.iter().find(|o| o.path == path.path);
        if same_name.is_some_and(|old| (old.device, old.inode) != (path.device, path.inode)) {
            let path = path.path.display();
            details.push(format!(
                "{path} is another folder or file than the one that was locked"
            ));
        }
    }
    if new.state_generation != old.state_generation {
        details.push("what it kept so far is left behind".to_owned());
    } else if new.proposed.state != StateKind::None && new.proposed.image != old.proposed.image {
        details.push(format!(
            "what its earlier code kept stays; to leave it behind: --reset-state {name}"
        ));
    }
    details
}

/// Everything of a plugin that an operator may want to compare, in the order in which it is shown.
fn facts(side: &Side<'_>) -> [(&'static str, String); 16] {
    let plugin = side.plugin;
    let ProposedPlugin {
        manifest,
        image,
        base,
        entrypoint,
        source,
        account,
        ..
    } = &plugin.proposed;
    let walls = &plugin.proposed.walls;
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
        ("runs as", identity(plugin)),
        (
            "runtime",
            walls.runtime.clone().unwrap_or_else(|| "runc".to_owned()),
        ),
        ("host paths", host_paths(&plugin.proposed)),
        ("limits", limits(&plugin.proposed.limits)),
        (
            "if it changes",
            walls.untrusted.as_ref().map_or_else(
                || "it fails".to_owned(),
                |bounds| format!("untrusted: {}", limits(bounds)),
            ),
        ),
        ("state", kept(&plugin.proposed)),
        ("egress", egress(&plugin.proposed)),
        ("warm cells", walls.warm.to_string()),
        ("service", service(walls.service.as_ref())),
        ("rating", rated::line(&side.rating)),
    ]
}

/// Everything that is locked of a plugin, for `plugin show`.
pub(crate) fn shown(plugin: &LockedPlugin, rating: Rating) -> Vec<(&'static str, String)> {
    facts(&Side { plugin, rating }).into()
}

fn identity(plugin: &LockedPlugin) -> String {
    match plugin.proposed.walls.mode {
        Mode::Confined => format!("confined, uid {}", plugin.uid),
        Mode::Credentialed { uid, gid } => {
            format!("CREDENTIALED, uid {uid}, gid {gid} of the host")
        }
        Mode::Unconfined => "UNCONFINED, root of the engine's default container".to_owned(),
    }
}

fn host_paths(plugin: &ProposedPlugin) -> String {
    let home = plugin.walls.home.as_ref();
    let paths = plugin.host_paths.iter().map(|path| {
        let mode = if path.writable { "rw" } else { "ro" };
        let home = if home == Some(&path.path) {
            ", HOME"
        } else {
            ""
        };
        format!("{} ({mode}{home})", path.path.display())
    });
    or_none(&paths.collect::<Vec<_>>())
}

fn kept(plugin: &ProposedPlugin) -> String {
    let place = match plugin.state {
        StateKind::None => return "none".to_owned(),
        StateKind::Data => "data",
        StateKind::Home => "home",
    };
    let limit = &plugin.walls.state_limit;
    format!(
        "{place} ({} MiB, {})",
        limit.total_bytes.div_ceil(1 << 20),
        count(limit.files, "file")
    )
}

fn egress(plugin: &ProposedPlugin) -> String {
    if plugin.egress.is_empty() {
        return "none".to_owned();
    }
    let bounds = &plugin.walls.egress_limits;
    format!(
        "{} ({} at once, {} KiB a call, {} s each)",
        plugin.egress.join(" "),
        count(bounds.connections, "connection"),
        bounds.total_bytes >> 10,
        bounds.connection_seconds
    )
}

fn service(terms: Option<&ServiceTerms>) -> String {
    match terms {
        None => "no".to_owned(),
        Some(ServiceTerms {
            heartbeat_seconds: None,
        }) => "yes: its command serve runs all the time".to_owned(),
        Some(ServiceTerms {
            heartbeat_seconds: Some(seconds),
        }) => {
            format!(
                "yes: its command serve runs all the time, and is ended when it is silent for {seconds} s"
            )
        }
    }
}

fn limits(limits: &Limits) -> String {
    format!(
        "{} MiB memory, {} millicores, {} pids, {} MiB /tmp",
        limits.memory_bytes >> 20,
        limits.millicpus,
        limits.pids,
        limits.tmp_bytes >> 20
    )
}

fn or_none(items: &[String]) -> String {
    if items.is_empty() {
        "none".to_owned()
    } else {
        items.join(" ")
    }
}

/// Enough of an image id to compare by eye.
fn short(id: &str) -> String {
    id.get(..19).unwrap_or(id).to_owned()
}

#[cfg(test)]
mod tests;
