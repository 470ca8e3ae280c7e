//! The clock: what is due is signed and written down; [`crate::delivery`] sends it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bailey_config::{CatchUp, When};
use bailey_service::Context;
use bailey_trust::{Asked, Loaded, Origin, sign};
use bailey_types::{OriginId, Sha256, Timestamp};
use rand::Rng as _;

use crate::db;
use crate::db::pending::Start;
use crate::db::schedule::Row;
use crate::plan::{Entry, Key, Plan};
use crate::rhythm::Rhythm;
use crate::service;
use crate::state::State;

/// How often the lock is looked at (one `stat`).
const LOOK: Duration = Duration::from_secs(1);

/// A date that never comes.
const NEVER: Timestamp = Timestamp(i64::MAX);

/// Fires what is due until the shutdown.
pub async fn run(ctx: Context, state: State) -> anyhow::Result<()> {
    let mut timer = Timer {
        ctx: ctx.clone(),
        state,
        loaded: None,
        schedules: BTreeMap::new(),
    };
    loop {
        timer.look().await?;
        timer.fire_due().await?;
        let now = ctx.clock.now();
        if service::is_due(&timer.state, now) {
            timer.state.fired.notify_one();
        }
        let next = timer
            .schedules
            .values()
            .map(|schedule| schedule.row.due)
            .min()
            .unwrap_or(NEVER);
        tokio::select! {
            () = tokio::time::sleep(next.since(now).min(LOOK)) => {}
            () = ctx.shutdown.cancelled() => return Ok(()),
        }
    }
}

struct Timer {
    ctx: Context,
    state: State,
    loaded: Option<Arc<Loaded<Plan>>>,
    schedules: BTreeMap<Key, Scheduled>,
}

struct Scheduled {
    entry: Entry,
    rhythm: Rhythm,
    row: Row,
}

impl Timer {
    /// Takes over a lock that has changed. Without a valid one nothing is due.
    async fn look(&mut self) -> anyhow::Result<()> {
        match self.state.lock.current() {
            Ok(loaded) => {
                if self
                    .loaded
                    .as_ref()
                    .is_none_or(|known| !Arc::ptr_eq(known, &loaded))
                {
                    self.take_over(&loaded)
                        .await
                        .context("taking over a lock")?;
                    self.ctx.trouble("lock", None);
                    self.ctx.goes_by(loaded.lock.serial.0);
                    self.loaded = Some(loaded);
                }
            }
            Err(error) => {
                self.ctx.trouble("lock", Some(error.to_string()));
                self.ctx.goes_by(0);
                self.loaded = None;
                self.schedules.clear();
            }
        }
        Ok(())
    }

    async fn take_over(&mut self, loaded: &Loaded<Plan>) -> anyhow::Result<()> {
        let now = self.state.clock.now();
        let mut tx = self.state.db.write().await?;
        db::lock::remember(&mut tx, loaded.lock.serial).await?;
        for key in db::schedule::keys(&mut tx).await? {
            if !loaded.view.entries.contains_key(&key) {
                db::schedule::delete(&mut tx, &key).await?;
            }
        }
        let mut schedules = BTreeMap::new();
        for (key, entry) in &loaded.view.entries {
            let known = db::schedule::find(&mut tx, key).await?;
            let (rhythm, row, missed) = resumed(entry, known, now)?;
            db::schedule::write(&mut tx, key, &row).await?;
            for slot in &missed {
                let caught_up = missed.len() > 1;
                db::pending::insert(&mut tx, &self.start(key, entry, *slot, caught_up)?).await?;
            }
            schedules.insert(
                key.clone(),
                Scheduled {
                    entry: entry.clone(),
                    rhythm,
                    row,
                },
            );
        }
        tx.commit().await?;
        tracing::info!(
            lock.serial = loaded.lock.serial.0,
            "{} schedules are in force",
            schedules.len()
        );
        self.schedules = schedules;
        let services = service::all(&self.state, &loaded.view.services)?;
        *self.state.services() = services;
        // Starts of an earlier life wait too.
        self.state.fired.notify_one();
        Ok(())
    }

