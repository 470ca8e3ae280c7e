//! The newest lock that was ever seen.

use bailey_db::Connection;
use bailey_types::Serial;

use crate::db::corrupt;

/// Its serial; 0 where none was.
pub async fn seen(db: &mut Connection) -> Result<Serial, sqlx::Error> {
    let serial = sqlx::query_scalar!("SELECT serial FROM lock_seen")
        .fetch_optional(db)
        .await?;
    Ok(Serial(serial.unwrap_or(0).try_into().map_err(corrupt)?))
}

/// Remembers `serial`, unless a newer one is.
pub async fn remember(db: &mut Connection, serial: Serial) -> Result<(), sqlx::Error> {
    let serial = i64::try_from(serial.0).map_err(corrupt)?;
    let remembered = sqlx::query!(
        "INSERT INTO lock_seen (only_row, serial) VALUES (1, ?1)
         ON CONFLICT (only_row) DO UPDATE SET serial = MAX(serial, ?1)",
        serial,
    );
    remembered.execute(db).await.map(|_| ())
}
