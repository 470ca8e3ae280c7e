//! The broker's half of watching the audit log: it co-signs only what continues what it co-signed before.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
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

use crate::state::State;

const INTERVAL: Duration = Duration::from_mins(10);
const RETRY: Duration = Duration::from_secs(10);

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
    loop {
        let wait = match witness(&mesh, &state, known, &path).await {
            Ok(found) => {
                known = Some(found);
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
    let temporary = path.with_extension("new");
    let replace = || {
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(&serde_json::to_vec(&known)?)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    replace().with_context(|| format!("writing {}", path.display()))
}
