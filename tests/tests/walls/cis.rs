//! CIS Docker Benchmark, section 5 (container runtime), on every container of the stack and on a cell at work.

use anyhow::ensure;
use serde_json::{Value, json};
use stack_tests::Stack;
use stack_tests::fixture::observed;
use stack_tests::suite::Test;

use crate::control::Running;

pub const TESTS: &[(&str, Test)] = &[
    (
        "the_container_runtime_section_of_cis_finds_nothing",
        the_container_runtime_section_of_cis_finds_nothing,
    ),
    (
        "a_container_without_walls_has_every_finding",
        a_container_without_walls_has_every_finding,
    ),
];

/// One container as `docker inspect` shows it, and its processes.
struct Container {
    name: String,
    inspected: Value,
    processes: String,
}

impl Container {
    fn host(&self, key: &str) -> &Value {
        &self.inspected["HostConfig"][key]
    }

    fn security(&self) -> String {
        self.host("SecurityOpt").to_string()
    }

    fn mounts(&self) -> impl Iterator<Item = &Value> {
        self.inspected["Mounts"].as_array().into_iter().flatten()
    }

    fn bindings(&self) -> impl Iterator<Item = &Value> {
        let ports = self.host("PortBindings").as_object().into_iter().flatten();
        ports
            .filter_map(|(_, bindings)| bindings.as_array())
            .flatten()
    }

    fn number(&self, key: &str) -> i64 {
        self.host(key).as_i64().unwrap_or(0)
    }
}

type Check = (&'static str, &'static str, fn(&Container) -> bool);

fn none(value: &Value) -> bool {
    value.is_null()
        || value.as_array().is_some_and(Vec::is_empty)
        || value.as_object().is_some_and(serde_json::Map::is_empty)
        || value == ""
}

