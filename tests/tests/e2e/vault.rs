//! The operator's whole life with secrets, over the CLI and what the plugins then get.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use stack_tests::Stack;
use stack_tests::fixture::{self, call};
use stack_tests::suite::Test;

pub const TESTS: &[(&str, Test)] = &[
    (
        "a_secret_that_is_set_rolled_and_revoked_is_what_the_next_call_gets",
        a_secret_that_is_set_rolled_and_revoked_is_what_the_next_call_gets,
    ),
    (
        "the_broker_makes_values_that_nobody_sees",
        the_broker_makes_values_that_nobody_sees,
    ),
    (
        "config_refers_to_secrets_and_fails_without_them",
        config_refers_to_secrets_and_fails_without_them,
    ),
    (
        "what_runs_in_the_name_of_a_revoked_principal_fails",
        what_runs_in_the_name_of_a_revoked_principal_fails,
    ),
    (
        "an_import_is_previewed_and_reports_what_is_missing",
        an_import_is_previewed_and_reports_what_is_missing,
    ),
    (
        "a_revoked_token_is_refused_at_once",
        a_revoked_token_is_refused_at_once,
    ),
    (
        "without_a_token_only_health_is_served_until_there_is_one_again",
        without_a_token_only_health_is_served_until_there_is_one_again,
    ),
];

/// The fixture under three names: with secrets of its own, with a config that refers to some, and to be revoked.
const KEEPERS: &str = r"
  keeper:
    enabled: true
    run_as: default
    retry: {max_attempts: 1}
    container: {warm: 0, state: data}
  keeper_ref:
    enabled: true
    uses: keeper
    run_as: default
    retry: {max_attempts: 1}
    config: {token: {secret_ref: ref-token}, list: [1, {deep: {secret_ref: ref-deep}}], plain: kept}
    container: {warm: 0}
  keeper_gone:
    enabled: true
    uses: keeper
    run_as: default
    retry: {max_attempts: 1}
    requires_vault: true
    container: {warm: 0}
";

/// Configures and locks the keepers, once.
pub fn keepers(stack: &Stack) -> anyhow::Result<()> {
    // The plugin's folder may be there from an earlier run; the configuration is made anew.
    let path = stack.home.join("config/plugins.yaml");
    if std::fs::read_to_string(path)?.contains("keeper:") {
        return Ok(());
    }
    fixture::add(stack, &["keeper"], KEEPERS)?;
    fixture::lock(stack)
}

/// What a keeper was given, as hashes.
fn shown(stack: &Stack, plugin: &str) -> anyhow::Result<Value> {
    let done = call(&mut stack.client()?, plugin, "show", &json!({}))?;
    let result = done["result"].as_str().with_context(|| done.to_string())?;
    Ok(serde_json::from_str(result)?)
}

/// Why a call of a keeper failed.
fn failure(stack: &Stack, plugin: &str) -> anyhow::Result<String> {
    let done = call(&mut stack.client()?, plugin, "show", &json!({}))?;
    ensure!(done["status"] != "succeeded", "it ran: {done}");
    Ok(done["last_error"].to_string())
}

fn sha256(text: &str) -> String {
    bailey_types::Sha256::of(text.as_bytes()).to_string()
}

fn audit(stack: &Stack) -> anyhow::Result<Vec<Value>> {
    let shown = stack.bailey_ok(&["vault", "audit", "--limit", "500", "--json"])?;
    Ok(serde_json::from_str(&shown)?)
}

fn is_recorded(stack: &Stack, kind: &str, is: impl Fn(&Value) -> bool) -> anyhow::Result<()> {
    let limit = std::time::Duration::from_secs(10);
    // What happened is recorded as soon as audit takes it, which may be a moment later.
    stack.until(limit, &format!("a record {kind}"), || {
        let entries = audit(stack)?;
        let mut of_kind = entries.iter().filter(|entry| entry["kind"] == kind);
        Ok(of_kind.any(|entry| is(&entry["fields"])).then_some(()))
    })
}

fn a_secret_that_is_set_rolled_and_revoked_is_what_the_next_call_gets(
    stack: &Stack,
) -> anyhow::Result<()> {
    keepers(stack)?;
    let (first, second) = ("keeper-first-value", "keeper-second-value");
    fixture::seal_secret(stack, "life", first, "keeper")?;
    ensure!(shown(stack, "keeper")?["secrets"]["life"] == sha256(first));
    stack.bailey_ok_with(&["vault", "roll", "life"], second)?;
    ensure!(shown(stack, "keeper")?["secrets"]["life"] == sha256(second));
    // `set` does not change it.
    let again = stack.bailey_with(&["vault", "set", "life", "--grant", "keeper"], first)?;
    let said = String::from_utf8_lossy(&again.stderr);
    ensure!(!again.status.success() && said.contains("roll"), "{said}");
    ensure!(shown(stack, "keeper")?["secrets"]["life"] == sha256(second));
    let described = stack.bailey_ok(&["vault", "describe", "life", "--json"])?;
    let described: Value = serde_json::from_str(&described)?;
    ensure!(
        described["roll_count"] == 1 && described["pattern"] == "manual",
        "{described}"
    );
    stack.bailey_ok(&["vault", "revoke", "life"])?;
    ensure!(shown(stack, "keeper")?["secrets"]["life"].is_null());
    is_recorded(stack, "ticket.made", |fields| {
        fields["plugin"] == "keeper" && fields["secret_revoked"] == json!(["life"])
    })?;
    let again = stack.bailey_with(&["vault", "set", "life"], first)?;
    let said = String::from_utf8_lossy(&again.stderr);
    ensure!(
        !again.status.success() && said.contains("cannot be used again"),
        "{said}"
    );
    is_recorded(stack, "vault.refused", |fields| {
        fields["reason"] == "secret_revoked"
    })
}

