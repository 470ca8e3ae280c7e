//! The age key's life: wrong and right again, another one, lost. Jobs and secrets outlive all of it.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::json;
use stack_tests::Stack;
use stack_tests::suite::Test;

pub const TESTS: &[(&str, Test)] = &[
    (
        "who_holds_secrets_cannot_be_dumped_or_swapped",
        who_holds_secrets_cannot_be_dumped_or_swapped,
    ),
    (
        "a_job_waits_while_the_vault_is_sealed",
        a_job_waits_while_the_vault_is_sealed,
    ),
    (
        "another_age_key_and_another_admin_token",
        another_age_key_and_another_admin_token,
    ),
    (
        "a_vault_that_somebody_else_put_in_place_is_refused",
        a_vault_that_somebody_else_put_in_place_is_refused,
    ),
    (
        "an_earlier_vault_that_is_put_back_is_refused",
        an_earlier_vault_that_is_put_back_is_refused,
    ),
    (
        "a_lost_vault_comes_back_from_an_export_with_a_paper_key",
        a_lost_vault_comes_back_from_an_export_with_a_paper_key,
    ),
];

fn who_holds_secrets_cannot_be_dumped_or_swapped(stack: &Stack) -> anyhow::Result<()> {
    let process = |service: &str| -> anyhow::Result<PathBuf> {
        let container = stack.inspect(&stack.service(service)?)?;
        let pid = container["State"]["Pid"].as_i64().context("no pid")?;
        Ok(PathBuf::from(format!("/proc/{pid}")))
    };
    for service in ["broker", "socket-proxy"] {
        let process = process(service)?;
        // What can be dumped and traced belongs to the process's own uid (proc(5)).
        let owner = process.join("environ").metadata()?.uid();
        ensure!(
            owner == 0,
            "{service} can be dumped: its memory is uid {owner}'s"
        );
        let limits = fs::read_to_string(process.join("limits"))?;
        let core = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"));
        let core: Vec<_> = core
            .context("no limit")?
            .split_whitespace()
            .skip(4)
            .take(2)
            .collect();
        ensure!(
            core == ["0", "0"],
            "{service} may write a core file: {core:?}"
        );
        let status = fs::read_to_string(process.join("status"))?;
        let swap = status.lines().find(|line| line.starts_with("VmSwap:"));
        let swap = swap.context("no figure")?.split_whitespace().nth(1);
        ensure!(swap == Some("0"), "{service} is on the swap: {swap:?}");
    }
    // The neighbour: one without secrets is as processes usually are.
    let owner = process("scheduler")?.join("environ").metadata()?.uid();
    ensure!(
        owner != 0,
        "no process of this machine can be dumped, so this shows nothing"
    );
    Ok(())
}

/// In place: the file is mounted by itself, and another one of its name would not be seen.
fn put_key(stack: &Stack, text: &str) -> anyhow::Result<()> {
    let path = stack.home.join("secrets/age.key");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    fs::write(&path, text)?;
    Ok(fs::set_permissions(
        &path,
        fs::Permissions::from_mode(0o400),
    )?)
}

fn a_job_waits_while_the_vault_is_sealed(stack: &Stack) -> anyhow::Result<()> {
    // Given a job that is queued, for nothing can start it now,
    stack.docker(&["stop", &stack.service("socket-proxy")?])?;
    let answer = stack.client()?.post("/plugin/echo/poll", &json!({}))?;
    ensure!(answer.status == 202, "{}", answer.text);
    let id = answer.json["job_id"]
        .as_str()
        .context("no job id")?
        .to_owned();
    // when the broker comes back with a wrong key,
    let right = fs::read_to_string(stack.home.join("secrets/age.key"))?;
    put_key(stack, &stack.bailey_ok(&["vault", "keygen"])?)?;
    stack.docker(&["restart", &stack.service("broker")?])?;
    stack.docker(&["start", &stack.service("socket-proxy")?])?;
    // then it says so,
    let said = stack.until(Duration::from_secs(30), "the broker's word", || {
        let output = stack.bailey(&["vault", "status"])?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(said.contains("sealed").then_some(said))
    })?;
    ensure!(said.contains("another key"), "{said}");
    let tried = stack.bailey(&["vault", "unseal"])?;
    ensure!(!tried.status.success(), "{tried:?}");
    // and with the right one the job runs, as if nothing had been.
    put_key(stack, &right)?;
    stack.bailey_ok(&["vault", "unseal"])?;
    stack.wait_ready()?;
    let job = stack.client()?.get(&format!("/job/{id}?wait=60s"))?;
    ensure!(job.json["status"] == "succeeded", "{}", job.text);
    Ok(())
}

