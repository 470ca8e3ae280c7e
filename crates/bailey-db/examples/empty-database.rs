//! Makes an empty database of the schema in a folder of migrations, for `query!` to check against: see the README of bailey-db.

use std::path::Path;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [migrations, path] = arguments.as_slice() else {
        return Err("usage: empty-database <folder of migrations> <new file>".into());
    };
    let migrator = sqlx::migrate::Migrator::new(Path::new(migrations)).await?;
    bailey_db::connect(Path::new(path), &migrator)
        .await?
        .close()
        .await;
    Ok(())
}
