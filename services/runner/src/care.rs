//! Looks after the runner's footing: whether Docker answers, whether its walls stand, whether something of an earlier life is left.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bailey_cell::Identity;
use bailey_config::Config;
use bailey_service::Context;
use bailey_trust::LockSource;
use bailey_types::{AttemptNumber, JobId, StackId};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::attempt::Trouble;
use crate::docker::{Engine, Error};
use crate::gate;

/// How often a footing that seems good is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// How often Docker is asked whether it is there while nothing else asks.
const PING: Duration = Duration::from_secs(10);
/// The first wait after a failure; each further one doubles it.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// At most this many doublings: 8 s.
const DOUBLINGS: u32 = 5;

/// What the engine is told with each heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Why no job can start; empty where one can.
    pub trouble: String,
    /// Outcome of the boot gate; empty until it ran.
    pub posture: String,
}

/// The attempts that may have a container now.
#[derive(Clone, Debug, Default)]
pub struct Running(Arc<Mutex<BTreeSet<(JobId, AttemptNumber)>>>);

impl Running {
    fn set(&self) -> std::sync::MutexGuard<'_, BTreeSet<(JobId, AttemptNumber)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An attempt that is about to make its container.
    pub fn begin(&self, job: JobId, attempt: AttemptNumber) {
        self.set().insert((job, attempt));
    }

    /// An attempt whose container is removed, or given up to the next clean-up.
    pub fn end(&self, job: JobId, attempt: AttemptNumber) {
        self.set().remove(&(job, attempt));
    }

    fn holds(&self, identity: &Identity) -> bool {
        match identity {
            Identity::Cell { job, attempt, .. } => self.set().contains(&(*job, *attempt)),
            // Probes are made and removed between two clean-ups.
            Identity::Probe { .. } => false,
        }
    }
}

#[derive(Debug)]
struct Vitals {
    /// Some until Docker has answered and the leftovers are gone.
    docker: Option<String>,
    broker: Option<String>,
    walls: Option<gate::Walls>,
    /// Failures since a cell last got its request.
    failures: u32,
    asked: Option<Instant>,
}

/// See the module.
pub struct Care {
    ctx: Context,
    engine: Engine,
    stack: StackId,
    lock: Arc<LockSource<Config>>,
    running: Running,
    vitals: Mutex<Vitals>,
    wake: tokio::sync::Notify,
    standing: watch::Sender<Standing>,
}

impl Care {
    /// Nothing is known yet, so nothing can start.
    pub fn new(
        ctx: &Context,
        engine: Engine,
        lock: Arc<LockSource<Config>>,
        running: Running,
    ) -> Self {
        let docker = Some("Docker was not asked yet".to_owned());
        let vitals = Vitals {
            docker,
            broker: None,
            walls: None,
            failures: 0,
            asked: None,
        };
        let care = Self {
            ctx: ctx.clone(),
            engine,
            stack: ctx.trust.stack.clone(),
            lock,
            running,
            vitals: Mutex::new(vitals),
            wake: tokio::sync::Notify::new(),
            standing: watch::Sender::new(Standing::default()),
        };
        care.judge();
        care
    }

    /// The standing now, and each change of it.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// A cell got its request: all is well.
    pub fn well(&self) {
        self.vitals().failures = 0;
    }

    /// An attempt could not start. Nothing starts until what is wrong has been looked at.
    pub fn unwell(&self, trouble: &Trouble) {
        {
            let mut vitals = self.vitals();
            let (place, text) = match trouble {
                Trouble::Docker(text) => (&mut vitals.docker, text),
                Trouble::Broker(text) => (&mut vitals.broker, text),
                Trouble::Other(_) => return,
            };
            if place.replace(text.clone()).is_none() {
                vitals.failures += 1;
            }
        }
        self.judge();
        self.wake.notify_one();
    }

    /// Runs until the runner stops.
    pub async fn tend(&self) {
        loop {
            let wait = self.wait();
            tokio::select! {
                () = self.ctx.shutdown.cancelled() => return,
                () = tokio::time::sleep(wait) => self.look().await,
                // The next wait is that of a failure.
                () = self.wake.notified() => {}
            }
        }
    }

    fn wait(&self) -> Duration {
        let vitals = self.vitals();
        let well = vitals.docker.is_none() && vitals.broker.is_none();
        match vitals.failures.checked_sub(1) {
            _ if well => LOOK,
            // The very first look.
            None => Duration::ZERO,
            Some(doublings) => FIRST_WAIT * 2_u32.pow(doublings.min(DOUBLINGS)),
        }
    }

