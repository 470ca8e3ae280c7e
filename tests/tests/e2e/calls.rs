//! Calls through the API: plugins as people publish them, and plugins that break the protocol.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::json;
use stack_tests::fixture::{self, call};
use stack_tests::suite::Test;
use stack_tests::{Stack, checkout};

pub const TESTS: &[(&str, Test)] = &[
    (
        "a_published_v2_plugin_runs_unmodified",
        a_published_v2_plugin_runs_unmodified,
    ),
    ("a_static_plugin_answers", a_static_plugin_answers),
    (
        "first_party_plugins_run_in_their_cells",
        first_party_plugins_run_in_their_cells,
    ),
    ("fetch_gets_a_document", fetch_gets_a_document),
    (
        "a_plugin_that_breaks_the_protocol_fails_alone",
        a_plugin_that_breaks_the_protocol_fails_alone,
    ),
    ("a_plugin_that_hangs_is_ended", a_plugin_that_hangs_is_ended),
    (
        "a_secret_that_a_plugin_tells_is_scrubbed",
        a_secret_that_a_plugin_tells_is_scrubbed,
    ),
    (
        "what_a_plugin_says_beside_its_answer_is_kept",
        what_a_plugin_says_beside_its_answer_is_kept,
    ),
    (
        "events_are_followed_from_where_a_client_was",
        events_are_followed_from_where_a_client_was,
    ),
    ("every_route_wants_a_token", every_route_wants_a_token),
    (
        "what_the_api_does_not_take_is_refused_clearly",
        what_the_api_does_not_take_is_refused_clearly,
    ),
    (
        "the_front_door_has_a_page_for_people",
        the_front_door_has_a_page_for_people,
    ),
];

/// Configuration of the fixtures, appended to the starter's plugins.
const FIXTURES: &str = r"
  handshake:
    enabled: true
    run_as: default
    config: {salt: pepper, challenge: knock}
  hostile:
    enabled: true
    run_as: default
    retry: {max_attempts: 1}
    timeouts: {hangs: 2s, ignores_sigterm: 2s}
    # No cell stands ready, so that what is there was left there.
    container: {warm: 0}
  # The same plugin with attempts to lose.
  steady:
    enabled: true
    uses: hostile
    run_as: default
    retry: {max_attempts: 4, backoff_base: 1s}
    container: {warm: 0}
  # The first-party plugin, in a cell that has something to fetch.
  fetch_loopback:
    enabled: true
    run_as: default
    config: {allow_hosts: ['127.0.0.1:8000']}
";

/// Configures and locks the fixtures.
pub fn add_fixtures(stack: &Stack) -> anyhow::Result<()> {
    // The folder beside it is the fixture's; this file of it is the first-party plugin itself.
    let loopback = fixture::root(stack).join("fetch_loopback");
    fs::create_dir_all(&loopback)?;
    fs::copy(
        checkout().join("plugins/fetch/run.py"),
        loopback.join("fetch.py"),
    )?;
    fixture::add(stack, &["handshake", "hostile", "fetch_loopback"], FIXTURES)?;
    fixture::seal_secret(stack, "hostile_canary", CANARY, "hostile")?;
    fixture::lock(stack)
}

pub const CANARY: &str = "canary-2f1c77d0-not-to-be-seen";

fn a_published_v2_plugin_runs_unmodified(stack: &Stack) -> anyhow::Result<()> {
    let mut client = stack.client()?;
    // SHA-256 of "knockpepper" and "whopepper", by sha256sum.
    let polled = call(&mut client, "handshake", "poll", &json!({}))?;
    ensure!(polled["result"] == sha256("knockpepper"), "{polled}");
    let asked = call(
        &mut client,
        "handshake",
        "poll",
        &json!({"challenge": "who"}),
    )?;
    ensure!(asked["result"] == sha256("whopepper"), "{asked}");
    ensure!(
        asked["logs"][0]["message"] == "answered 2 times",
        "its state was not kept: {asked}"
    );
    let handled = call(
        &mut client,
        "handshake",
        "handle",
        &json!({"challenge": "event"}),
    )?;
    ensure!(handled["result"] == sha256("eventpepper"), "{handled}");
    Ok(())
}

fn sha256(text: &str) -> String {
    bailey_types::Sha256::of(text.as_bytes()).to_string()
}

fn a_static_plugin_answers(stack: &Stack) -> anyhow::Result<()> {
    let done = call(
        &mut stack.client()?,
        "echo",
        "poll",
        &json!({"what": "a static binary"}),
    )?;
    ensure!(done["status"] == "succeeded", "{done}");
    Ok(())
}

fn first_party_plugins_run_in_their_cells(stack: &Stack) -> anyhow::Result<()> {
    let mut client = stack.client()?;
    for plugin in ["echo", "greet", "folder_watch", "sys_exec", "fetch"] {
        let done = call(&mut client, plugin, "health", &json!({}))?;
        ensure!(done["status"] == "succeeded", "{plugin}: {done}");
    }
    // What the starter configuration has them do, on what is in their images.
    let watched = call(&mut client, "folder_watch", "poll", &json!({}))?;
    ensure!(watched["status"] == "succeeded", "{watched}");
    let executed = call(&mut client, "sys_exec", "poll", &json!({}))?;
    ensure!(executed["status"] == "succeeded", "{executed}");
    Ok(())
}

