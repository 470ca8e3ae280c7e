//! The containers that are kept ready, and the holders that serve one cell after another: what the reconciler watches over.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bailey_types::{AccountName, ImageId, PluginName, Serial};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::container::{Cell, Holder};
use crate::reconcile::{Keeper, Kept};
use crate::shelf::{Bounds, Shelf};

/// What makes a kept container worthless when it changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Of the lock.
    pub serial: Serial,
    /// Of the plugin.
    pub image: ImageId,
    /// Whom its cells run as.
    pub account: AccountName,
}

/// A cell that waits for a request, as its keeper knows it. Dropping it ends the cell.
pub struct Ready {
    /// Full id.
    pub id: String,
    /// Takes whoever wants the cell.
    pub claim: oneshot::Sender<oneshot::Sender<Cell>>,
}

/// What is kept for one plugin.
pub struct Stall {
    /// What it is of.
    pub key: Key,
    /// What is ready.
    pub shelf: Shelf<Holder, Ready>,
}

/// See the module.
#[derive(Default)]
pub struct Stalls {
    plugins: Mutex<BTreeMap<PluginName, Stall>>,
    /// Every holder that serves cells, from its start until just before it is removed.
    holders: Mutex<BTreeMap<String, (PluginName, CancellationToken)>>,
    /// Something may be to do.
    pub wake: Notify,
}

impl Stalls {
    /// All of them. Nothing waits while they are locked.
    pub fn all(&self) -> MutexGuard<'_, BTreeMap<PluginName, Stall>> {
        self.plugins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn holders(&self) -> MutexGuard<'_, BTreeMap<String, (PluginName, CancellationToken)>> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The plugin was used: from now on something is kept ready for it. Answers what was kept under another key.
    pub fn used(&self, plugin: &PluginName, key: &Key, bounds: Bounds) -> Option<Stall> {
        if bounds.cells == 0 && bounds.holders == 0 {
            return None;
        }
        let (now, mut all) = (Instant::now(), self.all());
        let old = match all.get_mut(plugin) {
            Some(stall) if stall.key == *key => {
                stall.shelf.used(now);
                None
            }
            Some(_) | None => {
                let stall = Stall {
                    key: key.clone(),
                    shelf: Shelf::new(bounds, now),
                };
                all.insert(plugin.clone(), stall)
            }
        };
        drop(all);
        self.wake.notify_one();
        old
    }

    /// A cell that waits for a request of this plugin, exactly as it is locked.
    pub async fn take_cell(&self, plugin: &PluginName, key: &Key) -> Option<Cell> {
        loop {
            let ready = self.with(plugin, key, |shelf| shelf.take_cell(Instant::now()))??;
            let (to, from) = oneshot::channel();
            // One that has just ended is nobody's any more.
            if ready.claim.send(to).is_ok()
                && let Ok(cell) = from.await
            {
                return Some(cell);
            }
        }
    }

    /// A holder that is ready, and until when.
    pub fn take_holder(&self, plugin: &PluginName, key: &Key) -> Option<(Holder, Instant)> {
        self.with(plugin, key, |shelf| shelf.take_holder(Instant::now()))?
    }

    /// A holder whose cell is removed; answered where it is of no more use.
    pub fn give_back(
        &self,
        plugin: &PluginName,
        key: &Key,
        (holder, until): (Holder, Instant),
    ) -> Option<Holder> {
        let mut all = self.all();
        let Some(stall) = all.get_mut(plugin).filter(|stall| stall.key == *key) else {
            return Some(holder);
        };
        if holder.ended.is_cancelled() {
            stall.shelf.lost_holder();
            return Some(holder);
        }
        stall.shelf.give_back(holder, until, Instant::now())
    }

    /// Does something with what is kept of the plugin under this key, if anything is.
    pub fn with<T>(
        &self,
        plugin: &PluginName,
        key: &Key,
        work: impl FnOnce(&mut Shelf<Holder, Ready>) -> T,
    ) -> Option<T> {
        let mut all = self.all();
        let stall = all.get_mut(plugin).filter(|stall| stall.key == *key)?;
        Some(work(&mut stall.shelf))
    }

    /// A holder that serves cells from now on.
    pub fn watch_over(&self, plugin: &PluginName, holder: &Holder) {
        let entry = (plugin.clone(), holder.ended.clone());
        self.holders().insert(holder.handle.id.to_string(), entry);
    }

    /// A holder that is about to be removed: its end is no news.
    pub fn let_go(&self, holder: &Holder) {
        self.holders().remove(&*holder.handle.id);
    }
}

#[cfg(test)]
impl Stalls {
    /// How many cells and how many holders are ready, of all plugins.
    pub fn ready(&self) -> (usize, usize) {
        let all = self.all();
        let each = all.values().map(|stall| stall.shelf.ready());
        each.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))
    }
}

impl Keeper for Stalls {
    fn kept(&self) -> Vec<Kept> {
        let holders = self.holders();
        let holders = holders.iter().map(|(id, (plugin, _))| Kept {
            id: id.clone(),
            plugin: plugin.clone(),
        });
        let mut kept: Vec<_> = holders.collect();
        for (plugin, stall) in &*self.all() {
            kept.extend(stall.shelf.cells().map(|ready| Kept {
                id: ready.id.clone(),
                plugin: plugin.clone(),
            }));
        }
        kept
    }

    fn gone(&self, id: &str) {
        if let Some((_, ended)) = self.holders().remove(id) {
            ended.cancel();
        }
        for stall in self.all().values_mut() {
            stall.shelf.drop_cells(|ready| ready.id == id);
        }
        self.wake.notify_one();
    }

    fn wake(&self) {
        self.wake.notify_one();
    }
}
