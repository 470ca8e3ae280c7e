//! `plugin lock` and `config lock`: what is previewed, what is signed, what is refused.

use std::fs;

use bailey_types::{ImageId, Serial, Sha256};

use crate::stand::{Bench, CONFIG};

#[tokio::test]
async fn a_preview_changes_nothing_and_its_code_commits_exactly_it() {
    let bench = Bench::start();
    bench
        .bailey(&["plugin", "lock", "--all"])
        .await
        .expect(0)
        .says("+ plugin greet")
        // What the vault would not give, as the broker says.
        .says("! the upstream model has no key: there is no secret model-key")
        .says("bailey plugin lock --all CODE1");
    assert!(!bench.stack.config_dir().join("bailey.lock").exists());
    // What is changed after the preview is not what was approved.
    bench.put("greet/run.py", "#!/usr/bin/env python3\nprint()\n", 0o755);
    bench
        .bailey(&["plugin", "lock", "--all", "CODE1"])
        .await
        .expect(0)
        .says("Locked: serial 1, 2 plugins.");
    let lock = bench.lock();
    let (header, tar) = bench.seals.lock().unwrap()[0].clone();
    let greet = &lock.plugins[&"greet".parse().unwrap()].proposed;
    assert_eq!(
        (greet.tar_sha256, greet.image),
        (Sha256::of(&tar), ImageId(Sha256::of(&tar)))
    );
    assert_eq!(
        (header.entrypoint, header.base_image),
        (
            vec!["/plugin/run.py".to_owned()],
            greet.base.unwrap().to_string()
        )
    );
    bench
        .bailey(&["plugin", "lock", "--all", "CODE1"])
        .await
        .expect(1)
        .complains("no proposal has this code");
}

#[tokio::test]
async fn what_is_sealed_stays_sealed_and_an_alias_shares_the_seal() {
    let bench = Bench::start();
    bench
        .bailey(&["plugin", "lock", "--all", "--yes"])
        .await
        .expect(0)
        .says("serial 1");
    let lock = bench.lock();
    let image = |name: &str| lock.plugins[&name.parse().unwrap()].proposed.image;
    assert_eq!((bench.sealed(), image("greet")), (1, image("other")));
    bench
        .bailey(&["plugin", "lock", "--all", "--yes"])
        .await
        .expect(0)
        .says("Nothing is different from the lock: 2 plugins.");
    assert_eq!((bench.sealed(), bench.lock().serial), (1, Serial(1)));
}

#[tokio::test]
async fn one_plugin_is_locked_without_the_others_and_without_the_configuration() {
    let bench = Bench::start();
    bench
        .bailey(&["plugin", "lock", "greet"])
        .await
        .expect(78)
        .complains("nothing is locked yet");
    bench
        .bailey(&["plugin", "lock", "--all", "--yes"])
        .await
        .expect(0);
    bench.put("greet/lib.py", "x", 0o644);
    bench.configure(&CONFIG.replace("greet: {}", "greet: {run_as: default}"));
    let ran = bench
        .bailey(&["plugin", "lock", "greet", "--yes"])
        .await
        .expect(0);
    ran.says("~ plugin greet\n    + lib.py\n")
        .says("= 1 plugin as it is");
    assert!(!bench.lock().config_files["config.yaml"].contains("run_as"));
    bench
        .bailey(&["plugin", "lock", "nothing"])
        .await
        .expect(78)
        .complains("not enabled in the locked configuration");
}

#[tokio::test]
async fn the_configuration_is_locked_without_the_plugins() {
    let bench = Bench::start();
    bench
        .bailey(&["plugin", "lock", "--all", "--yes"])
        .await
        .expect(0);
    bench.put("greet/lib.py", "x", 0o644);
    bench.configure(&CONFIG.replace("greet: {}", "greet: {container: {pids: 7}}"));
    let ran = bench.bailey(&["config", "lock", "--json"]).await.expect(0);
    let preview: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(
        (
            &preview["config_files"]["config.yaml"],
            &preview["plugins"]["greet"]["files"]
        ),
        (&"changed".into(), &serde_json::json!({}))
    );
    bench
        .bailey(&["config", "lock", preview["code"].as_str().unwrap()])
        .await
        .expect(0);
    let lock = bench.lock();
    let greet = &lock.plugins[&"greet".parse().unwrap()].proposed;
    assert_eq!(
        (greet.limits.pids, greet.files.len(), bench.sealed()),
        (7, 2, 1)
    );
    bench.configure(&format!("{CONFIG}  fresh: {{}}\n"));
    bench
        .bailey(&["config", "lock"])
        .await
        .expect(78)
        .complains("fresh was never sealed");
}