/// A cell has loopback only: the document's server stands in the same cell, started by the fixture before fetch's own code.
fn fetch_gets_a_document(stack: &Stack) -> anyhow::Result<()> {
    let mut client = stack.client()?;
    // Given a document of 17 bytes, when fetch is asked for it,
    let url = "http://127.0.0.1:8000/document.txt";
    let got = call(&mut client, "fetch_loopback", "fetch", &json!({"url": url}))?;
    // then it answers with the document, in its result and in its event.
    ensure!(
        got["result"] == format!("{url} answered 200 with 17 bytes"),
        "{got}"
    );
    let events = stack.events("fetch.completed", "0")?;
    ensure!(events.contains("fetched in a cell"), "{events}");
    // What its configuration does not list, it refuses, though it could be reached;
    let port = call(
        &mut client,
        "fetch_loopback",
        "fetch",
        &json!({"url": "http://127.0.0.1:8001/document.txt"}),
    )?;
    ensure!(
        port["status"] != "succeeded" && port.to_string().contains("not public"),
        "{port}"
    );
    // and a document that is not there fails the call.
    let missing = call(
        &mut client,
        "fetch_loopback",
        "fetch",
        &json!({"url": "http://127.0.0.1:8000/nothing"}),
    )?;
    ensure!(
        missing["status"] != "succeeded" && missing.to_string().contains("answered 404"),
        "{missing}"
    );
    Ok(())
}

fn a_plugin_that_breaks_the_protocol_fails_alone(stack: &Stack) -> anyhow::Result<()> {
    let mut client = stack.client()?;
    for command in [
        "no_json",
        "two_documents",
        "flood",
        "nothing",
        "dies",
        "config_error",
    ] {
        let done = call(&mut client, "hostile", command, &json!({}))?;
        ensure!(
            done["status"] != "succeeded" && !done["last_error"].is_null(),
            "{command}: {done}"
        );
        stack
            .wait_no_cells("hostile")
            .with_context(|| format!("{command} left its container behind"))?;
        let well = call(&mut client, "hostile", "well", &json!({}))?;
        ensure!(well["result"] == "well", "after {command}: {well}");
    }
    let dead = call(&mut client, "hostile", "dies", &json!({}))?;
    ensure!(
        dead["stderr"]
            .as_str()
            .unwrap_or_default()
            .contains("about to die"),
        "{dead}"
    );
    Ok(())
}

fn a_plugin_that_hangs_is_ended(stack: &Stack) -> anyhow::Result<()> {
    let mut client = stack.client()?;
    for command in ["hangs", "ignores_sigterm"] {
        let done = call(&mut client, "hostile", command, &json!({}))?;
        ensure!(
            matches!(done["status"].as_str(), Some("timed_out" | "dead")),
            "{command}: {done}"
        );
        ensure!(
            done["transitions"]
                .as_array()
                .is_none_or(|all| all.len() < 10),
            "{done}"
        );
        stack
            .wait_no_cells("hostile")
            .with_context(|| format!("{command} left its container behind"))?;
    }
    Ok(())
}

fn a_secret_that_a_plugin_tells_is_scrubbed(stack: &Stack) -> anyhow::Result<()> {
    let told = call(&mut stack.client()?, "hostile", "tells", &json!({}))?;
    let text = told.to_string();
    ensure!(!text.contains(CANARY), "the secret came back: {text}");
    ensure!(
        told["result"]
            .as_str()
            .unwrap_or_default()
            .contains("hostile_canary"),
        "the plugin had no secret: {text}"
    );
    let told = call(&mut stack.client()?, "hostile", "complains", &json!({}))?;
    let text = told.to_string();
    ensure!(!text.contains(CANARY), "the secret came back: {text}");
    ensure!(
        told["stderr"]
            .as_str()
            .unwrap_or_default()
            .contains("hostile_canary"),
        "{text}"
    );
    Ok(())
}

fn what_a_plugin_says_beside_its_answer_is_kept(stack: &Stack) -> anyhow::Result<()> {
    // The answer does not wait for it, so the record may have it a moment later.
    let mut client = stack.client()?;
    let ended = call(&mut client, "hostile", "chats", &json!({}))?;
    ensure!(ended["result"] == "well", "{ended}");
    let id = ended["job_id"].as_str().context("no job")?;
    let job = stack.until(Duration::from_secs(15), "the plugin's ten lines", || {
        let job = client.get(&format!("/job/{id}"))?.json;
        let lines = job["stderr"].as_str().unwrap_or_default().lines().count();
        Ok((lines == 10).then_some(job))
    })?;
    ensure!(job["status"] == "succeeded", "{job}");
    ensure!(
        job["attempts"][0]["start"] == "cold" || job["attempts"][0]["start"] == "held",
        "{job}"
    );
    let shown = stack.bailey_ok(&["job", "inspect", id])?;
    ensure!(shown.contains("Attempts:"), "{shown}");
    let told = stack.bailey_ok(&["job", "logs", id])?;
    ensure!(told.contains("line 10"), "{told}");
    Ok(())
}

