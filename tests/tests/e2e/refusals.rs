//! What is refused, each beside its permitted neighbour, and that it is in the audit log.

use std::fs;

use anyhow::{Context as _, ensure};
use serde_json::json;
use stack_tests::Stack;
use stack_tests::fixture::call;
use stack_tests::suite::Test;

pub const TESTS: &[(&str, Test)] = &[
    (
        "a_stranger_on_the_mesh_is_refused",
        a_stranger_on_the_mesh_is_refused,
    ),
    (
        "a_wrong_enrolment_secret_is_refused",
        a_wrong_enrolment_secret_is_refused,
    ),
    (
        "only_the_runner_reaches_the_docker_api",
        only_the_runner_reaches_the_docker_api,
    ),
    (
        "a_captor_of_the_runner_makes_no_container_of_its_own",
        a_captor_of_the_runner_makes_no_container_of_its_own,
    ),
    (
        "management_sockets_answer_the_cli_only",
        management_sockets_answer_the_cli_only,
    ),
    ("an_older_lock_is_refused", an_older_lock_is_refused),
    (
        "a_bad_configuration_stops_a_service_with_its_place",
        a_bad_configuration_stops_a_service_with_its_place,
    ),
    (
        "a_token_without_the_scope_is_refused",
        a_token_without_the_scope_is_refused,
    ),
    (
        "refusals_are_in_the_audit_log",
        refusals_are_in_the_audit_log,
    ),
];

/// Runs a Python script in a container of its own: what a captured neighbour could do.
fn python(stack: &Stack, options: &[&str], script: &str) -> anyhow::Result<String> {
    let mut args = vec![
        "run",
        "--rm",
        "--entrypoint",
        "/usr/bin/python3",
        "--pull",
        "never",
    ];
    args.extend(options);
    args.extend(["bailey/base-python:current", "-c", script]);
    stack.docker(&args)
}

fn a_stranger_on_the_mesh_is_refused(stack: &Stack) -> anyhow::Result<()> {
    let network = format!("{}_mesh", stack.project());
    let script = r#"
import socket, ssl
for host in ("engine", "policy", "broker", "audit"):
    context = ssl.create_default_context(); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with socket.create_connection((host, 7000), timeout=10) as plain:
        try:
            with context.wrap_socket(plain, server_hostname=host) as tls:
                tls.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
                data = tls.recv(100)
                print(host, "answered" if data else "closed")
        except (ssl.SSLError, ConnectionError) as error:
            print(host, "refused", type(error).__name__)
# The control: the enrolment listener does speak TLS with strangers.
context = ssl.create_default_context(); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE
context.set_alpn_protocols(["h2"])
with socket.create_connection(("broker", 7001), timeout=10) as plain, context.wrap_socket(plain, server_hostname="broker") as tls:
    tls.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
    print("enrolment", "answered" if tls.recv(100) else "closed")
"#;
    let shown = python(stack, &["--network", &network], script)?;
    for host in ["engine", "policy", "broker", "audit"] {
        ensure!(
            !shown.contains(&format!("{host} answered")) && shown.contains(&format!("{host} ")),
            "{shown}"
        );
    }
    ensure!(shown.contains("enrolment answered"), "{shown}");
    Ok(())
}

fn a_wrong_enrolment_secret_is_refused(stack: &Stack) -> anyhow::Result<()> {
    // Given the real worker with another service's secret, and a trust.json that tells it that the secret is its own
    let forged = tempfile::tempdir()?;
    let secret = forged.path().join("enroll-worker");
    fs::copy(stack.home.join("secrets/enroll-scheduler"), &secret)?;
    stack
        .command("chown")
        .arg("10008:10008")
        .arg(&secret)
        .status()?;
    let config = forged.path().join("config");
    fs::create_dir(&config)?;
    for file in [
        "config.yaml",
        "plugins.yaml",
        "pipelines.yaml",
        "bailey.lock",
    ] {
        fs::copy(stack.home.join("config").join(file), config.join(file))?;
    }
    let mut trust: serde_json::Value =
        serde_json::from_slice(&fs::read(stack.home.join("config/trust.json"))?)?;
    trust["enrolment"]["worker"] = trust["enrolment"]["scheduler"].clone();
    fs::write(config.join("trust.json"), trust.to_string())?;
    let image = stack.inspect(&stack.service("worker")?)?["Image"]
        .as_str()
        .context("no image")?
        .to_owned();
    let (secret, config) = (
        format!("{}:/run/secrets/enroll-worker:ro", secret.display()),
        format!("{}:/config:ro", config.display()),
    );
    let (network, name) = (
        format!("{}_mesh", stack.project()),
        format!("{}-forged-worker", stack.project()),
    );
    // when it enrols,
    stack.docker(&[
        "run",
        "--detach",
        "--name",
        &name,
        "--network",
        &network,
        "--user",
        "10008:10008",
        "-v",
        &secret,
        "-v",
        &config,
        &image,
    ])?;
    // then the broker refuses it.
    let refused = stack.until(
        std::time::Duration::from_secs(30),
        "the broker's refusal",
        || {
            let broker = stack.service("broker")?;
            let output = stack
                .command("docker")
                .args(["logs", "--since", "1m", &broker])
                .output()?;
            let logs = String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr);
            Ok(logs.contains("refused an enrolment").then_some(()))
        },
    );
    let logs = stack.command("docker").args(["logs", &name]).output()?;
    stack.docker(&["rm", "--force", &name])?;
    refused.with_context(|| String::from_utf8_lossy(&logs.stdout).into_owned())
}

