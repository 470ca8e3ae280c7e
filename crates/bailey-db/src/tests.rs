use std::path::Path;

use sqlx::migrate::Migrator;

use super::*;

async fn migrations(dir: &Path, texts: &[(&str, &str)]) -> Migrator {
    for (name, sql) in texts {
        std::fs::write(dir.join(name), sql).unwrap();
    }
    Migrator::new(dir).await.unwrap()
}

#[tokio::test]
async fn what_is_committed_is_there_after_reopening_and_what_is_dropped_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let schema = tempfile::tempdir().unwrap();
    let migrator = migrations(
        schema.path(),
        &[("1_make_t.sql", "CREATE TABLE t (x INTEGER NOT NULL) STRICT")],
    )
    .await;
    let path = dir.path().join("a.db");

    let db = connect(&path, &migrator).await.unwrap();
    let mut tx = db.write().await.unwrap();
    sqlx::query("INSERT INTO t VALUES (1)")
        .execute(&mut *tx)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let mut tx = db.write().await.unwrap();
    sqlx::query("INSERT INTO t VALUES (2)")
        .execute(&mut *tx)
        .await
        .unwrap();
    drop(tx);
    db.close().await;
    drop(db);

    let db = connect(&path, &migrator).await.unwrap();
    let mut tx = db.read().await.unwrap();
    let kept: Vec<i64> = sqlx::query_scalar("SELECT x FROM t")
        .fetch_all(&mut *tx)
        .await
        .unwrap();
    assert_eq!(kept, [1]);
}

#[tokio::test]
async fn a_second_opener_is_refused_and_a_reader_cannot_write() {
    let dir = tempfile::tempdir().unwrap();
    let schema = tempfile::tempdir().unwrap();
    let migrator = migrations(
        schema.path(),
        &[("1_make_t.sql", "CREATE TABLE t (x INTEGER NOT NULL) STRICT")],
    )
    .await;
    let path = dir.path().join("a.db");

    let db = connect(&path, &migrator).await.unwrap();
    assert!(matches!(
        connect(&path, &migrator).await,
        Err(Error::Held { .. })
    ));
    let mut tx = db.read().await.unwrap();
    assert!(
        sqlx::query("INSERT INTO t VALUES (1)")
            .execute(&mut *tx)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn the_file_is_copied_before_a_new_migration_and_only_then() {
    let dir = tempfile::tempdir().unwrap();
    let schema = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let first = [(
        "1_make_t.sql",
        "CREATE TABLE t (x INTEGER NOT NULL) STRICT; INSERT INTO t VALUES (7)",
    )];
    let migrator = migrations(schema.path(), &first).await;
    connect(&path, &migrator).await.unwrap().close().await;
    connect(&path, &migrator).await.unwrap().close().await;
    assert!(!dir.path().join("a.before-2").exists());

    let migrator = migrations(schema.path(), &[("2_drop_t.sql", "DROP TABLE t")]).await;
    connect(&path, &migrator).await.unwrap().close().await;

    let copy = SqlitePool::connect_with(
        SqliteConnectOptions::new().filename(dir.path().join("a.before-2")),
    )
    .await
    .unwrap();
    let kept: i64 = sqlx::query_scalar("SELECT x FROM t")
        .fetch_one(&copy)
        .await
        .unwrap();
    assert_eq!(kept, 7);
}

#[tokio::test]
async fn commits_are_flushed_to_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let schema = tempfile::tempdir().unwrap();
    let migrator = migrations(schema.path(), &[]).await;
    let db = connect(&dir.path().join("a.db"), &migrator).await.unwrap();
    let mut tx = db.write().await.unwrap();
    // https://sqlite.org/pragma.html#pragma_synchronous: FULL is 2.
    let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous")
        .fetch_one(&mut *tx)
        .await
        .unwrap();
    let journal: String = sqlx::query_scalar("PRAGMA journal_mode")
        .fetch_one(&mut *tx)
        .await
        .unwrap();
    assert_eq!((synchronous, journal.as_str()), (2, "wal"));
}
