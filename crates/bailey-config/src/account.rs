//! `accounts:`: whose identity plugins have, what they may use, and what of the host they see.

use std::path::{Component, Path, PathBuf};

use bailey_types::AccountName;
use bailey_yaml::{At, Place};
use serde::Serialize;

use crate::error::{Error, Report};
use crate::raw;

/// The account of plugins that name none.
pub const DEFAULT: &str = "default";
/// The account of plugins whose folder has changed since it was locked.
pub const UNTRUSTED: &str = "untrusted";

/// Most host paths of one account.
const MAX_MOUNTS: usize = 32;

/// Uids and gids that no account may have, and whose they are.
const TAKEN: [(std::ops::RangeInclusive<u32>, &str); 2] = [
    (10_001..=10_013, "a service of Bailey"),
    (19_999..=59_999, "plugins that are confined"),
];

/// What a cell has at these places is its own; a host path there would hide the plugin, its interpreter or its walls.
const PLACES_OF_THE_CELL: [&str; 14] = [
    "/bin",
    "/dev",
    "/home/plugin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/plugin",
    "/proc",
    "/run",
    "/sbin",
    "/state",
    "/sys",
    "/tmp",
];

/// `accounts.<name>:`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Account {
    /// Given: the account is credentialed, its plugins have this identity and see the host paths. Otherwise it is confined: each plugin has
    /// a uid of its own and sees nothing of the host.
    pub ids: Option<Ids>,
    /// Bytes.
    pub memory_bytes: Option<u64>,
    /// Thousandths of a core.
    pub millicpus: Option<u32>,
    /// Processes and threads.
    pub pids: Option<u32>,
    /// OCI runtime of its cells.
    pub runtime: Option<String>,
    /// HOME and working directory of its cells, a host path that they may write.
    pub home: Option<PathBuf>,
    /// Host paths of its cells.
    pub mounts: Vec<Mount>,
}

/// Whom a credentialed account acts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Ids {
    /// Never 0, of a service or of a confined plugin.
    pub uid: u32,
    /// As `uid`.
    pub gid: u32,
}

/// A host path that an account's cells see at the same path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Mount {
    /// Absolute, without `.` and `..`.
    pub path: PathBuf,
    /// Whether they may write.
    pub writable: bool,
}

impl Account {
    /// Whether its plugins act as the operator.
    pub const fn is_credentialed(&self) -> bool {
        self.ids.is_some()
    }

    /// Everything of the host that its cells see, `home` included.
    pub fn host_paths(&self) -> impl Iterator<Item = Mount> {
        let home = self.home.iter().map(|path| Mount {
            path: path.clone(),
            writable: true,
        });
        home.chain(self.mounts.iter().cloned())
    }
}

/// Whether one of two paths is the other, or lies in it.
pub fn overlap(one: &Path, other: &Path) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

/// Each two of `paths` of which one is, holds or lies in the other, and may be written: whoever writes there could put a link where the other
/// is mounted from, or files where they are trusted. The same path in two read-only lists harms nobody.
pub fn conflicts<'a, T>(paths: &'a [T], mount: impl Fn(&'a T) -> &'a Mount) -> Vec<(&'a T, &'a T)> {
    let mut found = Vec::new();
    for (nth, one) in paths.iter().enumerate() {
        for other in paths.iter().skip(nth + 1) {
            let (a, b) = (mount(one), mount(other));
            if (a.writable || b.writable) && overlap(&a.path, &b.path) {
                found.push((one, other));
            }
        }
    }
    found
}

pub(crate) fn account(
    name: &At<AccountName>,
    raw: raw::Account,
    report: &mut Report<'_>,
) -> Account {
    limits(name.place, &raw, report);
    let ids = ids(name, &raw, report);
    let paths = raw.home.iter().map(|home| (home.place, &home.value));
    let paths = paths.chain(raw.mounts.iter().map(|at| (at.place, &at.value.path)));
    let credentialed = raw.uid.is_some() || raw.gid.is_some();
    host_paths(name, credentialed, &paths.collect::<Vec<_>>(), report);
    if let Some(runtime) = &raw.runtime {
        if !bailey_plugin::is_runtime(&runtime.value) {
            report.push(
                runtime.place,
                "runtime must be 1 to 64 letters, digits, '.', '_', '-'",
            );
        }
        if name.value.as_str() == UNTRUSTED {
            report.push(
                runtime.place,
                "the account untrusted has no runtime of its own: a changed plugin runs in that of its own account",
            );
        }
    }
    Account {
        ids,
        memory_bytes: raw.memory.map(|at| at.value.0),
        millicpus: raw.cpus.map(|at| at.value.0),
        pids: raw.pids.map(|at| at.value),
        runtime: raw.runtime.map(|at| at.value),
        home: raw.home.map(|at| plain(&at.value)),
        mounts: raw.mounts.into_iter().map(|at| mount(&at.value)).collect(),
    }
}

/// Without a slash at its end, and none twice.
fn plain(path: &Path) -> PathBuf {
    path.components().collect()
}

fn mount(raw: &raw::Mount) -> Mount {
    Mount {
        path: plain(&raw.path),
        writable: raw.writable,
    }
}

