//! The lock as policy sees it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bailey_config::Config;
use bailey_service::Context;
use bailey_trust::{Loaded, Lock, LockSource, LockSourceError, strict_json};
use bailey_types::{PluginName, Serial};
use tokio::time::{Instant, MissedTickBehavior};

use crate::denial::{Denial, Reason};
use crate::drift::Folders;
use crate::error::Error;

/// What policy makes of a lock, once.
#[derive(Debug)]
pub(crate) struct View {
    /// The locked configuration.
    pub(crate) config: Config,
    /// What each plugin's requests carry as `config`, as JSON text.
    pub(crate) plugin_configs: BTreeMap<PluginName, Vec<u8>>,
}

/// How often the health line is brought up to date. Decisions look at the lock themselves.
const WATCH: Duration = Duration::from_secs(5);

/// How often is looked whether there is another lock, which costs one `stat`: whoever locks waits until the health line is about it.
const LOOK: Duration = Duration::from_millis(200);

impl View {
    pub(crate) fn of(lock: &Lock) -> Result<Self, String> {
        let config = bailey_config::parse(&lock.config_files)
            .map_err(|e| format!("its configuration: {e}"))?;
        let mut plugin_configs = BTreeMap::new();
        for (name, plugin) in config.enabled_plugins() {
            let text = serde_json::to_vec(&plugin.config)
                .map_err(|e| format!("the config of {name}: {e}"))?;
            // It becomes part of the bytes that are hashed.
            strict_json::check(&text).map_err(|e| format!("the config of {name}: {e}"))?;
            plugin_configs.insert(name.clone(), text);
        }
        Ok(Self {
            config,
            plugin_configs,
        })
    }
}

/// What having no usable lock means for a decision.
pub(crate) fn unusable(error: LockSourceError) -> Result<Denial, Error> {
    let detail = error.to_string();
    match error {
        LockSourceError::Missing => Ok(Reason::LockMissing.because(detail)),
        LockSourceError::Refused { .. } => Ok(Reason::LockRefused.because(detail)),
        LockSourceError::Older { .. } => Ok(Reason::LockOlder.because(detail)),
        // The next read may go well.
        LockSourceError::Read { .. } => Err(Error::Lock(error)),
    }
}

/// Keeps the health line true about the lock and the plugins' folders, and says which lock it is about.
pub(crate) fn watch(ctx: &Context, source: Arc<LockSource<View>>, folders: Folders) {
    let watching = ctx.clone();
    ctx.spawn("lock", async move {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last: Option<(Serial, Instant)> = None;
        loop {
            tokio::select! {
                _ = looks.tick() => {}
                () = watching.shutdown.cancelled() => return Ok(()),
            }
            let found = source.current();
            let serial = found
                .as_ref()
                .map_or(Serial(0), |loaded| loaded.lock.serial);
            let is_told = |(told, at): (Serial, Instant)| told == serial && at.elapsed() < WATCH;
            if last.is_some_and(is_told) {
                continue;
            }
            let trouble = trouble(found.as_ref(), &watching.settings.config_dir);
            watching.trouble("lock", trouble);
            // Without a lock nothing is sealed, which the part `lock` says.
            let changed = match &found {
                Ok(loaded) => tokio::select! {
                    changed = folders.trouble(loaded) => changed?,
                    () = watching.shutdown.cancelled() => return Ok(()),
                },
                Err(_) => None,
            };
            watching.trouble("folders", changed);
            watching.goes_by(serial.0);
            last = Some((serial, Instant::now()));
        }
    });
}

fn trouble(
    found: Result<&Arc<Loaded<View>>, &LockSourceError>,
    config_dir: &Path,
) -> Option<String> {
    let loaded = match found {
        Ok(loaded) => loaded,
        Err(error) => return Some(error.to_string()),
    };
    match bailey_config::read_dir(config_dir) {
        Ok(files) if files.texts == loaded.lock.config_files => None,
        Ok(_) => Some("the configuration has changed since it was locked; `bailey plugin lock --all` shows how".into()),
        Err(error) => Some(format!("the configuration has changed since it was locked, and cannot be read: {error}")),
    }
}
