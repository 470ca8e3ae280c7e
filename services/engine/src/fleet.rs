//! The runners and the leases that they hold, in memory. The database says which jobs run; this says who still answers for them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bailey_proto::engine::v1::lease_response::Message;
use bailey_proto::engine::v1::{Cancel, LeaseResponse};
use bailey_types::JobId;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

/// One attempt of one job, in the hands of a runner.
pub type Lease = (JobId, u32);

/// A lease that nobody answers for any more, and since how long nobody has.
pub type Lost = (Lease, Duration);

/// Where a runner's assignments go.
pub type Link = mpsc::Sender<Result<LeaseResponse, tonic::Status>>;

/// Every runner that is, or that may come back.
#[derive(Debug)]
pub struct Fleet {
    runners: Mutex<BTreeMap<String, Runner>>,
    /// Leases of jobs that last: they take no slot.
    lasting: Mutex<BTreeSet<Lease>>,
    expiry: Duration,
    /// Somebody joined, so the next expiry may be earlier.
    pub joined: Notify,
}

#[derive(Debug)]
struct Runner {
    slots: u32,
    held: BTreeSet<Lease>,
    /// Since when the runner's heartbeats do not name a lease that it should hold.
    missing: HashMap<Lease, Instant>,
    trouble: String,
    posture: String,
    /// Plugins that it starts nothing of, and why.
    quarantined: BTreeMap<String, String>,
    /// Number of the connection, and the way to it; `None` while it is away.
    link: Option<(u64, Link)>,
    heard_at: Instant,
}

/// What a runner said of itself.
#[derive(Clone, Debug, Default)]
pub struct Heartbeat {
    /// What it holds.
    pub held: BTreeSet<Lease>,
    /// Why it can run nothing; empty: it can.
    pub trouble: String,
    /// Outcome of its boot gate.
    pub posture: String,
    /// Plugins that it starts nothing of, and why.
    pub quarantined: BTreeMap<String, String>,
}

/// Leases that the engine and a runner do not agree on.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Disagreement {
    /// Nobody answers for these any more.
    pub given_up: Vec<Lost>,
    /// The runner holds these without a right to.
    pub cancelled: Vec<Lease>,
}

/// Whether a job can be assigned now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Room {
    /// To this instance.
    At(String),
    /// To none, and why.
    None(String),
}

/// What the status page says of runners.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overview {
    /// How many are connected.
    pub connected: u32,
    /// What one of them complains of; empty: nothing.
    pub trouble: String,
    /// Outcome of the boot gate; empty: unknown.
    pub posture: String,
}

/// Why a plugin cannot be cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotCleared {
    /// Nobody is there to do it.
    #[error("no runner is connected")]
    NoRunner,
    /// There is nothing to clear.
    #[error("the runner has not quarantined that plugin")]
    NotQuarantined,
}

impl Fleet {
    /// A fleet whose members are given up `expiry` after their last word. Those who held `running` when the engine last lived have that
    /// long to come back.
    pub fn new(running: Vec<(JobId, u32, String)>, expiry: Duration) -> Self {
        let mut runners: BTreeMap<String, Runner> = BTreeMap::new();
        for (job, attempt, instance) in running {
            runners
                .entry(instance)
                .or_insert_with(Runner::away)
                .held
                .insert((job, attempt));
        }
        Self {
            runners: Mutex::new(runners),
            lasting: Mutex::default(),
            expiry,
            joined: Notify::new(),
        }
    }

    /// These of the jobs that run last.
    pub fn with_lasting(self, leases: BTreeSet<Lease>) -> Self {
        *self.lasting() = leases;
        self
    }

    fn lasting(&self) -> MutexGuard<'_, BTreeSet<Lease>> {
        self.lasting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn runners(&self) -> MutexGuard<'_, BTreeMap<String, Runner>> {
        self.runners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A runner has connected. Whatever other instances held is given up: there is one runner, and it has a new life.
    pub fn hello(
        &self,
        instance: &str,
        slots: u32,
        claimed: &BTreeSet<Lease>,
        connection: u64,
        link: Link,
    ) -> Disagreement {
        let mut runners = self.runners();
        let now = Instant::now();
        let mut found = Disagreement::default();
        runners.retain(|name, runner| {
            if name != instance {
                found.given_up.extend(runner.lost(&runner.held, now));
            }
            name == instance
        });
        let runner = runners
            .entry(instance.to_owned())
            .or_insert_with(Runner::away);
        let lost = runner.held.difference(claimed);
        found.given_up.extend(runner.lost(lost, now));
        found.cancelled.extend(claimed.difference(&runner.held));
        runner.held.retain(|lease| claimed.contains(lease));
        runner.missing.clear();
        runner.slots = slots;
        runner.link = Some((connection, link));
        runner.heard_at = now;
        drop(runners);
        self.joined.notify_one();
        found
    }

