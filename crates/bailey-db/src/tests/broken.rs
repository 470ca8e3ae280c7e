//! Connections that go wrong under their users.

use std::pin::pin;

use futures::{FutureExt as _, poll};
use sqlx::{Connection as _, Database, SqlSafeStr as _, Sqlite};
use sqlx_core::transaction::TransactionManager as _;

use super::*;

type Manager = <Sqlite as Database>::TransactionManager;

async fn run(connection: &mut Connection, sql: &'static str) -> Result<(), sqlx::Error> {
    sqlx::query(sql).execute(connection).await.map(|_| ())
}

async fn insert(db: &Db, x: i64) -> Result<(), sqlx::Error> {
    let mut tx = db.write().await?;
    let insert = sqlx::query("INSERT INTO t VALUES (?)").bind(x);
    insert.execute(&mut *tx).await?;
    tx.commit().await
}

#[tokio::test]
async fn a_full_disk_fails_what_meets_it_and_nothing_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let db = with_table(dir.path()).await;
    insert(&db, 1).await.unwrap();
    let mut tx = db.write().await.unwrap();
    run(&mut tx, "PRAGMA max_page_count = 1").await.unwrap();
    // One row at a time: only what has no way back of its own takes the transaction with it.
    let full = loop {
        if let Err(error) = run(&mut tx, "INSERT INTO t VALUES (2)").await {
            break error;
        }
    };
    assert!(full.to_string().contains("full"), "{full}");
    drop(tx);
    // There is room again: the limit was the connection's.
    insert(&db, 4).await.unwrap();
    insert(&db, 5).await.unwrap();
    assert_eq!(seen(&mut db.look().await.unwrap()).await, [1, 4, 5]);
    assert_eq!(seen(&mut db.read().await.unwrap()).await, [1, 4, 5]);
}

#[tokio::test]
async fn a_commit_that_fails_fails_alone() {
    let dir = tempfile::tempdir().unwrap();
    let db = with_table(dir.path()).await;
    let mut tx = db.write().await.unwrap();
    run(&mut tx, "INSERT INTO t VALUES (1)").await.unwrap();
    // As SQLite itself ends it where the disk does not take it.
    run(&mut tx, "ROLLBACK").await.unwrap();
    assert!(tx.commit().await.is_err());
    insert(&db, 2).await.unwrap();
    assert_eq!(seen(&mut db.look().await.unwrap()).await, [2]);
}

#[tokio::test]
async fn nothing_of_a_transaction_that_does_not_end_is_left_to_the_next_reader() {
    let dir = tempfile::tempdir().unwrap();
    let db = with_table(dir.path()).await;
    for round in 1..=3 {
        let mut read = db.read().await.unwrap();
        seen(&mut read).await;
        // One level deeper, so that its end ends only that.
        Manager::begin(&mut read, None).await.unwrap();
        drop(read);
        insert(&db, round).await.unwrap();
        let expected: Vec<_> = (1..=round).collect();
        assert_eq!(seen(&mut db.look().await.unwrap()).await, expected);
        assert_eq!(seen(&mut db.read().await.unwrap()).await, expected);
    }
    // Its neighbour: one that ends is used again.
    let mut look = db.look().await.unwrap();
    run(&mut look, "PRAGMA cache_size = -77").await.unwrap();
    drop(look);
    drop(db.read().await.unwrap());
    let mut look = db.look().await.unwrap();
    let size = sqlx::query_scalar("PRAGMA cache_size").fetch_one(&mut *look);
    let size: i64 = size.await.unwrap();
    assert_eq!(size, -77);
}

/// Ends the thread of a connection: a second beginning that nobody waits for is one of the ways.
async fn kill(mut transaction: Transaction) {
    // The answer may be faster than the one who gives up.
    while poll!(pin!(Manager::begin(
        &mut transaction,
        Some("BEGIN".into_sql_str())
    )))
    .is_ready()
    {}
    // What is sent shows it; an answer may never come.
    while !matches!(transaction.ping().now_or_never(), Some(Err(_))) {
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn a_connection_whose_thread_has_ended_is_opened_anew() {
    let dir = tempfile::tempdir().unwrap();
    let db = with_table(dir.path()).await;
    for round in 1..=3 {
        kill(db.write().await.unwrap()).await;
        insert(&db, round).await.unwrap();
        let expected: Vec<_> = (1..=round).collect();
        kill(db.read().await.unwrap()).await;
        assert_eq!(seen(&mut db.look().await.unwrap()).await, expected);
        kill(db.read().await.unwrap()).await;
        assert_eq!(seen(&mut db.read().await.unwrap()).await, expected);
    }
}

#[tokio::test]
async fn whichever_reader_comes_back_first_serves_those_who_wait_in_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let db = with_table(dir.path()).await;
    for back in 0..READERS {
        let mut readers = Vec::new();
        for _ in 0..READERS {
            readers.push(db.read().await.unwrap());
        }
        let (mut first, mut second) = (pin!(db.look()), pin!(db.read()));
        assert!(poll!(&mut first).is_pending());
        assert!(poll!(&mut second).is_pending());
        drop(readers.remove(usize::try_from(back).unwrap()));
        let first = first.await.unwrap();
        assert!(poll!(&mut second).is_pending());
        drop(first);
        second.await.unwrap();
    }
}
