//! Known values are stored, delivered, told by a plugin in every way it has, rolled and revoked; then everything that the stack wrote is searched,
//! and everything that its owner would keep as a backup.

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use stack_tests::fixture::{self, call};
use stack_tests::suite::Test;
use stack_tests::{Stack, read_all};

use crate::vault::keepers;

pub const TESTS: &[(&str, Test)] = &[
    (
        "no_value_of_the_vault_is_found_anywhere",
        no_value_of_the_vault_is_found_anywhere,
    ),
    (
        "no_value_of_the_vault_is_found_in_a_backup",
        no_value_of_the_vault_is_found_in_a_backup,
    ),
];

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

    let rolled = [("canary-rolled, after", ROLLED_TO)];
    let needles = needles(&[&CANARIES[..], &rolled].concat());
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

/// What `docs/how-to/recovery.md` has its reader copy; and it brings the stack back.
fn no_value_of_the_vault_is_found_in_a_backup(stack: &Stack) -> anyhow::Result<()> {
    // Given what the test before left in the vault, in the jobs and in the plugin's own volume,
    let rolled = [("canary-rolled, after", ROLLED_TO)];
    let needles = needles(&[&CANARIES[..], &rolled].concat());
    let backup = tempfile::tempdir()?;
    let path = |name: &str| backup.path().join(name).display().to_string();
    // when the vault is exported to a key that is on paper only,
    let (paper, export) = (path("paper.key"), path("export.age"));
    let text = stack.bailey_ok(&["vault", "keygen"])?;
    std::fs::write(&paper, &text)?;
    let mut words = text.split_whitespace();
    let public = words.find(|word| word.starts_with("age1"));
    let public = public.context("no public key")?;
    stack.bailey_ok(&["vault", "export", "--to", public, "--out", &export])?;
    // then the values are in it, and can be seen with that key alone.
    search("the export", &std::fs::read(&export)?, &needles)?;
    let mut age = stack.command("age");
    let opened = age.args(["-d", "-i", &paper, &export]).output()?;
    ensure!(opened.status.success(), "{opened:?}");
    let stored = STANDARD.encode(ROLLED_TO);
    ensure!(
        String::from_utf8_lossy(&opened.stdout).contains(&stored),
        "the export lacks the value"
    );

    // When all volumes are saved, of a stack that is down,
    let volumes = path("volumes");
    // `refused`: why it is not done; none where it is.
    let copy = |verb: &str, refused: &str| -> anyhow::Result<()> {
        let mut script = stack.command("deploy/volumes.sh");
        let done = script.args([verb, &volumes]).output()?;
        let why = String::from_utf8_lossy(&done.stderr);
        ensure!(
            done.status.success() == refused.is_empty() && why.contains(refused),
            "{verb}, refused {refused:?}: {done:?}"
        );
        Ok(())
    };
    copy("save", "the stack runs and writes")?;
    stack.make("down")?;
    copy("save", "")?;
    // then no value is in any of them, but for the plugin's own, which holds what it wrote there itself.
    let mut searched = 0;
    for entry in std::fs::read_dir(&volumes)? {
        let file = entry?.path();
        let name = file.display().to_string();
        let found = search(&name, &std::fs::read(&file)?, &needles);
        if name.contains(".state.keeper") && file.extension().is_some_and(|it| it == "tar") {
            ensure!(found.is_err(), "{name} lacks what the plugin hoarded");
        } else {
            found?;
            searched += 1;
        }
    }
    ensure!(searched > 10, "only {searched} files were saved");

    // And with them the stack is what it was, once nothing is in their place.
    copy("load", "nothing is written over")?;
    let names = self::volumes(stack)?;
    let names = names.iter().map(String::as_str);
    stack.docker(
        &["volume", "rm"]
            .into_iter()
            .chain(names)
            .collect::<Vec<_>>(),
    )?;
    copy("load", "")?;
    stack.make("up")?;
    let listed = stack.bailey_ok(&["vault", "list"])?;
    ensure!(listed.contains("canary-stays"), "{listed}");
    let told = call(&mut stack.client()?, "keeper", "tell", &json!({}))?;
    ensure!(told.to_string().contains("[secret:"), "{told}");
    ensure!(
        search("the control", &hoard(stack)?, &needles).is_err(),
        "the plugin lost what it kept"
    );
    Ok(())
}

/// Searches everything that the stack wrote for one value more.
pub fn is_written_nowhere(stack: &Stack, name: &str, value: &str) -> anyhow::Result<()> {
    let needles = needles(&[(name, value)]);
    // The control: the search finds what is there to be found.
    ensure!(search("the control", value.as_bytes(), &needles).is_err());
    for (what, bytes) in written(stack)? {
        search(&what, &bytes, &needles)?;
    }
    Ok(())
}

/// Every one of these values in every spelling that is searched for.
fn needles(values: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut needles = Vec::new();
    for (name, value) in values {
        let hex = value
            .bytes()
            .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        needles.push((format!("{name}, raw"), (*value).to_owned()));
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
