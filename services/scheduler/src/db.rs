//! The scheduler's tables. Nothing outside knows which database it is.

pub mod lock;
pub mod pending;
pub mod schedule;

/// The schema.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!();

/// A row that the scheduler cannot have written.
fn corrupt(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> sqlx::Error {
    sqlx::Error::Decode(error.into())
}

/// Reads a column that holds a name.
fn name<T>(column: &str) -> Result<T, sqlx::Error>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    column.parse().map_err(corrupt)
}
