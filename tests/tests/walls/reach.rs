//! What a cell can reach: files, sockets, networks, processes.

use std::fs;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use stack_tests::Stack;
use stack_tests::fixture::{call, observed};
use stack_tests::suite::Test;

use crate::control::{CELL, Control, Running, in_cell};

pub const TESTS: &[(&str, Test)] = &[
    (
        "the_stacks_secrets_are_not_there",
        the_stacks_secrets_are_not_there,
    ),
    (
        "the_engines_database_is_not_there",
        the_engines_database_is_not_there,
    ),
    (
        "the_environment_and_memory_of_services_are_not_there",
        the_environment_and_memory_of_services_are_not_there,
    ),
    (
        "a_secret_comes_to_its_plugin_only",
        a_secret_comes_to_its_plugin_only,
    ),
    (
        "the_sockets_of_the_stack_are_not_there",
        the_sockets_of_the_stack_are_not_there,
    ),
    ("no_service_is_reached", no_service_is_reached),
    ("nothing_outside_is_reached", nothing_outside_is_reached),
    ("another_cell_is_not_reached", another_cell_is_not_reached),
    (
        "the_root_file_system_is_not_written",
        the_root_file_system_is_not_written,
    ),
    (
        "the_kernels_settings_are_not_written",
        the_kernels_settings_are_not_written,
    ),
];

fn all(found: &Value, paths: &[&str], refusals: &[&str]) -> bool {
    let refused = |path: &&str| refusals.iter().any(|refusal| found[*path] == *refusal);
    paths.iter().all(refused)
}

fn sha256(bytes: &[u8]) -> String {
    bailey_types::Sha256::of(bytes).to_string()
}

fn the_stacks_secrets_are_not_there(stack: &Stack) -> anyhow::Result<()> {
    let secrets = stack.home.join("secrets");
    let paths = [
        "/run/secrets",
        "/run/secrets/age.key",
        "/run/secrets/enroll-runner",
        "/config/trust.json",
    ];
    let payload = json!({"paths": paths});
    let cell = in_cell(stack, "read", &payload)?;
    ensure!(all(&cell, &paths, &["ENOENT"]), "in a cell: {cell}");
    // The control is the broker's uid with the broker's mounts.
    let control = Control {
        user: "10005:10005",
        more: &[
            "--volume",
            &format!(
                "{}:/run/secrets/age.key:ro",
                secrets.join("age.key").display()
            ),
            "--volume",
            &format!("{}:/config:ro", stack.home.join("config").display()),
        ],
        ..CELL
    };
    let elsewhere = control.observes(stack, "read", &payload)?;
    let key = sha256(&fs::read(secrets.join("age.key"))?);
    ensure!(
        elsewhere["/run/secrets/age.key"] == key,
        "the control: {elsewhere}"
    );
    let trust = sha256(&fs::read(stack.home.join("config/trust.json"))?);
    ensure!(
        elsewhere["/config/trust.json"] == trust,
        "the control: {elsewhere}"
    );
    Ok(())
}

fn the_engines_database_is_not_there(stack: &Stack) -> anyhow::Result<()> {
    let database = database_of_the_engine(stack)?;
    let payload = json!({"paths": ["/data", database]});
    let cell = in_cell(stack, "read", &payload)?;
    ensure!(
        all(&cell, &["/data", &database], &["ENOENT"]),
        "in a cell: {cell}"
    );
    let volume = format!("{}_engine-data:/data:ro", stack.project());
    let control = Control {
        user: "10002:10002",
        more: &["--volume", &volume],
        ..CELL
    };
    let elsewhere = control.observes(stack, "read", &payload)?;
    let hash = elsewhere[&database].as_str().unwrap_or_default();
    ensure!(hash.len() == 64, "the control: {elsewhere}");
    Ok(())
}

/// Where the engine's container has it.
fn database_of_the_engine(stack: &Stack) -> anyhow::Result<String> {
    let volume = format!("{}_engine-data", stack.project());
    let folder = stack.docker(&["volume", "inspect", "--format", "{{.Mountpoint}}", &volume])?;
    let names = fs::read_dir(folder.trim())?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .find(|name| {
            std::path::Path::new(name)
                .extension()
                .is_some_and(|extension| extension == "db" || extension == "sqlite")
        });
    Ok(format!(
        "/data/{}",
        names.context("the engine has no database")?
    ))
}

