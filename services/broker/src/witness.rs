//! The broker's half of watching the audit log: it co-signs only what continues what it co-signed before.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bailey_audit_log::{Checkpoint, check_consistency, cosign, read_checkpoint};
use bailey_error::Chain;
use bailey_mesh::Mesh;
use bailey_proto::audit::v1::audit_service_client::AuditServiceClient;
use bailey_proto::audit::v1::{CheckpointRequest, CosignRequest};
use bailey_service::Context;
use bailey_types::{Service, Sha256};
use serde::{Deserialize, Serialize};

use crate::durable::{self, Like};
use crate::state::State;
use crate::telling;

const INTERVAL: Duration = Duration::from_mins(10);
const RETRY: Duration = Duration::from_secs(10);

/// After so many entries it is told again which vault is kept: so long is what the next start has to look through.
const FAR_ENTRIES: u64 = 100_000;

/// The last checkpoint that was found consistent, on disk.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    size: u64,
    root: Sha256,
}

/// Co-signs the audit log until the service stops.
pub async fn run(ctx: Context, mesh: Mesh, state: Arc<State>) -> anyhow::Result<()> {
    let path = ctx.settings.data_dir.join("witness.json");
    let mut known = read(&path)?;
    let mut told = known.map_or(0, |known| known.size);
    loop {
        let wait = match witness(&mesh, &state, known, &path).await {
            Ok(found) => {
                known = Some(found);
                if found.size.saturating_sub(told) >= FAR_ENTRIES {
                    telling::kept_again(&state);
                    told = found.size;
                }
                ctx.trouble("witness", None);
                INTERVAL
            }
            Err(error) => {
                let why = Chain(error.as_ref()).to_string();
                ctx.trouble(
                    "witness",
                    Some(format!("the audit log is not co-signed: {why}")),
                );
                RETRY
            }
        };
        tokio::select! {
            () = ctx.shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn witness(
    mesh: &Mesh,
    state: &State,
    known: Option<Known>,
    path: &Path,
) -> anyhow::Result<Known> {
    let mut audit = AuditServiceClient::new(mesh.channel(Service::Audit));
    let known_size = known.map_or(0, |known| known.size);
    let answer = audit
        .checkpoint(CheckpointRequest { known_size })
        .await
        .context("asking audit for its checkpoint")?
        .into_inner();
    let (stack, note) = (&state.trust.stack, &answer.checkpoint);
    let found = read_checkpoint(note, stack, &state.trust.signing.audit)?;
    if let Some(Known { size, root }) = known {
        let known = Checkpoint { size, root };
        if let Err(error) = check_consistency(known, found, &answer.consistency_proof) {
            // Entries that were there are gone or changed: nothing that a retry mends.
            tracing::error!(error = %Chain(&error), "the audit log was changed: {}", Chain(&error));
            return Err(error.into());
        }
    }
    let found = Known {
        size: found.size,
        root: found.root,
    };
    // Remembered before anybody has the signature: what was co-signed once must never be forgotten.
    write(path, found)?;
    let note = cosign(note, stack, Service::Broker, &state.key, state.clock.now())?;
    audit
        .cosign(CosignRequest { note: note.into() })
        .await
        .context("co-signing")?;
    Ok(found)
}

fn read(path: &Path) -> anyhow::Result<Option<Known>> {
    match std::fs::read(path) {
        Ok(text) => {
            let known = serde_json::from_slice(&text);
            known
                .map(Some)
                .with_context(|| format!("reading {}", path.display()))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).with_context(|| format!("reading {}", path.display())),
    }
}

fn write(path: &Path, known: Known) -> anyhow::Result<()> {
    let text = serde_json::to_vec(&known).context("writing the checkpoint as JSON")?;
    let like = Like {
        mode: 0o600,
        owner_of: path.parent().unwrap_or(Path::new(".")),
    };
    Ok(durable::replace(path, &text, like)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::{self, STEPS};

    fn known(size: u64) -> Known {
        Known {
            size,
            root: Sha256([7; 32]),
        }
    }

    /// What a child does: forgets the first checkpoint for the second.
    #[test]
    fn child() {
        let Some(folder) = faults::child() else {
            return; // Run by the other only.
        };
        let _scenario = fail::FailScenario::setup();
        write(&folder.join("witness.json"), known(2)).unwrap();
    }

    #[test]
    fn killed_at_any_step_it_knows_the_old_checkpoint_or_the_new_one() {
        for step in STEPS {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("witness.json");
            write(&path, known(1)).unwrap();
            let faults = format!("witness.json/{step}=return(kill)");
            let ended = faults::run("witness::tests::child", folder.path(), &faults);
            assert!(ended.killed, "{step} was not reached");
            let size = read(&path).unwrap().unwrap().size;
            assert_eq!(size == 2, ["renamed", "done"].contains(&step), "{step}");
            // What was left is in nobody's way.
            write(&path, known(3)).unwrap();
            assert_eq!(read(&path).unwrap().unwrap().size, 3);
        }
    }
}
