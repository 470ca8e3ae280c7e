//! What holds for the repository as a whole: which way the arrows point, what may be depended on, where things are.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use bailey_types::Service;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

struct Package {
    name: String,
    dir: PathBuf,
    /// Ours only, without dev-dependencies.
    needs: BTreeSet<String>,
}

fn packages() -> Vec<Package> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
            "--offline",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let ours: BTreeSet<_> = packages
        .iter()
        .map(|p| p["name"].as_str().unwrap())
        .collect();
    let needs = |package: &serde_json::Value| {
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        let real = dependencies
            .filter(|d| d["kind"].is_null())
            .map(|d| d["name"].as_str().unwrap());
        real.filter(|name| ours.contains(name))
            .map(str::to_owned)
            .collect()
    };
    let dir = |package: &serde_json::Value| {
        Path::new(package["manifest_path"].as_str().unwrap())
            .parent()
            .unwrap()
            .to_owned()
    };
    packages
        .iter()
        .map(|p| Package {
            name: p["name"].as_str().unwrap().into(),
            dir: dir(p),
            needs: needs(p),
        })
        .collect()
}

/// How far down a crate is; arrows go to a lower number only.
fn layer(package: &Package) -> u32 {
    let under = |folder: &str| package.dir.starts_with(root().join(folder));
    match package.name.as_str() {
        "bailey-types" | "bailey-lease" => 0,
        "bailey-yaml" | "bailey-proto" | "bailey-error" | "bailey-redact" => 1,
        "bailey-plugin" => 2,
        "bailey-trust" => 3,
        "bailey-config" => 4,
        "bailey-audit-log" | "bailey-cell" | "bailey-db" | "bailey-roots" => 5,
        "bailey-service" => 6,
        "bailey-mesh" => 7,
        "bailey-test" => 8,
        _ if under("services") => 9,
        _ if under("plugins") => 0,
        "stack-tests" => 10,
        other => panic!("{other} has no layer: say in tests/tests/layout.rs where it stands"),
    }
}

#[test]
fn arrows_point_down_only() {
    let packages = packages();
    let layers: BTreeMap<_, _> = packages
        .iter()
        .map(|p| (p.name.clone(), layer(p)))
        .collect();
    for package in &packages {
        for needed in &package.needs {
            assert!(
                layers[needed] < layers[&package.name],
                "{} may not depend on {needed}",
                package.name
            );
            assert!(
                needed != "bailey-test" || layer(package) == 10,
                "{}: bailey-test is a dev-dependency",
                package.name
            );
        }
    }
}

#[test]
fn every_service_is_a_crate_of_its_name_with_a_readme() {
    let crates: BTreeSet<_> = packages()
        .into_iter()
        .filter(|p| p.dir.starts_with(root().join("services")))
        .map(|p| p.name)
        .collect();
    for service in Service::ALL {
        assert!(
            crates.contains(service.name()),
            "services/{service} is missing"
        );
    }
    for package in packages().iter().filter(|p| layer(p) < 10) {
        assert!(
            package.dir.join("README.md").is_file(),
            "{} has no README.md",
            package.name
        );
        let folder = package.dir.file_name().unwrap().to_string_lossy();
        assert_eq!(
            folder, package.name,
            "folder and package must have one name"
        );
    }
}

#[test]
fn vague_crates_are_not_made() {
    for package in packages() {
        for vague in ["util", "common", "core", "misc", "helper"] {
            assert!(
                !package.name.contains(vague),
                "{}: name it by the one thing that it does",
                package.name
            );
        }
    }
}

/// Name and versions of everything in Cargo.lock.
fn locked() -> BTreeMap<String, BTreeSet<String>> {
    let text = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let mut locked: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let value = |line: &str| line.split('"').nth(1).map(str::to_owned);
    let mut name = None;
    for line in text.lines() {
        if line.starts_with("name = ") {
            name = value(line);
        } else if line.starts_with("version = ")
            && let (Some(name), Some(version)) = (name.take(), value(line))
        {
            locked.entry(name).or_default().insert(version);
        }
    }
    locked
}

#[test]
fn what_deny_toml_bans_is_not_in_the_tree() {
    let deny = std::fs::read_to_string(root().join("deny.toml")).unwrap();
    let locked = locked();
    let mut checked = 0;
    for line in deny
        .lines()
        .filter(|line| line.trim_start().starts_with("{ crate = "))
    {
        let name = line.split('"').nth(1).unwrap();
        let versions = locked.get(name).map_or(0, BTreeSet::len);
        let most = usize::from(line.contains("deny-multiple-versions"));
        assert!(
            versions <= most,
            "{name} is in Cargo.lock {versions} times, at most {most} allowed: see deny.toml"
        );
        checked += 1;
    }
    assert!(checked > 10, "deny.toml is not read as it is written");
    assert!(
        !std::fs::read_to_string(root().join("Cargo.lock"))
            .unwrap()
            .contains("git+"),
        "no git sources"
    );
}

/// Every file that git tracks, or would track.
fn tracked() -> Vec<PathBuf> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .unwrap();
    let listed = String::from_utf8(output.stdout).unwrap();
    listed
        .lines()
        .map(|line| root().join(line))
        .filter(|path| path.is_file())
        .collect()
}

#[test]
fn rust_files_stay_short() {
    for path in tracked()
        .iter()
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
    {
        if path.components().any(|c| c.as_os_str() == "gen") {
            continue;
        }
        let lines = std::fs::read_to_string(path).unwrap().lines().count();
        assert!(
            lines <= 500,
            "{} has {lines} lines: split it by what it does",
            path.display()
        );
    }
}

#[test]
fn nothing_is_left_to_do_in_the_code() {
    // Put together here, so that this file does not find itself.
    let marks = [
        ["TO", "DO"].concat(),
        ["FIX", "ME"].concat(),
        ["unimpl", "emented!"].concat(),
        ["to", "do!("].concat(),
    ];
    for path in tracked() {
        let Ok(text) = std::fs::read_to_string(&path) else {
            continue;
        };
        for mark in &marks {
            assert!(
                !text.contains(mark.as_str()),
                "{} holds {mark}",
                path.display()
            );
        }
    }
}
