//! Of a service at most one cell is there at a time, whatever the engine assigns: two would write to one volume.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bailey_types::PluginName;
use tokio::sync::OwnedMutexGuard;

/// The right to have the one cell that lasts of a plugin: given up when that is dropped.
pub type Turn = OwnedMutexGuard<()>;

/// See the module. What it keeps is a few bytes for each plugin that ever was a service in this process's life.
#[derive(Debug, Default)]
pub struct Turns(Mutex<BTreeMap<PluginName, Arc<tokio::sync::Mutex<()>>>>);

impl Turns {
    /// Waits until the cell before is gone.
    pub async fn take(&self, plugin: &PluginName) -> Turn {
        let turn = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(all.entry(plugin.clone()).or_default())
        };
        turn.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn of_each_plugin_one_has_the_turn_and_the_next_gets_it_when_it_is_dropped() {
        let turns = Turns::default();
        let (one, other) = ("one".parse().unwrap(), "other".parse().unwrap());
        let first = turns.take(&one).now_or_never().unwrap();
        assert!(turns.take(&one).now_or_never().is_none());
        assert!(turns.take(&other).now_or_never().is_some());
        drop(first);
        assert!(turns.take(&one).now_or_never().is_some());
    }
}
