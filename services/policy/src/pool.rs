//! Leave to keep cells of a plugin started before there is a request. Such a cell runs the plugin's own code before any decision, so only
//! cells may be started that could do nothing with it: no state, no egress, no host paths.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bailey_proto::trust::v1::Signed;
use bailey_trust::{Carried, Loaded, PoolGrant, ProposedPlugin, sign};
use bailey_types::{GrantId, PluginName};
use serde_json::json;

use crate::db;
use crate::decision::State;
use crate::denial::{Denial, Reason};
use crate::drift;
use crate::error::Error;
use crate::grounds;
use crate::lock::{self, View};

/// How long a grant is valid.
const VALIDITY: Duration = PoolGrant::MAX_VALIDITY;

/// A grant that has more than this left is given again, so that asking often does not fill the log.
const RENEW_BEFORE: Duration = Duration::from_mins(30);

/// The last grant of each plugin.
#[derive(Default)]
pub(crate) struct Grants(Mutex<BTreeMap<PluginName, (PoolGrant, Signed)>>);

/// Decides whether cells of `plugin` may be started ahead. An error is no decision.
#[tracing::instrument(name = "pool.grant", skip_all, fields(plugin.name = %plugin))]
pub(crate) async fn grant(
    policy: &State,
    plugin: &PluginName,
) -> Result<Result<Signed, Denial>, Error> {
    let (loaded, cells) = match check(policy, plugin).await? {
        Ok(found) => found,
        Err(denial) => return Ok(Err(refused(policy, plugin, denial))),
    };
    let locked = grounds::locked(plugin, &loaded)
        .map(|locked| &locked.proposed)
        .map_err(|denial| Error::Malformed(denial.detail))?;
    if let Some(signed) = policy.grants.valid(policy, plugin, locked, &loaded) {
        return Ok(Ok(signed));
    }
    remember(policy, &loaded).await?;
    let mut grant = PoolGrant {
        id: GrantId::new(),
        plugin: plugin.clone(),
        image: locked.image,
        lock_serial: loaded.lock.serial,
        cells,
        issued_at: policy.clock.now(),
        expires_at: policy.clock.now(),
    };
    let fields = json!({
        "grant": grant.id,
        "plugin": grant.plugin,
        "image": grant.image,
        "lock_serial": grant.lock_serial,
        "cells": grant.cells,
    });
    policy.ledger.append("pool.granted", fields).await?;
    grant.issued_at = policy.clock.now();
    grant.expires_at = grant.issued_at.plus(VALIDITY);
    let signed = sign(&grant, &policy.key).map_err(Error::Sign)?;
    tracing::info!(grant.id = %grant.id, "granted a pool of {cells} cells of {plugin}");
    policy.grants.keep(grant, signed.clone());
    Ok(Ok(signed))
}

type Checked = (Arc<Loaded<View>>, u32);

async fn check(policy: &State, plugin: &PluginName) -> Result<Result<Checked, Denial>, Error> {
    let loaded = match policy.lock.current() {
        Ok(loaded) => loaded,
        Err(error) => return lock::unusable(error).map(Err),
    };
    let locked = match grounds::locked(plugin, &loaded) {
        Ok(locked) => &locked.proposed,
        Err(denial) => return Ok(Err(denial)),
    };
    let cells = locked.walls.warm;
    if let Some(why) = unfit(plugin, locked) {
        return Ok(Err(Reason::NotPooled.because(why)));
    }
    if let Some(drift) = policy.folders.drift(plugin, &loaded).await? {
        return Ok(Err(Reason::Drifted.because(drift::sentence(plugin, &drift))));
    }
    Ok(Ok((loaded, cells)))
}

fn unfit(plugin: &PluginName, locked: &ProposedPlugin) -> Option<String> {
    let why = if locked.walls.warm == 0 {
        "`warm` is 0"
    } else {
        match locked.carries()? {
            Carried::State => "it has state",
            Carried::Egress => "it has egress",
            Carried::HostPaths => "it sees host paths",
        }
    };
    Some(format!("no cells of {plugin} are kept: {why}"))
}

/// A lock that was granted under must never be followed by an older one.
async fn remember(policy: &State, loaded: &Loaded<View>) -> Result<(), Error> {
    let mut tx = policy.db.write().await?;
    db::memory::advance(&mut tx, policy.memory(loaded)).await?;
    tx.commit().await?;
    Ok(())
}

fn refused(policy: &State, plugin: &PluginName, denial: Denial) -> Denial {
    let reason = denial.reason.token();
    tracing::warn!(
        denial.reason = reason,
        "refused a pool of {plugin}: {}",
        denial.detail
    );
    let fields = json!({ "plugin": plugin, "reason": reason });
    policy.auditor.append_refusal("pool.refused", &fields);
    denial
}

impl Grants {
    fn valid(
        &self,
        policy: &State,
        plugin: &PluginName,
        locked: &ProposedPlugin,
        loaded: &Loaded<View>,
    ) -> Option<Signed> {
        let now = policy.clock.now();
        let grants = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (grant, signed) = grants.get(plugin)?;
        let same = grant.lock_serial == loaded.lock.serial
            && grant.image == locked.image
            && grant.cells == locked.walls.warm;
        (same && grant.issued_at <= now && now.plus(RENEW_BEFORE) < grant.expires_at)
            .then(|| signed.clone())
    }

    fn keep(&self, grant: PoolGrant, signed: Signed) {
        let mut grants = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Of plugins that are gone from the lock, too: those of other serials are of no use any more.
        grants.retain(|_, (other, _)| other.lock_serial == grant.lock_serial);
        grants.insert(grant.plugin.clone(), (grant, signed));
    }
}
