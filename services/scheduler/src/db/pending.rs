//! Starts that the engine does not have yet.

use bailey_db::Connection;
use bailey_proto::trust::v1::Signed;
use bailey_types::{CommandName, Timestamp};

use crate::db::name;
use crate::plan::Key;

/// A start on its way to the engine.
#[derive(Clone, Debug)]
pub struct Start {
    /// The schedule.
    pub key: Key,
    /// Its place on the grid.
    pub slot: Timestamp,
    /// What runs.
    pub command: CommandName,
    /// The exact payload bytes that the origin hashes.
    pub payload: Vec<u8>,
    /// Signed once.
    pub origin: Signed,
    /// One of several missed starts.
    pub caught_up: bool,
}

/// A start with its place in the queue.
#[derive(Clone, Debug)]
pub struct Pending {
    /// Grows.
    pub id: i64,
    /// What is to be started.
    pub start: Start,
}

/// Whether a schedule has a start that the engine does not have yet.
pub async fn exists(db: &mut Connection, key: &Key) -> Result<bool, sqlx::Error> {
    let (plugin, id) = (key.0.as_str(), key.1.as_str());
    let found = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT 1 FROM pending WHERE plugin = ? AND schedule_id = ?) AS "found!: bool""#,
        plugin,
        id,
    );
    found.fetch_one(db).await
}

/// Queues a start, unless its slot is queued already.
pub async fn insert(db: &mut Connection, start: &Start) -> Result<(), sqlx::Error> {
    let (plugin, id, command) = (
        start.key.0.as_str(),
        start.key.1.as_str(),
        start.command.as_str(),
    );
    let (payload, signature) = (
        start.origin.payload.as_ref(),
        start.origin.signature.as_ref(),
    );
    let inserted = sqlx::query!(
        "INSERT INTO pending (plugin, schedule_id, slot_ms, command, payload, origin_payload, origin_signature, caught_up)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (plugin, schedule_id, slot_ms) DO NOTHING",
        plugin,
        id,
        start.slot.0,
        command,
        start.payload,
        payload,
        signature,
        start.caught_up,
    );
    inserted.execute(db).await.map(|_| ())
}

/// The oldest starts, at most `limit`, after the one with the id `after`.
pub async fn oldest(
    db: &mut Connection,
    after: i64,
    limit: u32,
) -> Result<Vec<Pending>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT pending_id AS "id!: i64", plugin, schedule_id, slot_ms, command, payload, origin_payload, origin_signature,
                  caught_up AS "caught_up: bool"
           FROM pending WHERE pending_id > ? ORDER BY pending_id LIMIT ?"#,
        after,
        limit,
    );
    let rows = rows.fetch_all(db).await?.into_iter();
    let read = rows.map(|row| {
        let origin = Signed {
            payload: row.origin_payload.into(),
            signature: row.origin_signature.into(),
        };
        let start = Start {
            key: (name(&row.plugin)?, name(&row.schedule_id)?),
            slot: Timestamp(row.slot_ms),
            command: name(&row.command)?,
            payload: row.payload,
            origin,
            caught_up: row.caught_up,
        };
        Ok(Pending { id: row.id, start })
    });
    read.collect()
}

/// Takes a start off the queue.
pub async fn delete(db: &mut Connection, id: i64) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM pending WHERE pending_id = ?", id)
        .execute(db)
        .await
        .map(|_| ())
}
