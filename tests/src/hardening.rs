//! `compose/hardening.json`, and what a rendered compose file, a derived create body or a running container says in the same terms.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::checkout;

/// The golden file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Golden {
    /// For readers.
    pub about: String,
    /// What holds unless an entry of `containers` or an exception says otherwise.
    pub every_container: Facts,
    /// What each container has of its own.
    pub containers: BTreeMap<String, Facts>,
    /// Where a container is weaker, or different, than every other.
    pub exceptions: Vec<Exception>,
    /// What every cell must be.
    pub cell: Facts,
    /// Why a cell is not as the services are.
    pub cell_differs_because: BTreeMap<String, String>,
    /// Where what the runner makes differs from a cell. `container` is the name of the golden body in `crates/bailey-cell/golden`.
    pub derived: Vec<Exception>,
}

/// One exception.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exception {
    /// The container.
    pub container: String,
    /// The field of `every_container` that differs.
    pub field: String,
    /// Its value there.
    pub value: Value,
    /// Why that is right.
    pub reason: String,
}

/// Fields in the terms of `docker inspect`, lists sorted where their order means nothing.
pub type Facts = BTreeMap<String, Value>;

/// Fields that a container may have of its own without an exception: they grant what only it needs, and name it.
pub const OWN_FIELDS: [&str; 5] = ["User", "Memory", "MemorySwap", "Networks", "Mounts"];

impl Golden {
    /// Reads the file.
    pub fn read() -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(checkout().join("compose/hardening.json"))?;
        serde_json::from_str(&text).context("compose/hardening.json")
    }

    /// What the container of `name` must be, with every `$NAME` replaced.
    pub fn expected(&self, name: &str, names: &Names) -> anyhow::Result<Facts> {
        let own = self
            .containers
            .get(name)
            .with_context(|| format!("{name} is not in hardening.json"))?;
        let mut facts = self.every_container.clone();
        facts.extend(own.clone());
        for exception in self.exceptions.iter().filter(|e| e.container == name) {
            facts.insert(exception.field.clone(), exception.value.clone());
        }
        let mut text = serde_json::to_string(&facts)?;
        for (variable, value) in names.pairs() {
            text = text.replace(variable, &value);
        }
        let mut facts: Facts = serde_json::from_str(&text.replace("/<name>", &format!("/{name}")))
            .context("replacing names")?;
        // What a variable stands for decides where a mount is in the order.
        if let Some(mounts) = facts.get_mut("Mounts") {
            *mounts = sorted(mounts);
        }
        Ok(facts)
    }
}

/// What stands for the variable parts of a stack.
#[derive(Clone, Debug)]
pub struct Names {
    /// The stack's folder.
    pub home: String,
    /// The compose project: the prefix of networks and volumes.
    pub project: String,
    /// The published port.
    pub port: u16,
    /// The group of the Docker socket.
    pub docker_gid: u32,
}

impl Names {
    fn pairs(&self) -> [(&'static str, String); 5] {
        [
            ("$BAILEY_HOME", self.home.clone()),
            ("$BAILEY_PORT", self.port.to_string()),
            ("$CHECKOUT", checkout().display().to_string()),
            ("$DOCKER_GID", self.docker_gid.to_string()),
            ("$DOCKER_SOCKET", "/var/run/docker.sock".to_owned()),
        ]
    }

    fn bare<'a>(&self, name: &'a str) -> &'a str {
        name.strip_prefix(&self.project)
            .and_then(|rest| rest.strip_prefix('_'))
            .unwrap_or(name)
    }
}

/// What a service of `docker compose config --format json` asks for.
pub fn of_compose(service: &Value, secrets: &Value) -> anyhow::Result<Facts> {
    let text = |key: &str, default: &str| json!(service[key].as_str().unwrap_or(default));
    let bytes = |key: &str| -> anyhow::Result<Value> {
        Ok(json!(service[key].as_str().unwrap_or("0").parse::<u64>()?))
    };
    let nano_cpus = service["cpus"].as_f64().unwrap_or(0.0) * 1e9;
    let facts = [
        ("CapAdd", sorted(&service["cap_add"])),
        ("CapDrop", sorted(&service["cap_drop"])),
        ("Devices", sorted(&service["devices"])),
        ("GroupAdd", sorted(&service["group_add"])),
        ("Healthcheck", service["healthcheck"]["test"].clone()),
        ("Init", json!(service["init"].as_bool())),
        ("IpcMode", text("ipc", "")),
        (
            "LogConfig",
            json!({
                "Type": service["logging"]["driver"],
                "Config": service["logging"]["options"].as_object().cloned().unwrap_or_default(),
            }),
        ),
        ("Memory", bytes("mem_limit")?),
        ("MemorySwap", bytes("memswap_limit")?),
        ("Mounts", mounts_of_compose(service, secrets)?),
        (
            "NanoCpus",
            serde_json::from_str(&format!("{nano_cpus:.0}"))?,
        ),
        ("Networks", networks_of_compose(service)),
        ("PidMode", text("pid", "")),
        ("PidsLimit", service["pids_limit"].clone()),
        ("Ports", ports_of_compose(service)?),
        (
            "Privileged",
            json!(service["privileged"].as_bool().unwrap_or(false)),
        ),
        (
            "ReadonlyRootfs",
            json!(service["read_only"].as_bool().unwrap_or(false)),
        ),
        ("RestartPolicy", text("restart", "no")),
        ("SecurityOpt", sorted(&service["security_opt"])),
        ("StopTimeout", seconds(&service["stop_grace_period"])?),
        ("Sysctls", object(&service["sysctls"])),
        ("Tmpfs", tmpfs_of_compose(service)?),
        ("Ulimits", ulimits_of_compose(service)),
        ("User", text("user", "")),
        ("UTSMode", text("uts", "")),
        ("UsernsMode", text("userns_mode", "")),
    ];
    Ok(facts
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect())
}