/// Number and title in the benchmark (1.6.0), and whether a container is as it says. What is about the use of `docker exec`, or left to
/// judgement (5.8 but for what is published, 5.27), has no check here.
const CHECKS: &[Check] = &[
    ("5.1", "an AppArmor profile is enabled", |c| {
        !none(&c.inspected["AppArmorProfile"]) && c.inspected["AppArmorProfile"] != "unconfined"
    }),
    ("5.2", "SELinux security options are set", |c| {
        c.security().contains("label=") && !c.security().contains("label=disable")
    }),
    ("5.3", "capabilities are restricted", |c| {
        none(c.host("CapAdd")) && *c.host("CapDrop") == json!(["ALL"])
    }),
    ("5.4", "it is not privileged", |c| {
        *c.host("Privileged") == false
    }),
    ("5.5", "no sensitive folder of the host is mounted", |c| {
        let sensitive = [
            "/", "/boot", "/dev", "/etc", "/lib", "/proc", "/sys", "/usr",
        ];
        c.mounts()
            .all(|mount| !sensitive.iter().any(|folder| mount["Source"] == *folder))
    }),
    ("5.6", "no SSH server runs", |c| {
        !c.processes.contains("sshd")
    }),
    ("5.7", "no privileged port is published", |c| {
        c.bindings().all(|binding| {
            let port = binding["HostPort"]
                .as_str()
                .and_then(|port| port.parse().ok());
            port.is_some_and(|port: u16| port >= 1024)
        })
    }),
    ("5.8", "only the port that is needed is published", |c| {
        c.bindings().count() == usize::from(c.name == "ingress-local")
            && *c.host("PublishAllPorts") == false
    }),
    ("5.9", "the host's network is not shared", |c| {
        *c.host("NetworkMode") != "host"
    }),
    ("5.10", "memory is limited", |c| {
        c.number("Memory") > 0 && c.number("Memory") == c.number("MemorySwap")
    }),
    ("5.11", "CPU is limited", |c| c.number("NanoCpus") > 0),
    ("5.12", "the root file system is read-only", |c| {
        *c.host("ReadonlyRootfs") == true
    }),
    ("5.13", "what is published is bound to one interface", |c| {
        c.bindings().all(|binding| binding["HostIp"] == "127.0.0.1")
    }),
    ("5.14", "it is not restarted without end", |c| {
        let policy = c.host("RestartPolicy");
        policy["Name"] == "no"
            || policy["Name"] == "on-failure" && policy["MaximumRetryCount"].as_i64() <= Some(5)
    }),
    ("5.15", "the host's process namespace is not shared", |c| {
        *c.host("PidMode") != "host"
    }),
    ("5.16", "the host's IPC namespace is not shared", |c| {
        *c.host("IpcMode") != "host"
    }),
    ("5.17", "no device of the host is exposed", |c| {
        none(c.host("Devices")) && none(c.host("DeviceRequests"))
    }),
    ("5.18", "no limit of resources is lifted", |c| {
        let limits = c.host("Ulimits").as_array().into_iter().flatten();
        limits.clone().count() > 0
            && limits
                .clone()
                .all(|limit| limit["Hard"].as_i64().is_some_and(|hard| hard >= 0))
    }),
    ("5.19", "no mount is shared with the host", |c| {
        c.mounts().all(|mount| {
            !mount["Propagation"]
                .as_str()
                .unwrap_or_default()
                .contains("shared")
        })
    }),
    ("5.20", "the host's UTS namespace is not shared", |c| {
        *c.host("UTSMode") != "host"
    }),
    ("5.21", "a seccomp profile is in force", |c| {
        !c.security().contains("seccomp=unconfined")
    }),
    ("5.24", "it is in the cgroup that the engine chose", |c| {
        none(c.host("CgroupParent"))
    }),
    ("5.25", "it cannot gain privileges", |c| {
        c.security().contains("no-new-privileges")
    }),
    ("5.26", "its health is checked", |c| {
        c.inspected["State"]["Health"]["Status"].is_string()
    }),
    ("5.28", "processes are limited", |c| {
        c.number("PidsLimit") > 0
    }),
    ("5.29", "it is not on the engine's default bridge", |c| {
        c.inspected["NetworkSettings"]["Networks"]["bridge"].is_null()
            && *c.host("NetworkMode") != "default"
    }),
    (
        "5.30",
        "the host's user namespace is not forced on it",
        |c| *c.host("UsernsMode") != "host",
    ),
    ("5.31", "the Docker socket is not mounted", |c| {
        c.mounts().all(|mount| {
            !mount["Source"]
                .as_str()
                .unwrap_or_default()
                .ends_with("docker.sock")
        })
    }),
];

/// Findings that stand: check, container (`*`: all), why. One that does not occur is an error, so the list can only shrink.
const STANDING: &[(&str, &str, &str)] = &[
    (
        "5.14",
        "service",
        "a service must come back when the engine does; ours end well when they are told to, which is no failure, so on-failure would leave \
         them down (shown by the target `engine`); between restarts the engine doubles the pause",
    ),
    (
        "5.26",
        "cell",
        "a check is a program that the engine starts inside, every half minute: a cell lives for one call under a deadline that ends it, and \
         nothing but its plugin is started in it; its body says NONE, so that no image brings a check; the runner watches it from outside",
    ),
    (
        "5.31",
        "socket-proxy",
        "to hold the Docker socket is its one duty; nobody else has it (e2e compares every container's mounts with hardening.json)",
    ),
];

/// Findings that the host's kernel causes where it lacks the security module.
const OF_THE_KERNEL: &[(&str, &str)] = &[("5.1", "apparmor"), ("5.2", "selinux")];

/// Whether the engine enforces that module.
fn enforced(stack: &Stack, module: &str) -> anyhow::Result<bool> {
    let options = stack.docker(&["info", "--format", "{{json .SecurityOptions}}"])?;
    Ok(options.contains(&format!("name={module}")))
}

