//! What the keeper of the log does with its orders.

use bailey_audit_log::{Log, NewEntry};
use bailey_error::Chain;
use bailey_service::Context;
use bailey_types::{Clock, Service};
use tokio::sync::mpsc;

use super::{Answer, Append, Done, LATEST_ENTRIES, Order, Read, State};
use crate::entry::Received;
use crate::error::Error;
use crate::fold::{Folded, Folds, Key};
use crate::reserve::{Room, Volume, may_use_reserve};

/// Entries that are written together.
const MAX_BATCH: usize = 1024;

/// Journal size from which it is published without waiting for the next tick.
const MAX_JOURNAL_BYTES: u64 = 4 << 20;

/// Bytes of entries in one answer; tonic takes messages of up to 4 MiB.
const MAX_READ_BYTES: usize = 2 << 20;

/// Has the log.
pub(super) struct Keeper {
    pub(super) log: Log,
    pub(super) volume: Volume,
    pub(super) folds: Folds,
    pub(super) clock: Clock,
    pub(super) ctx: Context,
}

/// What is to be written together.
#[derive(Default)]
struct Batch {
    entries: Vec<NewEntry>,
    /// Windows that the batch opens.
    keys: Vec<Key>,
    waiting: Vec<Waiting>,
}

struct Waiting {
    first_index: u64,
    known: u64,
    answer: Answer<Done>,
}

