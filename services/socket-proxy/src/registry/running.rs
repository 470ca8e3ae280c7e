//! How much runs that has no grant or launch to be counted by.

use std::collections::BTreeMap;

use bailey_cell::{Identity, Pace, Target};

use super::{ContainerId, Denied, Entry, Life, Use};

/// Holders that were started and are not removed.
const MAX_HOLDERS: usize = 512;
/// The same, of one plugin: its jobs at a time are far fewer.
const MAX_PLUGIN_HOLDERS: usize = 64;
/// Probes that were started and are not removed; each runs for moments, but for those that watch a state.
const MAX_PROBES: usize = 16;
/// Probes that watch a state, of all plugins.
const MAX_WATCHES: usize = 256;
/// The same, of one plugin: the next may begin while the one before it is removed.
const MAX_PLUGIN_WATCHES: usize = 4;

/// How many were started and are not removed.
pub(super) struct Running {
    holders: usize,
    /// Of the same plugin.
    plugin_holders: usize,
    probes: usize,
    watches: usize,
    /// Of the same plugin.
    plugin_watches: usize,
}

impl Running {
    /// Those beside the container that is to start.
    pub(super) fn beside(
        entries: &BTreeMap<ContainerId, Entry>,
        id: &ContainerId,
    ) -> Result<Self, Denied> {
        let entry = entries.get(id).ok_or(Denied::Unknown)?;
        let plugin = entry.record.identity.plugin();
        let mut running = Self {
            holders: 0,
            plugin_holders: 0,
            probes: 0,
            watches: 0,
            plugin_watches: 0,
        };
        for other in entries.values() {
            match other.life {
                Life::Holder(Use::Free | Use::Taken(_) | Use::Spent) => {
                    running.holders += 1;
                    if other.record.identity.plugin() == plugin {
                        running.plugin_holders += 1;
                    }
                }
                Life::Probe { started: true } if is_watch(&other.record.identity) => {
                    running.watches += 1;
                    if other.record.identity.plugin() == plugin {
                        running.plugin_watches += 1;
                    }
                }
                Life::Probe { started: true } => running.probes += 1,
                Life::Holder(Use::New) | Life::Probe { .. } | Life::Cell { .. } => {}
            }
        }
        Ok(running)
    }

    /// Whether one more holder of the plugin may start.
    pub(super) fn another_holder(&self) -> Result<(), Denied> {
        if self.holders >= MAX_HOLDERS {
            return Err(Denied::TooManyRun(self.holders, "holders"));
        }
        if self.plugin_holders >= MAX_PLUGIN_HOLDERS {
            return Err(Denied::TooManyRun(
                self.plugin_holders,
                "holders of this plugin",
            ));
        }
        Ok(())
    }

    /// Whether one more probe of this identity may start.
    pub(super) fn another_probe(&self, identity: &Identity) -> Result<(), Denied> {
        if is_watch(identity) {
            if self.watches >= MAX_WATCHES {
                return Err(Denied::TooManyRun(self.watches, "watches"));
            }
            if self.plugin_watches >= MAX_PLUGIN_WATCHES {
                return Err(Denied::TooManyRun(
                    self.plugin_watches,
                    "watches of this plugin",
                ));
            }
            return Ok(());
        }
        if self.probes >= MAX_PROBES {
            return Err(Denied::TooManyRun(self.probes, "probes"));
        }
        Ok(())
    }
}

fn is_watch(identity: &Identity) -> bool {
    matches!(
        identity,
        Identity::Probe {
            target: Target::State(.., Pace::Watching),
            ..
        }
    )
}