fn only_the_runner_reaches_the_docker_api(stack: &Stack) -> anyhow::Result<()> {
    let volume = format!("{}_docker-api:/run/bailey/docker", stack.project());
    let script = r#"
import socket
s = socket.socket(socket.AF_UNIX); s.settimeout(10)
try:
    s.connect("/run/bailey/docker/docker.sock")
    s.sendall(b"GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n")
    print("answer", s.recv(1000))
except OSError as error:
    print("refused", error)
"#;
    // The engine's identity is nobody there, even with the volume in its hands; the runner's is served.
    for uid in ["10002:10002", "10012:10012", "0:0"] {
        let shown = python(
            stack,
            &["--network", "none", "--user", uid, "-v", &volume],
            script,
        )?;
        ensure!(!shown.contains("200 OK"), "{uid}: {shown}");
    }
    let shown = python(
        stack,
        &["--network", "none", "--user", "10004:10004", "-v", &volume],
        script,
    )?;
    ensure!(shown.contains("200 OK"), "{shown}");
    Ok(())
}

fn a_captor_of_the_runner_makes_no_container_of_its_own(stack: &Stack) -> anyhow::Result<()> {
    let volume = format!("{}_docker-api:/run/bailey/docker", stack.project());
    let broker = stack.service("broker")?;
    let script = r#"
import json, socket, sys
def ask(method, path, body=""):
    s = socket.socket(socket.AF_UNIX); s.settimeout(10); s.connect("/run/bailey/docker/docker.sock")
    head = f"{method} {path} HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    try:
        s.sendall((head + body).encode())
    except BrokenPipeError:
        pass  # Refused before the body was read; the answer is there all the same.
    return int(s.recv(1000).split()[1])
bad = json.dumps({"Image": "bailey/base-python:current", "HostConfig": {"Binds": ["/:/host"], "Privileged": True}})
broker = sys.argv[1]
print(json.dumps({
    "own_body": ask("POST", "/containers/create?name=x", bad),
    "exec": ask("POST", f"/containers/{broker}/exec", "{}"),
    "archive": ask("GET", f"/containers/{broker}/archive?path=/run/secrets/age.key"),
    "kill_broker": ask("POST", f"/containers/{broker}/kill"),
    "inspect_broker": ask("GET", f"/containers/{broker}/json"),
    "images": ask("GET", "/images/json"),
    "volumes": ask("POST", "/volumes/create", "{}"),
    "versioned": ask("GET", "/v1.41/_ping"),
    "escaped": ask("GET", "/%5fping"),
    "slashes": ask("GET", "//_ping"),
    "ping": ask("GET", "/_ping"),
}))
"#;
    let mut args = vec![
        "run",
        "--rm",
        "--entrypoint",
        "/usr/bin/python3",
        "--network",
        "none",
        "--user",
        "10004:10004",
        "-v",
        &volume,
    ];
    args.extend(["bailey/base-python:current", "-c", script, &broker]);
    let shown = stack.docker(&args)?;
    let statuses: serde_json::Value = serde_json::from_str(shown.trim())?;
    for (name, status) in statuses.as_object().context("no answers")? {
        let status = status.as_u64().unwrap_or(0);
        if name == "ping" {
            ensure!(status == 200, "{shown}");
        } else {
            ensure!(
                (400..500).contains(&status),
                "{name} answered {status}: {shown}"
            );
        }
    }
    Ok(())
}