fn containers(stack: &Stack) -> anyhow::Result<Vec<Container>> {
    let project = format!("com.docker.compose.project={}", stack.project());
    let mut found = Vec::new();
    let mut ids = stack.containers(&[&project])?;
    ids.extend(stack.cells("walls")?);
    for id in ids {
        let inspected = stack.inspect(&id)?;
        let service = &inspected["Config"]["Labels"]["com.docker.compose.service"];
        found.push(Container {
            name: service.as_str().unwrap_or("cell").to_owned(),
            processes: stack.docker(&["top", &id, "-eo", "pid,comm"])?,
            inspected,
        });
    }
    Ok(found)
}

fn the_container_runtime_section_of_cis_finds_nothing(stack: &Stack) -> anyhow::Result<()> {
    // Given the stack with a cell at work, when every container is checked,
    let working = Running::start(stack, "walls", "keep", &json!({"seconds": 4}))?;
    stack.until(
        std::time::Duration::from_secs(30),
        "the start of a cell",
        || {
            let running = stack.cells("walls")?.pop();
            let running = running.map(|id| stack.inspect(&id)).transpose()?;
            Ok(running.filter(|cell| cell["State"]["Running"] == true))
        },
    )?;
    let containers = containers(stack)?;
    observed(&working.end(stack)?)?;
    ensure!(
        containers.len() == 12 && containers.iter().any(|c| c.name == "cell"),
        "{} containers were looked at: eleven and a cell were expected",
        containers.len()
    );
    let mut findings = Vec::new();
    for container in &containers {
        for (number, title, holds) in CHECKS {
            if !holds(container) {
                findings.push((*number, container.name.as_str(), *title));
            }
        }
    }
    // then nothing is found but what stands, and what the kernel cannot do.
    for (number, module) in OF_THE_KERNEL {
        if !enforced(stack, module)? {
            findings.retain(|(found, _, _)| found != number);
        }
    }
    for (number, who, _) in STANDING {
        let before = findings.len();
        findings.retain(|(found, name, _)| found != number || !is_meant(who, name));
        ensure!(
            findings.len() < before,
            "{number} stands for {who} and is not found"
        );
    }
    let lines: Vec<_> = findings
        .iter()
        .map(|(number, name, title)| format!("{number} {name}: it is not so that {title}"))
        .collect();
    ensure!(lines.is_empty(), "{}", lines.join("\n"));
    Ok(())
}

/// Whether a standing finding of `who` is about the container `name`.
fn is_meant(who: &str, name: &str) -> bool {
    who == name || who == "service" && name != "cell"
}

/// The control: a container without walls, made and never started, in which the same checks find what is wrong.
fn a_container_without_walls_has_every_finding(stack: &Stack) -> anyhow::Result<()> {
    let mut args = vec![
        "create",
        "--pull",
        "never",
        "--privileged",
        "--network",
        "host",
    ];
    args.extend([
        "--pid", "host", "--ipc", "host", "--uts", "host", "--userns", "host",
    ]);
    args.extend([
        "--restart",
        "always",
        "--security-opt",
        "seccomp=unconfined",
    ]);
    args.extend([
        "--security-opt",
        "apparmor=unconfined",
        "--device",
        "/dev/null",
    ]);
    args.extend(["--volume", "/etc:/etc:rshared", "--cgroup-parent", "/walls"]);
    args.extend([
        "--volume",
        "/var/run/docker.sock:/docker.sock",
        "--ulimit",
        "core=-1",
    ]);
    args.extend(["bailey/base-python:current", "/usr/bin/true"]);
    let id = stack.docker(&args)?;
    let inspected = stack.inspect(id.trim());
    stack.docker(&["rm", id.trim()])?;
    let container = Container {
        name: "control".to_owned(),
        inspected: inspected?,
        processes: "1 sshd".to_owned(),
    };
    // It publishes nothing, is on no bridge, and no label of SELinux can be wrong.
    let cannot = ["5.7", "5.8", "5.13", "5.29"];
    let missed: Vec<_> = CHECKS
        .iter()
        .filter(|(number, _, holds)| holds(&container) && !cannot.contains(number))
        .map(|(number, title, _)| format!("{number} finds that {title}"))
        .collect();
    ensure!(missed.is_empty(), "{}", missed.join("\n"));
    Ok(())
}
