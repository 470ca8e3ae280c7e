//! Known values are stored, delivered, told by a plugin in every way it has, rolled and revoked; then everything that the stack wrote is searched.

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use stack_tests::fixture::{self, call};
use stack_tests::suite::Test;
use stack_tests::{Stack, read_all};

use crate::vault::keepers;

pub const TESTS: &[(&str, Test)] = &[(
    "no_value_of_the_vault_is_found_anywhere",
    no_value_of_the_vault_is_found_anywhere,
)];

/// A value that stays, one that is rolled, one that is revoked.
const CANARIES: [(&str, &str); 3] = [
    ("canary-stays", "stays-8f2b61c4-d0d5-4a0e"),
    ("canary-rolled", "before-93e5a7f1-77c2-4b1d"),
    ("canary-revoked", "revoked-5c0d9e28-1af6-4c3b"),
];
const ROLLED_TO: &str = "after-b7d4306e-2c98-4f5a";

fn no_value_of_the_vault_is_found_anywhere(stack: &Stack) -> anyhow::Result<()> {
    keepers(stack)?;
    for (name, value) in CANARIES {
        fixture::seal_secret(stack, name, value, "keeper")?;
    }
    let mut client = stack.client()?;
    let mut tell = || -> anyhow::Result<String> {
        let mut answers = String::new();
        for command in ["tell", "complain", "babble", "hoard"] {
            answers += &call(&mut client, "keeper", command, &json!({}))?.to_string();
        }
        Ok(answers)
    };
    let mut answers = tell()?;
    stack.bailey_ok_with(&["vault", "roll", "canary-rolled"], ROLLED_TO)?;
    stack.bailey_ok(&["vault", "revoke", "canary-revoked"])?;
    answers += &tell()?;
    ensure!(answers.contains("[secret:"), "nothing was told: {answers}");
    answers += &stack.events("keeper.*", "0")?;
    answers += &stack.bailey_ok(&["vault", "audit", "--limit", "1000", "--json"])?;
    stack.wait_no_cells("keeper")?;

    let needles = needles();
    search("what the API answers", answers.as_bytes(), &needles)?;
    for (what, bytes) in written(stack)? {
        search(&what, &bytes, &needles)?;
    }
    // The control: the search finds what is there to be found. The plugin wrote it into its own volume itself.
    let hoard = hoard(stack)?;
    ensure!(
        search("the control", &hoard, &needles).is_err(),
        "the plugin hoarded nothing"
    );
    Ok(())
}

/// Every canary in every spelling that is searched for.
fn needles() -> Vec<(String, String)> {
    let mut needles = Vec::new();
    let rolled = [("canary-rolled, after", ROLLED_TO)];
    for (name, value) in CANARIES.iter().copied().chain(rolled) {
        let hex = value
            .bytes()
            .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        needles.push((format!("{name}, raw"), value.to_owned()));
        needles.push((format!("{name}, hex"), hex.to_uppercase()));
        needles.push((format!("{name}, hex"), hex));
        for shift in 0..3 {
            needles.push((
                format!("{name}, base64 at {shift}"),
                base64_core(value, shift),
            ));
        }
    }
    needles
}

/// The characters of the base64 of `value` behind `shift` bytes that depend on nothing but `value`.
fn base64_core(value: &str, shift: usize) -> String {
    let skip = (3 - shift) % 3;
    let bytes = value.as_bytes().get(skip..).unwrap_or_default();
    // Whole groups of three have no padding.
    STANDARD.encode(&bytes[..bytes.len() / 3 * 3])
}

fn search(what: &str, bytes: &[u8], needles: &[(String, String)]) -> anyhow::Result<()> {
    // The needles are ASCII, which this leaves as it is.
    let text = String::from_utf8_lossy(bytes);
    for (name, needle) in needles {
        ensure!(!text.contains(needle.as_str()), "{what} holds {name}");
    }
    Ok(())
}

/// Everything that the stack wrote: its volumes but for the plugin's own, its folders, what Docker knows of its containers, and their logs.
fn written(stack: &Stack) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let mut all = Vec::new();
    for volume in volumes(stack)? {
        if !volume.contains("keeper") {
            all.push((format!("the volume {volume}"), contents(stack, &volume)?));
        }
    }
    // The demo's key and the operator's tokens are no canaries, and the fixtures are not written by the stack.
    let mut folder = String::new();
    read_all(&stack.home.join("config"), &mut folder)?;
    all.push(("config/".to_owned(), folder.into_bytes()));
    for label in labels(stack) {
        for id in stack.containers(&[&label])? {
            let inspected = stack.docker(&["inspect", &id]);
            // A cell may be gone by now.
            let Ok(inspected) = inspected else { continue };
            all.push((format!("docker inspect {id}"), inspected.into_bytes()));
            let output = stack.command("docker").args(["logs", &id]).output()?;
            all.push((
                format!("docker logs {id}"),
                [output.stdout, output.stderr].concat(),
            ));
        }
    }
    ensure!(all.len() > 20, "only {} places were searched", all.len());
    Ok(all)
}

fn volumes(stack: &Stack) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for label in labels(stack) {
        let filter = format!("label={label}");
        let listed = stack.docker(&["volume", "ls", "--quiet", "--filter", &filter])?;
        names.extend(listed.lines().map(str::to_owned));
    }
    names.sort();
    names.dedup();
    ensure!(names.len() > 3, "{names:?}");
    Ok(names)
}

/// The label of what the stack makes itself, and of what Compose makes for it.
fn labels(stack: &Stack) -> [String; 2] {
    [
        format!("bailey.stack={}", stack.name()),
        format!("com.docker.compose.project={}", stack.project()),
    ]
}

/// A volume's files as one tar, read by root in a container of its own. Databases are searched with their write-ahead logs as they lie there.
fn contents(stack: &Stack, volume: &str) -> anyhow::Result<Vec<u8>> {
    let mount = format!("{volume}:/volume:ro");
    let args = [
        "run",
        "--rm",
        "--user",
        "0:0",
        "--network",
        "none",
        "--pull",
        "never",
        "--volume",
        &mount,
        "--entrypoint",
        "/usr/bin/python3",
        "bailey/base-python:current",
        "-c",
        READ_ALL,
    ];
    let output = stack.command("docker").args(args).output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "reading {volume}: {errors}");
    Ok(output.stdout)
}

/// Sockets and pipes have no content; a file that goes away meanwhile had none that stays.
const READ_ALL: &str = "
import os, stat, sys
for folder, _, names in os.walk('/volume'):
    for name in names:
        path = os.path.join(folder, name)
        sys.stdout.buffer.write(path.encode() + b'\\n')
        try:
            if stat.S_ISREG(os.lstat(path).st_mode):
                with open(path, 'rb') as file:
                    sys.stdout.buffer.write(file.read())
        except FileNotFoundError:
            pass
";

/// What the plugin wrote into its own volume.
fn hoard(stack: &Stack) -> anyhow::Result<Vec<u8>> {
    let volumes = volumes(stack)?;
    let own = volumes.iter().find(|name| name.contains("keeper"));
    contents(stack, own.context("the plugin has no volume")?)
}