fn management_sockets_answer_the_cli_only(stack: &Stack) -> anyhow::Result<()> {
    // As the gateway's uid, with the socket in hand: nothing. As the CLI: the list.
    let image = stack.inspect(&stack.service("broker")?)?["Image"]
        .as_str()
        .context("no image")?
        .to_owned();
    ensure!(!image.is_empty(), "the broker has no image");
    let volume = format!(
        "{}_manage-broker:/run/bailey/manage/broker",
        stack.project()
    );
    let script = r#"
import socket
s = socket.socket(socket.AF_UNIX); s.settimeout(5)
try:
    s.connect("/run/bailey/manage/broker/manage.sock")
    s.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
    print("answer" if s.recv(100) else "closed")
except OSError as error:
    print("refused", error)
"#;
    for uid in ["10001:10001", "10002:10002"] {
        let shown = python(
            stack,
            &["--network", "none", "--user", uid, "-v", &volume],
            script,
        )?;
        ensure!(!shown.contains("answer"), "{uid}: {shown}");
    }
    let listed = stack.bailey_ok(&["vault", "list", "--json"])?;
    ensure!(listed.contains("hostile_canary"), "{listed}");
    ensure!(
        !listed.contains("canary-2f1c77d0"),
        "a value is listed: {listed}"
    );
    Ok(())
}

fn an_older_lock_is_refused(stack: &Stack) -> anyhow::Result<()> {
    let path = stack.home.join("config/bailey.lock");
    let older = fs::read(&path)?;
    let config = stack.home.join("config/config.yaml");
    fs::write(
        &config,
        fs::read_to_string(&config)? + "\n# A change, so that there is something to lock.\n",
    )?;
    stack.bailey_ok(&["config", "lock", "--yes"])?;
    let newer = fs::read(&path)?;
    ensure!(older != newer, "locking again gave the same lock");
    // Given services that have seen the newer one, when the older comes back, then no job starts;
    let mut client = stack.client()?;
    call(&mut client, "hostile", "well", &json!({}))?;
    fs::write(&path, &older)?;
    let answer = client.post("/plugin/hostile/well?wait=2s", &json!({}))?;
    let refused = answer.status >= 400 || answer.json["status"] != "succeeded";
    fs::write(&path, &newer)?;
    ensure!(refused, "a job ran under an older lock: {}", answer.text);
    // with the newer one, jobs run again.
    stack.wait_ready()?;
    call(&mut client, "hostile", "well", &json!({})).map(drop)
}

fn a_bad_configuration_stops_a_service_with_its_place(stack: &Stack) -> anyhow::Result<()> {
    let path = stack.home.join("config/plugins.yaml");
    let good = fs::read_to_string(&path)?;
    fs::write(&path, good.clone() + "  typo:\n    enabeld: true\n")?;
    let line = good.lines().count() + 2;
    let checked = stack.bailey(&["config", "check"])?;
    let restarted = stack.docker(&["restart", &stack.service("engine")?]);
    let logs = stack.until(
        std::time::Duration::from_secs(30),
        "the engine's refusal",
        || {
            let output = stack
                .command("docker")
                .args(["logs", "--tail", "20", &stack.service("engine")?])
                .output()?;
            let logs = String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr);
            Ok(logs.contains("enabeld").then_some(logs))
        },
    );
    fs::write(&path, good)?;
    let shown = String::from_utf8_lossy(&checked.stdout).into_owned()
        + &String::from_utf8_lossy(&checked.stderr);
    ensure!(
        checked.status.code() == Some(78),
        "{:?}: {shown}",
        checked.status
    );
    ensure!(
        shown.contains(&format!("plugins.yaml:{line}:")) && shown.contains("enabeld"),
        "{shown}"
    );
    restarted?;
    ensure!(
        logs?.contains(&format!("plugins.yaml:{line}:")),
        "the log gives no place"
    );
    stack.wait_ready()
}

fn a_token_without_the_scope_is_refused(stack: &Stack) -> anyhow::Result<()> {
    let token = stack.bailey_ok(&[
        "token",
        "create",
        "--name",
        "reader",
        "--scope",
        "plugin:invoke:ro",
    ])?;
    let mut reader = stack.client()?.with_token(token.trim());
    let writing = reader.post("/plugin/hostile/well", &json!({}))?;
    ensure!(writing.status == 403, "{} {}", writing.status, writing.text);
    let events = reader.post("/events", &json!({"type": "a.b"}))?;
    ensure!(events.status == 403, "{} {}", events.status, events.text);
    let reading = call(&mut reader, "hostile", "surroundings", &json!({}))?;
    ensure!(reading["status"] == "succeeded", "{reading}");
    Ok(())
}

fn refusals_are_in_the_audit_log(stack: &Stack) -> anyhow::Result<()> {
    stack.until(
        std::time::Duration::from_secs(30),
        "the refusals in the log",
        || {
            let all = stack.audited()?;
            let wanted = [
                "create.refused",
                "enrol.refused",
                "decision.allowed",
                "ticket.made",
                "lock.signed",
            ];
            ensure!(
                !all.contains("canary-2f1c77d0"),
                "a secret's value is in the audit log"
            );
            Ok(wanted.iter().all(|kind| all.contains(kind)).then_some(()))
        },
    )
}
