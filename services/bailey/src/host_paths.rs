//! The host paths of credentialed accounts, looked at where they are: on the host, which the container `cli` does not see.
//!
//! What is found here, device and inode, goes into the lock. Runner and engine compare it again before each cell, so a path that is exchanged
//! later is not mounted; what is refused here is refused because no later look could tell.

mod host;
mod scan;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context as _;
use bailey_config::{Account, Config, Mount};
use bailey_trust::TrustFile;
use bailey_types::AccountName;
use serde::{Deserialize, Serialize};

use crate::Misconfigured;
use crate::cli::{ConfigVerb, PluginVerb, Verb};
use crate::home::Home;

pub(crate) use host::Host;

/// Host paths by the path that the configuration names, as the host has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Resolved(BTreeMap<PathBuf, Found>);

/// What a path is on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Found {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

impl Found {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

impl Resolved {
    pub(crate) fn of(&self, path: &Path) -> Option<Found> {
        self.0.get(path).copied()
    }
}

impl FromStr for Resolved {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|e| e.to_string())
    }
}

/// What the command inside of the container must be told beside its own arguments.
pub(crate) fn arguments(home: &Home, verb: &Verb) -> anyhow::Result<Vec<OsString>> {
    let Some(config) = meant(home, verb)? else {
        return Ok(Vec::new());
    };
    let accounts = config.accounts.values();
    if config.service.unconfined || accounts.flat_map(Account::host_paths).next().is_none() {
        return Ok(Vec::new());
    }
    let (resolved, notes) = resolve(&config, &Host::of(home)?)
        .map_err(|problems| Misconfigured(problems.join("\n")))?;
    for note in notes {
        eprintln!("! {}", crate::output::plain(&note));
    }
    let text = serde_json::to_string(&resolved).context("writing what was found on the host")?;
    Ok(vec!["--host-paths".into(), text.into()])
}

/// The configuration whose accounts a command would lock. None: it locks nothing, or what was previewed.
fn meant(home: &Home, verb: &Verb) -> anyhow::Result<Option<Config>> {
    let on_disk = || -> anyhow::Result<Option<Config>> {
        let files = bailey_config::read_dir(&home.config_dir())?;
        Ok(Some(bailey_config::parse(&files.texts)?))
    };
    match verb {
        Verb::Plugin {
            verb: PluginVerb::Lock(args),
        } if args.all && args.first.is_none() => on_disk(),
        Verb::Plugin {
            verb: PluginVerb::Lock(args),
        } if !args.all && args.second.is_none() => {
            let trust = TrustFile::read(&home.trust_file())?;
            let present = crate::lock::present(home, &trust)?;
            let config = present.map(|lock| bailey_config::parse(&lock.config_files));
            Ok(config.transpose()?)
        }
        Verb::Config {
            verb: ConfigVerb::Lock(args),
        } if args.code.is_none() => on_disk(),
        Verb::Plugin { .. }
        | Verb::Config { .. }
        | Verb::Init(_)
        | Verb::Status(_)
        | Verb::Job { .. }
        | Verb::Event { .. }
        | Verb::Vault { .. }
        | Verb::Token { .. }
        | Verb::Pki { .. }
        | Verb::Audit { .. }
        | Verb::Upstream { .. }
        | Verb::Completions { .. } => Ok(None),
    }
}

struct Seen<'a> {
    account: &'a AccountName,
    mount: Mount,
    place: Place,
}

/// A place of the host, under whatever name: itself, and the folders that it lies in.
struct Place {
    metadata: fs::Metadata,
    /// Itself first, the root last.
    ancestry: Vec<Found>,
}

impl Place {
    fn found(&self) -> Found {
        Found::of(&self.metadata)
    }
}

/// Looks at every host path of every account: what each is, and what could not be looked at as a whole; or everything that is wrong.
pub(crate) fn resolve(
    config: &Config,
    host: &Host,
) -> Result<(Resolved, Vec<String>), Vec<String>> {
    let (mut seen, mut notes, mut problems) = (Vec::new(), Vec::new(), Vec::new());
    for (name, account) in &config.accounts {
        problems.extend(host.identity_problem(name, account));
        for mount in account.host_paths() {
            let is_home = account.home.as_ref() == Some(&mount.path);
            let owner = account.ids.filter(|_| is_home).map(|ids| ids.uid);
            let looked = look(&mount.path, host, &mut notes).and_then(|place| {
                owner.map_or(Ok(()), |uid| home_problem(&mount.path, &place, uid))?;
                Ok(place)
            });
            match looked {
                Ok(place) => seen.push(Seen {
                    account: name,
                    mount,
                    place,
                }),
                Err(problem) => problems.push(format!("the account {name}: {problem}")),
            }
        }
    }
    problems.extend(aliases(&seen));
    if !problems.is_empty() {
        return Err(problems);
    }
    let resolved = seen.into_iter().map(|seen| {
        let found = seen.place.found();
        (seen.mount.path, found)
    });
    Ok((Resolved(resolved.collect()), notes))
}

/// What no comparison of names sees, which the configuration has been through: two names of one place, by a bind mount or a hard link.
fn aliases(seen: &[Seen<'_>]) -> Vec<String> {
    let mut problems = Vec::new();
    for (nth, one) in seen.iter().enumerate() {
        for other in seen.iter().skip(nth + 1) {
            let written = one.mount.writable || other.mount.writable;
            let touch = one.place.ancestry.contains(&other.place.found())
                || other.place.ancestry.contains(&one.place.found());
            if written && touch {
                let writer = if one.mount.writable { one } else { other };
                problems.push(format!(
                    "{} of the account {} and {} of the account {} are the same place or lie in one another, and the account {} may write there",
                    one.mount.path.display(),
                    one.account,
                    other.mount.path.display(),
                    other.account,
                    writer.account
                ));
            }
        }
    }
    problems
}

fn look(path: &Path, host: &Host, notes: &mut Vec<String>) -> Result<Place, String> {
    let shown = path.display();
    let failed = |e: std::io::Error| format!("{shown} cannot be looked at: {e}");
    let metadata = fs::symlink_metadata(path).map_err(failed)?;
    // Each component by itself: whoever owns a link decides what is mounted.
    let mut ancestry = Vec::new();
    for part in path.ancestors() {
        let metadata = fs::symlink_metadata(part).map_err(failed)?;
        if metadata.is_symlink() {
            let part = part.display();
            return Err(format!(
                "{shown}: {part} is a symbolic link; name the place itself"
            ));
        }
        ancestry.push(Found::of(&metadata));
    }
    let kind = metadata.file_type();
    if kind.is_socket() {
        return Err(format!(
            "{shown} is a socket: whoever can connect to it has what is behind it"
        ));
    }
    if !kind.is_dir() && !kind.is_file() {
        return Err(format!("{shown} is neither a folder nor a regular file"));
    }
    host.check(path, &ancestry)?;
    if kind.is_dir() {
        scan::search(path, host, notes)?;
    }
    Ok(Place { metadata, ancestry })
}

fn home_problem(path: &Path, place: &Place, uid: u32) -> Result<(), String> {
    if !place.metadata.is_dir() {
        return Err(format!("home {} is not a folder", path.display()));
    }
    let owner = place.metadata.uid();
    if owner != uid {
        return Err(format!(
            "home {} belongs to uid {owner}, not to uid {uid} of the account",
            path.display()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