/// What a container of `docker inspect` is; a create body of the engine's API has the same shape but for its networks.
pub fn of_inspect(container: &Value, names: &Names) -> anyhow::Result<Facts> {
    // A create body has these at its top.
    let config = if container["Config"].is_object() {
        &container["Config"]
    } else {
        container
    };
    let host = &container["HostConfig"];
    let health = match &config["Healthcheck"]["Test"] {
        Value::Array(test) if *test == [json!("NONE")] => Value::Null,
        other => other.clone(),
    };
    let facts = [
        ("CapAdd", capabilities(&host["CapAdd"])),
        ("CapDrop", capabilities(&host["CapDrop"])),
        ("Devices", sorted(&host["Devices"])),
        ("GroupAdd", sorted(&host["GroupAdd"])),
        ("Healthcheck", health),
        ("Init", host["Init"].clone()),
        ("IpcMode", host["IpcMode"].clone()),
        (
            "LogConfig",
            json!({"Type": host["LogConfig"]["Type"], "Config": host["LogConfig"]["Config"]}),
        ),
        ("Memory", host["Memory"].clone()),
        ("MemorySwap", host["MemorySwap"].clone()),
        ("Mounts", mounts_of_inspect(container, names)),
        ("NanoCpus", host["NanoCpus"].clone()),
        ("Networks", networks_of_inspect(container, names)),
        ("PidMode", host["PidMode"].clone()),
        ("PidsLimit", host["PidsLimit"].clone()),
        ("Ports", ports_of_inspect(host)),
        ("Privileged", host["Privileged"].clone()),
        ("ReadonlyRootfs", host["ReadonlyRootfs"].clone()),
        ("RestartPolicy", host["RestartPolicy"]["Name"].clone()),
        ("SecurityOpt", sorted(&host["SecurityOpt"])),
        ("StopTimeout", config["StopTimeout"].clone()),
        ("Sysctls", object(&host["Sysctls"])),
        ("Tmpfs", object(&host["Tmpfs"])),
        ("Ulimits", ulimits_of_inspect(host)),
        ("User", config["User"].clone()),
        ("UTSMode", host["UTSMode"].clone()),
        ("UsernsMode", host["UsernsMode"].clone()),
    ];
    Ok(facts
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect())
}

