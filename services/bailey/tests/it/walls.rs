//! What accounts and containers say, from the configuration into the signed lock.

use bailey_trust::{HostPath, Mode};

use crate::stand::{Bench, CONFIG};

#[tokio::test]
async fn a_committed_lock_is_tidied_up_after_and_a_preview_is_not() {
    let bench = Bench::start();
    bench.bailey(&["plugin", "lock", "--all"]).await.expect(0);
    assert_eq!(*bench.tidied.lock().unwrap(), 0);
    bench
        .bailey(&["plugin", "lock", "--all", "CODE1"])
        .await
        .expect(0);
    assert_eq!(*bench.tidied.lock().unwrap(), 1);
}

const OPS: &str = "accounts: {default: {}, untrusted: {}, ops: {uid: 1000, gid: 100, mounts: [{path: /srv/notes, writable: true}]}}\nplugin_roots: [ROOT]\nplugins:\n  greet: {run_as: ops}\n";

#[tokio::test]
async fn host_paths_are_locked_as_the_host_found_them_and_never_unseen() {
    let bench = Bench::start();
    bench.configure(OPS);
    bench
        .bailey(&["plugin", "lock", "--all"])
        .await
        .expect(78)
        .complains("/srv/notes of the account ops (greet) was not looked at on the host");
    let found = r#"{"/srv/notes": {"device": 5, "inode": 77}}"#;
    let args = ["plugin", "lock", "--all", "--yes", "--host-paths", found];
    bench
        .bailey(&args)
        .await
        .expect(0)
        .says("runs as CREDENTIALED, uid 1000, gid 100 of the host")
        .says("host paths /srv/notes (rw)")
        .says("rating 3 of 8: ")
        .says("! CREDENTIALED: the account ops acts on the host as uid 1000");
    let greet = &bench.lock().plugins[&"greet".parse().unwrap()].proposed;
    let expected = HostPath {
        path: "/srv/notes".into(),
        device: 5,
        inode: 77,
        writable: true,
    };
    assert_eq!(greet.host_paths, [expected]);
    assert_eq!(
        greet.walls.mode,
        Mode::Credentialed {
            uid: 1000,
            gid: 100
        }
    );
    bench
        .bailey(&["plugin", "lock", "--all", "--host-paths", "[]"])
        .await
        .expect(78);
}

#[tokio::test]
async fn a_runtime_that_the_engine_lacks_is_refused_before_anything_is_sealed() {
    let bench = Bench::start();
    bench.configure(&CONFIG.replace("default: {}", "default: {runtime: runsc}"));
    bench
        .bailey(&["plugin", "lock", "--all"])
        .await
        .expect(78)
        .complains("greet would run under the runtime runsc, which the Docker Engine does not have; it has runc");
    assert_eq!(bench.sealed(), 0);
    bench.configure(&CONFIG.replace("default: {}", "default: {runtime: runc}"));
    bench
        .bailey(&["plugin", "lock", "--all"])
        .await
        .expect(0)
        .says("runtime runc");
}

#[tokio::test]
async fn state_is_reset_only_by_name_and_only_where_there_is_some() {
    let bench = Bench::start();
    let keeping = CONFIG.replace("greet: {}", "greet: {container: {state: data}}");
    bench.configure(&keeping);
    bench
        .bailey(&["plugin", "lock", "--all", "--yes"])
        .await
        .expect(0);
    bench.put("greet/lib.py", "x", 0o644);
    bench
        .bailey(&["plugin", "lock", "greet"])
        .await
        .expect(0)
        .says("what its earlier code kept stays; to leave it behind: --reset-state greet");
    let args = ["plugin", "lock", "greet", "--yes", "--reset-state", "greet"];
    bench
        .bailey(&args)
        .await
        .expect(0)
        .says("what it kept so far is left behind");
    let generation = bench.lock().plugins[&"greet".parse().unwrap()].state_generation;
    assert_eq!(generation, 1);
    for (args, reason) in [
        (["--all", "--reset-state", "other"], "other keeps no state"),
        (
            ["--all", "--reset-state", "zzz"],
            "zzz: no such plugin is enabled",
        ),
        (
            ["greet", "--reset-state", "other"],
            "only greet is locked here",
        ),
    ] {
        let args: Vec<_> = ["plugin", "lock"].into_iter().chain(args).collect();
        bench.bailey(&args).await.expect(78).complains(reason);
    }
}

#[tokio::test]
async fn show_tells_everything_that_is_locked_and_whether_the_folder_still_is_it() {
    let bench = Bench::start();
    bench
        .bailey(&["plugin", "show", "greet"])
        .await
        .expect(78)
        .complains("greet is not locked");
    bench
        .bailey(&["plugin", "lock", "--all", "--yes"])
        .await
        .expect(0);
    bench
        .bailey(&["plugin", "show", "greet"])
        .await
        .expect(0)
        .says("greet as of lock 1")
        .says("confined, uid 20000")
        .says("7 of 8: gets 1 secret")
        .says("its folder is what was sealed");
    // An alias has grants of its own: none.
    bench
        .bailey(&["plugin", "show", "other"])
        .await
        .expect(0)
        .says("8 of 8\n");
    bench.put("greet/lib.py", "x", 0o644);
    let ran = bench
        .bailey(&["plugin", "show", "greet", "--json"])
        .await
        .expect(0);
    let shown: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(
        (&shown["rating"]["score"], &shown["drift"]),
        (&5.into(), &"its files have changed".into())
    );
}
