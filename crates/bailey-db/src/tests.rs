use std::path::Path;

use sqlx::SqlitePool;
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

async fn with_table(dir: &Path) -> Db {
    let schema = tempfile::tempdir().unwrap();
    let make = [("1_make_t.sql", "CREATE TABLE t (x INTEGER NOT NULL) STRICT")];
    let migrator = migrations(schema.path(), &make).await;
    connect(&dir.join("a.db"), &migrator).await.unwrap()
}

async fn seen(connection: &mut Connection) -> Vec<i64> {
    let all = sqlx::query_scalar("SELECT x FROM t").fetch_all(connection);
    all.await.unwrap()
}

#[tokio::test]
async fn a_look_sees_what_was_committed_meanwhile_and_a_read_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let db = with_table(dir.path()).await;
    let (mut look, mut read) = (db.look().await.unwrap(), db.read().await.unwrap());
    assert!(seen(&mut look).await.is_empty());
    assert!(seen(&mut read).await.is_empty());
    let mut tx = db.write().await.unwrap();
    let insert = sqlx::query("INSERT INTO t VALUES (1)").execute(&mut *tx);
    insert.await.unwrap();
    assert!(seen(&mut look).await.is_empty());
    tx.commit().await.unwrap();
    assert_eq!(seen(&mut look).await, [1]);
    assert!(seen(&mut read).await.is_empty());
    let insert = sqlx::query("INSERT INTO t VALUES (2)").execute(&mut *look);
    assert!(insert.await.is_err());
}

#[tokio::test]
async fn writers_come_one_after_another_and_the_next_sees_nothing_of_one_that_was_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let db = with_table(dir.path()).await;
    let mut first = db.write().await.unwrap();
    let insert = sqlx::query("INSERT INTO t VALUES (1)").execute(&mut *first);
    insert.await.unwrap();
    let mut second = std::pin::pin!(db.write());
    assert!(futures::poll!(&mut second).is_pending());
    drop(first);
    assert!(seen(&mut second.await.unwrap()).await.is_empty());
}

#[tokio::test]
async fn one_reader_more_than_there_are_connections_waits_and_then_sees_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let db = with_table(dir.path()).await;
    let mut readers = Vec::new();
    for _ in 0..READERS {
        readers.push(db.read().await.unwrap());
    }
    let mut one_more = std::pin::pin!(db.look());
    assert!(futures::poll!(&mut one_more).is_pending());
    let mut tx = db.write().await.unwrap();
    let insert = sqlx::query("INSERT INTO t VALUES (1)").execute(&mut *tx);
    insert.await.unwrap();
    tx.commit().await.unwrap();
    drop(readers);
    assert_eq!(seen(&mut one_more.await.unwrap()).await, [1]);
}

#[tokio::test]
async fn what_comes_after_the_close_is_an_error_and_not_a_wait() {
    let dir = tempfile::tempdir().unwrap();
    let db = with_table(dir.path()).await;
    db.close().await;
    assert!(db.write().await.is_err());
    assert!(db.read().await.is_err());
    assert!(db.look().await.is_err());
}

#[tokio::test]
async fn one_of_several_statements_that_fails_takes_all_of_them_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let db = with_table(dir.path()).await;
    let mut tx = db.write().await.unwrap();
    let both = "INSERT INTO t VALUES (?); INSERT INTO t VALUES (?); INSERT INTO t VALUES (3)";
    let failed = sqlx::query(both)
        .bind(1)
        .bind(None::<i64>)
        .execute(&mut *tx);
    assert!(failed.await.is_err());
    drop(tx);
    let mut tx = db.write().await.unwrap();
    assert!(seen(&mut tx).await.is_empty());
    let done = sqlx::query(both).bind(1).bind(2).execute(&mut *tx);
    assert_eq!(done.await.unwrap().rows_affected(), 3);
    assert_eq!(seen(&mut tx).await, [1, 2, 3]);
}

mod broken;
