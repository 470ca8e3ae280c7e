//! Whether a plugin is proposed with the walls that its configuration gives it. The CLI derives them; a lock in which they are weaker, or
//! contradict each other, is not signed.

use std::collections::BTreeSet;
use std::path::Path;

use bailey_config::account::{UNTRUSTED, overlap};
use bailey_config::{Account, Config, PluginConfig};
use bailey_plugin::Container;
use bailey_trust::{Mode, ProposedPlugin, SERVE, ServiceTerms, StateLimit};

/// What of a host is as good as the host: the engine's own files, and its socket by the name that systems keep for older programs.
const OF_THE_ENGINE: [&str; 3] = ["/var/lib/containerd", "/var/lib/docker", "/var/run"];

/// The error goes on from "the plugin greet".
pub(super) fn check(
    config: &Config,
    plugin: &PluginConfig,
    proposed: &ProposedPlugin,
) -> Result<(), String> {
    let account = config.accounts.get(&plugin.run_as);
    check_mode(config, account, proposed)?;
    check_host_paths(account, proposed)?;
    let (here, there) = (&plugin.container, &proposed.manifest.container);
    let account_runtime = account.and_then(|account| account.runtime.as_ref());
    if proposed.walls.runtime.as_ref() != here.runtime.as_ref().or(account_runtime) {
        return Err("is proposed with another runtime than its configuration names".into());
    }
    let egress = here.egress.as_ref().or(there.egress.as_ref());
    if proposed.egress.as_slice() != egress.map_or(&[][..], Vec::as_slice) {
        return Err("is proposed with other egress than its configuration or manifest has".into());
    }
    let may_keep = StateLimit::of(here.state_limit, there.state_limit)
        .map_err(|key| format!("asks for more {key} than its configuration grants"))?;
    if proposed.walls.state_limit != may_keep {
        return Err(
            "is proposed with another state_limit than its configuration or manifest has".into(),
        );
    }
    let has_untrusted = config
        .accounts
        .keys()
        .any(|name| name.as_str() == UNTRUSTED);
    if proposed.walls.untrusted.is_some() && !has_untrusted {
        return Err("is proposed with an account untrusted, which there is not".into());
    }
    check_service(here, there, proposed)?;
    match proposed.carries() {
        Some(what) if proposed.walls.warm > 0 => Err(format!(
            "has {what}, so none of its cells may be started before there is a request: `warm` must be 0"
        )),
        Some(_) | None => Ok(()),
    }
}

fn check_service(
    here: &Container,
    there: &Container,
    proposed: &ProposedPlugin,
) -> Result<(), String> {
    let expected = ServiceTerms::of(here, there);
    if proposed.walls.service != expected {
        let than = "than its configuration or manifest has";
        return Err(format!("is proposed with another mode or heartbeat {than}"));
    }
    if expected.is_some() && !ServiceTerms::fit(&proposed.manifest) {
        return Err(format!("has `mode: service`, but no command {SERVE}"));
    }
    Ok(())
}

fn check_mode(
    config: &Config,
    account: Option<&Account>,
    proposed: &ProposedPlugin,
) -> Result<(), String> {
    let ids = account.and_then(|account| account.ids);
    let expected = match ids {
        _ if config.service.unconfined => Mode::Unconfined,
        None => Mode::Confined,
        Some(ids) => Mode::Credentialed {
            uid: ids.uid,
            gid: ids.gid,
        },
    };
    let found = proposed.walls.mode;
    if found == expected {
        return Ok(());
    }
    let (found, expected) = (describe(found), describe(expected));
    Err(format!(
        "is {expected} by its configuration, but is proposed as {found}"
    ))
}

fn describe(mode: Mode) -> String {
    match mode {
        Mode::Confined => "confined".into(),
        Mode::Credentialed { uid, gid } => format!("credentialed (uid {uid}, gid {gid})"),
        Mode::Unconfined => "unconfined".into(),
    }
}

/// Exactly those of the account: their shape is the configuration's to check, and a link that would make another path of one is the CLI's.
fn check_host_paths(account: Option<&Account>, proposed: &ProposedPlugin) -> Result<(), String> {
    let expected: BTreeSet<_> = match proposed.walls.mode {
        Mode::Credentialed { .. } => account
            .into_iter()
            .flat_map(Account::host_paths)
            .map(|mount| (mount.path, mount.writable))
            .collect(),
        Mode::Confined | Mode::Unconfined => BTreeSet::new(),
    };
    let found: BTreeSet<_> = proposed
        .host_paths
        .iter()
        .map(|host| (host.path.clone(), host.writable))
        .collect();
    let home = match proposed.walls.mode {
        Mode::Credentialed { .. } => account.and_then(|account| account.home.as_ref()),
        Mode::Confined | Mode::Unconfined => None,
    };
    let twice = found.len() != proposed.host_paths.len();
    if twice || found != expected || proposed.walls.home.as_ref() != home {
        return Err("is proposed with other host paths than its account has".into());
    }
    let given = found.iter().find_map(|(path, _)| {
        let engine = OF_THE_ENGINE
            .iter()
            .find(|of| overlap(path, Path::new(of)))?;
        Some((path, engine))
    });
    match given {
        Some((path, engine)) => Err(format!(
            "sees {}, which is, holds or lies in {engine}: whoever has that has the host",
            path.display()
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
