//! Keeps cells and holders ready, and puts containers away that are done with. None of it is on the way of a call.

use std::sync::Arc;
use std::time::Duration;

use bailey_config::Config;
use bailey_service::Context;
use bailey_trust::{Loaded, LockSource, LockedPlugin};
use bailey_types::PluginName;
use serde_json::json;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::attach::Late;
use crate::attempt::{Parting, Remains, Trouble};
use crate::audit::Record;
use crate::backoff::Backoff;
use crate::care::Care;
use crate::container::{Cell, Handle, Holder, Maker, Tenancy};
use crate::grants::Grants;
use crate::kept::{Key, Ready, Stall, Stalls};
use crate::make::Make;
use crate::quarantine::Quarantine;
use crate::shelf::{Bounds, Shelf, Step};

/// How often what is kept is looked at when nothing happens.
const TURN: Duration = Duration::from_secs(5);
/// How far a call is ahead of the making of what the next one is to find.
const HEAD_START: Duration = Duration::from_millis(50);
/// How long a cell that has answered may take to end by itself.
const PARTING: Duration = Duration::from_secs(2);
/// Waits between tries to remove what must be gone.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LAST_WAIT: Duration = Duration::from_secs(8);

/// See the module.
pub struct Pools {
    /// Tasks and shutdown.
    pub ctx: Context,
    /// Makes containers.
    pub maker: Arc<Maker>,
    /// What may run.
    pub lock: Arc<LockSource<Config>>,
    /// Leave to start cells ahead.
    pub grants: Grants,
    /// What is kept.
    pub stalls: Arc<Stalls>,
    /// Who looks after Docker.
    pub care: Arc<Care>,
    /// Who counts crashes.
    pub quarantine: Arc<Quarantine>,
    /// The audit log.
    pub audit: Arc<dyn Record>,
    /// Room for containers that are kept ready.
    pub room: Arc<Semaphore>,
}

