//! The log as a stream: from a cursor on, past what is there, and then whatever is appended.

use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::db;
use crate::event::Event;
use crate::pattern::Patterns;
use crate::state::State;

/// Events read at once.
const BATCH: u32 = 256;

/// Events that wait for a slow subscriber. It then reads on where it is: the log waits for nobody.
const WINDOW: usize = 64;

/// Where a subscriber begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// Behind this place in the log.
    After(i64),
    /// Only what is new.
    New,
}

/// Streams events until the subscriber goes or the engine stops.
pub async fn subscribe(
    state: &State,
    patterns: Patterns,
    cursor: Cursor,
    spawn: impl FnOnce(BoxFuture<'static, anyhow::Result<()>>),
) -> Result<ReceiverStream<Event>, sqlx::Error> {
    let seen = match cursor {
        Cursor::After(seq) => seq,
        Cursor::New => {
            let mut look = state.db.look().await?;
            db::event::newest(&mut look).await?
        }
    };
    let (events, stream) = mpsc::channel(WINDOW);
    let state = state.clone();
    spawn(Box::pin(async move {
        tokio::select! {
            // It ends when its subscriber does.
            ended = feed(&state, &patterns, seen, &events) => ended?,
            () = events.closed() => {}
            () = state.shutdown.cancelled() => {}
        }
        Ok(())
    }));
    Ok(ReceiverStream::new(stream))
}

async fn feed(
    state: &State,
    patterns: &Patterns,
    mut seen: i64,
    events: &mpsc::Sender<Event>,
) -> anyhow::Result<()> {
    let mut newest = state.newest_event.subscribe();
    loop {
        newest.mark_unchanged();
        let mut look = state.db.look().await?;
        let batch = db::event::after(&mut look, seen, BATCH).await?;
        drop(look);
        if batch.is_empty() && newest.changed().await.is_err() {
            return Ok(());
        }
        for event in batch {
            seen = event.seq;
            if patterns.want(event.kind.as_str()) && events.send(event).await.is_err() {
                return Ok(());
            }
        }
    }
}