    /// A connected runner has said how it is. `None`: that connection is not the current one.
    pub fn heartbeat(
        &self,
        instance: &str,
        connection: u64,
        said: &Heartbeat,
    ) -> Option<Disagreement> {
        let mut runners = self.runners();
        let runner = runners
            .get_mut(instance)
            .filter(|runner| runner.is_at(connection))?;
        let now = Instant::now();
        runner.heard_at = now;
        runner.trouble.clone_from(&said.trouble);
        runner.posture.clone_from(&said.posture);
        runner.quarantined.clone_from(&said.quarantined);
        let mut found = Disagreement::default();
        found.cancelled.extend(said.held.difference(&runner.held));
        // An assignment may be on its way while the heartbeat is made, so one silence means nothing.
        runner.missing.retain(|lease, _| !said.held.contains(lease));
        for lease in runner.held.difference(&said.held) {
            let since = *runner.missing.entry(*lease).or_insert(now);
            let missed = now.duration_since(since);
            if missed >= self.expiry {
                found.given_up.push((*lease, missed));
            }
        }
        for (lease, _) in &found.given_up {
            runner.release(*lease);
        }
        Some(found)
    }

    /// A connection has ended. Its runner keeps its leases until they expire.
    pub fn disconnected(&self, instance: &str, connection: u64) {
        if let Some(runner) = self
            .runners()
            .get_mut(instance)
            .filter(|runner| runner.is_at(connection))
        {
            runner.link = None;
        }
    }

    /// Where the next job can go.
    pub fn room(&self) -> Room {
        let runners = self.runners();
        let mut connected = runners
            .values()
            .filter(|runner| runner.link.is_some())
            .peekable();
        if connected.peek().is_none() {
            return Room::None("no runner is connected".to_owned());
        }
        let mut why = "every slot is taken".to_owned();
        let lasting = self.lasting();
        let takes_slot = |lease: &&Lease| !lasting.contains(lease);
        for (name, runner) in runners.iter().filter(|(_, runner)| runner.link.is_some()) {
            if !runner.trouble.is_empty() {
                why = format!("the runner: {}", runner.trouble);
            } else if runner.held.iter().filter(takes_slot).count() < runner.slots as usize {
                return Room::At(name.clone());
            }
        }
        Room::None(why)
    }

    /// Where a job can go that takes no slot, if it can go anywhere.
    pub fn seat(&self) -> Option<String> {
        let runners = self.runners();
        let well = |runner: &Runner| runner.link.is_some() && runner.trouble.is_empty();
        let mut well = runners.iter().filter(|(_, runner)| well(runner));
        well.next().map(|(name, _)| name.clone())
    }

    /// Sends an assignment that lasts, as [`Fleet::assign`] does.
    pub fn assign_lasting(&self, instance: &str, lease: Lease, message: LeaseResponse) -> bool {
        self.lasting().insert(lease);
        self.assign(instance, lease, message)
    }

    /// Passes a cancellation on to whoever holds the lease. One that is lost is for the sender to repeat.
    pub fn cancel(&self, lease: Lease) {
        let runners = self.runners();
        let holding = runners.values().find(|runner| runner.held.contains(&lease));
        if let Some((_, link)) = holding.and_then(|runner| runner.link.as_ref())
            && link.try_send(Ok(cancellation(lease))).is_err()
        {
            tracing::debug!(job.id = %lease.0, "a cancellation waits for a runner that does not read");
        }
    }

    /// The plugins that a runner starts nothing of, and why.
    pub fn quarantined(&self) -> BTreeMap<String, String> {
        let runners = self.runners();
        let all = runners.values().flat_map(|runner| &runner.quarantined);
        all.map(|(plugin, why)| (plugin.clone(), why.clone()))
            .collect()
    }

