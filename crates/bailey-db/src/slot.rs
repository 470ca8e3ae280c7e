//! The connections to one file, each for one user at a time.
//!
//! SQLite's own thread for each connection makes every statement two wake-ups. A pool would add some for each unit of work: it asks a connection
//! that comes back whether it is well, and waits for the answer. Here the next user finds out with what it asks anyway. A connection that is not
//! as it was when it was opened is dropped and opened anew: where the disk is full SQLite itself ends the transaction, of which sqlx knows nothing.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection as _, Database, SqlSafeStr as _, Sqlite};
use sqlx_core::transaction::TransactionManager as _;
use tokio::sync::{OwnedMappedMutexGuard, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

use crate::Connection;

/// How transactions begin and end.
type Manager = <Sqlite as Database>::TransactionManager;

/// Longest that somebody waits for a connection. A unit of work takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// A place for a connection; empty where one was dropped and the next is not open yet.
type Slot = Arc<tokio::sync::Mutex<Option<Connection>>>;

/// Connections of one kind. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Slots(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Those that nobody has. The one that came back last is taken first: it has its statements ready.
    free: Mutex<Vec<Slot>>,
    /// One for each that is free, given to those who wait in the order in which they came.
    permits: Arc<Semaphore>,
    count: u32,
    options: SqliteConnectOptions,
}

impl Slots {
    pub(crate) async fn connect(
        options: &SqliteConnectOptions,
        count: u32,
    ) -> Result<Self, sqlx::Error> {
        let mut free = Vec::new();
        for _ in 0..count {
            let connection = Connection::connect_with(options).await?;
            free.push(Arc::new(tokio::sync::Mutex::new(Some(connection))));
        }
        Ok(Self(Arc::new(Inner {
            permits: Arc::new(Semaphore::new(free.len())),
            free: Mutex::new(free),
            count,
            options: options.clone(),
        })))
    }

    /// A connection as it is.
    pub(crate) async fn look(&self) -> Result<Look, sqlx::Error> {
        let mut taken = self.take().await?;
        let mut connection = taken.connection().await?;
        if !is_clean(&mut connection).await {
            shut(connection).await;
            connection = taken.connection().await?;
        }
        Ok(Look(taken.hold(connection)?))
    }

    /// A connection in a transaction that begins with `statement`.
    pub(crate) async fn begin(&self, statement: &'static str) -> Result<Transaction, sqlx::Error> {
        let mut taken = self.take().await?;
        let sql = || Some(statement.into_sql_str());
        // One that is dropped while it begins is not given back: its thread may end by that, and would leave the next without an answer.
        let mut connection = taken.connection().await?;
        let mut begun = Manager::begin(&mut connection, sql()).await;
        // Its thread has ended, or sqlx holds it to be in a transaction still.
        if let Err(sqlx::Error::WorkerCrashed | sqlx::Error::InvalidSavePointStatement) = begun {
            shut(connection).await;
            connection = taken.connection().await?;
            begun = Manager::begin(&mut connection, sql()).await;
        }
        if let Err(error) = begun {
            // What SQLite has against it may be of this connection.
            shut(connection).await;
            return Err(error);
        }
        Ok(Transaction {
            connection: taken.hold(connection)?,
            is_open: true,
        })
    }

    /// Closes all, once those who came before have had theirs.
    pub(crate) async fn close(&self) {
        let Ok(_all) = self.0.permits.acquire_many(self.0.count).await else {
            return;
        };
        self.0.permits.close();
        let slots = std::mem::take(&mut *self.0.free());
        for slot in slots {
            if let Some(connection) = slot.lock().await.take()
                && let Err(error) = connection.close().await
            {
                tracing::warn!(%error, "a connection to the database did not close well");
            }
        }
    }

    async fn take(&self) -> Result<Taken, sqlx::Error> {
        let permit = Arc::clone(&self.0.permits).acquire_owned();
        let waited = tokio::time::timeout(PATIENCE, permit).await;
        let permit = waited
            .map_err(|_| sqlx::Error::PoolTimedOut)?
            .map_err(|_| sqlx::Error::PoolClosed)?;
        let slot = self.0.free().pop().ok_or(sqlx::Error::PoolClosed)?;
        let home = Home {
            slot: Arc::clone(&slot),
            slots: Arc::clone(&self.0),
            _permit: permit,
        };
        Ok(Taken {
            slot: slot.lock_owned().await,
            home,
        })
    }
}

impl Inner {
    fn free(&self) -> std::sync::MutexGuard<'_, Vec<Slot>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether nothing of the last user is left in a connection, and its thread lives.
async fn is_clean(connection: &mut Connection) -> bool {
    // Its thread puts an end to the transaction of the last user before the depth is 0.
    let is_idle = |connection: &Connection| Manager::get_transaction_depth(connection) == 0;
    if is_idle(connection) {
        // Whether its thread lives shows as soon as something is sent to it: nobody waits for the answer.
        return !matches!(connection.ping().now_or_never(), Some(Err(_)));
    }
    connection.ping().await.is_ok() && is_idle(connection)
}

/// Where a connection goes back to.
#[derive(Debug)]
struct Home {
    slot: Slot,
    slots: Arc<Inner>,
    /// Goes after the slot is back.
    _permit: OwnedSemaphorePermit,
}

impl Drop for Home {
    fn drop(&mut self) {
        self.slots.free().push(Arc::clone(&self.slot));
    }
}

/// A place that is taken.
struct Taken {
    slot: OwnedMutexGuard<Option<Connection>>,
    home: Home,
}

impl Taken {
    /// The connection of the place, or a new one.
    async fn connection(&mut self) -> Result<Connection, sqlx::Error> {
        match self.slot.take() {
            Some(connection) => Ok(connection),
            None => Connection::connect_with(&self.home.slots.options).await,
        }
    }

    fn hold(mut self, connection: Connection) -> Result<Held, sqlx::Error> {
        *self.slot = Some(connection);
        let connection = OwnedMutexGuard::try_map(self.slot, Option::as_mut);
        Ok(Held {
            connection: connection.map_err(|_| sqlx::Error::PoolClosed)?,
            _home: self.home,
        })
    }
}

/// Closes a connection, and with that gives back every lock that it has.
async fn shut(connection: Connection) {
    tracing::warn!("a connection to the database is of no use any more; another is opened");
    if let Err(error) = connection.close().await {
        tracing::debug!(%error, "the connection did not close well");
    }
}

/// A connection that is taken.
#[derive(Debug)]
struct Held {
    connection: OwnedMappedMutexGuard<Option<Connection>, Connection>,
    /// Goes after the guard: whoever has the slot next finds it unlocked.
    _home: Home,
}

/// See [`crate::Db::look`].
#[derive(Debug)]
pub struct Look(Held);

impl Deref for Look {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0.connection
    }
}

impl DerefMut for Look {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.0.connection
    }
}

/// A transaction. Dropping it without `commit` rolls back.
#[derive(Debug)]
pub struct Transaction {
    connection: Held,
    is_open: bool,
}

impl Transaction {
    /// Makes it so: when this returns, it is on disk.
    pub async fn commit(mut self) -> Result<(), sqlx::Error> {
        Manager::commit(&mut self).await?;
        self.is_open = false;
        Ok(())
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if self.is_open {
            // The connection's thread does it before anything that the next user asks of it.
            Manager::start_rollback(&mut self.connection.connection);
        }
    }
}

impl Deref for Transaction {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection.connection
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.connection.connection
    }
}
