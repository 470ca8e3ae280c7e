//! Looks after the runner's footing: whether Docker answers, whether its walls stand, whether something of an earlier life is left.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bailey_config::Config;
use bailey_proto::engine::v1::Clear;
use bailey_service::Context;
use bailey_trust::{Loaded, LockSource};
use bailey_types::Serial;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::attempt::Trouble;
use crate::docker::{Engine, Error};
use crate::gate::{self, Posture};
use crate::quarantine::{Held, Quarantine};
use crate::reconcile::Reconciler;

/// How often a footing that seems good is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// How often Docker is asked whether it is there while nothing else asks.
const PING: Duration = Duration::from_secs(10);
/// The first wait after a failure; each further one doubles it.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// At most this many doublings: 8 s.
const DOUBLINGS: u32 = 5;

/// What is known of Docker before anybody asked.
const NOT_ASKED: &str = "Docker was not asked yet";

/// What the engine is told with each heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Why no job can start; empty where one can.
    pub trouble: String,
    /// Outcome of the boot gate; empty until it ran.
    pub posture: String,
    /// Plugins none of whose jobs can start.
    pub quarantined: Vec<Held>,
    /// Whether Docker answers and nothing of an earlier life is left.
    pub is_docker_well: bool,
}

#[derive(Debug)]
struct Vitals {
    /// Some until Docker has answered and the leftovers are gone.
    docker: Option<String>,
    /// Whether the log says that Docker is away, and not yet that it is back.
    alerted: bool,
    walls: Option<gate::Walls>,
    /// Serial of the lock that the walls were last looked at for.
    gated: Option<Serial>,
    /// What was last said of the lock and the posture in the log.
    announced: Option<(Serial, Posture)>,
    /// Failures since a cell last got its request.
    failures: u32,
    asked: Option<Instant>,
}

/// See the module.
pub struct Care {
    ctx: Context,
    engine: Engine,
    lock: Arc<LockSource<Config>>,
    reconciler: Arc<Reconciler>,
    vitals: Mutex<Vitals>,
    wake: tokio::sync::Notify,
    standing: watch::Sender<Standing>,
}

