//! Whether the folder of a plugin still holds what was sealed. What runs is the seal either way; a folder that has changed since says that
//! its owner, or somebody else, is no longer content with it.

mod folder;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bailey_error::Chain;
use bailey_mesh::Auditor;
use bailey_plugin::tree::{self, Mark, Tree};
use bailey_trust::{Loaded, ProposedPlugin};
use bailey_types::{Blake3, Clock, PluginName};
use serde_json::json;

use self::folder::Folder;
use crate::error::Error;
use crate::lock::View;

/// How long a look at a folder may take. One that does not end, as on a file system whose server is gone, tells nothing good of the folder.
const PATIENCE: Duration = Duration::from_secs(10);

/// Changed plugins that the health line names.
const MAX_NAMED: usize = 3;

/// How a folder differs from what was sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Drift {
    /// Hash over the files as they are; `None` where they cannot be sealed as they are.
    found: Option<Blake3>,
    /// What differs, for the operator.
    pub(crate) detail: String,
}

/// The folders of the locked plugins. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Folders(Arc<Inner>);

struct Inner {
    auditor: Auditor,
    clock: Clock,
    known: Mutex<BTreeMap<PluginName, Arc<Folder>>>,
}

/// What is known of a plugin's folder.
#[derive(Default)]
struct Known {
    looked: Option<Looked>,
}

/// A look at a folder, good for as long as neither the seal nor the mark changes.
struct Looked {
    source: String,
    sealed: Blake3,
    mark: Mark,
    drift: Option<Drift>,
}

impl Folders {
    pub(crate) fn new(auditor: Auditor, clock: Clock) -> Self {
        Self(Arc::new(Inner {
            auditor,
            clock,
            known: Mutex::default(),
        }))
    }

    /// How the folder of a locked plugin differs from its seal now. Its files are read again only where the system says that they may have
    /// changed; up to 256 MiB then, so not on the thread that serves everybody.
    pub(crate) async fn drift(
        &self,
        plugin: &PluginName,
        loaded: &Arc<Loaded<View>>,
    ) -> Result<Option<Drift>, Error> {
        let Some(locked) = loaded.lock.plugins.get(plugin) else {
            return Ok(None);
        };
        let locked = &locked.proposed;
        // An image that was sealed as it was has no folder.
        if locked.base.is_none() && locked.files.is_empty() {
            return Ok(None);
        }
        let folder = {
            let mut all = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(all.entry(plugin.clone()).or_default())
        };
        let (sealed, clock, name) = (Arc::clone(loaded), self.0.clock.clone(), plugin.clone());
        let look = move |known: &mut Known| {
            let locked = sealed.lock.plugins.get(&name)?;
            known.look(&locked.proposed, &clock)
        };
        let drift = folder.look(PATIENCE, look).await.map_err(Error::Folder)?;
        if folder.is_news(drift.as_ref()) {
            self.tell(plugin, locked, drift.as_ref());
        }
        Ok(drift)
    }

    fn tell(&self, plugin: &PluginName, locked: &ProposedPlugin, drift: Option<&Drift>) {
        let Some(drift) = drift else {
            return tracing::info!("the folder of {plugin} holds what was sealed again");
        };
        tracing::warn!(plugin.name = %plugin, "{}", sentence(plugin, drift));
        let fields = json!({
            "plugin": plugin,
            "source": locked.source,
            "sealed": locked.tree_blake3,
            "found": drift.found,
        });
        self.0.auditor.append("plugin.drifted", &fields);
    }

    /// Looks at all plugins of the lock, and forgets those that are gone from it.
    pub(crate) async fn trouble(
        &self,
        loaded: &Arc<Loaded<View>>,
    ) -> Result<Option<String>, Error> {
        let plugins = &loaded.lock.plugins;
        self.0
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|name, _| plugins.contains_key(name));
        // Side by side: each that does not answer takes all of its time.
        let looks = plugins.keys().map(async |name| {
            let drift = self.drift(name, loaded).await?;
            Ok::<_, Error>(drift.map(|drift| sentence(name, &drift)))
        });
        let looked = futures::future::try_join_all(looks).await?;
        let changed: Vec<_> = looked.into_iter().flatten().collect();
        let more = changed.len().saturating_sub(MAX_NAMED);
        let mut lines: Vec<_> = changed.into_iter().take(MAX_NAMED).collect();
        if more > 0 {
            lines.push(format!("and {more} more plugins have changed"));
        }
        Ok((!lines.is_empty()).then(|| lines.join("; ")))
    }
}

impl Known {
    fn look(&mut self, seal: &ProposedPlugin, clock: &Clock) -> Option<Drift> {
        let dir = Path::new(&seal.source);
        // Before the files are read: a change during the reading must show at the next look.
        let (mark, now) = (Mark::of(dir), clock.now());
        let mark = match mark {
            Ok(mark) => mark,
            Err(error) => {
                self.looked = None;
                return Some(unreadable(&error));
            }
        };
        let kept = self.looked.take().filter(|looked| {
            looked.source == seal.source && looked.sealed == seal.tree_blake3 && looked.mark == mark
        });
        let (drift, keep) = match kept {
            Some(kept) => (kept.drift, true),
            None => match Tree::read(dir) {
                Ok(tree) => (compare(seal, &tree), mark.settled(now)),
                Err(error) => (Some(unreadable(&error)), false),
            },
        };
        self.looked = keep.then(|| Looked {
            source: seal.source.clone(),
            sealed: seal.tree_blake3,
            mark,
            drift: drift.clone(),
        });
        drift
    }
}

fn unreadable(error: &tree::Error) -> Drift {
    Drift {
        found: None,
        detail: Chain(error).to_string(),
    }
}

fn compare(locked: &ProposedPlugin, tree: &Tree) -> Option<Drift> {
    if tree.blake3 == locked.tree_blake3 {
        return None;
    }
    let paths: BTreeSet<_> = locked.files.keys().chain(tree.files.keys()).collect();
    let mut changes =
        paths.into_iter().filter_map(
            |path| match (locked.files.get(path), tree.files.get(path)) {
                (Some(sealed), Some(found)) if *sealed == found.blake3 => None,
                (Some(_), Some(_)) => Some(format!("{path} is another")),
                (None, _) => Some(format!("{path} is new")),
                (_, None) => Some(format!("{path} is gone")),
            },
        );
    let first = changes
        .next()
        .unwrap_or_else(|| "the mode of a file is another".to_owned());
    let detail = match changes.count() {
        0 => first,
        more => format!("{first}, and {more} more differ"),
    };
    Some(Drift {
        found: Some(tree.blake3),
        detail,
    })
}

/// One sentence for the operator, with what to do.
pub(crate) fn sentence(plugin: &PluginName, drift: &Drift) -> String {
    let detail = &drift.detail;
    format!(
        "plugin {plugin} has changed since it was locked: {detail}; run `bailey plugin lock {plugin}`"
    )
}

#[cfg(test)]
mod tests;