fn the_environment_and_memory_of_services_are_not_there(stack: &Stack) -> anyhow::Result<()> {
    let pid = stack.inspect(&stack.service("engine")?)?["State"]["Pid"]
        .as_u64()
        .context("no pid")?;
    // The container's id is its host name: in the environment of this service and of nothing else.
    let environment = fs::read(format!("/proc/{pid}/environ"))?;
    let environment = String::from_utf8_lossy(&environment);
    let marker = environment
        .split('\0')
        .find(|variable| variable.starts_with("HOSTNAME="));
    let payload = json!({"pid": pid, "marker": marker.context("no HOSTNAME")?});
    let cell = in_cell(stack, "processes", &payload)?;
    ensure!(
        ["mem", "environ", "root"]
            .iter()
            .all(|file| cell[*file] == "ENOENT"),
        "in a cell: {cell}"
    );
    ensure!(
        cell["processes"].as_u64().is_some_and(|n| n <= 3),
        "in a cell: {cell}"
    );
    // The control sees the host's processes, and is root.
    let control = Control {
        user: "0:0",
        capabilities: &["SYS_PTRACE", "DAC_READ_SEARCH"],
        more: &["--pid", "host"],
        ..CELL
    };
    let elsewhere = control.observes(stack, "processes", &payload)?;
    ensure!(
        ["mem", "environ"]
            .iter()
            .all(|file| elsewhere[*file] == "opened")
            && elsewhere["environments"].as_u64().is_some_and(|n| n > 0),
        "the control: {elsewhere}"
    );
    Ok(())
}

fn a_secret_comes_to_its_plugin_only(stack: &Stack) -> anyhow::Result<()> {
    let sibling = call(
        &mut stack.client()?,
        "walls_sibling",
        "delivered",
        &json!({}),
    )?;
    let sibling = observed(&sibling)?;
    ensure!(sibling["secrets"] == json!([]), "the sibling: {sibling}");
    let own = in_cell(stack, "delivered", &json!({}))?;
    ensure!(own["secrets"] == json!(["walls_canary"]), "its own: {own}");
    Ok(())
}

fn the_sockets_of_the_stack_are_not_there(stack: &Stack) -> anyhow::Result<()> {
    let targets = [
        "/var/run/docker.sock",
        "/run/docker.sock",
        "/run/bailey/docker/docker.sock",
        "/run/bailey/manage/broker/manage.sock",
        "/run/bailey/egress/egress.sock",
        "/run/containerd/containerd.sock",
    ];
    let payload = json!({"targets": targets});
    let cell = in_cell(stack, "connect", &payload)?;
    ensure!(all(&cell, &targets, &["ENOENT"]), "in a cell: {cell}");
    let (docker, manage) = (
        "/var/run/docker.sock:/var/run/docker.sock",
        format!(
            "{}_manage-broker:/run/bailey/manage/broker",
            stack.project()
        ),
    );
    let control = Control {
        user: "0:0",
        capabilities: &["DAC_OVERRIDE"],
        more: &["--volume", docker, "--volume", &manage],
        ..CELL
    };
    let elsewhere = control.observes(stack, "connect", &payload)?;
    let reached = [
        "/var/run/docker.sock",
        "/run/bailey/manage/broker/manage.sock",
    ];
    ensure!(
        all(&elsewhere, &reached, &["connected"]),
        "the control: {elsewhere}"
    );
    Ok(())
}

/// Name and address of every service on the mesh, with the port it listens on there, and the bridge's gateway: the host.
fn on_the_mesh(stack: &Stack) -> anyhow::Result<(Vec<String>, String)> {
    let network = format!("{}_mesh", stack.project());
    let mut targets = Vec::new();
    let mut gateway = String::new();
    for service in ["broker", "engine", "policy", "audit", "egress-proxy"] {
        let container = stack.inspect(&stack.service(service)?)?;
        let settings = &container["NetworkSettings"]["Networks"][&network];
        let address = settings["IPAddress"].as_str().context("no address")?;
        targets.push(format!("{service}:7000"));
        targets.push(format!("{address}:7000"));
        if let Some(found) = settings["Gateway"].as_str().filter(|g| !g.is_empty()) {
            found.clone_into(&mut gateway);
        }
    }
    if gateway.is_empty() {
        let format = "{{(index .IPAM.Config 0).Gateway}}";
        gateway = stack.docker(&["network", "inspect", "--format", format, &network])?;
    }
    Ok((targets, gateway.trim().to_owned()))
}

fn no_service_is_reached(stack: &Stack) -> anyhow::Result<()> {
    let (mut targets, host) = on_the_mesh(stack)?;
    targets.push("gateway:8080".to_owned());
    let host = format!("{host}:9");
    let names: Vec<&str> = targets.iter().map(String::as_str).collect();
    let cell = in_cell(
        stack,
        "connect",
        &json!({"targets": ([&targets[..], std::slice::from_ref(&host)].concat())}),
    )?;
    ensure!(
        all(&cell, &names, &["no such name", "ENETUNREACH"])
            && cell[&host] == "ENETUNREACH"
            && cell["interfaces"] == json!(["lo"]),
        "in a cell: {cell}"
    );
    // A container on the mesh reaches them, and the host: a port that nobody listens on answers at once.
    let network = format!("{}_mesh", stack.project());
    let control = Control {
        network: &network,
        ..CELL
    };
    let reached: Vec<&str> = names
        .iter()
        .copied()
        .filter(|n| n.ends_with(":7000"))
        .collect();
    let payload = json!({"anywhere": true, "targets": ([&reached[..], &[&host]].concat())});
    let elsewhere = control.observes(stack, "connect", &payload)?;
    ensure!(
        all(&elsewhere, &reached, &["connected"]) && elsewhere[&host] == "ECONNREFUSED",
        "the control: {elsewhere}"
    );
    Ok(())
}