impl Care {
    /// Nothing is known yet, so nothing can start.
    pub fn new(ctx: &Context, reconciler: Arc<Reconciler>) -> Self {
        let docker = Some(NOT_ASKED.to_owned());
        let vitals = Vitals {
            docker,
            alerted: false,
            walls: None,
            gated: None,
            announced: None,
            failures: 0,
            asked: None,
        };
        let care = Self {
            ctx: ctx.clone(),
            engine: reconciler.engine.clone(),
            lock: Arc::clone(&reconciler.lock),
            reconciler,
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

    /// Whether a cell may be made now: the boot gate, against the lock of this moment.
    pub fn admit(&self) -> Result<(), Trouble> {
        let other = |text: String| Trouble::Other(text);
        let loaded = self.lock.current().map_err(|e| other(e.to_string()))?;
        let posture = gate::posture(&loaded.view, self.vitals().walls.as_ref());
        posture
            .refusal()
            .map_or(Ok(()), |refusal| Err(other(refusal)))
    }

    /// Lets cells of a plugin be kept ready again that ended too often.
    pub fn clear(&self, clear: &Clear) {
        // The engine passes on what somebody typed; a name that is none holds nothing.
        let Ok(plugin) = clear.plugin.parse() else {
            return;
        };
        if self.quarantine().clear(&plugin, &clear.principal) {
            self.reconciler.keeper.wake();
        }
    }

    /// Waits until Docker answers and nothing of an earlier life is left.
    pub async fn until_docker_is_well(&self) {
        let mut standing = self.standing();
        if standing
            .wait_for(|standing| standing.is_docker_well)
            .await
            .is_err()
        {
            // The sender lives as long as this borrow.
            std::future::pending::<()>().await;
        }
    }

    fn quarantine(&self) -> &Quarantine {
        &self.reconciler.quarantine
    }

    /// A cell got its request: all is well.
    pub fn well(&self) {
        self.vitals().failures = 0;
    }

    /// An attempt could not start. Nothing starts until what is wrong has been looked at.
    pub fn unwell(&self, trouble: &Trouble) {
        let Trouble::Docker(text) = trouble else {
            return;
        };
        {
            let mut vitals = self.vitals();
            if vitals.docker.replace(text.clone()).is_none() {
                vitals.failures += 1;
            }
        }
        self.judge();
        self.wake.notify_one();
    }

    /// Runs until the runner stops.
    pub async fn tend(&self) {
        let mut held = self.quarantine().held();
        loop {
            let wait = self.wait();
            tokio::select! {
                () = self.ctx.shutdown.cancelled() => return,
                () = tokio::time::sleep(wait) => self.look().await,
                // The next wait is that of a failure.
                () = self.wake.notified() => {}
                // The quarantine lives as long as this borrow.
                Ok(()) = held.changed() => self.judge(),
            }
        }
    }

    fn wait(&self) -> Duration {
        let vitals = self.vitals();
        let well = vitals.docker.is_none();
        match vitals.failures.checked_sub(1) {
            _ if well => LOOK,
            // The very first look.
            None => Duration::ZERO,
            Some(doublings) => FIRST_WAIT * 2_u32.pow(doublings.min(DOUBLINGS)),
        }
    }

    async fn look(&self) {
        let serial = self.lock.current().ok().map(|loaded| loaded.lock.serial);
        let (unwell, stale) = {
            let vitals = self.vitals();
            let stale = vitals.asked.is_none_or(|asked| asked.elapsed() >= PING);
            // The gate stands before each lock, not only before the first.
            let is_new = serial.is_some() && serial != vitals.gated;
            (vitals.docker.is_some() || is_new, stale)
        };
        let looked = match (unwell, stale) {
            (true, _) => self.recover(serial).await,
            (false, true) => self.engine.ping().await,
            (false, false) => Ok(()),
        };
        {
            let mut vitals = self.vitals();
            if unwell || stale {
                vitals.asked = Some(Instant::now());
            }
            match looked {
                Ok(()) => vitals.docker = None,
                Err(error) => {
                    vitals.docker = Some(error.sentence());
                    vitals.failures = vitals.failures.saturating_add(1);
                }
            }
        }
        self.judge();
        if unwell {
            self.reconciler.keeper.wake();
        }
    }

    /// What is to be done before anything runs: at start, after Docker was away, and under each new lock.
    async fn recover(&self, serial: Option<Serial>) -> Result<(), Error> {
        self.engine.ping().await?;
        self.reconciler.pass().await?;
        if let Ok(loaded) = self.lock.current() {
            self.quarantine().follow(&loaded.lock);
        }
        // Another engine may have come back than the one that went.
        let roster = &self.reconciler.roster;
        let walls = gate::probe(&self.engine, &self.reconciler.stack, roster).await?;
        tracing::info!("the engine's walls: {walls}");
        let mut vitals = self.vitals();
        vitals.walls = Some(walls);
        vitals.gated = serial;
        Ok(())
    }

    /// Makes the standing of what is known now.
    fn judge(&self) {
        let standing = self.assess();
        let trouble = Some(standing.trouble.clone()).filter(|trouble| !trouble.is_empty());
        self.ctx.trouble("cells", trouble);
        let held: Vec<_> = standing
            .quarantined
            .iter()
            .map(|held| held.reason.as_str())
            .collect();
        self.ctx.trouble(
            "quarantine",
            Some(held.join("; ")).filter(|text| !text.is_empty()),
        );
        self.standing.send_if_modified(|old| {
            let changed = *old != standing;
            *old = standing;
            changed
        });
    }

    fn assess(&self) -> Standing {
        let mut vitals = self.vitals();
        alert(&mut vitals);
        let docker = vitals.docker.as_ref().map(|text| format!("docker: {text}"));
        let is_docker_well = docker.is_none();
        let (posture, refusal) = match self.lock.current() {
            Ok(loaded) => {
                let posture = gate::posture(&loaded.view, vitals.walls.as_ref());
                announce(&mut vitals.announced, &loaded, &posture);
                (posture.to_string(), posture.refusal())
            }
            Err(error) => (String::new(), Some(error.to_string())),
        };
        let trouble = docker.or(refusal).unwrap_or_default();
        Standing {
            trouble,
            posture,
            quarantined: self.quarantine().held().borrow().clone(),
            is_docker_well,
        }
    }

    fn vitals(&self) -> std::sync::MutexGuard<'_, Vitals> {
        self.vitals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says once that Docker is away, and once that it is back.
fn alert(vitals: &mut Vitals) {
    match (&vitals.docker, vitals.alerted) {
        (Some(error), false) if error != NOT_ASKED => {
            tracing::warn!(%error, "Docker cannot be used; nothing is started or removed until it can");
            vitals.alerted = true;
        }
        (None, true) => {
            tracing::info!("Docker can be used again");
            vitals.alerted = false;
        }
        (Some(_) | None, _) => {}
    }
}

/// One line for the posture and one for each warning, at each boot and for each new lock.
fn announce(announced: &mut Option<(Serial, Posture)>, loaded: &Loaded<Config>, posture: &Posture) {
    let serial = loaded.lock.serial;
    if *posture == Posture::Unknown || *announced == Some((serial, posture.clone())) {
        return;
    }
    let is_new = announced.as_ref().is_none_or(|(said, _)| *said != serial);
    *announced = Some((serial, posture.clone()));
    match posture {
        Posture::Unconfined => tracing::warn!(%posture, "posture: {posture}"),
        Posture::Refused(_) => tracing::error!(%posture, "posture: {posture}"),
        Posture::Unknown | Posture::Confined | Posture::Hybrid(_) => {
            tracing::info!(%posture, "posture: {posture}");
        }
    }
    if is_new {
        for warning in bailey_config::warnings(&loaded.view) {
            tracing::warn!("{warning}");
        }
    }
}

#[cfg(test)]
mod tests;
