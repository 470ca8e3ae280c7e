//! The schedules and services of the lock.

use std::collections::{BTreeMap, BTreeSet};

use bailey_config::{Config, IfRunning, Schedule};
use bailey_trust::Lock;
use bailey_types::{PluginName, ScheduleId};

/// Which schedule: its plugin and its id there.
pub type Key = (PluginName, ScheduleId);

/// What is to be started when.
#[derive(Debug, Default)]
pub struct Plan {
    pub entries: BTreeMap<Key, Entry>,
    /// Plugins of which a cell is to last.
    pub services: BTreeSet<PluginName>,
}

/// One schedule.
#[derive(Clone, Debug)]
pub struct Entry {
    pub schedule: Schedule,
    /// Of its plugin: most jobs of schedules that are queued or running at once.
    pub max_outstanding: u32,
}

impl Entry {
    /// At how many outstanding jobs a start is left out.
    pub fn overlap_limit(&self) -> u32 {
        match self.schedule.if_running {
            // The configuration refuses `cancel` for now.
            IfRunning::Skip | IfRunning::Cancel => 1,
            IfRunning::Queue => self.max_outstanding,
        }
    }
}

/// The plan of a lock: from the locked text, not from the files.
pub fn parse(lock: &Lock) -> Result<Plan, String> {
    let config = bailey_config::parse(&lock.config_files).map_err(|e| e.to_string())?;
    let mut plan = of(&config);
    plan.services = services(lock, &config);
    Ok(plan)
}

fn services(lock: &Lock, config: &Config) -> BTreeSet<PluginName> {
    let locked = lock.plugins.iter();
    locked
        .filter(|(name, plugin)| {
            plugin.proposed.walls.service.is_some() && config.enabled_plugin(name).is_some()
        })
        .map(|(name, _)| name.clone())
        .collect()
}

fn of(config: &Config) -> Plan {
    let mut plan = Plan::default();
    for (name, plugin) in config.enabled_plugins() {
        for schedule in &plugin.schedules {
            let entry = Entry {
                schedule: schedule.clone(),
                max_outstanding: plugin.max_outstanding_polls,
            };
            plan.entries
                .insert((name.clone(), schedule.id.clone()), entry);
        }
    }
    plan
}
