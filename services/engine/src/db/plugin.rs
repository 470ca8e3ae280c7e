//! What plugins remember: the state that their next call gets, and the facts behind it.

use bailey_db::Connection;
use bailey_types::{CommandName, EventType, JobId, PluginName, Timestamp};

/// The state of a plugin that has none yet.
pub const EMPTY: &str = "{}";

/// The state, JSON object text; [`EMPTY`] where there is none yet.
pub async fn state(db: &mut Connection, plugin: &PluginName) -> Result<String, sqlx::Error> {
    let plugin = plugin.as_str();
    let row = sqlx::query_scalar!("SELECT state FROM plugin_state WHERE plugin = ?", plugin);
    Ok(row
        .fetch_optional(db)
        .await?
        .unwrap_or_else(|| EMPTY.to_owned()))
}

/// Replaces the state.
pub async fn replace_state(
    db: &mut Connection,
    plugin: &PluginName,
    state: &str,
    at: Timestamp,
) -> Result<(), sqlx::Error> {
    let plugin = plugin.as_str();
    sqlx::query!(
        "INSERT INTO plugin_state (plugin, state, updated_at_ms) VALUES (?, ?, ?)
         ON CONFLICT (plugin) DO UPDATE SET state = excluded.state, updated_at_ms = excluded.updated_at_ms",
        plugin,
        state,
        at.0,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Appends a fact.
pub async fn append_fact(
    db: &mut Connection,
    plugin: &PluginName,
    fact_type: &EventType,
    (job, command): (JobId, &CommandName),
    fact: &str,
    at: Timestamp,
) -> Result<(), sqlx::Error> {
    let (plugin, fact_type, job, command) = (
        plugin.as_str(),
        fact_type.as_str(),
        job.to_string(),
        command.as_str(),
    );
    sqlx::query!(
        "INSERT INTO plugin_fact (plugin, fact_type, job_id, command, fact, created_at_ms) VALUES (?, ?, ?, ?, ?, ?)",
        plugin,
        fact_type,
        job,
        command,
        fact,
        at.0,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Deletes at most `limit` facts from before `before`, oldest first. The newest of each plugin and type stays, however old it is.
pub async fn prune_facts(
    db: &mut Connection,
    before: Timestamp,
    limit: u32,
) -> Result<u64, sqlx::Error> {
    let gone = sqlx::query!(
        "DELETE FROM plugin_fact WHERE fact_seq IN (
             SELECT fact_seq FROM plugin_fact AS old
             WHERE created_at_ms < ? AND EXISTS (
                 SELECT 1 FROM plugin_fact AS newer
                 WHERE newer.plugin = old.plugin AND newer.fact_type = old.fact_type AND newer.fact_seq > old.fact_seq)
             ORDER BY created_at_ms LIMIT ?)",
        before.0,
        limit,
    );
    Ok(gone.execute(db).await?.rows_affected())
}