fn the_broker_makes_values_that_nobody_sees(stack: &Stack) -> anyhow::Result<()> {
    keepers(stack)?;
    let set = [
        "vault",
        "set",
        "made",
        "--generate",
        "--length",
        "24",
        "--alphabet",
        "hex",
    ];
    stack.bailey_ok(&[&set[..], &["--grant", "keeper"]].concat())?;
    let before = shown(stack, "keeper")?["secrets"]["made"].clone();
    ensure!(before.is_string());
    fixture::seal_secret(stack, "typed", "typed-value", "keeper")?;
    let rolled = stack.bailey_ok(&["vault", "roll-principal", "keeper", "--json"])?;
    let rolled: Value = serde_json::from_str(&rolled)?;
    ensure!(
        rolled["rolled"] == json!(["made"]) && rolled["skipped"] == json!(["typed"]),
        "{rolled}"
    );
    let after = shown(stack, "keeper")?;
    ensure!(after["secrets"]["made"] != before, "{after}");
    ensure!(
        after["secrets"]["typed"] == sha256("typed-value"),
        "{after}"
    );
    // Both ways round: what a principal may have, and who may have a secret.
    let grants = stack.bailey_ok(&["vault", "grants", "--json"])?;
    let grants: Value = serde_json::from_str(&grants)?;
    let of = |list: &str, key: &str, name: &str| {
        let entries = grants[list].as_array();
        let mut entries = entries.into_iter().flatten();
        entries.find(|entry| entry[key] == name).cloned()
    };
    let keeper = of("principals", "principal", "keeper").context("keeper is not listed")?;
    let held = keeper["secrets"].as_array().context("no secrets")?;
    ensure!(
        held.contains(&json!("made")) && held.contains(&json!("typed")),
        "{keeper}"
    );
    let typed = of("secrets", "secret", "typed").context("typed is not listed")?;
    ensure!(typed["principals"] == json!(["keeper"]), "{typed}");
    Ok(())
}

fn config_refers_to_secrets_and_fails_without_them(stack: &Stack) -> anyhow::Result<()> {
    keepers(stack)?;
    let failed = failure(stack, "keeper_ref")?;
    ensure!(failed.contains("requires_vault"), "{failed}");
    for (name, value) in [
        ("ref-token", "the-token-value"),
        ("ref-deep", "the-deep-value"),
    ] {
        fixture::seal_secret(stack, name, value, "keeper_ref")?;
    }
    let found = shown(stack, "keeper_ref")?;
    ensure!(
        found["config"]["/token"] == sha256("the-token-value"),
        "{found}"
    );
    ensure!(
        found["config"]["/list/1/deep"] == sha256("the-deep-value"),
        "{found}"
    );
    ensure!(found["config"]["/plain"] == sha256("kept"), "{found}");
    // What comes of config does not come back either.
    let told = call(&mut stack.client()?, "keeper_ref", "tell", &json!({}))?.to_string();
    ensure!(!told.contains("the-token-value"), "{told}");
    let take_back = ["vault", "set", "ref-deep", "--keep-value", "--no-grants"];
    stack.bailey_ok(&take_back)?;
    let failed = failure(stack, "keeper_ref")?;
    ensure!(failed.contains("principal_not_authorized"), "{failed}");
    is_recorded(stack, "ticket.refused", |fields| {
        fields["plugin"] == "keeper_ref" && fields["reason"] == "principal_not_authorized"
    })?;
    let give_again = [
        "vault",
        "set",
        "ref-deep",
        "--keep-value",
        "--grant",
        "keeper_ref",
    ];
    stack.bailey_ok(&give_again)?;
    shown(stack, "keeper_ref").map(drop)
}

fn what_runs_in_the_name_of_a_revoked_principal_fails(stack: &Stack) -> anyhow::Result<()> {
    keepers(stack)?;
    fixture::seal_secret(stack, "gone", "gone-value", "keeper_gone")?;
    ensure!(shown(stack, "keeper_gone")?["secrets"]["gone"] == sha256("gone-value"));
    stack.bailey_ok(&["vault", "revoke-principal", "keeper_gone"])?;
    let failed = failure(stack, "keeper_gone")?;
    ensure!(failed.contains("principal_revoked"), "{failed}");
    is_recorded(stack, "ticket.refused", |fields| {
        fields["reason"] == "principal_revoked"
    })?;
    // Purged it is unknown, which `requires_vault` does not let pass; registered again it has no grants.
    stack.bailey_ok(&["vault", "purge-principal", "keeper_gone"])?;
    let failed = failure(stack, "keeper_gone")?;
    ensure!(failed.contains("requires_vault"), "{failed}");
    stack.bailey_ok(&["vault", "register-principal", "keeper_gone"])?;
    ensure!(shown(stack, "keeper_gone")?["secrets"] == json!({}));
    Ok(())
}

