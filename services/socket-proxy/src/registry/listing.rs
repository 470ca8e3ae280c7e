//! What the engine's list changes in the books: it is older than they are by the time it comes.

use std::collections::BTreeSet;

use bailey_cell::Kind;
use bailey_types::StackId;

use super::{ContainerId, Entry, Leave, Life, Listed, Record, Registry, Use};

/// A list that the engine is asked for.
pub struct Listing<'a> {
    registry: &'a Registry,
    began: u64,
}

/// What came of a list.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Containers of ours in it that there still are.
    pub ours: usize,
    /// Containers that were ours, which somebody else removed.
    pub gone: Vec<ContainerId>,
}

impl Registry {
    /// Begins a list; before the engine is asked, for it may only tell of what was there then.
    pub fn begin_list(&self) -> Listing<'_> {
        let mut books = self.books();
        let began = books.tick();
        books.listings.insert(began);
        Listing {
            registry: self,
            began,
        }
    }
}

impl Listing<'_> {
    /// Puts the books right by what the engine listed. What was recorded before the list and is not in it is gone. What is in it and not
    /// known was made in an earlier life of this proxy, or for a runner that left in the middle: none of it can be attached to, started or
    /// joined. What was forgotten meanwhile stays so.
    pub fn settle(self, stack: &StackId, listed: &[Listed]) -> Settled {
        let there: BTreeSet<_> = listed.iter().filter_map(Listed::id).collect();
        let mut books = self.registry.books();
        let is_gone =
            |(id, entry): &(&ContainerId, &Entry)| entry.since < self.began && !there.contains(*id);
        let gone = books.entries.iter().filter(is_gone);
        let gone: Vec<ContainerId> = gone.map(|(id, _)| id.clone()).collect();
        for id in &gone {
            books.forget(id);
        }
        let mut ours = 0;
        for (id, record) in listed.iter().filter_map(|entry| entry.record(stack)) {
            if books.forgotten.get(&id).is_some_and(|at| *at > self.began) {
                continue;
            }
            ours += 1;
            let since = books.tick();
            let adopted = || adopted(record, since);
            books.entries.entry(id).or_insert_with(adopted);
        }
        Settled { ours, gone }
    }
}

impl Drop for Listing<'_> {
    fn drop(&mut self) {
        let mut books = self.registry.books();
        books.listings.remove(&self.began);
        match books.listings.first().copied() {
            Some(oldest) => books.forgotten.retain(|_, at| *at > oldest),
            None => books.forgotten.clear(),
        }
    }
}

/// Ours, and good for nothing any more.
fn adopted(record: Record, since: u64) -> Entry {
    let life = match record.identity.kind() {
        Kind::Cell => Life::Cell {
            attachable: false,
            leave: Leave::Unknown,
            started: true,
        },
        Kind::Holder => Life::Holder(Use::Spent),
        Kind::Probe => Life::Probe { started: true },
    };
    Entry {
        record,
        life,
        since,
    }
}