/// Every field in which `found` is not what `expected` says, one line each.
pub fn differences(expected: &Facts, found: &Facts) -> Vec<String> {
    let differing = expected
        .iter()
        .filter(|(name, value)| found.get(*name) != Some(*value));
    differing
        .map(|(name, value)| {
            let found = found
                .get(name)
                .map_or_else(|| "nothing".to_owned(), Value::to_string);
            format!("{name} is {found} and must be {value}")
        })
        .collect()
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

fn sorted(value: &Value) -> Value {
    strings(
        list(value)
            .iter()
            .map(|item| {
                item.as_str()
                    .map_or_else(|| item.to_string(), str::to_owned)
            })
            .collect(),
    )
}

/// Engines write them with and without the prefix.
fn capabilities(value: &Value) -> Value {
    let bare = |item: &Value| {
        item.as_str()
            .map(|name| name.trim_start_matches("CAP_").to_owned())
    };
    strings(list(value).iter().filter_map(bare).collect())
}

fn strings(mut items: Vec<String>) -> Value {
    items.sort();
    json!(items)
}

fn object(value: &Value) -> Value {
    Value::Object(value.as_object().cloned().unwrap_or_default())
}

fn seconds(value: &Value) -> anyhow::Result<Value> {
    let text = value.as_str().context("no stop_grace_period")?;
    Ok(json!(
        text.strip_suffix('s')
            .context("stop_grace_period is not in seconds")?
            .parse::<u64>()?
    ))
}

fn mount(source: &str, target: &str, read_only: bool) -> String {
    format!(
        "{source} -> {target} {}",
        if read_only { "ro" } else { "rw" }
    )
}

fn mounts_of_compose(service: &Value, secrets: &Value) -> anyhow::Result<Value> {
    let mut mounts = Vec::new();
    for item in list(&service["volumes"]) {
        let (source, target) = (
            item["source"].as_str().unwrap_or("?"),
            item["target"].as_str().unwrap_or("?"),
        );
        let source = match item["type"].as_str() {
            Some("bind") => source.to_owned(),
            Some("volume") => format!("volume {source}"),
            other => bail!("a mount of type {other:?} at {target}"),
        };
        mounts.push(mount(&source, target, item["read_only"] == true));
    }
    for item in list(&service["secrets"]) {
        let name = item["source"]
            .as_str()
            .context("a secret without a source")?;
        let file = secrets[name]["file"]
            .as_str()
            .with_context(|| format!("{name} is no file secret"))?;
        mounts.push(mount(file, item["target"].as_str().unwrap_or("?"), true));
    }
    Ok(strings(mounts))
}

fn mounts_of_inspect(container: &Value, names: &Names) -> Value {
    // A create body has them among what it asks for, in other words.
    let (mounts, source, target) = if container["Mounts"].is_array() {
        (&container["Mounts"], "Name", "Destination")
    } else {
        (&container["HostConfig"]["Mounts"], "Source", "Target")
    };
    let described = |item: &Value| {
        let source = match item["Type"].as_str() {
            Some("volume") => format!(
                "volume {}",
                names.bare(item[source].as_str().unwrap_or("?"))
            ),
            _ => item["Source"].as_str().unwrap_or("?").to_owned(),
        };
        let read_only = item["RW"] == false || item["ReadOnly"] == true;
        mount(&source, item[target].as_str().unwrap_or("?"), read_only)
    };
    strings(list(mounts).iter().map(described).collect())
}

fn networks_of_compose(service: &Value) -> Value {
    if service["network_mode"] == "none" {
        return json!([]);
    }
    let named = service["networks"]
        .as_object()
        .map(|n| n.keys().cloned().collect());
    // What is on no network of its own is on the project's default one, or in somebody else's namespace.
    strings(named.unwrap_or_else(|| {
        vec![
            service["network_mode"]
                .as_str()
                .unwrap_or("default")
                .to_owned(),
        ]
    }))
}

fn networks_of_inspect(container: &Value, names: &Names) -> Value {
    if container["HostConfig"]["NetworkMode"] == "none" {
        return json!([]);
    }
    let networks = container["NetworkSettings"]["Networks"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    strings(
        networks
            .keys()
            .map(|name| names.bare(name).to_owned())
            .collect(),
    )
}

fn ports_of_compose(service: &Value) -> anyhow::Result<Value> {
    let mut ports = Vec::new();
    for port in list(&service["ports"]) {
        let host = port["host_ip"].as_str().unwrap_or("0.0.0.0");
        let published = port["published"]
            .as_str()
            .context("a port without a published one")?;
        ports.push(format!(
            "{host}:{published} -> {}/{}",
            port["target"],
            port["protocol"].as_str().unwrap_or("tcp")
        ));
    }
    Ok(strings(ports))
}

fn ports_of_inspect(host: &Value) -> Value {
    let bindings = host["PortBindings"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    let mut ports = Vec::new();
    for (target, published) in bindings {
        for binding in list(&published) {
            let (ip, port) = (binding["HostIp"].as_str(), binding["HostPort"].as_str());
            ports.push(format!(
                "{}:{} -> {target}",
                ip.unwrap_or("0.0.0.0"),
                port.unwrap_or("any")
            ));
        }
    }
    strings(ports)
}

fn tmpfs_of_compose(service: &Value) -> anyhow::Result<Value> {
    let mut mounts = Map::new();
    for item in list(&service["tmpfs"]) {
        let text = item.as_str().context("tmpfs")?;
        let (path, options) = text.split_once(':').unwrap_or((text, ""));
        mounts.insert(path.to_owned(), json!(options));
    }
    Ok(Value::Object(mounts))
}

fn ulimits_of_compose(service: &Value) -> Value {
    let limits = service["ulimits"].as_object().cloned().unwrap_or_default();
    // JSON leaves out a zero.
    let pair = |limit: &Value| {
        json!([
            limit["soft"].as_i64().unwrap_or(0),
            limit["hard"].as_i64().unwrap_or(0)
        ])
    };
    Value::Object(
        limits
            .iter()
            .map(|(name, limit)| (name.clone(), pair(limit)))
            .collect(),
    )
}

fn ulimits_of_inspect(host: &Value) -> Value {
    let limits = list(&host["Ulimits"]);
    let entry = |limit: &Value| {
        (
            limit["Name"].as_str().unwrap_or("?").to_owned(),
            json!([limit["Soft"], limit["Hard"]]),
        )
    };
    Value::Object(limits.iter().map(entry).collect())
}

/// Facts of the create body in a file, for comparison with `cell`.
pub fn of_create_body(path: &Path, names: &Names) -> anyhow::Result<Facts> {
    let body: Value = serde_json::from_str(&std::fs::read_to_string(path)?)?;
    of_inspect(&body, names)
}
