#![doc = include_str!("../README.md")]

mod backup;
mod slot;

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};

use crate::slot::Slots;

pub use crate::slot::{Look, Transaction};

/// What a query of a `db/` module takes: the caller owns the transaction.
pub type Connection = sqlx::SqliteConnection;

/// Connections that read at once.
const READERS: u32 = 4;

/// Statements that a connection keeps ready to run again.
const STATEMENTS: usize = 250;

/// How long a statement waits for a lock that somebody else holds (a backup, the operator's `sqlite3`).
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder or a file in it cannot be used.
    #[error("opening the database {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another process has it.
    #[error("the database {path} is in use by another process; only its own service may open it")]
    Held {
        /// The file.
        path: PathBuf,
    },
    /// SQLite refuses it.
    #[error("opening the database {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: sqlx::Error,
    },
    /// The copy before a migration failed, so nothing was migrated.
    #[error("backing the database up to {path}")]
    Backup {
        /// The copy.
        path: PathBuf,
        /// What SQLite said.
        source: sqlx::Error,
    },
    /// A migration failed and was rolled back.
    #[error("migrating the database {path}")]
    Migrate {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: MigrateError,
    },
}

/// One SQLite file: one writer, several readers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Db {
    writer: Slots,
    readers: Slots,
    /// Held as long as any clone lives.
    _lock: Arc<File>,
}

impl Db {
    /// Begins a unit of work that writes. Writers queue up here in the order in which they came, so none ever sees "database is locked".
    pub async fn write(&self) -> Result<Transaction, sqlx::Error> {
        self.writer.begin("BEGIN IMMEDIATE").await
    }

    /// Begins a unit of work that only reads, on one snapshot; it never waits for a writer. Writing in it is an error.
    pub async fn read(&self) -> Result<Transaction, sqlx::Error> {
        self.readers.begin("BEGIN").await
    }

    /// A look at what is committed: each statement by itself, without the two more that a common snapshot of several takes. Writing is an error.
    pub async fn look(&self) -> Result<Look, sqlx::Error> {
        self.readers.look().await
    }

    /// Closes the file. What is under way is finished first; what comes later is an error.
    pub async fn close(&self) {
        self.readers.close().await;
        // The last connection to go checkpoints the WAL into the file.
        self.writer.close().await;
    }
}

/// Opens (or makes) the database at `path` and brings it to the newest schema. A file with pending migrations is copied first.
pub async fn connect(path: &Path, migrator: &Migrator) -> Result<Db, Error> {
    let lock = Arc::new(lock(path)?);
    let open = |source| Error::Open {
        path: path.to_owned(),
        source,
    };
    let options = SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        // In WAL mode NORMAL may lose the last commits at power loss; an acknowledged job must not be lost.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .statement_cache_capacity(STATEMENTS)
        .busy_timeout(BUSY_TIMEOUT);
    let writer = Slots::connect(&options, 1).await.map_err(open)?;
    let mut first = writer.look().await.map_err(open)?;
    backup::before_migrating(path, &mut first, migrator).await?;
    // `run` wants what can be acquired for any lifetime at all, which a connection that is held here cannot.
    let migrated = migrator.run_direct(None, &mut *first, false).await;
    migrated.map_err(|source| Error::Migrate {
        path: path.to_owned(),
        source,
    })?;
    drop(first);
    let options = options.pragma("query_only", "ON");
    let readers = Slots::connect(&options, READERS).await.map_err(open)?;
    Ok(Db {
        writer,
        readers,
        _lock: lock,
    })
}

/// Takes the lock beside the file, and makes the file so that only its service can read it.
fn lock(path: &Path) -> Result<File, Error> {
    let open = |path: &Path| {
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path);
        file.map_err(|source| Error::File {
            path: path.to_owned(),
            source,
        })
    };
    let lock = open(&path.with_extension("lock"))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(Error::Held {
                path: path.to_owned(),
            });
        }
        Err(TryLockError::Error(source)) => {
            return Err(Error::File {
                path: path.to_owned(),
                source,
            });
        }
    }
    open(path)?;
    Ok(lock)
}

#[cfg(test)]
mod tests;
