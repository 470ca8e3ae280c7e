//! The newest of somebody's entries, looked for from the end.

use super::Log;
use crate::error::Error;
use crate::leaf;
use crate::store::split_entries;
use crate::tree::WIDTH;

/// What was found, and how far it was looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latest {
    /// The leaf bytes; `None`: there is none among those that were looked at.
    pub entry: Option<Vec<u8>>,
    /// The first index that was looked at.
    pub looked_from: u64,
}

impl Log {
    /// The newest entry of `actor` before the index `before` that is of one of `kinds`; looks through about `most` entries.
    pub fn latest(
        &self,
        actor: &str,
        kinds: &[String],
        before: u64,
        most: u64,
    ) -> Result<Latest, Error> {
        let mut end = before.min(self.tree.size());
        let stop = end.saturating_sub(most);
        while end > stop {
            let number = (end - 1) / WIDTH;
            let first = number * WIDTH;
            let bundle = self.bundle(number)?;
            let damaged =
                |reason: String| Error::Damaged(format!("the bundle of entry {first}: {reason}"));
            let entries = split_entries(&bundle)
                .ok_or_else(|| damaged("it ends within an entry".to_owned()))?;
            let indexed = (first..end).zip(entries);
            for (index, entry) in indexed.collect::<Vec<_>>().into_iter().rev() {
                let leaf = leaf::decode(entry, index).map_err(damaged)?;
                if leaf.actor == actor && kinds.contains(&leaf.kind) {
                    return Ok(Latest {
                        entry: Some(entry.to_vec()),
                        looked_from: index,
                    });
                }
            }
            end = first;
        }
        Ok(Latest {
            entry: None,
            looked_from: end,
        })
    }
}
