//! Tells the audit log what it does not have yet, by and by: that the vault is kept, and what waits in it. Nobody who asks for something waits for
//! the first, and nobody who takes something away for either.

use std::sync::Arc;
use std::time::Duration;

use bailey_error::Chain;
use bailey_service::Context;

use crate::proof;
use crate::record::NotRecorded;
use crate::state::State;
use crate::vault::State as VaultState;

/// How often it is tried.
const LOOK: Duration = Duration::from_secs(5);

/// How often the audit log is asked while nothing is given before it answers, and how many times.
const SOON: Duration = Duration::from_millis(250);
const SOON_TIMES: u32 = 240;

/// Tells it until the service stops.
pub async fn run(ctx: Context, state: Arc<State>) -> anyhow::Result<()> {
    let mut tries = 0;
    while !ctx.shutdown.is_cancelled() {
        tokio::select! {
            () = ctx.shutdown.cancelled() => break,
            () = round(&state) => {}
        }
        state.shown.notify_one();
        let waits = state.vault.unproven().is_some();
        tries = if waits { tries + 1 } else { 0 };
        let soon = waits && tries < SOON_TIMES;
        tokio::select! {
            () = ctx.shutdown.cancelled() => {}
            () = tokio::time::sleep(if soon { SOON } else { LOOK }) => {}
            () = state.news.notified() => {}
        }
    }
    // Whoever still changes something finds it closed, or did so before and is seen here.
    state.records.close();
    if let Some(revision) = untold(&state) {
        state.records.note_kept(revision);
    }
    state.records.note_alarms();
    Ok(())
}

async fn round(state: &State) {
    // Nobody who changes the vault waits for this.
    proof::compare(state).await;
    let told = match state.vault.state() {
        VaultState::Open(document) => {
            let told = told(state).await;
            let outside = state.vault.changed_outside().is_some();
            state.records.changed_outside(document.revision, outside);
            told
        }
        VaultState::NoVault | VaultState::Sealed(_) => Ok(()),
    };
    let alarmed = state.records.tell_alarms().await;
    let lacks = told.and(alarmed).err();
    state.records.lacks(lacks.map(|e| Chain(&e).to_string()));
}

async fn told(state: &State) -> Result<(), NotRecorded> {
    {
        let _alone = state.changing.lock().await;
        catch_up(state).await?;
    }
    keep(state).await
}

/// Has the audit log told that the vault as it is now is durable: an earlier one in its place is then refused.
pub fn kept(state: &State) {
    if !state.records.is_closing() {
        state.news.notify_one();
    } else if let Some(revision) = untold(state) {
        state.records.note_kept(revision);
    }
}

/// As [`kept`], though it was told: so that it is found again without looking through a long log.
pub fn kept_again(state: &State) {
    state.records.forget_kept();
    state.news.notify_one();
}

/// The revision of which the log does not know that it is durable. While something waits in the vault to be told, that tells it.
fn untold(state: &State) -> Option<u64> {
    let VaultState::Open(document) = state.vault.state() else {
        return None;
    };
    let nothing_waits = document.unrecorded.is_empty();
    let revision = document.revision;
    (nothing_waits && !state.records.has_kept(revision)).then_some(revision)
}

async fn keep(state: &State) -> Result<(), NotRecorded> {
    let _last = state.records.telling.lock().await;
    match untold(state) {
        Some(revision) => state.records.tell_kept(revision).await,
        None => Ok(()),
    }
}

/// Tells the audit log what was done without it, for whoever holds the right to change the vault: what waits is told before anything that is done
/// later. What it does not take now, it is told next time.
pub async fn catch_up(state: &State) -> Result<(), NotRecorded> {
    let document = match state.vault.state() {
        VaultState::Open(document) => document,
        VaultState::NoVault => return Ok(()),
        VaultState::Sealed(reason) => return Err(NotRecorded::NotCompared(reason)),
    };
    if document.unrecorded.is_empty() {
        return Ok(());
    }
    let _last = state.records.telling.lock().await;
    let (mut taken, mut told) = (Vec::new(), Ok(()));
    for done in &document.unrecorded {
        // Of what is one change, some may wait longer: then the revision is that of the change, and what waits says so.
        let reached = document.told_without(taken.len() + 1).max(done.revision);
        told = state.records.tell(done, reached).await;
        if told.is_err() {
            break;
        }
        taken.push(done.clone());
    }
    if taken.is_empty() {
        return told;
    }
    match state.vault.recorded(&taken) {
        Ok(()) => state.records.forgotten(&taken),
        // After a restart it is recorded twice rather than not at all.
        Err(e) => {
            let why = format!("what it has is not noted in the vault: {}", Chain(&e));
            state.records.lacks(Some(why));
        }
    }
    told
}