fn events_are_followed_from_where_a_client_was(stack: &Stack) -> anyhow::Result<()> {
    // Given two events, when a client comes back with the id of the first
    let mut client = stack.client()?;
    let first = client.post(
        "/events",
        &json!({"type": "e2e.first", "payload": {"n": 1}}),
    )?;
    ensure!(first.status == 202, "{}", first.text);
    client.post(
        "/events",
        &json!({"type": "e2e.second", "payload": {"n": 2}}),
    )?;
    let all = stack.events("e2e.*", "0")?;
    let id = all
        .lines()
        .find_map(|line| {
            line.strip_prefix("id: ")
                .or_else(|| line.strip_prefix("id:"))
        })
        .context("no event")?
        .trim()
        .to_owned();
    ensure!(
        all.contains("e2e.first") && all.contains("e2e.second"),
        "{all}"
    );
    // Then the second comes, and the first does not.
    let rest = stack.events("e2e.*", &id)?;
    ensure!(
        !rest.contains("e2e.first") && rest.contains("e2e.second"),
        "{rest}"
    );
    Ok(())
}

fn every_route_wants_a_token(stack: &Stack) -> anyhow::Result<()> {
    let mut client = stack.client()?;
    let document = client.get("/openapi.json")?.json;
    let mut stranger = stack.client()?.with_token("");
    let mut forger = stack.client()?.with_token("bly_not-a-token");
    let paths = document["paths"].as_object().context("no paths")?;
    let mut refused = 0;
    for (path, methods) in paths {
        for method in methods
            .as_object()
            .context("no methods")?
            .keys()
            .map(|method| method.to_uppercase())
        {
            if path == "/healthz" {
                continue;
            }
            let path = path
                .replace("{plugin}", "echo")
                .replace("{command}", "poll")
                .replace("{name}", "model")
                .replace("{id}", "0");
            let body = if path == "/events" {
                r#"{"type":"a.b"}"#
            } else {
                "{}"
            };
            for client in [&mut stranger, &mut forger] {
                let body = if method == "POST" { body } else { "" };
                let answer = client.send(
                    &method,
                    &path,
                    &[("content-type", "application/json")],
                    body.into(),
                )?;
                ensure!(
                    answer.status == 401,
                    "{method} {path} answered {}: {}",
                    answer.status,
                    answer.text
                );
                refused += 1;
            }
        }
    }
    ensure!(refused >= 14, "only {refused} were tried");
    Ok(())
}

fn what_the_api_does_not_take_is_refused_clearly(stack: &Stack) -> anyhow::Result<()> {
    let mut client = stack.client()?;
    let cases: [(&str, &str, &str, u16); 9] = [
        ("POST", "/plugin/nobody/poll", "{}", 400),
        ("POST", "/plugin/echo/nothing", "{}", 400),
        ("POST", "/plugin/echo/poll", r#"{"payload": []}"#, 400),
        (
            "POST",
            "/plugin/echo/poll",
            r#"{"payload": {"a":1,"a":2}}"#,
            400,
        ),
        (
            "POST",
            "/plugin/echo/poll",
            r#"{"payload": {}, "other": 1}"#,
            400,
        ),
        ("POST", "/plugin/echo/poll?wait=1h", "{}", 400),
        ("POST", "/events", r#"{"type": "not a type"}"#, 400),
        ("DELETE", "/jobs", "", 405),
        ("GET", "/nowhere", "", 404),
    ];
    for (method, path, body, status) in cases {
        let answer = client.send(method, path, &[], body.into())?;
        ensure!(
            answer.status == status,
            "{method} {path} {body}: {} {}",
            answer.status,
            answer.text
        );
        let kind = answer
            .headers
            .get("content-type")
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default();
        ensure!(
            kind == "application/problem+json" && !answer.json["detail"].is_null(),
            "{method} {path}: {}",
            answer.text
        );
    }
    let large = format!(r#"{{"payload":{{"x":"{}"}}}}"#, "x".repeat(2 << 20));
    let answer = client.send("POST", "/plugin/echo/poll", &[], large.into())?;
    ensure!(answer.status == 413, "{}", answer.text);
    Ok(())
}

fn the_front_door_has_a_page_for_people(stack: &Stack) -> anyhow::Result<()> {
    let mut client = stack.client()?.with_token("");
    let page = client.send("GET", "/", &[("accept", "text/html,*/*;q=0.8")], "".into())?;
    ensure!(
        page.status == 200
            && page.text.contains("<h1>Bailey</h1>")
            && page.text.contains("socket-proxy"),
        "{}",
        page.text
    );
    let program = client.get("/")?;
    ensure!(program.json["name"] == "bailey", "{}", program.text);
    // A job's time must not be needed by the page: it is shown within its limit even while nothing runs.
    stack.until(Duration::from_secs(30), "a healthy stack", || {
        Ok((client.get("/healthz")?.status == 200).then_some(()))
    })
}
