//! The engine's tables. Nothing outside knows which database it is.

pub mod attempt;
pub mod event;
pub mod job;
pub mod origin;
pub mod past;
pub mod plugin;
pub mod service;
pub mod transition;

use bailey_types::Timestamp;

/// The schema.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!();

/// A row that the engine cannot have written.
pub(crate) fn corrupt(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> sqlx::Error {
    sqlx::Error::Decode(error.into())
}

/// Reads a column that holds text of some kind.
pub(crate) fn text<T>(column: &str) -> Result<T, sqlx::Error>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    column.parse().map_err(corrupt)
}

/// Reads a column that may be empty.
pub(crate) fn optional<T>(column: Option<&str>) -> Result<Option<T>, sqlx::Error>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    column.map(text).transpose()
}

/// Reads a column that counts.
pub(crate) fn count(column: i64) -> Result<u32, sqlx::Error> {
    column.try_into().map_err(corrupt)
}

pub(crate) fn time(column: Option<i64>) -> Option<Timestamp> {
    column.map(Timestamp)
}