    /// Sends an assignment. Answers false where its runner is gone; then it holds nothing.
    pub fn assign(&self, instance: &str, lease: Lease, message: LeaseResponse) -> bool {
        let mut runners = self.runners();
        let Some(runner) = runners.get_mut(instance) else {
            return false;
        };
        let Some((_, link)) = &runner.link else {
            return false;
        };
        // The queue has room for every slot, so a full one belongs to a runner that does not read.
        if link.try_send(Ok(message)).is_err() {
            return false;
        }
        runner.held.insert(lease);
        true
    }

    /// Books a lease that its runner was not told of: it is given up after a while, as any that its runner does not hold.
    pub fn book(&self, instance: &str, lease: Lease) {
        let mut runners = self.runners();
        let runner = runners.entry(instance.to_owned());
        runner.or_insert_with(Runner::away).held.insert(lease);
        drop(runners);
        self.joined.notify_one();
    }

    /// Tells whoever has quarantined the plugin that its cells may be kept ready again.
    pub fn clear(&self, plugin: &str, message: &LeaseResponse) -> Result<(), NotCleared> {
        let runners = self.runners();
        let connected: Vec<_> = runners
            .values()
            .filter_map(|runner| Some((runner, &runner.link.as_ref()?.1)))
            .collect();
        if connected.is_empty() {
            return Err(NotCleared::NoRunner);
        }
        let mut holding = connected
            .iter()
            .filter(|(runner, _)| runner.quarantined.contains_key(plugin))
            .peekable();
        if holding.peek().is_none() {
            return Err(NotCleared::NotQuarantined);
        }
        for (_, link) in holding {
            // A runner that does not read is as good as away.
            link.try_send(Ok(message.clone()))
                .map_err(|_| NotCleared::NoRunner)?;
        }
        Ok(())
    }

    /// An attempt has ended.
    pub fn release(&self, lease: Lease) {
        for runner in self.runners().values_mut() {
            runner.release(lease);
        }
        self.lasting().remove(&lease);
    }

    /// Takes away what nobody has answered for since long enough, and says when to look again.
    pub fn expired(&self) -> (Vec<Lost>, Option<Instant>) {
        let mut runners = self.runners();
        let now = Instant::now();
        let mut given_up = Vec::new();
        let mut next = None;
        runners.retain(|_, runner| {
            let end = runner.heard_at + self.expiry;
            if end <= now {
                given_up.extend(runner.lost(&runner.held, now));
                return false;
            }
            next = Some(next.map_or(end, |next: Instant| next.min(end)));
            true
        });
        (given_up, next)
    }

    /// How the fleet is.
    pub fn overview(&self) -> Overview {
        let runners = self.runners();
        let connected: Vec<&Runner> = runners
            .values()
            .filter(|runner| runner.link.is_some())
            .collect();
        let said = |of: fn(&Runner) -> &String| {
            connected
                .iter()
                .map(|runner| of(runner))
                .find(|text| !text.is_empty())
        };
        Overview {
            connected: u32::try_from(connected.len()).unwrap_or(u32::MAX),
            trouble: said(|runner| &runner.trouble).cloned().unwrap_or_default(),
            posture: said(|runner| &runner.posture).cloned().unwrap_or_default(),
        }
    }
}

impl Runner {
    fn away() -> Self {
        Self {
            slots: 0,
            held: BTreeSet::new(),
            missing: HashMap::new(),
            trouble: String::new(),
            posture: String::new(),
            quarantined: BTreeMap::new(),
            link: None,
            heard_at: Instant::now(),
        }
    }

    /// These of its leases, lost since it was last heard of.
    fn lost<'a>(
        &self,
        leases: impl IntoIterator<Item = &'a Lease>,
        now: Instant,
    ) -> impl Iterator<Item = Lost> {
        let silent = now.duration_since(self.heard_at);
        leases.into_iter().map(move |lease| (*lease, silent))
    }

    fn is_at(&self, connection: u64) -> bool {
        self.link
            .as_ref()
            .is_some_and(|(number, _)| *number == connection)
    }

    fn release(&mut self, lease: Lease) {
        self.held.remove(&lease);
        self.missing.remove(&lease);
    }
}

/// What tells a runner to end what it holds by this lease.
pub fn cancellation((job, attempt): Lease) -> LeaseResponse {
    let cancel = Cancel {
        job_id: job.to_string(),
        attempt,
    };
    LeaseResponse {
        message: Some(Message::Cancel(cancel)),
    }
}

#[cfg(test)]
mod tests;