/// Does something with the broker stopped, as docs/how-to/recovery.md says.
fn while_stopped(stack: &Stack, verb: &[&str]) -> anyhow::Result<String> {
    let broker = stack.service("broker")?;
    stack.docker(&["stop", &broker])?;
    let said = stack.bailey_ok(verb);
    stack.docker(&["start", &broker])?;
    stack.wait_ready()?;
    said
}

fn another_age_key_and_another_admin_token(stack: &Stack) -> anyhow::Result<()> {
    let (key, token) = (
        stack.home.join("secrets/age.key"),
        stack.home.join("secrets/cli/admin.token"),
    );
    let before = (fs::read(&key)?, fs::read(&token)?);
    // Not under a running broker,
    for verb in ["rotate-key", "rotate-admin-token"] {
        let refused = stack.bailey(&["vault", verb])?;
        let why = String::from_utf8_lossy(&refused.stderr);
        ensure!(
            refused.status.code() == Some(78) && why.contains("the broker runs"),
            "{verb}: {refused:?}"
        );
    }
    ensure!(
        (fs::read(&key)?, fs::read(&token)?) == before,
        "a refused verb changed something"
    );
    // but with it stopped: then secrets are delivered as before, and the new token commands.
    while_stopped(stack, &["vault", "rotate-key"])?;
    while_stopped(stack, &["vault", "rotate-admin-token"])?;
    let after = (fs::read(&key)?, fs::read(&token)?);
    ensure!(
        after.0 != before.0 && after.1 != before.1,
        "nothing was replaced"
    );
    for (path, uid) in [(&key, 10_005), (&token, 10_012)] {
        let metadata = path.metadata()?;
        ensure!(
            (metadata.uid(), metadata.mode() & 0o777) == (uid, 0o400),
            "{}: {metadata:?}",
            path.display()
        );
    }
    stack.make("demo")?;
    stack.bailey_ok(&["vault", "list"])?;
    // The audit log was told once it could be.
    stack.until(Duration::from_secs(30), "the records", || {
        let log = stack.audited()?;
        let told = ["vault.key_rotated", "vault.admin_token_rotated"];
        Ok(told.iter().all(|kind| log.contains(kind)).then_some(()))
    })
}

/// The vault's file on its volume.
fn vault_file(stack: &Stack) -> anyhow::Result<PathBuf> {
    let volume = format!("{}_broker-data", stack.project());
    let root = stack.docker(&["volume", "inspect", "--format", "{{.Mountpoint}}", &volume])?;
    Ok(PathBuf::from(root.trim()).join("vault.age"))
}

/// Waits until the broker, with `other` in the place of its vault, says `words` of it. After that it has its own again.
fn is_sealed_with_vault(stack: &Stack, other: &[u8], words: &str) -> anyhow::Result<()> {
    let (broker, vault) = (stack.service("broker")?, vault_file(stack)?);
    stack.docker(&["stop", &broker])?;
    let (good, owner) = (fs::read(&vault)?, vault.metadata()?);
    fs::write(&vault, other)?;
    stack.docker(&["start", &broker])?;
    let what = format!("the broker to say {words:?}");
    let said = stack.until(Duration::from_secs(30), &what, || {
        let output = stack.bailey(&["vault", "status"])?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok((said.contains("sealed") && said.contains(words)).then_some(()))
    });
    stack.docker(&["stop", &broker])?;
    fs::write(&vault, good)?;
    std::os::unix::fs::chown(&vault, Some(owner.uid()), Some(owner.gid()))?;
    stack.docker(&["start", &broker])?;
    stack.wait_ready()?;
    said
}

