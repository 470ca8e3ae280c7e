//! How the lock is, for the health line and for services. Other work looks at the lock itself, each time; whether files differ from it is policy's to say.

use std::time::Duration;

use bailey_error::Chain;
use bailey_service::Context;

use crate::service;
use crate::state::State;

/// How often the health line is brought up to date.
const WATCH: Duration = Duration::from_secs(5);

/// Keeps the health line up to date until the shutdown, wakes the dispatcher when the lock has come or changed, and has services follow it.
pub(crate) async fn watch(ctx: Context, state: State) -> anyhow::Result<()> {
    let mut serial = None;
    loop {
        let locked = state.locked();
        let now = locked.as_ref().ok().map(|locked| locked.lock.serial);
        if serial != now {
            serial = now;
            state.wake.notify_one();
        }
        if let Ok(locked) = &locked
            && let Err(error) = service::follow(&state, locked).await
        {
            tracing::error!(error = %Chain(&error), "comparing services with the lock failed");
        }
        ctx.trouble("lock", locked.err().map(|error| error.to_string()));
        tokio::select! {
            () = tokio::time::sleep(WATCH) => {}
            () = ctx.shutdown.cancelled() => return Ok(()),
        }
    }
}