impl Pools {
    /// Keeps what is kept in order until the runner stops; then throws it away.
    pub async fn tend(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.ctx.shutdown.cancelled() => break,
                () = self.stalls.wake.notified() => {}
                () = tokio::time::sleep(TURN) => {}
            }
            self.turn();
        }
        let all = std::mem::take(&mut *self.stalls.all());
        for stall in all.into_values() {
            self.dispose(stall);
        }
    }

    /// The plugin was used: from now on something is kept ready for it. That begins a moment later: the call that is under way would share the
    /// machine with it.
    pub fn used(self: &Arc<Self>, plugin: PluginName, key: Key, bounds: Bounds) {
        let pools = Arc::clone(self);
        self.ctx.spawn("used", async move {
            tokio::time::sleep(HEAD_START).await;
            if let Some(old) = pools.stalls.used(&plugin, &key, bounds) {
                pools.dispose(old);
            }
            Ok(())
        });
    }

    /// Throws everything away that is kept in it.
    pub fn dispose(self: &Arc<Self>, mut stall: Stall) {
        // Its cells end with their `Ready`.
        let (holders, cells) = stall.shelf.clear();
        drop(cells);
        for holder in holders {
            self.drop_holder(holder);
        }
    }

    fn turn(self: &Arc<Self>) {
        // Without a lock nothing is made, and what is kept waits.
        let Ok(loaded) = self.lock.current() else {
            return;
        };
        let plugins: Vec<PluginName> = self.stalls.all().keys().cloned().collect();
        for plugin in plugins {
            self.turn_one(&plugin, &loaded);
        }
    }

    fn turn_one(self: &Arc<Self>, plugin: &PluginName, loaded: &Arc<Loaded<Config>>) {
        let locked = loaded.lock.plugins.get(plugin);
        let key = locked.map(|locked| key(locked, loaded));
        let admitted = locked.is_some_and(|locked| self.quarantine.check(plugin, locked).is_ok());
        let mut all = self.stalls.all();
        let stale = all
            .get(plugin)
            .is_some_and(|stall| !admitted || Some(&stall.key) != key.as_ref());
        if stale {
            let removed = all.remove(plugin);
            drop(all);
            if let Some(stall) = removed {
                self.dispose(stall);
            }
            return;
        }
        let (Some(kept), Some(key)) = (all.get_mut(plugin), key) else {
            return;
        };
        let lost = kept
            .shelf
            .drop_holders(|holder| holder.ended.is_cancelled());
        // Where jobs may not start, nothing is started for them either.
        let may_make = self.care.admit().is_ok()
            && self.care.standing().borrow().trouble.is_empty()
            && !self.ctx.shutdown.is_cancelled();
        let steps = kept.shelf.plan(Instant::now(), may_make);
        drop(all);
        for holder in lost {
            self.drop_holder(holder);
        }
        for step in steps {
            self.take(plugin, &key, loaded, step);
        }
    }

    fn take(
        self: &Arc<Self>,
        plugin: &PluginName,
        key: &Key,
        loaded: &Arc<Loaded<Config>>,
        step: Step<Holder, Ready>,
    ) {
        let make = Make {
            pools: Arc::clone(self),
            plugin: plugin.clone(),
            key: key.clone(),
            loaded: Arc::clone(loaded),
        };
        match step {
            Step::DropHolder(holder) => self.drop_holder(holder),
            Step::DropCell(ready) => drop(ready),
            Step::MakeHolder => self.ctx.spawn("holder", make.holder()),
            Step::MakeCell(holder) => self.ctx.spawn("pool", make.cell(holder)),
        }
    }

    /// Removes a holder that no cell is in.
    pub fn drop_holder(self: &Arc<Self>, holder: Holder) {
        self.stalls.let_go(&holder);
        let pools = Arc::clone(self);
        self.ctx.spawn("holder", async move {
            pools.remove_holder(holder).await;
            Ok(())
        });
    }

    pub async fn remove_holder(&self, holder: Holder) {
        self.stalls.let_go(&holder);
        if let Err(why) = holder.handle.remove().await {
            self.care.unwell(&Trouble::Docker(why));
        }
    }

    /// Parts with a cell that is done with, beside whatever else goes on. What it still says on standard error is told when it has ended; where
    /// there is nothing to tell, the other end is dropped. Where it was well, it is removed once it is `reported`: whoever waits for the answer
    /// would share the machine with that.
    pub fn part(
        self: &Arc<Self>,
        remains: Remains,
        reported: CancellationToken,
    ) -> oneshot::Receiver<Late> {
        let Remains {
            mut cell,
            plugin,
            key,
            parting,
        } = remains;
        let (tell, told) = oneshot::channel();
        let pools = Arc::clone(self);
        self.ctx.spawn("parting", async move {
            if parting == Parting::Gentle {
                tokio::select! {
                    () = cell.watch.part(PARTING) => {}
                    () = pools.ctx.shutdown.cancelled() => {}
                }
                pools.late(&plugin, &cell);
                if let Some(late) = cell.watch.collector.late()
                    && tell.send(late).is_err()
                {
                    tracing::debug!(plugin.name = %plugin, "nobody waited for what {plugin} still said");
                }
                tokio::select! {
                    () = reported.cancelled() => {}
                    () = tokio::time::sleep(PARTING) => {}
                    () = pools.ctx.shutdown.cancelled() => {}
                }
            }
            pools.put_away(&plugin, &key, cell).await;
            Ok(())
        });
        told
    }

    /// What a plugin writes after its answer is no reason to fail the job, but somebody should know.
    fn late(&self, plugin: &PluginName, cell: &Cell) {
        let bytes = cell.watch.collector.late_bytes();
        if bytes > 0 {
            let container = &*cell.handle.id;
            let fields = json!({"container": container, "plugin": plugin, "bytes": bytes});
            self.audit.record("cell.late_output", fields);
            tracing::warn!(container.id = container, plugin.name = %plugin, "{plugin} wrote {bytes} bytes after its answer");
        }
    }

    /// Removes a cell; what it was in goes with it, or serves the next.
    async fn put_away(&self, plugin: &PluginName, key: &Key, cell: Cell) {
        let Cell {
            handle,
            watch,
            input,
            tenancy,
            berth,
            room,
            turn,
            ..
        } = cell;
        drop((watch, input));
        let removed = handle.remove().await;
        let is_removed = removed.is_ok();
        if let Err(why) = removed {
            self.care.unwell(&Trouble::Docker(why));
        }
        drop((berth, room));
        if let Some(turn) = turn {
            if !is_removed {
                self.insist(&handle).await;
            }
            drop(turn);
        }
        match tenancy {
            Tenancy::Alone => {}
            Tenancy::Own(holder) => self.remove_holder(holder).await,
            Tenancy::Kept(holder, until) => {
                let spent = if is_removed && !self.ctx.shutdown.is_cancelled() {
                    self.stalls.give_back(plugin, key, (holder, until))
                } else {
                    self.stalls.with(plugin, key, Shelf::lost_holder);
                    Some(holder)
                };
                if let Some(holder) = spent {
                    self.remove_holder(holder).await;
                }
            }
        }
        self.stalls.wake.notify_one();
    }

    /// Tries to remove a container until it is gone, or the runner stops: then the next life removes it before it starts anything.
    async fn insist(&self, handle: &Handle) {
        let mut backoff = Backoff::new(FIRST_WAIT, LAST_WAIT);
        let gone = async {
            while handle.remove().await.is_err() {
                tokio::time::sleep(backoff.next()).await;
            }
        };
        tokio::select! {
            () = gone => {}
            () = self.ctx.shutdown.cancelled() => {}
        }
    }

    /// Removes what a cell was to be in that could not be made.
    pub fn vacate(self: &Arc<Self>, plugin: &PluginName, key: &Key, tenancy: Tenancy) {
        match tenancy {
            Tenancy::Alone => {}
            Tenancy::Own(holder) => self.drop_holder(holder),
            Tenancy::Kept(holder, _) => {
                self.stalls.with(plugin, key, Shelf::lost_holder);
                self.drop_holder(holder);
            }
        }
    }

    /// A cell that never got its request wrote something.
    pub fn early(&self, plugin: &PluginName, locked: &LockedPlugin, container: &str) {
        let fields =
            json!({"container": container, "plugin": plugin, "image": locked.proposed.image});
        self.audit.record("cell.early_output", fields);
        tracing::warn!(container.id = container, plugin.name = %plugin, "{plugin} wrote before it had a request; its cell is killed");
        let why = "it wrote before it had a request";
        self.quarantine.crashed(plugin, locked, why);
    }
}

/// What makes a container of the plugin worthless when it changes.
pub fn key(locked: &LockedPlugin, loaded: &Loaded<Config>) -> Key {
    Key {
        serial: loaded.lock.serial,
        image: locked.proposed.image,
        account: locked.proposed.account.clone(),
    }
}
