//! Holds what should be against what is: the engine's events as they come, and everything once in a while.

use std::sync::Arc;
use std::time::Duration;

use bailey_config::Config;
use bailey_trust::LockSource;
use bailey_types::{PluginName, StackId};
use futures::StreamExt as _;
use tokio_util::sync::CancellationToken;

use crate::attempt::Trouble;
use crate::care::Care;
use crate::docker::{Death, Engine, Error, Meaning};
use crate::quarantine::Quarantine;
use crate::roster::Roster;

/// How often everything is compared, whatever the events said.
const PASS: Duration = Duration::from_secs(30);

/// A container that was started ahead and waits: it should live until its keeper takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Full id.
    pub id: String,
    /// Whose it is.
    pub plugin: PluginName,
}

/// Whoever keeps containers ready.
pub trait Keeper: Send + Sync + 'static {
    /// Those that should live now.
    fn kept(&self) -> Vec<Kept>;
    /// One has ended or vanished by itself: whatever is left of it is to be removed, and another one made. An id that is not kept any more is
    /// no error.
    fn gone(&self, id: &str);
    /// What kept it from making containers may be over.
    fn wake(&self);
}

/// See the module.
pub struct Reconciler {
    /// Where the truth is.
    pub engine: Engine,
    /// Whose containers they are.
    pub stack: StackId,
    /// Which of them somebody answers for.
    pub roster: Roster,
    /// Who keeps some ready.
    pub keeper: Arc<dyn Keeper>,
    /// Where crashes are counted.
    pub quarantine: Arc<Quarantine>,
    /// What is locked.
    pub lock: Arc<LockSource<Config>>,
}

impl Reconciler {
    /// Follows the engine's events until the runner stops. While Docker is down nothing is done: [`Care`] asks it until it answers.
    pub async fn tend(&self, care: &Care, stopping: &CancellationToken) {
        let following = async {
            loop {
                care.until_docker_is_well().await;
                let error = self.follow().await;
                if error.meaning() == Meaning::Unwell {
                    care.unwell(&Trouble::Docker(error.sentence()));
                    continue;
                }
                // It answers, and says no: another try at once would hear the same.
                tracing::error!(
                    error = error.sentence(),
                    "the containers cannot be compared with what should be"
                );
                tokio::time::sleep(PASS).await;
            }
        };
        tokio::select! {
            () = following => {}
            () = stopping.cancelled() => {}
        }
    }

    /// One connection; answers why it ended.
    pub async fn follow(&self) -> Error {
        let deaths = match self.engine.deaths() {
            Ok(deaths) => deaths,
            Err(error) => return error,
        };
        let mut deaths = std::pin::pin!(deaths);
        let listening = async {
            loop {
                match deaths.next().await {
                    Some(Ok(death)) => self.died(&death),
                    Some(Err(error)) => return error,
                    None => return Error::ended("following the engine's events"),
                }
            }
        };
        let mut every = tokio::time::interval(PASS);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let passing = async {
            loop {
                every.tick().await;
                if let Err(error) = self.pass().await {
                    return error;
                }
            }
        };
        tokio::select! {
            // First, so that as little as possible happens between the first list and the first event.
            biased;
            error = listening => error,
            error = passing => error,
        }
    }

    /// One full comparison. What cannot be removed keeps nothing else from being removed.
    pub async fn pass(&self) -> Result<(), Error> {
        // Before the list: whatever is kept from now on may not be in it.
        let kept = self.keeper.kept();
        let listed = self.engine.list(&self.stack).await?;
        let mut failed = Ok(());
        // The roster only now: what began since was not listed, what ended since is not there.
        let leftovers = listed
            .iter()
            .filter(|container| !self.roster.holds(&container.identity));
        for container in leftovers {
            let kind = container.identity.kind();
            tracing::info!(container.id = %container.id, "removing a leftover {kind}");
            if let Err(error) = self.engine.remove(&container.id).await {
                failed = Err(error);
            }
        }
        for Kept { id, plugin } in kept {
            if listed
                .iter()
                .any(|container| container.running && container.id == id)
            {
                continue;
            }
            // Nobody saw it end, so nobody can say that it ended by itself: an engine that was restarted takes all of them with it.
            tracing::info!(container.id = %id, plugin.name = %plugin, "a container that was kept ready for {plugin} is gone");
            self.keeper.gone(&id);
        }
        failed
    }

    fn died(&self, death: &Death) {
        let kept = self.keeper.kept();
        let Some(Kept { id, plugin }) = kept.into_iter().find(|kept| kept.id == death.id) else {
            return;
        };
        let code = &death.exit_code;
        tracing::warn!(
            container.id = %id, plugin.name = %plugin,
            "a container that was kept ready for {plugin} ended with exit code {code}"
        );
        let lock = self.lock.current().ok();
        let locked = lock
            .as_ref()
            .and_then(|lock| lock.lock.plugins.get(&plugin));
        if let Some(locked) = locked {
            let why = format!("it ended with exit code {code} before anything was asked of it");
            self.quarantine.crashed(&plugin, locked, &why);
        }
        self.keeper.gone(&id);
    }
}

#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;