    async fn look(&self) {
        let (unwell, stale) = {
            let vitals = self.vitals();
            let stale = vitals.asked.is_none_or(|asked| asked.elapsed() >= PING);
            (vitals.docker.is_some(), stale)
        };
        let looked = match (unwell, stale) {
            (true, _) => self.recover().await,
            (false, true) => self.engine.ping().await,
            (false, false) => Ok(()),
        };
        {
            let mut vitals = self.vitals();
            if unwell || stale {
                vitals.asked = Some(Instant::now());
            }
            // The broker says nothing about itself: the next job finds out.
            vitals.broker = None;
            match looked {
                Ok(()) => vitals.docker = None,
                Err(error) => {
                    vitals.docker = Some(error.sentence());
                    vitals.failures = vitals.failures.saturating_add(1);
                }
            }
        }
        self.judge();
    }

    async fn recover(&self) -> Result<(), Error> {
        self.engine.ping().await?;
        self.clean_up().await?;
        // Another engine may have come back than the one that went.
        let walls = gate::probe(&self.engine, &self.stack).await?;
        tracing::info!("the engine's walls: {walls}");
        self.vitals().walls = Some(walls);
        Ok(())
    }

    /// Removes every container of this stack that no attempt of this life has.
    async fn clean_up(&self) -> Result<(), Error> {
        let listed = self.engine.list(&self.stack).await?;
        // Only now: what began since was not listed, what ended since is not there.
        for container in listed {
            let Some(identity) = container
                .identity
                .filter(|identity| !self.running.holds(identity))
            else {
                continue;
            };
            tracing::info!(container.id = %container.id, "removing a leftover {}", identity.kind());
            self.engine.remove(&container.id).await?;
        }
        Ok(())
    }

    /// Makes the standing of what is known now.
    fn judge(&self) {
        let standing = {
            let vitals = self.vitals();
            let posture = self
                .lock
                .current()
                .map(|lock| posture(&lock.view, vitals.walls.as_ref()));
            let docker = vitals.docker.as_ref().map(|text| format!("docker: {text}"));
            let (posture, refusal) = match posture {
                Ok(posture) => (
                    posture.clone(),
                    posture.starts_with("refused").then_some(posture),
                ),
                Err(error) => (String::new(), Some(error.to_string())),
            };
            let trouble = docker
                .or_else(|| vitals.broker.clone())
                .or(refusal)
                .unwrap_or_default();
            Standing { trouble, posture }
        };
        let trouble = Some(standing.trouble.clone()).filter(|trouble| !trouble.is_empty());
        self.ctx.trouble("cells", trouble);
        self.standing.send_if_modified(|old| {
            let changed = *old != standing;
            if changed && old.posture != standing.posture && !standing.posture.is_empty() {
                tracing::info!(posture = %standing.posture, "posture: {}", standing.posture);
            }
            *old = standing;
            changed
        });
    }

    fn vitals(&self) -> std::sync::MutexGuard<'_, Vitals> {
        self.vitals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The boot gate: what the engine can do, against what the configuration wants (design, section 3).
fn posture(config: &Config, walls: Option<&gate::Walls>) -> String {
    match (config.service.unconfined, config.accounts.is_empty(), walls) {
        (true, _, _) => "unconfined".to_owned(),
        (false, true, _) => "refused: no accounts are configured".to_owned(),
        (false, false, None) => String::new(),
        (false, false, Some(gate::Walls::Stand)) => "confined".to_owned(),
        (false, false, Some(gate::Walls::Missing(why))) => format!("refused: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        let files = [(bailey_config::ROOT.to_owned(), text.to_owned())];
        bailey_config::parse(&files.into()).unwrap()
    }

    #[test]
    fn accounts_and_walls_together_confine_and_one_alone_refuses() {
        let accounts = config("accounts:\n  default: {}\n");
        let none = config("service: {}\n");
        let fallen = gate::Walls::Missing("no seccomp".into());
        assert_eq!(posture(&accounts, Some(&gate::Walls::Stand)), "confined");
        assert_eq!(posture(&accounts, Some(&fallen)), "refused: no seccomp");
        assert_eq!(posture(&accounts, None), "");
        assert!(posture(&none, Some(&gate::Walls::Stand)).starts_with("refused"));
        assert!(posture(&none, Some(&fallen)).starts_with("refused"));
    }
}
