//! The log of events.

use bailey_db::Connection;
use bailey_types::{EventId, EventType, Timestamp};

use crate::db::{optional, text};
use crate::event::{Event, NewEvent};

struct Row {
    seq: i64,
    event_id: String,
    r#type: String,
    source: String,
    payload: String,
    dedupe_key: String,
    at_ms: i64,
    job_id: Option<String>,
}

impl TryFrom<Row> for Event {
    type Error = sqlx::Error;

    fn try_from(row: Row) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: text(&row.event_id)?,
            seq: row.seq,
            kind: text(&row.r#type)?,
            source: row.source,
            payload: row.payload,
            dedupe_key: row.dedupe_key,
            at: Timestamp(row.at_ms),
            job: optional(row.job_id.as_deref())?,
        })
    }
}

/// Appends an event; answers its place in the log.
pub async fn append(db: &mut Connection, event: &NewEvent) -> Result<i64, sqlx::Error> {
    let (id, job) = (event.id.to_string(), event.job.map(|job| job.to_string()));
    let event_type = event.kind.as_str();
    let row = sqlx::query!(
        "INSERT INTO event (event_id, type, source, payload, dedupe_key, at_ms, job_id) VALUES (?, ?, ?, ?, ?, ?, ?)",
        id,
        event_type,
        event.source,
        event.payload,
        event.dedupe_key,
        event.at.0,
        job,
    );
    Ok(row.execute(db).await?.last_insert_rowid())
}

/// At most `limit` events behind `seq`, oldest first.
pub async fn after(db: &mut Connection, seq: i64, limit: u32) -> Result<Vec<Event>, sqlx::Error> {
    let rows = sqlx::query_as!(
        Row,
        "SELECT * FROM event WHERE seq > ? ORDER BY seq LIMIT ?",
        seq,
        limit
    );
    rows.fetch_all(db)
        .await?
        .into_iter()
        .map(Event::try_from)
        .collect()
}

/// Place of the newest event; 0 where there is none.
pub async fn newest(db: &mut Connection) -> Result<i64, sqlx::Error> {
    let row = sqlx::query_scalar!(r#"SELECT MAX(seq) AS "seq: i64" FROM event"#);
    Ok(row.fetch_one(db).await?.unwrap_or(0))
}

/// The event that an equal one since `since` would repeat.
pub async fn duplicate(
    db: &mut Connection,
    event_type: &EventType,
    source: &str,
    dedupe_key: &str,
    since: Timestamp,
) -> Result<Option<EventId>, sqlx::Error> {
    let event_type = event_type.as_str();
    let id = sqlx::query_scalar!(
        "SELECT event_id FROM event WHERE type = ? AND source = ? AND dedupe_key = ? AND dedupe_key <> '' AND at_ms >= ?
         ORDER BY seq DESC LIMIT 1",
        event_type,
        source,
        dedupe_key,
        since.0,
    );
    optional(id.fetch_optional(db).await?.as_deref())
}

/// How many there are.
pub async fn total(db: &mut Connection) -> Result<u64, sqlx::Error> {
    let total = sqlx::query_scalar!(r#"SELECT COUNT(*) AS "total: i64" FROM event"#)
        .fetch_one(db)
        .await?;
    total.try_into().map_err(crate::db::corrupt)
}

/// Deletes at most `limit` events from before `before`, oldest first, and the memory of who asked for them.
pub async fn prune(db: &mut Connection, before: Timestamp, limit: u32) -> Result<u64, sqlx::Error> {
    // The log is in order of time, so the oldest are at its start and nothing is searched.
    sqlx::query!(
        "DELETE FROM origin WHERE event_id IN
             (SELECT event_id FROM (SELECT event_id, at_ms FROM event ORDER BY seq LIMIT ?) WHERE at_ms < ?)",
        limit,
        before.0,
    )
    .execute(&mut *db)
    .await?;
    let gone = sqlx::query!(
        "DELETE FROM event WHERE seq IN (SELECT seq FROM (SELECT seq, at_ms FROM event ORDER BY seq LIMIT ?) WHERE at_ms < ?)",
        limit,
        before.0,
    );
    Ok(gone.execute(db).await?.rows_affected())
}

/// Whether there is such an event.
pub async fn exists(db: &mut Connection, event: EventId) -> Result<bool, sqlx::Error> {
    let event = event.to_string();
    let found = sqlx::query_scalar!("SELECT seq FROM event WHERE event_id = ?", event);
    Ok(found.fetch_optional(db).await?.is_some())
}
