//! How the lock is, for the health line and for services. Other work looks at the lock itself, each time; whether files differ from it is policy's to say.

use std::time::Duration;

use bailey_error::Chain;
use bailey_service::Context;
use bailey_types::Serial;
use tokio::time::{Instant, MissedTickBehavior};

use crate::service;
use crate::state::State;

/// How often the health line is brought up to date, and services are compared, under one and the same lock.
const WATCH: Duration = Duration::from_secs(5);

/// How often is looked whether there is another lock, which costs one `stat`: whoever locks waits for it.
const LOOK: Duration = Duration::from_millis(200);

/// Keeps the health line up to date until the shutdown, wakes the dispatcher when the lock has come or changed, has services follow it, and says
/// which one that is.
pub(crate) async fn watch(ctx: Context, state: State) -> anyhow::Result<()> {
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last: Option<(Option<Serial>, Instant)> = None;
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            () = ctx.shutdown.cancelled() => return Ok(()),
        }
        let locked = state.locked();
        let serial = locked.as_ref().ok().map(|locked| locked.lock.serial);
        match last {
            Some((followed, at)) if followed == serial => {
                if at.elapsed() < WATCH {
                    continue;
                }
            }
            Some(_) | None => state.wake.notify_one(),
        }
        last = Some((serial, Instant::now()));
        let followed = match &locked {
            Ok(locked) => service::follow(&state, locked).await,
            Err(_) => Ok(()),
        };
        ctx.trouble("lock", locked.err().map(|error| error.to_string()));
        match followed {
            Ok(()) => ctx.goes_by(serial.unwrap_or(Serial(0)).0),
            Err(error) => {
                tracing::error!(error = %Chain(&error), "comparing services with the lock failed");
            }
        }
    }
}
