//! When each schedule is due next.

use bailey_db::Connection;
use bailey_types::Timestamp;

use crate::db::name;
use crate::plan::Key;

/// What is remembered of a schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// JSON of when it is due.
    pub rhythm: String,
    /// Where the grid hangs.
    pub anchor: Timestamp,
    /// The next place on the grid.
    pub slot: Timestamp,
    /// The same with its jitter.
    pub due: Timestamp,
    /// The last start.
    pub last_fired: Option<Timestamp>,
}

/// The row of a schedule.
pub async fn find(db: &mut Connection, key: &Key) -> Result<Option<Row>, sqlx::Error> {
    let (plugin, id) = (key.0.as_str(), key.1.as_str());
    let row = sqlx::query!(
        "SELECT rhythm, anchor_ms, slot_ms, due_ms, last_fired_ms FROM schedule WHERE plugin = ? AND schedule_id = ?",
        plugin,
        id,
    );
    let row = row.fetch_optional(db).await?;
    Ok(row.map(|row| Row {
        rhythm: row.rhythm,
        anchor: Timestamp(row.anchor_ms),
        slot: Timestamp(row.slot_ms),
        due: Timestamp(row.due_ms),
        last_fired: row.last_fired_ms.map(Timestamp),
    }))
}

/// Writes the row of a schedule.
pub async fn write(db: &mut Connection, key: &Key, row: &Row) -> Result<(), sqlx::Error> {
    let (plugin, id) = (key.0.as_str(), key.1.as_str());
    let last_fired = row.last_fired.map(|time| time.0);
    let written = sqlx::query!(
        "INSERT INTO schedule (plugin, schedule_id, rhythm, anchor_ms, slot_ms, due_ms, last_fired_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (plugin, schedule_id) DO UPDATE SET rhythm = ?3, anchor_ms = ?4, slot_ms = ?5, due_ms = ?6, last_fired_ms = ?7",
        plugin,
        id,
        row.rhythm,
        row.anchor.0,
        row.slot.0,
        row.due.0,
        last_fired,
    );
    written.execute(db).await.map(|_| ())
}

/// All schedules that are remembered.
pub async fn keys(db: &mut Connection) -> Result<Vec<Key>, sqlx::Error> {
    let rows = sqlx::query!("SELECT plugin, schedule_id FROM schedule")
        .fetch_all(db)
        .await?;
    rows.iter()
        .map(|row| Ok((name(&row.plugin)?, name(&row.schedule_id)?)))
        .collect()
}

/// Forgets a schedule, with what was still to be started for it.
pub async fn delete(db: &mut Connection, key: &Key) -> Result<(), sqlx::Error> {
    let (plugin, id) = (key.0.as_str(), key.1.as_str());
    let deleted = sqlx::query!(
        "DELETE FROM schedule WHERE plugin = ? AND schedule_id = ?",
        plugin,
        id
    );
    deleted.execute(db).await.map(|_| ())
}