    async fn fire_due(&mut self) -> anyhow::Result<()> {
        let now = self.state.clock.now();
        let due: Vec<Key> = self
            .schedules
            .iter()
            .filter(|(_, schedule)| schedule.row.due <= now)
            .map(|(key, _)| key.clone())
            .collect();
        if due.is_empty() {
            return Ok(());
        }
        let mut tx = self
            .state
            .db
            .write()
            .await
            .context("writing down what is due")?;
        let mut fired = Vec::new();
        for key in due {
            let Some(schedule) = self.schedules.get(&key) else {
                continue;
            };
            // However late the timer is, one start is due: the newest.
            let missed = schedule
                .rhythm
                .missed(schedule.row.slot, now, CatchUp::RunOnce);
            let slot = missed.last().copied().unwrap_or(schedule.row.slot);
            let row = Row {
                last_fired: Some(now),
                ..next(
                    &schedule.entry,
                    &schedule.rhythm,
                    &schedule.row,
                    now.max(slot),
                )
            };
            if db::pending::exists(&mut tx, &key).await? {
                tracing::info!(plugin.name = %key.0, schedule.id = %key.1, "left out a start: the engine does not have the last one yet");
            } else {
                db::pending::insert(&mut tx, &self.start(&key, &schedule.entry, slot, false)?)
                    .await?;
            }
            db::schedule::write(&mut tx, &key, &row).await?;
            fired.push((key, row));
        }
        tx.commit().await.context("writing down what is due")?;
        for (key, row) in fired {
            if let Some(schedule) = self.schedules.get_mut(&key) {
                schedule.row = row;
            }
        }
        self.state.fired.notify_one();
        Ok(())
    }

    /// A start with its origin, signed.
    fn start(
        &self,
        key: &Key,
        entry: &Entry,
        slot: Timestamp,
        caught_up: bool,
    ) -> anyhow::Result<Start> {
        let (plugin, id) = key;
        let schedule = &entry.schedule;
        let payload = serde_json::to_vec(&schedule.payload).context("writing a payload")?;
        let origin = Origin {
            id: OriginId::new(),
            principal: format!("schedule:{plugin}:{id}"),
            asked: Asked::Call {
                plugin: plugin.clone(),
                command: schedule.command.clone(),
                payload_sha256: Sha256::of(&payload),
            },
            scopes: Vec::new(),
            issued_at: self.state.clock.now(),
        };
        let origin = sign(&origin, &self.state.key).context("signing an origin")?;
        Ok(Start {
            key: key.clone(),
            slot,
            command: schedule.command.clone(),
            payload,
            origin,
            caught_up,
        })
    }
}

/// Where a schedule goes on, and what it has missed. A new one, or one with another rhythm, starts anew.
fn resumed(
    entry: &Entry,
    known: Option<Row>,
    now: Timestamp,
) -> anyhow::Result<(Rhythm, Row, Vec<Timestamp>)> {
    let when = &entry.schedule.when;
    let text = serde_json::to_string(when).context("writing a rhythm")?;
    let last_fired = known.as_ref().and_then(|row| row.last_fired);
    let known = known.filter(|row| row.rhythm == text);
    let Some(row) = known else {
        let anchor = match (when, last_fired) {
            // A changed interval counts from the last start, so that a change does not start the job again at once.
            (When::Every(interval), Some(last)) => last.plus(*interval).max(now),
            (When::Every(_) | When::Cron { .. }, _) => now,
        };
        let rhythm = Rhythm::new(when, anchor)?;
        let start = Row {
            rhythm: text,
            anchor,
            slot: anchor,
            due: anchor,
            last_fired,
        };
        let row = match when {
            When::Every(_) => Row {
                due: jittered(entry, anchor),
                ..start
            },
            When::Cron { .. } => next(entry, &rhythm, &start, now),
        };
        return Ok((rhythm, row, Vec::new()));
    };
    let rhythm = Rhythm::new(when, row.anchor)?;
    if row.due > now {
        return Ok((rhythm, row, Vec::new()));
    }
    let missed = rhythm.missed(row.slot, now, entry.schedule.catch_up);
    let last_fired = if missed.is_empty() {
        row.last_fired
    } else {
        Some(now)
    };
    let row = Row {
        last_fired,
        ..next(entry, &rhythm, &row, now)
    };
    Ok((rhythm, row, missed))
}

/// The row with the first slot after `time`.
fn next(entry: &Entry, rhythm: &Rhythm, row: &Row, time: Timestamp) -> Row {
    let slot = rhythm.after(time).unwrap_or(NEVER);
    Row {
        slot,
        due: jittered(entry, slot),
        ..row.clone()
    }
}

fn jittered(entry: &Entry, slot: Timestamp) -> Timestamp {
    let most = u64::try_from(entry.schedule.jitter.as_millis()).unwrap_or(u64::MAX);
    if most == 0 {
        return slot;
    }
    slot.plus(Duration::from_millis(rand::thread_rng().gen_range(0..most)))
}

#[cfg(test)]
mod tests;
