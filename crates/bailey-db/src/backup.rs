//! The copy that is made before a migration, so that an operator can go back.

use std::collections::HashSet;
use std::path::Path;

use sqlx::migrate::Migrator;

use crate::{Connection, Error};

/// Copies the database to `<name>.before-<version>` when it holds something and `migrator` has something new for it.
pub(crate) async fn before_migrating(
    path: &Path,
    db: &mut Connection,
    migrator: &Migrator,
) -> Result<(), Error> {
    let open = |source| Error::Open {
        path: path.to_owned(),
        source,
    };
    let known: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = '_sqlx_migrations')",
    )
    .fetch_one(&mut *db)
    .await
    .map_err(open)?;
    if !known {
        return Ok(());
    }
    let applied: HashSet<i64> = sqlx::query_scalar("SELECT version FROM _sqlx_migrations")
        .fetch_all(&mut *db)
        .await
        .map_err(open)?
        .into_iter()
        .collect();
    let Some(first) = migrator
        .iter()
        .map(|m| m.version)
        .find(|version| !applied.contains(version))
    else {
        return Ok(());
    };
    let copy = path.with_extension(format!("before-{first}"));
    // A copy left by an attempt that failed half-way is replaced: the database is still as it was then.
    match std::fs::remove_file(&copy) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(source) => return Err(Error::File { path: copy, source }),
    }
    let target = copy.to_string_lossy().into_owned();
    let done = sqlx::query("VACUUM INTO ?").bind(target).execute(db).await;
    done.map_err(|source| Error::Backup {
        path: copy.clone(),
        source,
    })?;
    let durable = std::fs::File::open(&copy).and_then(|file| file.sync_all());
    durable.map_err(|source| Error::File {
        path: copy.clone(),
        source,
    })?;
    tracing::info!(db.backup = %copy.display(), "copied the database to {} before migrating it", copy.display());
    Ok(())
}
