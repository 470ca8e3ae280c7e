//! How the lock and the files beside it are, for the health line. Work looks at the lock itself, each time.

use std::path::Path;
use std::time::Duration;

use bailey_service::{Context, Misconfigured};

use crate::state::State;

/// How often the health line is brought up to date.
const WATCH: Duration = Duration::from_secs(5);

/// Refuses a configuration on disk that could never be locked.
pub(crate) fn check_files(config_dir: &Path) -> Result<(), Misconfigured> {
    let files = bailey_config::read_dir(config_dir).map_err(|e| Misconfigured(e.to_string()))?;
    bailey_config::parse(&files.texts).map_err(|e| Misconfigured(e.to_string()))?;
    Ok(())
}

/// Keeps the health line up to date until the shutdown, and wakes the dispatcher when the lock has come or changed.
pub(crate) async fn watch(ctx: Context, state: State) -> anyhow::Result<()> {
    let mut serial = None;
    loop {
        let locked = state.locked();
        let now = locked.as_ref().ok().map(|locked| locked.lock.serial);
        if serial != now {
            serial = now;
            state.wake.notify_one();
        }
        let trouble = match &locked {
            Err(error) => Some(error.to_string()),
            Ok(locked) => {
                let same = bailey_config::read_dir(&ctx.settings.config_dir)
                    .is_ok_and(|files| files.texts == locked.lock.config_files);
                (!same).then(|| {
                    "the configuration has changed since it was locked: run `bailey plugin lock --all`"
                        .to_owned()
                })
            }
        };
        ctx.trouble("lock", trouble);
        tokio::select! {
            () = tokio::time::sleep(WATCH) => {}
            () = ctx.shutdown.cancelled() => return Ok(()),
        }
    }
}