impl Keeper {
    pub(super) fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut next = orders.blocking_recv();
        while let Some(order) = next.take() {
            match order {
                Order::Append(first) => next = self.append_all(first, &mut orders),
                Order::Checkpoint { known, answer } => answered(answer, self.state(known)),
                Order::KeepCosigned {
                    service,
                    key,
                    note,
                    answer,
                } => {
                    answered(
                        answer,
                        self.log
                            .keep_cosigned(&note, service, &key)
                            .map_err(Error::from),
                    );
                }
                Order::Entries {
                    first,
                    limit,
                    answer,
                } => answered(answer, self.read(first, limit)),
                Order::Latest {
                    caller,
                    kinds,
                    before,
                    answer,
                } => answered(
                    answer,
                    self.log
                        .latest(caller.name(), &kinds, before, LATEST_ENTRIES)
                        .map_err(Error::from),
                ),
                Order::Tick => self.tick(),
                Order::Stop => break,
            }
            if next.is_none() {
                next = orders.blocking_recv();
            }
        }
        let folded = self.folds.end_all();
        self.record_folded(folded);
        self.publish();
        // Closed before those who wait hear of it: they may want to open the log again.
        drop(self);
        drop(orders);
    }

    /// Writes `first` and the appends that wait behind it; answers the order that came next and is no append.
    fn append_all(&mut self, first: Append, orders: &mut mpsc::Receiver<Order>) -> Option<Order> {
        let room = self.room();
        let mut batch = Batch::default();
        self.add(&mut batch, first, room);
        let mut other = None;
        while batch.entries.len() < MAX_BATCH {
            match orders.try_recv() {
                Ok(Order::Append(append)) => self.add(&mut batch, append, room),
                Ok(order) => {
                    other = Some(order);
                    break;
                }
                Err(_) => break,
            }
        }
        self.write(batch);
        if self.log.unpublished_bytes() > MAX_JOURNAL_BYTES {
            self.publish();
        }
        other
    }

    fn room(&self) -> Option<Room> {
        match self.volume.room() {
            Ok(room) => {
                let detail = "the volume is almost full (less than 1 GiB, or than a tenth of a small one, is free): only allows are recorded";
                self.ctx
                    .trouble("volume", room.is_reserved().then(|| detail.to_owned()));
                Some(room)
            }
            Err(error) => {
                self.ctx.trouble(
                    "volume",
                    Some(format!("the room on the volume is unknown: {error}")),
                );
                None
            }
        }
    }

    /// Adds a request to the batch, or answers why not. Where the room is unknown, nothing is withheld.
    fn add(&mut self, batch: &mut Batch, append: Append, room: Option<Room>) {
        let Append {
            caller,
            entries,
            known,
            answer,
        } = append;
        if known > self.log.size() {
            return answered(
                answer,
                Err(Error::WentBack {
                    known,
                    size: self.log.size(),
                }),
            );
        }
        let reserved = room.is_some_and(Room::is_reserved);
        if reserved
            && entries
                .iter()
                .any(|entry| !may_use_reserve(caller, &entry.kind))
        {
            return answered(answer, Err(Error::Reserved));
        }
        let now = self.clock.now();
        let index = |batch: &Batch| {
            self.log
                .size()
                .saturating_add(batch.entries.len().try_into().unwrap_or(u64::MAX))
        };
        let first_index = index(batch);
        for entry in entries {
            if entry.refusal {
                match self.folds.take(caller, &entry, index(batch), now) {
                    Some(key) => batch.keys.push(key),
                    None => continue,
                }
            }
            let Received { kind, fields, .. } = entry;
            batch.entries.push(NewEntry {
                at: now,
                actor: caller.to_string(),
                kind,
                fields,
            });
        }
        batch.waiting.push(Waiting {
            first_index,
            known,
            answer,
        });
    }

    fn write(&mut self, batch: Batch) {
        let written = if batch.entries.is_empty() {
            Ok(())
        } else {
            self.log.append(&batch.entries).map(|_| ())
        };
        let trouble = written
            .as_ref()
            .err()
            .map(|error| format!("{}", Chain(error)));
        self.ctx.trouble("log", trouble.clone());
        if let Some(trouble) = trouble {
            tracing::error!(error = %trouble, "nothing can be recorded: {trouble}");
            for key in &batch.keys {
                self.folds.forget(key);
            }
            for waiting in batch.waiting {
                answered(waiting.answer, Err(Error::Unwritten(trouble.clone())));
            }
            return;
        }
        for Waiting {
            first_index,
            known,
            answer,
        } in batch.waiting
        {
            answered(
                answer,
                self.state(known).map(|state| Done { first_index, state }),
            );
        }
    }

    fn state(&self, known: u64) -> Result<State, Error> {
        let size = self.log.size();
        if known > size {
            return Err(Error::WentBack { known, size });
        }
        Ok(State {
            note: self.log.note().to_vec(),
            proof: self.log.consistency(known)?,
        })
    }

    fn read(&self, first: u64, limit: u32) -> Result<Read, Error> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut bytes = 0;
        let mut entries = self.log.entries(first, limit)?;
        let fitting = entries.iter().take_while(|entry| {
            bytes += entry.len();
            bytes <= MAX_READ_BYTES
        });
        let fitting = fitting.count();
        entries.truncate(fitting);
        Ok(Read {
            entries,
            size: self.log.size(),
        })
    }

    fn tick(&mut self) {
        let folded = self.folds.end(self.clock.now());
        self.record_folded(folded);
        self.publish();
    }

    fn record_folded(&mut self, folded: Vec<Folded>) {
        if folded.is_empty() || self.room().is_some_and(Room::is_reserved) {
            return;
        }
        let at = self.clock.now();
        let entries = folded.into_iter().filter_map(|Folded { caller, kind, first_index, count }| {
            let fields = serde_json::json!({"caller": caller, "kind": kind, "first_index": first_index, "count": count});
            let fields = serde_json::value::to_raw_value(&fields).ok()?;
            Some(NewEntry { at, actor: Service::Audit.to_string(), kind: "refusals.folded".into(), fields })
        });
        let entries: Vec<_> = entries.collect();
        if let Err(error) = self.log.append(&entries) {
            tracing::error!(error = %Chain(&error), "the count of folded refusals is lost: {}", Chain(&error));
        }
    }

    /// What cannot be published stays in the journal, and is tried again.
    fn publish(&mut self) {
        let trouble = self
            .log
            .publish()
            .err()
            .map(|error| Chain(&error).to_string());
        if let Some(trouble) = &trouble {
            tracing::error!(error = %trouble, "the log cannot be published: {trouble}");
        }
        self.ctx.trouble("publishing", trouble);
    }
}

fn answered<T>(answer: Answer<T>, result: Result<T, Error>) {
    if answer.send(result).is_err() {
        tracing::debug!("the caller did not wait for the answer");
    }
}
