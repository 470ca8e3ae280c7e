//! Jobs for people to look at.

use std::collections::HashMap;

use bailey_db::Connection;
use bailey_types::{CommandName, EventId, JobId, PluginName};

use super::row::Row;
use crate::db::{corrupt, text};
use crate::job::{Job, Status};

/// Most jobs of one tree that are shown.
pub const MAX_TREE: u32 = 1000;

/// Which jobs are wanted; `None`: any.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of this plugin.
    pub plugin: Option<PluginName>,
    /// Of this command.
    pub command: Option<CommandName>,
    /// In this status.
    pub status: Option<Status>,
}

/// The newest jobs that fit, and how many fit altogether.
pub async fn newest(
    db: &mut Connection,
    filter: &Filter,
    limit: u32,
) -> Result<(Vec<Job>, u64), sqlx::Error> {
    let plugin = filter.plugin.as_ref().map(PluginName::as_str);
    let command = filter.command.as_ref().map(CommandName::as_str);
    let status = filter.status.map(Status::name);
    let rows = sqlx::query_as!(
        Row,
        "SELECT * FROM job WHERE (?1 IS NULL OR plugin = ?1) AND (?2 IS NULL OR command = ?2) AND (?3 IS NULL OR status = ?3)
         ORDER BY job_seq DESC LIMIT ?4",
        plugin,
        command,
        status,
        limit,
    );
    let jobs = rows
        .fetch_all(&mut *db)
        .await?
        .into_iter()
        .map(Job::try_from)
        .collect::<Result<_, _>>()?;
    let total = sqlx::query_scalar!(
        r#"SELECT COUNT(*) AS "total: i64" FROM job
           WHERE (?1 IS NULL OR plugin = ?1) AND (?2 IS NULL OR command = ?2) AND (?3 IS NULL OR status = ?3)"#,
        plugin,
        command,
        status,
    );
    Ok((
        jobs,
        total.fetch_one(db).await?.try_into().map_err(corrupt)?,
    ))
}

/// The whole tree that the job belongs to, parents before children. What came of a service does not belong together: the tree of such a job
/// begins below it. That of a service holds the first jobs that came of it.
pub async fn tree_of_job(db: &mut Connection, job: JobId) -> Result<Vec<Job>, sqlx::Error> {
    let job = job.to_string();
    // Both limits inside: what came of a service is endless, and SQLite queues all children of a row before it counts.
    let rows = sqlx::query_as!(
        Row,
        "WITH RECURSIVE
             ancestor (id) AS (
                 SELECT ?1 UNION SELECT parent.job_id FROM job JOIN ancestor ON job.job_id = id
                     JOIN job AS parent ON parent.job_id = job.parent_job_id AND parent.max_attempts <> 0),
             tree (id) AS (
                 SELECT job_id FROM job JOIN ancestor ON job_id = id
                 UNION SELECT job.job_id FROM tree JOIN job ON job.job_id IN (
                     SELECT child.job_id FROM job AS child WHERE child.parent_job_id = tree.id LIMIT ?2)
                 LIMIT ?2)
         SELECT job.* FROM job JOIN tree ON job_id = id ORDER BY job_seq LIMIT ?2",
        job,
        MAX_TREE,
    );
    rows.fetch_all(db)
        .await?
        .into_iter()
        .map(Job::try_from)
        .collect()
}

/// Everything that came of an event, parents before children.
pub async fn tree_of_event(db: &mut Connection, event: EventId) -> Result<Vec<Job>, sqlx::Error> {
    let event = event.to_string();
    let rows = sqlx::query_as!(
        Row,
        "WITH RECURSIVE tree (id) AS (
             SELECT job_id FROM job WHERE source_event_id = ?1 UNION SELECT job_id FROM job JOIN tree ON parent_job_id = id)
         SELECT job.* FROM job JOIN tree ON job_id = id ORDER BY job_seq LIMIT ?2",
        event,
        MAX_TREE,
    );
    rows.fetch_all(db)
        .await?
        .into_iter()
        .map(Job::try_from)
        .collect()
}

/// The jobs that an event started itself, oldest first.
pub async fn started_by(db: &mut Connection, event: EventId) -> Result<Vec<JobId>, sqlx::Error> {
    let event = event.to_string();
    let ids = sqlx::query_scalar!(
        "SELECT job_id FROM job WHERE source_event_id = ? ORDER BY job_seq",
        event
    );
    ids.fetch_all(db).await?.iter().map(|id| text(id)).collect()
}

/// How many jobs are in each status.
pub async fn totals(db: &mut Connection) -> Result<HashMap<Status, u64>, sqlx::Error> {
    let rows = sqlx::query!(r#"SELECT status, COUNT(*) AS "total: i64" FROM job GROUP BY status"#);
    let rows = rows.fetch_all(db).await?;
    rows.into_iter()
        .map(|row| Ok((text(&row.status)?, row.total.try_into().map_err(corrupt)?)))
        .collect()
}
