//! The boot gate: what the engine can do, against what the configuration wants (design, section 3). The walls of a cell are probed, not believed.

use std::fmt;
use std::time::Duration;

use bailey_cell::probe::Finding;
use bailey_cell::{Look, Probe, Spec};
use bailey_config::Config;
use bailey_types::{AccountName, ImageId, JobId, StackId};

use crate::docker::{Engine, Error};
use crate::roster::{Occupant, Roster};

/// The name under which socket-proxy answers its own image: the canary is its binary.
const IMAGE: &str = "bailey-probe";
/// A probe looks at a few files and exits.
const LIMIT: Duration = Duration::from_secs(20);

/// What the canary found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Walls {
    /// All of them.
    Stand,
    /// At least one is missing; which, in a sentence.
    Missing(String),
}

impl fmt::Display for Walls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stand => f.write_str("all stand"),
            Self::Missing(which) => f.write_str(which),
        }
    }
}

/// What the gate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Posture {
    /// The walls were not looked at yet.
    Unknown,
    /// Every plugin has a uid of its own and nothing of the host.
    Confined,
    /// As confined, but plugins of these accounts act as a user of the host. Never empty.
    Hybrid(Vec<AccountName>),
    /// The operator gave the walls up.
    Unconfined,
    /// No plugin runs, for this reason.
    Refused(String),
}

impl Posture {
    /// Why nothing may run; `None` where it may.
    pub fn refusal(&self) -> Option<String> {
        match self {
            Self::Unknown => Some("the boot gate has not run yet".to_owned()),
            Self::Refused(_) => Some(self.to_string()),
            Self::Confined | Self::Hybrid(_) | Self::Unconfined => None,
        }
    }
}

impl fmt::Display for Posture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => Ok(()),
            Self::Confined => f.write_str("confined"),
            Self::Hybrid(accounts) => write!(f, "hybrid (credentialed: {})", listed(accounts)),
            Self::Unconfined => f.write_str("unconfined"),
            Self::Refused(why) => write!(f, "refused: {why}"),
        }
    }
}

fn listed(accounts: &[AccountName]) -> String {
    let names: Vec<_> = accounts.iter().map(ToString::to_string).collect();
    names.join(", ")
}

/// The gate's outcome. `walls` is `None` until they were looked at.
pub fn posture(config: &Config, walls: Option<&Walls>) -> Posture {
    if config.service.unconfined {
        return Posture::Unconfined;
    }
    match (config.accounts.is_empty(), walls) {
        (_, None) => Posture::Unknown,
        (true, Some(Walls::Stand)) => Posture::Refused("no accounts are configured".into()),
        (true, Some(Walls::Missing(why))) => {
            Posture::Refused(format!("no accounts are configured, and {why}"))
        }
        (false, Some(Walls::Missing(why))) => Posture::Refused(why.clone()),
        (false, Some(Walls::Stand)) => match credentialed(config) {
            accounts if accounts.is_empty() => Posture::Confined,
            accounts => Posture::Hybrid(accounts),
        },
    }
}

fn credentialed(config: &Config) -> Vec<AccountName> {
    let accounts = config.accounts.iter();
    accounts
        .filter(|(_, account)| account.is_credentialed())
        .map(|(name, _)| name.clone())
        .collect()
}

/// The image of probes; `None` where socket-proxy does not know its own.
pub async fn image(engine: &Engine) -> Result<Option<ImageId>, Error> {
    engine.image(IMAGE).await
}

/// Starts a probe and waits for its exit code.
pub async fn run(engine: &Engine, id: &str) -> Result<i64, Error> {
    engine.start(id).await?;
    engine.wait(id).await
}

/// Sends a canary in. An error means that Docker could not be asked, not that a wall is missing.
pub async fn probe(engine: &Engine, stack: &StackId, roster: &Roster) -> Result<Walls, Error> {
    let Some(image) = image(engine).await? else {
        return Ok(Walls::Missing(
            "socket-proxy does not know its own image".into(),
        ));
    };
    let job = JobId::new();
    let _berth = roster.begin(Occupant::Probe(job));
    let id = engine
        .create(&Spec::Probe(Probe {
            stack,
            image: &image,
            job,
            look: Look::Walls,
        }))
        .await?;
    let looked = tokio::time::timeout(LIMIT, run(engine, &id)).await;
    engine.remove(&id).await?;
    let Ok(code) = looked else {
        return Ok(Walls::Missing(format!(
            "the probe did not end within {LIMIT:?}"
        )));
    };
    let code = code?;
    Ok(match (code, Finding::from_code(code)) {
        (0, _) => Walls::Stand,
        (_, Some(finding)) => Walls::Missing(finding.sentence().to_owned()),
        (code, None) => Walls::Missing(format!("the probe ended with {code}")),
    })
}

#[cfg(test)]
mod tests;
