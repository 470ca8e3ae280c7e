//! Where the lock is put: what is signed and in no file would stop every job.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};

use bailey_types::Serial;

use crate::stand::{Bench, CLI, CONFIG};

const LOCK: [&str; 4] = ["plugin", "lock", "--all", "--yes"];

/// Another configuration, so that there is something to lock.
fn changed(bench: &Bench, pids: u32) {
    let greet = format!("greet: {{container: {{pids: {pids}}}}}");
    bench.configure(&CONFIG.replace("greet: {}", &greet));
}

#[tokio::test]
async fn nothing_is_signed_that_cannot_be_put_in_its_place() {
    let bench = Bench::start();
    let path = bench.stack.config_dir().join("bailey.lock");
    symlink(bench.stack.dir().join("elsewhere"), &path).unwrap();
    let refused = bench.bailey(&LOCK).await;
    assert_eq!(*bench.signed.lock().unwrap(), 0);
    refused.expect(78).complains("nothing was signed");
    fs::remove_file(&path).unwrap();
    bench.bailey(&LOCK).await.expect(0);
    assert_eq!(bench.lock().serial, Serial(1));
}

/// As it is after a copy was brought back by whoever is not the container.
#[tokio::test]
async fn a_lock_of_somebody_else_is_told_before_anything_is_signed() {
    let bench = Bench::start();
    bench.bailey(&LOCK).await.expect(0);
    changed(&bench, 7);
    let Some(refused) = bench.bailey_as_cli(&LOCK).await else {
        return;
    };
    assert_eq!(*bench.signed.lock().unwrap(), 1);
    refused
        .expect(78)
        .complains("nothing was signed")
        .complains("belongs to uid 0")
        .complains("`make up` sets its owner");
    // Nothing lies about, and the lock is as it was.
    let path = bench.stack.config_dir().join("bailey.lock");
    assert_eq!(
        (path.metadata().unwrap().uid(), bench.lock().serial),
        (0, Serial(1))
    );
    let left = fs::read_dir(bench.stack.config_dir()).unwrap();
    let left = left.filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_string_lossy().starts_with(".bailey.lock")
    });
    assert_eq!(left.count(), 0);
    chown(&path, Some(CLI), Some(CLI)).unwrap();
    let locked = bench.bailey_as_cli(&LOCK).await.unwrap();
    locked.expect(0).says("Locked: serial 2");
    let metadata = path.metadata().unwrap();
    assert_eq!(
        (metadata.uid(), metadata.permissions().mode() & 0o7777),
        (CLI, 0o644)
    );
}

#[tokio::test]
async fn a_lock_that_was_signed_and_not_written_is_signed_anew() {
    let bench = Bench::start();
    bench.bailey(&LOCK).await.expect(0);
    let path = bench.stack.config_dir().join("bailey.lock");
    let first = fs::read(&path).unwrap();
    changed(&bench, 7);
    *bench.in_the_way.lock().unwrap() = Some(path.clone());
    bench
        .bailey(&LOCK)
        .await
        .expect(1)
        .complains("lock 2 is signed, but not written")
        .complains("the same again");
    fs::remove_dir(&path).unwrap();
    fs::write(&path, &first).unwrap();
    // What was signed is told wherever it is looked, even where nothing else is different.
    bench.configure(CONFIG);
    for lock in [["plugin", "lock", "--all"].as_slice(), &["config", "lock"]] {
        let shown = bench.bailey(lock).await.expect(0);
        shown
            .says("bailey.lock is lock 1, but 2 was signed")
            .says("CODE3");
    }
    let shown = bench.bailey(&["config", "lock", "--json"]).await.expect(0);
    let shown: serde_json::Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!(
        (&shown["code"], &shown["signed"]),
        (&"CODE3".into(), &2.into())
    );
    bench.bailey(&LOCK).await.expect(0).says("Locked: serial 3");
    assert_eq!(bench.lock().serial, Serial(3));
    bench
        .bailey(&LOCK)
        .await
        .expect(0)
        .says("Nothing is different from the lock: 2 plugins.");
}
