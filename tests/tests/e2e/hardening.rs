//! Every running container is as hard as compose/hardening.json says, the cells included.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use stack_tests::Stack;
use stack_tests::fixture::call;
use stack_tests::hardening::{Golden, Names, differences, of_inspect};
use stack_tests::suite::Test;

pub const TESTS: &[(&str, Test)] = &[
    ("every_container_is_hardened", every_container_is_hardened),
    ("a_cell_is_hardened", a_cell_is_hardened),
    (
        "a_cell_finds_nothing_around_itself",
        a_cell_finds_nothing_around_itself,
    ),
    (
        "nothing_but_ingress_local_publishes_a_port",
        nothing_but_ingress_local_publishes_a_port,
    ),
];

fn names(stack: &Stack) -> anyhow::Result<Names> {
    use std::os::unix::fs::MetadataExt as _;
    let docker_gid = std::fs::metadata("/var/run/docker.sock")?.gid();
    let home = stack.home.display().to_string();
    Ok(Names {
        home,
        project: stack.project(),
        port: 18443,
        docker_gid,
    })
}

fn every_container_is_hardened(stack: &Stack) -> anyhow::Result<()> {
    let (golden, names) = (Golden::read()?, names(stack)?);
    let project = format!("com.docker.compose.project={}", stack.project());
    let mut wrong = Vec::new();
    let mut seen = 0;
    for id in stack.containers(&[&project])? {
        let container = stack.inspect(&id)?;
        let service = container["Config"]["Labels"]["com.docker.compose.service"]
            .as_str()
            .context("no service")?
            .to_owned();
        let found = differences(
            &golden.expected(&service, &names)?,
            &of_inspect(&container, &names)?,
        );
        wrong.extend(
            found
                .into_iter()
                .map(|difference| format!("{service}: {difference}")),
        );
        let environment = container["Config"]["Env"].to_string();
        ensure!(
            !environment.contains("AGE-SECRET") && !environment.to_lowercase().contains("token"),
            "{service}: {environment}"
        );
        seen += 1;
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    ensure!(
        seen == 11,
        "{seen} containers are up: ten services and ingress-local were expected"
    );
    Ok(())
}

fn a_cell_is_hardened(stack: &Stack) -> anyhow::Result<()> {
    let (golden, names) = (Golden::read()?, names(stack)?);
    let mut client = stack.client()?;
    let answer = client.post("/plugin/hostile/slow", &json!({"payload": {"seconds": 3}}))?;
    let id = answer.json["job_id"].as_str().context("no job")?.to_owned();
    let cell = stack.until(Duration::from_secs(30), "the start of a cell", || {
        Ok(stack.cells("hostile")?.pop())
    })?;
    let container = stack.inspect(&cell)?;
    let wrong = differences(&golden.cell, &of_inspect(&container, &names)?);
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    let host = &container["HostConfig"];
    ensure!(host["Memory"] == host["MemorySwap"], "{host}");
    // A namespace of its own, or that of a holder: either has nothing but loopback.
    let network = host["NetworkMode"].as_str().context("no network mode")?;
    if let Some(holder) = network.strip_prefix("container:") {
        let holder = stack.inspect(holder)?;
        ensure!(
            holder["Config"]["Labels"]["bailey.kind"] == "holder"
                && holder["HostConfig"]["NetworkMode"] == "none",
            "{holder}"
        );
        let wrong = differences(&golden.cell, &of_inspect(&holder, &names)?);
        ensure!(wrong.is_empty(), "the holder: {}", wrong.join("\n"));
    } else {
        ensure!(network == "none", "{network}");
    }
    let options = host["SecurityOpt"].to_string();
    ensure!(
        options.contains("no-new-privileges")
            && options.contains("seccomp=")
            && !options.contains("unconfined"),
        "{options}"
    );
    let user = container["Config"]["User"].as_str().unwrap_or_default();
    ensure!(
        user.split(':')
            .next()
            .and_then(|u| u.parse::<u32>().ok())
            .is_some_and(|uid| uid >= 20_000),
        "{user}"
    );
    let done = client.get(&format!("/job/{id}?wait=60s"))?;
    ensure!(done.json["status"] == "succeeded", "{}", done.text);
    Ok(())
}

fn a_cell_finds_nothing_around_itself(stack: &Stack) -> anyhow::Result<()> {
    let done = call(&mut stack.client()?, "hostile", "surroundings", &json!({}))?;
    let found: Value = serde_json::from_str(done["result"].as_str().context("no result")?)?;
    ensure!(found["interfaces"] == json!(["lo"]), "{found}");
    ensure!(
        found["uid"].as_u64().unwrap_or(0) >= 20_000 && found["uid"] == found["gid"],
        "{found}"
    );
    for (name, set) in found["capabilities"]
        .as_object()
        .context("no capabilities")?
    {
        ensure!(set == "0000000000000000", "{name} is {set}");
    }
    ensure!(
        found["no_new_privs"] == "1" && found["seccomp"] == "2",
        "{found}"
    );
    ensure!(found["docker_socket"] == false, "{found}");
    for refused in [
        "secrets",
        "write_root",
        "write_plugin",
        "connect_out",
        "vsock",
    ] {
        ensure!(
            found[refused]
                .as_str()
                .is_some_and(|text| text.starts_with("refused")),
            "{refused}: {found}"
        );
    }
    // The permitted neighbours: a test that refuses everything would prove nothing.
    ensure!(
        found["write_tmp"] == "written" && found["unix"] == "None",
        "{found}"
    );
    let environment: BTreeSet<_> = found["environment"]
        .as_array()
        .context("no environment")?
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let suspicious: Vec<_> = environment
        .iter()
        .filter(|name| {
            name.contains("KEY")
                || name.contains("TOKEN")
                || name.contains("SECRET")
                || name.contains("BAILEY")
        })
        .collect();
    ensure!(suspicious.is_empty(), "{suspicious:?}");
    Ok(())
}

fn nothing_but_ingress_local_publishes_a_port(stack: &Stack) -> anyhow::Result<()> {
    let project = format!("com.docker.compose.project={}", stack.project());
    let mut published = 0;
    for id in stack.containers(&[&project])? {
        let container = stack.inspect(&id)?;
        let ports = container["NetworkSettings"]["Ports"]
            .as_object()
            .cloned()
            .unwrap_or_default();
        for binding in ports.values().filter_map(Value::as_array).flatten() {
            ensure!(
                container["Config"]["Labels"]["com.docker.compose.service"] == "ingress-local",
                "{binding}"
            );
            ensure!(
                binding["HostIp"] == "127.0.0.1" && binding["HostPort"] == "18443",
                "{binding}"
            );
            published += 1;
        }
    }
    ensure!(published == 1, "{published} ports are published");
    Ok(())
}