fn limits(place: Place, raw: &raw::Account, report: &mut Report<'_>) {
    let least = [
        raw.memory
            .as_ref()
            .is_none_or(|memory| memory.value.0 >= 8 << 20),
        raw.cpus.as_ref().is_none_or(|cpus| cpus.value.0 >= 10),
        raw.pids.as_ref().is_none_or(|pids| pids.value >= 4),
    ];
    if least.contains(&false) {
        report.push(
            place,
            "an account needs at least 8MiB of memory, 0.01 cpus and 4 pids",
        );
    }
}

fn ids(name: &At<AccountName>, raw: &raw::Account, report: &mut Report<'_>) -> Option<Ids> {
    for (what, id) in [("uid", &raw.uid), ("gid", &raw.gid)] {
        let Some(id) = id else { continue };
        if !(1..=0x7fff_ffff).contains(&id.value) {
            report.push(
                id.place,
                format!("{what} is {}; it must be 1 to 2147483647", id.value),
            );
        }
        if let Some((_, whose)) = TAKEN.iter().find(|(range, _)| range.contains(&id.value)) {
            report.push(
                id.place,
                format!("{what} is {}, which belongs to {whose}", id.value),
            );
        }
    }
    let reserved = [DEFAULT, UNTRUSTED].contains(&name.value.as_str());
    match (&raw.uid, &raw.gid) {
        (None, None) => None,
        (Some(one), _) | (_, Some(one)) if reserved => {
            let name = &name.value;
            report.push(
                one.place,
                format!(
                    "the account {name} cannot be credentialed: nobody names it, so nobody would have said who acts as the operator"
                ),
            );
            None
        }
        (Some(one), None) | (None, Some(one)) => {
            report.push(
                one.place,
                "uid and gid belong together: both make the account credentialed, without them each of its plugins has a uid of its own",
            );
            None
        }
        (Some(uid), Some(gid)) => Some(Ids {
            uid: uid.value,
            gid: gid.value,
        }),
    }
}

fn host_paths(
    name: &At<AccountName>,
    credentialed: bool,
    paths: &[(Place, &PathBuf)],
    report: &mut Report<'_>,
) {
    if let Some((place, _)) = paths.first()
        && !credentialed
    {
        let name = &name.value;
        report.push(
            *place,
            format!(
                "the account {name} is confined and sees nothing of the host: home and mounts need uid and gid"
            ),
        );
    }
    if paths.len() > MAX_MOUNTS {
        report.push(
            name.place,
            format!("an account has at most {MAX_MOUNTS} host paths"),
        );
    }
    let mut seen: Vec<PathBuf> = Vec::new();
    for (place, path) in paths {
        let plain = plain(path);
        if let Some(problem) = path_problem(path) {
            report.push(*place, problem);
        } else if seen.contains(&plain) {
            report.push(*place, format!("{} is listed twice", plain.display()));
        }
        seen.push(plain);
    }
}

fn path_problem(path: &Path) -> Option<String> {
    let known = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::RootDir);
    // `components` passes over a `.` in the middle.
    let dotted = path
        .as_os_str()
        .as_encoded_bytes()
        .split(|byte| *byte == b'/')
        .any(|part| part == b".");
    let readable = path
        .to_str()
        .is_some_and(|text| !text.contains(char::is_control));
    if !path.is_absolute() || dotted || !readable || !path.components().all(known) {
        return Some("a host path must be absolute, without '.' and '..'".to_owned());
    }
    if plain(path) == Path::new("/") {
        return Some("the root of the host cannot be given away".to_owned());
    }
    let hidden = PLACES_OF_THE_CELL
        .into_iter()
        .find(|place| overlap(path, Path::new(place)));
    // Nothing that images bring lies below /usr/local.
    let usr = overlap(path, Path::new("/usr")) && !path.starts_with("/usr/local");
    hidden.or(usr.then_some("/usr")).map(|place| {
        format!(
            "{} is, holds or lies in {place}, which in a cell is its own",
            path.display()
        )
    })
}

/// A host path of an account, and where it is written.
pub(crate) struct Written<'a> {
    file: &'a str,
    place: Place,
    account: AccountName,
    mount: Mount,
}

/// The host paths of an account, for [`check_conflicts`].
pub(crate) fn written<'a>(
    file: &'a str,
    account: &AccountName,
    raw: &raw::Account,
) -> Vec<Written<'a>> {
    let home = raw.home.iter().map(|at| {
        let home = Mount {
            path: plain(&at.value),
            writable: true,
        };
        (at.place, home)
    });
    let mounts = raw.mounts.iter().map(|at| (at.place, mount(&at.value)));
    home.chain(mounts)
        .map(|(place, mount)| Written {
            file,
            place,
            account: account.clone(),
            mount,
        })
        .collect()
}

pub(crate) fn check_conflicts(written: &[Written<'_>], errors: &mut Vec<Error>) {
    for (one, other) in conflicts(written, |written| &written.mount) {
        if one.account == other.account && one.mount.path == other.mount.path {
            // Said already: it is listed twice.
            continue;
        }
        let (writer, at) = if one.mount.writable {
            (one, other)
        } else {
            (other, one)
        };
        let mut report = Report {
            file: at.file,
            errors,
        };
        report.push(
            at.place,
            format!(
                "{} of the account {} is, holds or lies in {}, which the account {} may write",
                at.mount.path.display(),
                at.account,
                writer.mount.path.display(),
                writer.account
            ),
        );
    }
}

#[cfg(test)]
mod tests;
