//! The boot gate's canary: the walls of a cell are probed, not believed.

use std::fmt;
use std::time::Duration;

use bailey_cell::probe::Finding;
use bailey_cell::{Probe, Spec};
use bailey_types::{JobId, StackId};

use crate::docker::{Engine, Error};

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

/// Sends a canary in. An error means that Docker could not be asked, not that a wall is missing.
pub async fn probe(engine: &Engine, stack: &StackId) -> Result<Walls, Error> {
    let Some(image) = engine.image(IMAGE).await? else {
        return Ok(Walls::Missing(
            "socket-proxy does not know its own image".into(),
        ));
    };
    let id = engine
        .create(&Spec::Probe(Probe {
            stack,
            image: &image,
            job: JobId::new(),
        }))
        .await?;
    let looked = look(engine, &id).await;
    engine.remove(&id).await?;
    looked
}

async fn look(engine: &Engine, id: &str) -> Result<Walls, Error> {
    engine.start(id).await?;
    let Ok(ended) = tokio::time::timeout(LIMIT, engine.wait(id)).await else {
        return Ok(Walls::Missing(format!(
            "the probe did not end within {LIMIT:?}"
        )));
    };
    let code = ended?;
    Ok(match (code, Finding::from_code(code)) {
        (0, _) => Walls::Stand,
        (_, Some(finding)) => Walls::Missing(finding.sentence().to_owned()),
        (code, None) => Walls::Missing(format!("the probe ended with {code}")),
    })
}