fn nothing_outside_is_reached(stack: &Stack) -> anyhow::Result<()> {
    // Metadata services, the tailnet's range, a home network, the internet (TEST-NET-3).
    let targets = [
        "169.254.169.254:80",
        "100.100.100.100:53",
        "100.64.0.7:443",
        "192.168.1.1:443",
        "172.17.0.1:443",
        "203.0.113.9:443",
    ];
    let cell = in_cell(stack, "connect", &json!({"targets": targets}))?;
    ensure!(all(&cell, &targets, &["ENETUNREACH"]), "in a cell: {cell}");
    // The control's own loopback has these addresses: the same act reaches what is there.
    let control = Control {
        user: "0:0",
        capabilities: &["NET_ADMIN", "NET_BIND_SERVICE"],
        ..CELL
    };
    let elsewhere = control.observes(
        stack,
        "connect",
        &json!({"targets": targets, "stand_in": true}),
    )?;
    ensure!(
        all(&elsewhere, &targets, &["connected"]),
        "the control: {elsewhere}"
    );
    Ok(())
}

fn another_cell_is_not_reached(stack: &Stack) -> anyhow::Result<()> {
    let targets = [
        "127.0.0.1:9999",
        "@walls",
        "/tmp/walls.sock",
        "/dev/shm/walls.sock",
    ];
    let payload = json!({"targets": targets});
    // Given a cell that listens wherever it can, when another looks for it, then it finds nothing,
    let listening = Running::start(stack, "walls_sibling", "listen", &json!({"seconds": 2}))?;
    stack.until(
        std::time::Duration::from_secs(30),
        "the start of a cell",
        || Ok(stack.cells("walls_sibling")?.pop()),
    )?;
    let cell = in_cell(stack, "connect", &payload)?;
    ensure!(
        all(&cell, &targets, &["ECONNREFUSED", "ENOENT"]),
        "in a cell: {cell}"
    );
    let listened = listening.end(stack)?;
    ensure!(observed(&listened)? == "listened", "{listened}");
    // and in the listener's namespaces and folders it finds it.
    let shared = tempfile::tempdir()?;
    let folder = format!("{}:/tmp", shared.path().display());
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(shared.path(), permissions)?;
    let control = Control {
        more: &["--volume", &folder],
        ..CELL
    };
    let listening = control.start(stack, "listen", &json!({"payload": {"seconds": 5}}))?;
    stack.until(std::time::Duration::from_secs(30), "the listening", || {
        Ok(shared.path().join("walls.sock").exists().then_some(()))
    })?;
    let network = format!("container:{}", listening.name());
    let beside = Control {
        network: &network,
        ..control
    };
    let elsewhere = beside.observes(stack, "connect", &payload)?;
    ensure!(
        all(&elsewhere, &targets[..3], &["connected"]),
        "the control: {elsewhere}"
    );
    Ok(())
}

fn the_root_file_system_is_not_written(stack: &Stack) -> anyhow::Result<()> {
    let paths = ["/x", "/etc/passwd", "/usr/bin/python3", "/var/x"];
    let own = ["/plugin/run.py", "/plugin/more.py"];
    let payload = json!({"paths": ([&paths[..], &own[..], &["/tmp/x"]].concat())});
    let cell = in_cell(stack, "write", &payload)?;
    let everything = [&paths[..], &own[..]].concat();
    ensure!(
        all(&cell, &everything, &["EROFS", "EACCES"]) && cell["/tmp/x"] == "written",
        "in a cell: {cell}"
    );
    let control = Control {
        user: "0:0",
        read_only: false,
        ..CELL
    };
    let elsewhere = control.observes(stack, "write", &payload)?;
    // The fixture itself is mounted there to be read only, and python is running: its file is busy.
    let written = ["/x", "/etc/passwd", "/var/x", "/tmp/x"];
    ensure!(
        all(&elsewhere, &written, &["written"]),
        "the control: {elsewhere}"
    );
    Ok(())
}

fn the_kernels_settings_are_not_written(stack: &Stack) -> anyhow::Result<()> {
    let paths = [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/sysrq-trigger",
        "/sys/fs/cgroup/cgroup.procs",
    ];
    let payload = json!({"paths": paths});
    let cell = in_cell(stack, "open_for_writing", &payload)?;
    ensure!(
        all(&cell, &paths, &["EROFS", "EACCES", "EPERM", "ENOENT"]),
        "in a cell: {cell}"
    );
    // The control opens them, and writes nothing.
    let control = Control {
        user: "0:0",
        more: &["--security-opt", "systempaths=unconfined"],
        ..CELL
    };
    let elsewhere = control.observes(stack, "open_for_writing", &payload)?;
    ensure!(
        all(&elsewhere, &paths[..2], &["opened"]),
        "the control: {elsewhere}"
    );
    Ok(())
}
