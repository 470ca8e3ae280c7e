//! What the container cannot read, since a strict umask made it, is told with what helps.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::stand::Bench;
use crate::{bailey, text};

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn what_others_cannot_read_is_told_on_the_host() {
    let home = tempfile::tempdir().unwrap();
    let args = ["--home", text(home.path()), "config", "check"];
    let (config, plugin) = (
        home.path().join("config"),
        home.path().join("plugin-roots/mine/words"),
    );
    fs::create_dir(&config).unwrap();
    fs::create_dir_all(&plugin).unwrap();
    for (path, contents) in [
        (
            config.join("config.yaml"),
            "include: [more.yaml]\naccounts: {default: {}}\nplugin_roots: [/plugins/mine]\n",
        ),
        (config.join("more.yaml"), "plugins: {words: {}}\n"),
        (
            plugin.join("manifest.yaml"),
            "manifest_spec: ductile.plugin\nmanifest_version: 1\nname: words\nversion: 1.0.0\nprotocol: 2\nentrypoint: run.py\ncommands: [{name: poll, type: read}]\n",
        ),
        (plugin.join("run.py"), "#!/usr/bin/env python3\n"),
    ] {
        fs::write(&path, contents).unwrap();
        mode(&path, 0o644);
    }
    mode(&plugin, 0o755);
    let well = bailey(args).await.expect(0).says("nothing is wrong");
    assert!(!well.stdout.contains("chmod"), "{well:?}");
    mode(&config.join("more.yaml"), 0o600);
    mode(&plugin.join("run.py"), 0o700);
    let told = [
        format!("chmod a+r {}", text(&config.join("more.yaml"))),
        format!("chmod -R a+rX {}", text(&plugin)),
    ];
    bailey(args).await.expect(0).says(&told[0]).says(&told[1]);
    let json = bailey([&["--json"], &args[..]].concat()).await.expect(0);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert!(json["warnings"].to_string().contains(&told[1]), "{json}");
    mode(&plugin.join("run.py"), 0o755);
    mode(&plugin, 0o700);
    let folder = bailey(args).await.expect(0).says(&told[1]);
    assert_eq!(folder.stdout.matches("chmod").count(), 2, "{folder:?}");
}

#[tokio::test]
async fn what_the_container_cannot_read_is_told_by_the_lock() {
    let bench = Bench::start();
    let (config, plugin) = (
        bench.stack.config_dir().join("config.yaml"),
        bench.stack.dir().join("plugins/greet"),
    );
    let lock = ["plugin", "lock", "--all"];
    let denied = async |args: &[&str], told: &str| {
        if let Some(ran) = bench.bailey_as_cli(args).await {
            assert_ne!(ran.code, Some(0));
            ran.complains("Permission denied").complains(told);
        }
    };
    mode(&config, 0o600);
    denied(&lock, "chmod a+r config/config.yaml").await;
    mode(&config, 0o644);
    let told = format!("chmod -R a+rX {}", text(&plugin));
    for (path, strict, right) in [
        (plugin.clone(), 0o700, 0o755),
        (plugin.join("manifest.yaml"), 0o600, 0o644),
        (plugin.join("run.py"), 0o700, 0o755),
    ] {
        mode(&path, strict);
        denied(&lock, &told).await;
        mode(&path, right);
    }
    let token = bench.stack.dir().join("admin.token");
    mode(&token, 0o600);
    denied(&lock, "`make up` sets its owner").await;
    mode(&token, 0o644);
    if let Some(ran) = bench.bailey_as_cli(&lock).await {
        ran.expect(0);
    }
}