fn a_vault_that_somebody_else_put_in_place_is_refused(stack: &Stack) -> anyhow::Result<()> {
    // Given somebody who can write the volume and knows the public key, but has no other,
    let trust = bailey_trust::TrustFile::read(&stack.home.join("config/trust.json"))?;
    let zeros = "00".repeat(32);
    let forged = json!({
        "version": 1, "stack": trust.stack, "admin_token": zeros, "nonce": format!("{}=", "A".repeat(43)),
        "secrets": {}, "principals": {}, "tokens": {}, "lock": { "serial": 0, "next_uid": 20_000, "uids": {} },
    });
    let forged = forged.to_string();
    let rest = forged.strip_prefix('{').context("no object")?;
    let forged = format!("{{\"author\":[\"{zeros}\"],{rest}");
    // when the broker finds his vault, then it is sealed and says so,
    let forged = trust.vault.seal(forged.as_bytes())?;
    is_sealed_with_vault(stack, &forged, "it is foreign")?;
    // and with the right one all is as before.
    stack.make("demo").map(drop)
}

fn an_earlier_vault_that_is_put_back_is_refused(stack: &Stack) -> anyhow::Result<()> {
    // Given a copy of the vault from before something was revoked,
    stack.bailey_ok_with(&["vault", "set", "put_back"], "worth-a-copy")?;
    let earlier = fs::read(vault_file(stack)?)?;
    stack.bailey_ok(&["vault", "revoke", "put_back"])?;
    // when somebody puts that back, then the broker is sealed and says why,
    is_sealed_with_vault(stack, &earlier, "it is earlier than the audit log")?;
    let log = stack.audited()?;
    ensure!(log.contains("vault.earlier_refused"), "{log}");
    // and with the newest one all is as before.
    stack.make("demo").map(drop)
}

fn a_lost_vault_comes_back_from_an_export_with_a_paper_key(stack: &Stack) -> anyhow::Result<()> {
    // Given an export to a key that is on paper only,
    let work = tempfile::tempdir()?;
    let path = |name: &str| work.path().join(name).display().to_string();
    let (paper, copy) = (path("paper.key"), path("copy.age"));
    let text = stack.bailey_ok(&["vault", "keygen"])?;
    fs::write(&paper, &text)?;
    let public = text
        .split_whitespace()
        .find(|word| word.starts_with("age1"));
    let public = public.context("no public key")?;
    stack.bailey_ok(&["vault", "export", "--to", public, "--out", &copy])?;
    // when the vault is lost,
    let broker = stack.service("broker")?;
    stack.docker(&["stop", &broker])?;
    let vault = vault_file(stack)?;
    fs::remove_file(&vault)?;
    // then it is said what the export brings back, and nothing is done before somebody agrees;
    let restore = ["vault", "restore", &copy, "--identity", &paper];
    let asked = stack.bailey(&restore)?;
    let said = String::from_utf8_lossy(&asked.stdout).into_owned();
    ensure!(asked.status.code() == Some(78), "{asked:?}");
    ensure!(said.contains("good: the secret demo_key"), "{said}");
    ensure!(!vault.exists(), "it was restored unasked");
    // and it brings it back, once and not by accident twice.
    let restore = [&restore[..], &["--yes"]].concat();
    stack.bailey_ok(&restore)?;
    let again = stack.bailey(&restore)?;
    ensure!(again.status.code() == Some(78), "{again:?}");
    stack.docker(&["start", &broker])?;
    stack.wait_ready()?;
    stack.make("demo").map(drop)
}