#[tokio::test]
async fn what_cannot_be_sealed_is_said_before_anything_is() {
    let bench = Bench::start();
    bench.configure(&format!("{CONFIG}  absent: {{}}\n  greet2: {{uses: greet, schedules: [{{every: 1h, command: sync}}]}}\n"));
    let ran = bench.bailey(&["plugin", "lock", "--all"]).await.expect(78);
    ran.complains("absent is enabled, but no folder")
        .complains("calls sync, which is not a command");
    bench.configure(CONFIG);
    bench.put("greet/run.py", "#!/usr/bin/env node\n", 0o755);
    bench
        .bailey(&["plugin", "lock", "--all"])
        .await
        .expect(78)
        .complains("does not tell what runs it");
    bench.put("greet/run.py", "#!/bin/sh\n", 0o755);
    bench
        .bailey(&["plugin", "lock", "--all"])
        .await
        .expect(78)
        .complains("bailey/base-tools:current does not exist");
    bench.put("greet/run.py", "#!/usr/bin/env python3\n", 0o644);
    bench
        .bailey(&["plugin", "lock", "--all"])
        .await
        .expect(1)
        .complains("chmod +x");
    assert_eq!(bench.sealed(), 0);
}

#[tokio::test]
async fn a_lock_that_somebody_edited_is_not_built_upon() {
    let bench = Bench::start();
    bench
        .bailey(&["plugin", "lock", "--all", "--yes"])
        .await
        .expect(0);
    let path = bench.stack.config_dir().join("bailey.lock");
    let edited = fs::read_to_string(&path)
        .unwrap()
        .replace("\"payload\": \"e", "\"payload\": \"f");
    fs::write(&path, edited).unwrap();
    bench
        .bailey(&["plugin", "lock", "--all", "--yes"])
        .await
        .expect(0)
        .says("+ plugin greet")
        .complains("is refused");
    assert_eq!(bench.lock().serial, Serial(2));
}

#[tokio::test]
async fn a_lock_is_waited_for_until_it_is_in_force() {
    let bench = Bench::start();
    let lock = ["plugin", "lock", "--all", "--yes"];
    bench
        .bailey(&lock)
        .await
        .expect(0)
        .says("Locked: serial 1, 2 plugins. It is in force.");
    let taking = |slow, times| {
        let mut taking = bench.taking.lock().unwrap();
        (taking.slow, taking.times) = (slow, times);
        std::mem::take(&mut taking.awaited)
    };
    assert_eq!(taking(Some("policy"), 1), [1]);
    bench.configure(&CONFIG.replace("greet: {}", "greet: {container: {pids: 7}}"));
    let config = ["config", "lock", "--yes"];
    bench
        .bailey(&config)
        .await
        .expect(0)
        .says("It is in force.")
        .complains("waiting for policy to take lock 2");
    assert_eq!(taking(Some("policy"), 9), [2, 2]);
    bench.configure(&CONFIG.replace("greet: {}", "greet: {container: {pids: 8}}"));
    bench
        .bailey(&config)
        .await
        .expect(1)
        .says("Locked: serial 3, 2 plugins.")
        .complains("lock 3 is signed and in its place, but not taken by policy");
    assert_eq!(bench.lock().serial, Serial(3));
    // Of one that is not there nothing is claimed.
    assert_eq!(taking(None, 0), [3, 3]);
    bench.taking.lock().unwrap().unheard = Some("engine");
    bench.configure(&CONFIG.replace("greet: {}", "greet: {container: {pids: 9}}"));
    let ran = bench.bailey(&config).await.expect(0);
    ran.says("Locked: serial 4, 2 plugins.\n")
        .complains("nothing was heard of engine");
    assert_eq!(taking(None, 0), [4, 4]);
}

#[tokio::test]
async fn where_a_key_goes_is_shown_before_it_is_locked() {
    let bench = Bench::start();
    let upstream = |host: &str, secret: &str| {
        format!(
            "{CONFIG}upstreams:\n  model:\n    url: https://{host}/v1\n    secret_ref: {secret}\n"
        )
    };
    bench.configure(&upstream("api.example.com", "model-key"));
    bench
        .bailey(&["plugin", "lock", "--all", "--yes"])
        .await
        .expect(0)
        .says("+ upstream model\n      url https://api.example.com/v1\n")
        .says("      key model-key for model, as authorization: Bearer …");
    bench.configure(&upstream("evil.example.com", "model-key"));
    bench.bailey(&["config", "lock"]).await.expect(0).says(
        "~ configuration config.yaml\n~ upstream model\n      url https://api.example.com/v1 -> https://evil.example.com/v1\n= 2 plugins",
    );
    let shown = bench.bailey(&["config", "lock", "--json"]).await.expect(0);
    let shown: serde_json::Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!(shown["upstreams"]["model"]["change"], "changed");
}