fn an_import_is_previewed_and_reports_what_is_missing(stack: &Stack) -> anyhow::Result<()> {
    keepers(stack)?;
    let file = tempfile::tempdir()?;
    let path = file.path().join("legacy.env");
    std::fs::write(
        &path,
        "IMPORT_ONE='one value'\nexport IMPORT_TWO=two\nBAD-=x\n",
    )?;
    let path = path.to_str().context("path")?;
    let report = |args: &[&str]| -> anyhow::Result<Value> {
        let shown = stack.bailey_ok(&[&["vault", "import", path, "--json"], args].concat())?;
        Ok(serde_json::from_str(&shown)?)
    };
    let preview = report(&["--grant", "keeper"])?;
    ensure!(preview["applied"] == false, "{preview}");
    ensure!(preview["secrets"][0]["name"] == "import_one", "{preview}");
    ensure!(preview["secrets"][2]["outcome"] == "skipped", "{preview}");
    ensure!(shown(stack, "keeper")?["secrets"]["import_one"].is_null());
    let done = report(&["--grant", "keeper", "--apply"])?;
    ensure!(done["secrets"] == preview["secrets"], "{done}");
    let found = shown(stack, "keeper")?;
    ensure!(
        found["secrets"]["import_one"] == sha256("one value"),
        "{found}"
    );
    ensure!(found["secrets"]["import_two"] == sha256("two"), "{found}");
    // Twice is once, and what a locked plugin cannot do without is named.
    stack.bailey_ok(&["vault", "set", "ref-token", "--keep-value", "--no-grants"])?;
    let again = report(&["--apply"])?;
    ensure!(again["secrets"][0]["outcome"] == "skipped", "{again}");
    ensure!(
        again["missing"].to_string().contains("ref-token"),
        "{again}"
    );
    let give_again = [
        "vault",
        "set",
        "ref-token",
        "--keep-value",
        "--grant",
        "keeper_ref",
    ];
    stack.bailey_ok(&give_again).map(drop)
}

fn a_revoked_token_is_refused_at_once(stack: &Stack) -> anyhow::Result<()> {
    let create = [
        "token",
        "create",
        "--name",
        "short-lived",
        "--scope",
        "jobs:ro",
    ];
    let token = stack.bailey_ok(&create)?;
    let mut client = stack.client()?.with_token(token.trim());
    let answer = client.get("/jobs")?;
    ensure!(answer.status == 200, "{}", answer.text);
    let listed = stack.bailey_ok(&["token", "list"])?;
    ensure!(listed.contains("short-lived"), "{listed}");
    stack.bailey_ok(&["token", "revoke", "short-lived"])?;
    let answer = client.get("/jobs")?;
    ensure!(answer.status == 401, "{}: {}", answer.status, answer.text);
    let answer = stack.client()?.get("/jobs")?;
    ensure!(answer.status == 200, "the operator's own: {}", answer.text);
    Ok(())
}

fn without_a_token_only_health_is_served_until_there_is_one_again(
    stack: &Stack,
) -> anyhow::Result<()> {
    // Given a stack whose last token is revoked
    let listed = stack.bailey_ok(&["token", "list", "--json"])?;
    let listed: Vec<Value> = serde_json::from_str(&listed)?;
    for token in &listed {
        let name = token["name"].as_str().context("no name")?;
        stack.bailey_ok(&["token", "revoke", name])?;
    }
    // Then the gateway says so and serves nothing else, within the second for which it believes that there is one,
    let mut client = stack.client()?;
    let limit = std::time::Duration::from_secs(5);
    stack.until(limit, "the posture management-only", || {
        let page = client.get("/")?;
        Ok((page.status == 503).then_some(()))
    })?;
    for path in ["/", "/plugins", "/jobs", "/openapi.json"] {
        let answer = client.get(path)?;
        ensure!(answer.status == 503, "{path}: {}", answer.text);
        ensure!(
            answer.json["type"] == "/problems/management-only",
            "{}",
            answer.text
        );
    }
    let health = client.get("/healthz")?;
    ensure!(health.status == 503, "{}", health.text);
    ensure!(
        health.json["api_posture"] == "management-only",
        "{}",
        health.text
    );
    let status = stack.bailey(&["status"])?;
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    ensure!(status.contains("management-only"), "{status}");
    // and the first token opens it again at once.
    let create = ["token", "create", "--name", "operator", "--scope", "*"];
    let token = stack.bailey_ok(&create)?;
    let path = stack.home.join("secrets/api.token");
    std::fs::remove_file(&path)?;
    std::fs::write(&path, token)?;
    let done = call(&mut stack.client()?, "hostile", "well", &json!({}))?;
    ensure!(done["result"] == "well", "{done}");
    stack.wait_ready()
}
