//! What is kept ready for one plugin, and what is to be made or thrown away next. Knows no Docker: `H` is a ready holder, `C` a ready cell.
//!
//! Both kinds grow by one whenever somebody found none, up to their bound, and shrink by one whenever one of them was of no use for [`IDLE`].

use std::time::Duration;

use tokio::time::Instant;

/// How long something is kept that nobody uses.
pub const IDLE: Duration = Duration::from_mins(10);
/// How long anything is kept at all.
pub const LIFE: Duration = Duration::from_hours(1);

/// How much may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Started cells that wait for a request.
    pub cells: usize,
    /// Holders in all, those of running cells included.
    pub holders: usize,
}

/// Something ready.
#[derive(Debug)]
struct Ready<T> {
    what: T,
    number: u64,
    since: Instant,
    /// Until when it may be used.
    until: Instant,
}

/// What is kept of one kind.
#[derive(Debug)]
struct Stock<T> {
    /// The last one in is the first one out, so that what is too much stays unused and is noticed.
    ready: Vec<Ready<T>>,
    making: usize,
    wanted: usize,
}

impl<T> Stock<T> {
    fn new(wanted: usize) -> Self {
        Self {
            ready: Vec::new(),
            making: 0,
            wanted,
        }
    }

    fn take(&mut self, now: Instant, bound: usize) -> Option<Ready<T>> {
        let found = self.ready.iter().rposition(|ready| ready.until > now);
        if found.is_none() {
            self.wanted = (self.wanted + 1).min(bound);
        }
        found.map(|at| self.ready.remove(at))
    }

    /// Takes out what has been of no use, and wants as much less; then what is too old.
    fn outdated(&mut self, now: Instant) -> Vec<T> {
        let before = self.ready.len();
        let idle = |ready: &mut Ready<T>| now.duration_since(ready.since) >= IDLE;
        let mut out: Vec<_> = self.ready.extract_if(.., idle).collect();
        self.wanted = self.wanted.saturating_sub(before - self.ready.len());
        out.extend(self.ready.extract_if(.., |ready| ready.until <= now));
        out.into_iter().map(|ready| ready.what).collect()
    }
}

/// Something to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<H, C> {
    /// Make a holder.
    MakeHolder,
    /// Make a cell, in this holder or in one of its own; either counts as taken.
    MakeCell(Option<(H, Instant)>),
    /// Remove a holder.
    DropHolder(H),
    /// Remove a cell with its holder.
    DropCell(C),
}

/// See the module.
#[derive(Debug)]
pub struct Shelf<H, C> {
    bounds: Bounds,
    cells: Stock<C>,
    holders: Stock<H>,
    /// Holders that a cell is in.
    used_holders: usize,
    numbers: u64,
    used: Instant,
    /// Nothing is made before.
    paused: Option<Instant>,
}

impl<H, C> Shelf<H, C> {
    /// What is kept after the first use of a plugin: one of each.
    pub fn new(bounds: Bounds, now: Instant) -> Self {
        Self {
            bounds,
            used: now,
            cells: Stock::new(bounds.cells.min(1)),
            holders: Stock::new(bounds.holders.min(1)),
            used_holders: 0,
            numbers: 0,
            paused: None,
        }
    }

    /// The plugin is used again: as much is kept as after the first use, at least.
    pub fn used(&mut self, now: Instant) {
        self.used = now;
        self.cells.wanted = self.cells.wanted.max(self.bounds.cells.min(1));
        self.holders.wanted = self.holders.wanted.max(self.bounds.holders.min(1));
    }

    /// A ready cell.
    pub fn take_cell(&mut self, now: Instant) -> Option<C> {
        let bound = self.bounds.cells;
        self.cells.take(now, bound).map(|ready| ready.what)
    }

    /// A ready holder, and until when it may be used. It comes back by [`Shelf::give_back`] or [`Shelf::lost_holder`].
    pub fn take_holder(&mut self, now: Instant) -> Option<(H, Instant)> {
        let bound = self.bounds.holders;
        let ready = self.holders.take(now, bound)?;
        self.used_holders += 1;
        Some((ready.what, ready.until))
    }

    /// A holder whose cell is removed; answered where it is of no more use.
    pub fn give_back(&mut self, holder: H, until: Instant, now: Instant) -> Option<H> {
        self.used_holders = self.used_holders.saturating_sub(1);
        if until <= now {
            return Some(holder);
        }
        self.put_holder(holder, until, now);
        None
    }

    /// A holder that was taken, or was to be made for a cell, is gone.
    pub fn lost_holder(&mut self) {
        self.used_holders = self.used_holders.saturating_sub(1);
    }

