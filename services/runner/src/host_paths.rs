//! Whether the host paths of a plugin are still those that the operator locked. A path is only a name: what lies behind it is compared by
//! device and inode, as a container would see it, before each cell that mounts it.

use std::time::Duration;

use bailey_cell::{Cell, Entry, Look, Probe, Spec, probe};
use bailey_trust::HostPath;
use bailey_types::JobId;
use serde_json::json;

use crate::attempt::{Outcome, Trouble};
use crate::audit::Record;
use crate::docker::{Engine, Error, Meaning};
use crate::gate;
use crate::roster::{Occupant, Roster};

/// A probe looks at a few paths and exits.
const LIMIT: Duration = Duration::from_secs(20);

/// What a probe found.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Same,
    /// The path at this place of the list is another than the locked one, or gone.
    Changed(usize),
    /// One of them cannot be mounted; what the engine said.
    Unmountable(String),
    /// It could not be found out, in a sentence.
    Unknown(String),
}

/// Refuses a cell whose host paths are not those of the lock. Asks the engine each time: nothing of an earlier answer is kept.
pub async fn check(
    engine: &Engine,
    roster: &Roster,
    audit: &dyn Record,
    cell: &Cell<'_>,
) -> Result<(), Outcome> {
    let paths = cell.host_paths();
    if paths.is_empty() {
        return Ok(());
    }
    let found = look(engine, roster, cell).await;
    let found = found.map_err(|error| Outcome::NotStarted(Trouble::from(&error)))?;
    let (path, reason) = match found {
        Found::Same => return Ok(()),
        Found::Unknown(why) => return Err(Outcome::NotStarted(Trouble::Other(why))),
        Found::Changed(index) => changed(paths, index),
        Found::Unmountable(why) => (None, format!("a host path cannot be mounted: {why}")),
    };
    let (plugin, serial) = (cell.plugin, cell.serial);
    audit.record(
        "cell.path_changed",
        json!({"plugin": plugin, "path": path, "lock": serial, "reason": reason}),
    );
    let advice = format!("look at it, then run `bailey plugin lock {plugin}`");
    Err(Outcome::Refused(format!("{reason}; {advice}")))
}

fn changed(paths: &[HostPath], index: usize) -> (Option<String>, String) {
    let path = paths.get(index).map(|path| path.path.display().to_string());
    let named = path.as_deref().unwrap_or("a host path");
    let reason = format!("{named} is not what it was when it was locked (another device or inode)");
    (path, reason)
}

async fn look(engine: &Engine, roster: &Roster, cell: &Cell<'_>) -> Result<Found, Error> {
    let Some(image) = gate::image(engine).await? else {
        let why = "socket-proxy does not know its own image, which looks at host paths";
        return Ok(Found::Unknown(why.into()));
    };
    let job = JobId::new();
    let _berth = roster.begin(Occupant::Probe(job));
    let spec = Spec::Probe(Probe {
        stack: cell.stack,
        image: &image,
        job,
        look: Look::Paths(Entry {
            serial: cell.serial,
            plugin: cell.plugin,
            locked: cell.locked,
        }),
    });
    let id = match engine.create(&spec).await {
        Ok(id) => id,
        // What is not there cannot be mounted.
        Err(error) if error.meaning() == Meaning::Refused => {
            return Ok(Found::Unmountable(error.sentence()));
        }
        Err(error) => return Err(error),
    };
    let code = tokio::time::timeout(LIMIT, gate::run(engine, &id)).await;
    engine.remove(&id).await?;
    match code {
        Ok(Ok(code)) => Ok(found(code)),
        // A path that went between the two calls.
        Ok(Err(error)) if error.meaning() == Meaning::Refused => {
            Ok(Found::Unmountable(error.sentence()))
        }
        Ok(Err(error)) => Err(error),
        Err(_) => Ok(Found::Unknown(format!(
            "the look at its host paths did not end within {LIMIT:?}"
        ))),
    }
}

fn found(code: i64) -> Found {
    match (code, probe::path_of_code(code)) {
        (0, _) => Found::Same,
        (_, Some(index)) => Found::Changed(index),
        (code, None) => Found::Unknown(format!("the look at its host paths ended with {code}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exit_code_0_lets_a_cell_in() {
        assert_eq!(found(0), Found::Same);
        assert_eq!(found(probe::path_code(2).into()), Found::Changed(2));
        for code in [1, 20, 137, -1] {
            assert!(matches!(found(code), Found::Unknown(_)), "{code}");
        }
    }

    #[test]
    fn the_changed_path_is_named() {
        let path = |path: &str| HostPath {
            path: path.into(),
            device: 1,
            inode: 2,
            writable: false,
        };
        let paths = [path("/srv/a"), path("/srv/b")];
        let (named, reason) = changed(&paths, 1);
        assert_eq!(named.as_deref(), Some("/srv/b"));
        assert!(reason.starts_with("/srv/b is not what it was"), "{reason}");
    }
}
