//! What must never go back: the lock's serial and audit's log.

use bailey_audit_log::Checkpoint;
use bailey_db::Connection;
use bailey_types::{Serial, Sha256, Timestamp};

/// The newest lock and the newest checkpoint that were seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) lock_serial: Serial,
    pub(crate) log: Checkpoint,
}

/// What was remembered; nothing at the first start.
pub(crate) async fn read(tx: &mut Connection) -> Result<Memory, sqlx::Error> {
    let row = sqlx::query!("SELECT lock_serial, log_size, log_root FROM memory")
        .fetch_optional(tx)
        .await?;
    let Some(row) = row else {
        return Ok(Memory {
            lock_serial: Serial(0),
            log: Checkpoint {
                size: 0,
                root: Sha256([0; 32]),
            },
        });
    };
    let decode = |what: &str| sqlx::Error::Decode(format!("memory.{what} is malformed").into());
    let root = row.log_root.try_into().map_err(|_| decode("log_root"))?;
    Ok(Memory {
        lock_serial: Serial(
            row.lock_serial
                .try_into()
                .map_err(|_| decode("lock_serial"))?,
        ),
        log: Checkpoint {
            size: row.log_size.try_into().map_err(|_| decode("log_size"))?,
            root: Sha256(root),
        },
    })
}

/// Remembers the newer of what is known and what is given.
pub(crate) async fn advance(tx: &mut Connection, memory: Memory) -> Result<(), sqlx::Error> {
    let whole = |number: u64| i64::try_from(number).map_err(|e| sqlx::Error::Encode(e.into()));
    let (serial, size) = (whole(memory.lock_serial.0)?, whole(memory.log.size)?);
    let root = memory.log.root.0.as_slice();
    sqlx::query!(
        "INSERT INTO memory (memory_id, lock_serial, log_size, log_root) VALUES (1, ?1, ?2, ?3)
         ON CONFLICT (memory_id) DO UPDATE SET
             lock_serial = MAX(lock_serial, excluded.lock_serial),
             log_root = CASE WHEN excluded.log_size > log_size THEN excluded.log_root ELSE log_root END,
             log_size = MAX(log_size, excluded.log_size)",
        serial,
        size,
        root
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Until when what was asked for may have been forgotten: of what is older and not known, nobody can tell whether it was used.
pub(crate) async fn forgotten_until(tx: &mut Connection) -> Result<Timestamp, sqlx::Error> {
    let until = sqlx::query_scalar!("SELECT forgotten_until_ms FROM memory");
    Ok(Timestamp(
        until.fetch_optional(tx).await?.unwrap_or(i64::MIN),
    ))
}
