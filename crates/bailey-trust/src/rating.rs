//! How much a locked plugin could do if it were hostile (design, section 3): a pure function of what is locked.

use bailey_plugin::StateKind;
use bailey_plugin::egress::Entry;
use bailey_plugin::rating::{Rating, Reason};

use crate::lock::{LockedPlugin, Mode};

/// What counts and is not in the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// What it gets of the vault.
    pub secrets: Secrets,
    /// Whether its folder still is what was sealed.
    pub drifted: bool,
}

/// What a plugin gets of the vault, as far as whoever asks can know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrets {
    /// So many are granted.
    Granted(usize),
    /// It does not run without; how many they are is not known here.
    Required,
    /// Grants are not known here, and change without a lock.
    Unknown,
}

/// The rating of a plugin, the costliest reason first.
pub fn rating(plugin: &LockedPlugin, facts: &Facts) -> Rating {
    let mut reasons = Vec::new();
    mode(plugin, &mut reasons);
    host_paths(plugin, &mut reasons);
    egress(plugin, &mut reasons);
    secrets(facts.secrets, &mut reasons);
    match plugin.proposed.state {
        StateKind::None => {}
        StateKind::Data => reasons.push(costs(0, "keeps files between calls in /state")),
        StateKind::Home => reasons.push(costs(
            1,
            "keeps HOME between calls: one poisoned call can own the later ones",
        )),
    }
    if plugin.proposed.walls.service.is_some() {
        reasons.push(costs(
            0,
            "runs all the time: what it is given stays with it until it is started again",
        ));
    }
    if facts.drifted {
        reasons.push(costs(
            2,
            "its folder is not what was sealed: nobody has approved what would be locked next",
        ));
    }
    if let Some(runtime) = strong_runtime(plugin) {
        // A stronger wall makes up for one point of what it stands in front of; it never makes a plugin better than one that has nothing.
        let text = format!("runs under {runtime}, which has a kernel of its own");
        match reasons.iter_mut().find(|reason| reason.points > 1) {
            Some(reason) => {
                reason.points -= 1;
                reasons.push(costs(0, text + " (a point less for the first)"));
            }
            None => reasons.push(costs(0, text)),
        }
    }
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.points));
    Rating::of(reasons)
}

fn costs(points: u8, text: impl Into<String>) -> Reason {
    Reason {
        points,
        text: text.into(),
    }
}

fn mode(plugin: &LockedPlugin, reasons: &mut Vec<Reason>) {
    match plugin.proposed.walls.mode {
        Mode::Confined => {}
        Mode::Credentialed { uid, .. } => reasons.push(costs(
            2,
            format!("acts on the host as uid {uid}, not under one of its own"),
        )),
        Mode::Unconfined => reasons.push(costs(
            5,
            "is unconfined: root of the engine's default container",
        )),
    }
}

fn host_paths(plugin: &LockedPlugin, reasons: &mut Vec<Reason>) {
    let paths = &plugin.proposed.host_paths;
    let count = |writable: bool| {
        paths
            .iter()
            .filter(|path| path.writable == writable)
            .count()
    };
    match (count(true), count(false)) {
        (0, 0) => {}
        (0, read) => reasons.push(costs(
            1,
            format!("reads {} of the host", some(read, "path")),
        )),
        (write, 0) => reasons.push(costs(
            2,
            format!("writes {} of the host", some(write, "path")),
        )),
        (write, read) => {
            let text = format!(
                "writes {} of the host and reads {read}",
                some(write, "path")
            );
            reasons.push(costs(2, text));
        }
    }
}

fn egress(plugin: &LockedPlugin, reasons: &mut Vec<Reason>) {
    let hosts = &plugin.proposed.egress;
    // An entry that cannot be read is counted as the widest one.
    let wide = |entry: &String| {
        entry
            .parse::<Entry>()
            .map_or(true, |entry| entry.is_wildcard())
    };
    if hosts.iter().any(wide) {
        let text = format!(
            "reaches {}, among them every name below a suffix",
            some(hosts.len(), "host entry")
        );
        reasons.push(costs(2, text));
    } else if !hosts.is_empty() {
        reasons.push(costs(1, format!("reaches {}", some(hosts.len(), "host"))));
    }
}

fn secrets(secrets: Secrets, reasons: &mut Vec<Reason>) {
    match secrets {
        Secrets::Granted(0) => {}
        Secrets::Granted(count) => {
            reasons.push(costs(1, format!("gets {}", some(count, "secret"))));
        }
        Secrets::Required => reasons.push(costs(1, "gets secrets")),
        Secrets::Unknown => {
            reasons.push(costs(
                0,
                "secrets that are granted to it are not counted here",
            ));
        }
    }
}

/// The runtimes that put a kernel of their own between cell and host: gVisor and Kata Containers.
fn strong_runtime(plugin: &LockedPlugin) -> Option<&str> {
    let runtime = plugin.proposed.walls.runtime.as_deref()?;
    let strong = ["runsc", "kata"];
    strong
        .iter()
        .any(|name| {
            runtime == *name
                || runtime
                    .strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with('-'))
        })
        .then_some(runtime)
}

fn some(count: usize, what: &str) -> String {
    match (count, what.strip_suffix('y')) {
        (1, _) => format!("1 {what}"),
        (_, Some(stem)) => format!("{count} {stem}ies"),
        (_, None) => format!("{count} {what}s"),
    }
}

#[cfg(test)]
mod tests;