    /// What was to be made is made, as a holder.
    pub fn made_holder(&mut self, holder: H, until: Instant, now: Instant) {
        self.holders.making = self.holders.making.saturating_sub(1);
        self.put_holder(holder, until, now);
    }

    /// What was to be made is made, as a cell; answers the number under which it can be taken off the shelf.
    pub fn made_cell(&mut self, cell: C, until: Instant, now: Instant) -> u64 {
        self.cells.making = self.cells.making.saturating_sub(1);
        self.numbers += 1;
        self.cells.ready.push(Ready {
            what: cell,
            number: self.numbers,
            since: now,
            until,
        });
        self.numbers
    }

    /// A holder could not be made.
    pub fn failed_holder(&mut self, again: Instant) {
        self.holders.making = self.holders.making.saturating_sub(1);
        self.paused = Some(again);
    }

    /// A cell could not be made.
    pub fn failed_cell(&mut self, again: Instant) {
        self.cells.making = self.cells.making.saturating_sub(1);
        self.paused = Some(again);
    }

    /// Nothing is made before `until`.
    pub fn pause(&mut self, until: Instant) {
        self.paused = self.paused.max(Some(until));
    }

    /// Policy allows no more than this.
    pub fn limit_cells(&mut self, cells: usize) {
        self.bounds.cells = self.bounds.cells.min(cells);
        self.cells.wanted = self.cells.wanted.min(self.bounds.cells);
    }

    /// Takes a ready cell away; `None` where somebody has taken it.
    pub fn lost_cell(&mut self, number: u64) -> Option<C> {
        let at = self.cells.ready.iter().position(|c| c.number == number)?;
        Some(self.cells.ready.remove(at).what)
    }

    /// Throws away the ready cells that `is_lost` says so of.
    pub fn drop_cells(&mut self, is_lost: impl Fn(&C) -> bool) {
        self.cells.ready.retain(|ready| !is_lost(&ready.what));
    }

    /// Takes out the ready holders that `is_lost` says so of.
    pub fn drop_holders(&mut self, is_lost: impl Fn(&H) -> bool) -> Vec<H> {
        let lost = self
            .holders
            .ready
            .extract_if(.., |ready| is_lost(&ready.what));
        lost.map(|ready| ready.what).collect()
    }

    /// What is ready.
    pub fn cells(&self) -> impl Iterator<Item = &C> {
        self.cells.ready.iter().map(|ready| &ready.what)
    }

    /// How many cells and how many holders are ready.
    #[cfg(test)]
    pub fn ready(&self) -> (usize, usize) {
        (self.cells.ready.len(), self.holders.ready.len())
    }

    /// Everything, for good.
    pub fn clear(&mut self) -> (Vec<H>, Vec<C>) {
        let holders = self.holders.ready.drain(..).map(|ready| ready.what);
        let cells = self.cells.ready.drain(..).map(|ready| ready.what);
        (holders.collect(), cells.collect())
    }

    /// What is to be done now. Whatever is to be made counts as being made from here on.
    pub fn plan(&mut self, now: Instant, may_make_cells: bool) -> Vec<Step<H, C>> {
        let mut steps = Vec::new();
        let cells = self.cells.outdated(now);
        steps.extend(cells.into_iter().map(Step::DropCell));
        let holders = self.holders.outdated(now);
        steps.extend(holders.into_iter().map(Step::DropHolder));
        if now.duration_since(self.used) >= IDLE {
            // What could not be made so far is not needed either.
            (self.cells.wanted, self.holders.wanted) = (0, 0);
        }
        if self.paused.is_some_and(|until| until > now) {
            return steps;
        }
        if may_make_cells {
            while self.cells.ready.len() + self.cells.making < self.cells.wanted {
                self.cells.making += 1;
                let holder = self.holders.ready.pop();
                self.used_holders += 1;
                steps.push(Step::MakeCell(
                    holder.map(|ready| (ready.what, ready.until)),
                ));
            }
        }
        while self.free_and_used() < self.holders.wanted.min(self.bounds.holders) {
            self.holders.making += 1;
            steps.push(Step::MakeHolder);
        }
        steps
    }

    /// Holders there are or will be. One in use counts: it comes back.
    fn free_and_used(&self) -> usize {
        self.holders.ready.len() + self.holders.making + self.used_holders
    }

    fn put_holder(&mut self, holder: H, until: Instant, now: Instant) {
        self.numbers += 1;
        self.holders.ready.push(Ready {
            what: holder,
            number: self.numbers,
            since: now,
            until,
        });
    }
}

#[cfg(test)]
mod tests;
