//! Plugins whose containers end again and again before anybody asked them anything, or though they should last: none of such a plugin is
//! kept ready or running until the operator says so, or locks it anew.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bailey_trust::{Lock, LockedPlugin};
use bailey_types::PluginName;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::audit::Record;

/// This many crashes within [`WINDOW`] are a loop.
const CRASHES: usize = 5;
/// How long a crash counts.
const WINDOW: Duration = Duration::from_mins(10);
/// Crashes so close together count as one: what ends several containers at once (an operator, a full host) is not the plugin.
const BURST: Duration = Duration::from_secs(1);
/// At most this many doublings of a pause of one second.
const DOUBLINGS: usize = 3;

/// A plugin that is kept from starting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The plugin.
    pub plugin: PluginName,
    /// Why, in a sentence.
    pub reason: String,
}

/// See the module. Kept in memory only: another life of the runner counts from nothing.
pub struct Quarantine {
    histories: Mutex<BTreeMap<PluginName, History>>,
    held: watch::Sender<Vec<Held>>,
    audit: Arc<dyn Record>,
}

/// What became of a plugin's containers.
struct History {
    /// What was locked under its name. Another entry is another plugin, whose crashes were not counted yet.
    locked: LockedPlugin,
    /// Oldest first; none is older than [`WINDOW`] when it was last looked at.
    crashes: VecDeque<Instant>,
    /// Why it is held; `None` where it is not.
    held: Option<String>,
}

impl Quarantine {
    /// Nothing has crashed yet.
    pub fn new(audit: Arc<dyn Record>) -> Self {
        Self {
            histories: Mutex::default(),
            held: watch::Sender::default(),
            audit,
        }
    }

    /// A container of the plugin ended that should have waited for a request, or should have lasted. Answers whether the plugin is held.
    pub fn crashed(&self, plugin: &PluginName, locked: &LockedPlugin, why: &str) -> bool {
        let now = Instant::now();
        let mut histories = self.histories();
        let history = histories
            .entry(plugin.clone())
            .or_insert_with(|| History::of(locked));
        if history.locked != *locked {
            *history = History::of(locked);
        }
        let became_held = history.count(plugin, now, why);
        let is_held = history.held.is_some();
        drop(histories);
        if became_held {
            self.audit.record(
                "cell.quarantined",
                json!({"plugin": plugin, "image": locked.proposed.image, "crashes": CRASHES}),
            );
            tracing::error!(
                plugin.name = %plugin,
                "{plugin} is quarantined: {CRASHES} of its containers ended by themselves within {} minutes, the last one because {why}",
                WINDOW.as_secs() / 60
            );
            self.publish();
        }
        is_held
    }

    /// Refuses a plugin that is held, with the reason. An entry of the lock that has changed since is not.
    pub fn check(&self, plugin: &PluginName, locked: &LockedPlugin) -> Result<(), String> {
        let histories = self.histories();
        let history = histories
            .get(plugin)
            .filter(|history| history.locked == *locked);
        match history.and_then(|history| history.held.clone()) {
            Some(reason) => Err(reason),
            None => Ok(()),
        }
    }

    /// How long to wait before another container of the plugin is started ahead.
    pub fn pause(&self, plugin: &PluginName) -> Duration {
        let now = Instant::now();
        let mut histories = self.histories();
        let Some(history) = histories.get_mut(plugin) else {
            return Duration::ZERO;
        };
        history.forget(now);
        let Some(last) = history.crashes.back() else {
            return Duration::ZERO;
        };
        let doublings = (history.crashes.len() - 1).min(DOUBLINGS);
        let pause = Duration::from_secs(1 << doublings);
        pause.saturating_sub(now.duration_since(*last))
    }

    /// `principal` says that what was wrong is mended. Answers whether the plugin was held.
    pub fn clear(&self, plugin: &PluginName, principal: &str) -> bool {
        let removed = self.histories().remove(plugin);
        let was_held = removed.is_some_and(|history| history.held.is_some());
        if was_held {
            self.released(plugin, principal);
            self.publish();
        }
        was_held
    }

    /// Forgets whatever the lock does not name any more, or names as something else.
    pub fn follow(&self, lock: &Lock) {
        let mut freed = Vec::new();
        self.histories().retain(|plugin, history| {
            let is_same = lock.plugins.get(plugin) == Some(&history.locked);
            if !is_same && history.held.is_some() {
                freed.push(plugin.clone());
            }
            is_same
        });
        if freed.is_empty() {
            return;
        }
        for plugin in freed {
            self.released(&plugin, "lock");
        }
        self.publish();
    }

    /// The plugins that are held, and each change of them.
    pub fn held(&self) -> watch::Receiver<Vec<Held>> {
        self.held.subscribe()
    }

    fn released(&self, plugin: &PluginName, by: &str) {
        self.audit
            .record("cell.released", json!({"plugin": plugin, "by": by}));
        tracing::info!(plugin.name = %plugin, "{plugin} is not quarantined any more");
    }

    fn publish(&self) {
        let histories = self.histories();
        let held = histories
            .iter()
            .filter_map(|(plugin, history)| {
                let (plugin, reason) = (plugin.clone(), history.held.clone()?);
                Some(Held { plugin, reason })
            })
            .collect();
        // While the histories are locked, so that a newer state is not overwritten by an older one.
        self.held.send_replace(held);
    }

    fn histories(&self) -> MutexGuard<'_, BTreeMap<PluginName, History>> {
        self.histories
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl History {
    fn of(locked: &LockedPlugin) -> Self {
        Self {
            locked: locked.clone(),
            crashes: VecDeque::new(),
            held: None,
        }
    }

    fn forget(&mut self, now: Instant) {
        self.crashes
            .retain(|crash| now.duration_since(*crash) < WINDOW);
    }

    /// Counts a crash; answers whether it was the one too many.
    fn count(&mut self, plugin: &PluginName, now: Instant, why: &str) -> bool {
        self.forget(now);
        let is_burst = self
            .crashes
            .back()
            .is_some_and(|last| now.duration_since(*last) < BURST);
        if is_burst || self.held.is_some() {
            return false;
        }
        self.crashes.push_back(now);
        if self.crashes.len() < CRASHES {
            return false;
        }
        self.held = Some(format!(
            "{plugin} is quarantined: {CRASHES} of its containers ended by themselves within {} minutes ({why}); \
             none is started ahead or kept running any more: mend it (or say `warm: 0`), then run `bailey plugin clear {plugin}` or lock it anew",
            WINDOW.as_secs() / 60
        ));
        true
    }
}

#[cfg(test)]
mod tests;
