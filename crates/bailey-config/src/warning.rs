//! What is allowed, and worth saying each time: at `config check`, before a lock is signed, at every start.

use std::fmt::Display;

use bailey_types::AccountName;

use crate::account::{DEFAULT, UNTRUSTED};
use crate::{Account, Config, Ids};

/// One sentence for each, the loudest first. Empty for a configuration that confines everything.
pub fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    if config.service.unconfined {
        unconfined(config, &mut warnings);
    } else {
        let accounts = config.accounts.iter();
        warnings.extend(accounts.filter_map(|(name, account)| {
            account
                .ids
                .map(|ids| credentialed(config, name, ids, account))
        }));
    }
    if config.accounts.is_empty() {
        warnings.push(without_accounts(config));
    }
    let has = |name: &str| {
        config
            .accounts
            .keys()
            .any(|account| account.as_str() == name)
    };
    if !config.accounts.is_empty() && !has(DEFAULT) {
        warnings.push("there is no account `default`: a plugin that names no account in run_as cannot be locked".to_owned());
    }
    if !has(UNTRUSTED) {
        warnings.push("there is no account `untrusted`: a plugin whose folder changes after it was locked fails, where it could run without secrets".to_owned());
    }
    warnings
}

fn unconfined(config: &Config, warnings: &mut Vec<String>) {
    warnings.push("UNCONFINED: service.unconfined is true. Every plugin runs as root of the engine's default container, with its capabilities, its system calls and a writable root".to_owned());
    if !config.accounts.is_empty() {
        let names = list(config.accounts.keys());
        warnings.push(format!("service.unconfined is true over accounts ({names}): their identities and host paths are not in force, their limits and runtimes are"));
    }
}

fn without_accounts(config: &Config) -> String {
    let keen = config
        .enabled_plugins()
        .filter(|(_, plugin)| plugin.requires_vault);
    let keen = list(keen.map(|(name, _)| name));
    let whose = if keen.is_empty() {
        String::new()
    } else {
        format!(" ({keen} cannot do without)")
    };
    if config.service.unconfined {
        format!(
            "there are no accounts: secrets of the vault{whose} go to plugins that nothing confines"
        )
    } else {
        format!(
            "there are no accounts: no plugin runs, and no secret of the vault{whose} is delivered"
        )
    }
}

fn credentialed(config: &Config, name: &AccountName, ids: Ids, account: &Account) -> String {
    let or = |list: String, other: &str| {
        if list.is_empty() {
            other.to_owned()
        } else {
            list
        }
    };
    let plugins = or(list(config.plugins_of(name)), "no plugin so far");
    let paths = account.host_paths().map(|mount| {
        let mode = if mount.writable { "rw" } else { "ro" };
        format!("{} ({mode})", mount.path.display())
    });
    let paths = or(
        list(paths),
        "nothing of it: without a host path, uid and gid only weaken its cells",
    );
    format!(
        "CREDENTIALED: the account {name} acts on the host as uid {}, gid {} for {plugins}, and sees {paths}",
        ids.uid, ids.gid
    )
}

fn list<T: Display>(names: impl Iterator<Item = T>) -> String {
    let names: Vec<_> = names.map(|name| name.to_string()).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests;
