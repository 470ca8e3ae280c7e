//! The create body. Every field that the engine would otherwise decide is set, to nothing where nothing is wanted.

use std::collections::HashMap;

use bailey_plugin::Limits;
use bailey_trust::{Mode, StateKind};
use bollard_stubs::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig,
    Mount, ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};

use crate::{
    Cell, HOME, HTTP_PROXY, Holder, Look, MEASURE_MEMORY_BYTES, PROBE_MEMORY_BYTES, PROBE_PIDS,
    PROBE_UID, Probe, SOCKS_PROXY, Spec, identity, mounts, seccomp,
};

/// The OCI runtime where the account names none.
const RUNTIME: &str = "runc";

/// `/dev/shm`, bytes; Python's multiprocessing and Chromium-like programs need some.
const SHM_BYTES: i64 = 16 << 20;
/// Files and directories on each tmpfs: without a bound they fill kernel memory with empty files.
const TMPFS_INODES: u32 = 65_536;
/// Open files: soft as POSIX programs expect, hard for those that ask.
const OPEN_FILES: (i64, i64) = (1024, 4096);
/// Seconds between SIGTERM and SIGKILL if the engine itself stops the container.
const STOP_SECONDS: i64 = 5;
/// When the host is out of memory, cells go before services.
const OOM_SCORE: i64 = 500;

/// Paths of `/proc` and `/sys` that tell about the host or its kernel.
const MASKED_PATHS: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
/// Paths of `/proc` that would change the host.
const READONLY_PATHS: &[&str] = &[
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Memory of a holder, bytes.
const HOLDER_MEMORY_BYTES: u64 = 16 << 20;
/// Processes and threads of a holder.
const HOLDER_PIDS: u32 = 32;
/// Largest file where a cell may write to the host; in its state it is what the state may hold, and on tmpfs the size of `/tmp`.
const LASTING_FILE_BYTES: u64 = 1 << 30;

/// What the kinds differ in.
struct Tenant {
    image: String,
    entrypoint: Vec<String>,
    /// Empty where the namespace is another container's.
    hostname: &'static str,
    /// Uid and gid.
    user: (u32, u32),
    limits: Limits,
    largest_file_bytes: u64,
    /// Whether it is fed over an attached stream.
    attached: bool,
    home: Home,
    /// Whether it is walled off at all: only `service.unconfined` is not.
    confined: bool,
    network: String,
    runtime: String,
    env: Vec<String>,
    mounts: Vec<Mount>,
}

/// What HOME is.
#[derive(PartialEq, Eq)]
enum Home {
    /// Fresh, and gone with the container.
    Fresh,
    /// The plugin's state.
    State,
    /// A host path.
    Host(String),
    /// There is none.
    Absent,
}

impl Home {
    fn path(&self) -> &str {
        match self {
            Self::Fresh | Self::State => HOME,
            Self::Host(path) => path,
            Self::Absent => "/",
        }
    }
}

impl Tenant {
    fn of(spec: &Spec<'_>) -> Self {
        match spec {
            Spec::Cell(cell) => Self::cell(cell),
            Spec::Holder(holder) => Self::holder(holder),
            Spec::Probe(probe) => Self::probe(probe),
        }
    }

    fn cell(cell: &Cell<'_>) -> Self {
        let proposed = &cell.locked.proposed;
        let limits = if cell.untrusted {
            // Without such an account no such cell is ever asked for; if one is, it has no more than any.
            proposed.walls.untrusted.unwrap_or(proposed.limits)
        } else {
            proposed.limits
        };
        let mounts = mounts::of_cell(cell);
        let confined = cell.mode() != Mode::Unconfined;
        let lasting = !confined || cell.host_paths().iter().any(|path| path.writable);
        let kept = cell.quota().map_or(0, |quota| quota.total_bytes);
        let on_host = if lasting { LASTING_FILE_BYTES } else { 0 };
        let network = cell.holder.map(|id| format!("container:{id}"));
        let home = match (cell.home(), cell.state()) {
            (Some(path), _) => Home::Host(path.to_string_lossy().into_owned()),
            (None, StateKind::Home) => Home::State,
            (None, StateKind::None | StateKind::Data) => Home::Fresh,
        };
        let mut env = environment(home.path());
        if cell.has_egress() {
            env.extend(proxies());
        }
        Self {
            image: proposed.image.to_string(),
            entrypoint: proposed.entrypoint.clone(),
            hostname: if cell.holder.is_some() { "" } else { "cell" },
            user: cell.user(),
            limits,
            largest_file_bytes: limits.tmp_bytes.max(kept).max(on_host),
            attached: true,
            home,
            confined,
            network: network.unwrap_or_else(|| "none".into()),
            runtime: proposed
                .walls
                .runtime
                .clone()
                .unwrap_or_else(|| RUNTIME.into()),
            env,
            mounts,
        }
    }

    fn holder(holder: &Holder<'_>) -> Self {
        let uid = holder.locked.holder_uid;
        let verb = if holder.has_egress() {
            "egress"
        } else {
            "pause"
        };
        let limits = Limits {
            memory_bytes: HOLDER_MEMORY_BYTES,
            millicpus: 500,
            pids: HOLDER_PIDS,
            tmp_bytes: 1 << 20,
        };
        Self {
            image: holder.image.to_string(),
            entrypoint: vec!["/holder".into(), verb.into()],
            hostname: "cell",
            user: (uid, uid),
            limits,
            largest_file_bytes: limits.tmp_bytes,
            // The lease comes over its standard input.
            attached: holder.has_egress(),
            home: Home::Absent,
            confined: true,
            network: "none".into(),
            runtime: RUNTIME.into(),
            env: vec![PATH.into()],
            mounts: mounts::of_holder(holder),
        }
    }

    fn probe(probe: &Probe<'_>) -> Self {
        let mut entrypoint = vec!["/socket-proxy".into(), "probe".into()];
        let (arguments, uid, gid, memory_bytes) = match &probe.look {
            Look::Walls => (Vec::new(), PROBE_UID, PROBE_UID, PROBE_MEMORY_BYTES),
            Look::Paths(entry) => {
                let arguments = crate::probe::path_arguments(&entry.locked.proposed.host_paths);
                (arguments, PROBE_UID, PROBE_UID, PROBE_MEMORY_BYTES)
            }
            // As the plugin: nobody else may look into its folders.
            Look::State(entry, pace) => {
                let limit = entry.locked.proposed.walls.state_limit;
                let ((uid, gid), told) =
                    (entry.locked.user(), crate::usage::arguments(limit, *pace));
                (told, uid, gid, MEASURE_MEMORY_BYTES)
            }
        };
        entrypoint.extend(arguments);
        let limits = Limits {
            memory_bytes,
            millicpus: 500,
            pids: PROBE_PIDS,
            tmp_bytes: 1 << 20,
        };
        Self {
            image: probe.image.to_string(),
            entrypoint,
            hostname: "probe",
            user: (uid, gid),
            limits,
            largest_file_bytes: limits.tmp_bytes,
            attached: false,
            home: Home::Fresh,
            confined: true,
            network: "none".into(),
            runtime: RUNTIME.into(),
            env: environment(HOME),
            mounts: mounts::of_probe(probe),
        }
    }
}

/// The body of `POST /containers/create` for `spec`: the same for the same spec, always.
pub fn create_body(spec: &Spec<'_>) -> ContainerCreateBody {
    let tenant = Tenant::of(spec);
    let (uid, gid) = tenant.user;
    ContainerCreateBody {
        host_config: Some(host_config(&tenant)),
        hostname: Some(tenant.hostname.into()),
        domainname: Some(String::new()),
        user: Some(format!("{uid}:{gid}")),
        attach_stdin: Some(tenant.attached),
        attach_stdout: Some(tenant.attached),
        attach_stderr: Some(tenant.attached),
        exposed_ports: Some(Vec::new()),
        tty: Some(false),
        open_stdin: Some(tenant.attached),
        // Without it the plugin never sees the end of its request.
        stdin_once: Some(tenant.attached),
        env: Some(tenant.env),
        cmd: Some(Vec::new()),
        healthcheck: Some(HealthConfig {
            test: Some(vec!["NONE".into()]),
            interval: Some(0),
            timeout: Some(0),
            retries: Some(0),
            start_period: Some(0),
            // Known to engines newer than the version that is sent.
            start_interval: None,
        }),
        args_escaped: Some(false),
        volumes: Some(Vec::new()),
        working_dir: Some(tenant.home.path().into()),
        // `NetworkMode` says it all; `true` here would also keep a cell from joining a held namespace.
        network_disabled: Some(false),
        on_build: Some(Vec::new()),
        labels: Some(identity::labels(spec)),
        stop_signal: Some("SIGTERM".into()),
        stop_timeout: Some(STOP_SECONDS),
        shell: Some(Vec::new()),
        // None of the engine's networks.
        networking_config: None,
        image: Some(tenant.image),
        entrypoint: Some(tenant.entrypoint),
    }
}

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn environment(home: &str) -> Vec<String> {
    [
        PATH.to_owned(),
        format!("HOME={home}"),
        "LANG=C.UTF-8".to_owned(),
        "TMPDIR=/tmp".to_owned(),
        format!("XDG_CACHE_HOME={home}/.cache"),
        format!("XDG_CONFIG_HOME={home}/.config"),
        format!("XDG_DATA_HOME={home}/.local/share"),
        format!("XDG_STATE_HOME={home}/.local/state"),
        "XDG_RUNTIME_DIR=/tmp".to_owned(),
        // The engine's init passes signals to the whole group, so that a shell's children end too.
        "TINI_KILL_PROCESS_GROUP=1".to_owned(),
    ]
    .into()
}

/// What programs read to find their proxy. Some read only one spelling of it.
fn proxies() -> Vec<String> {
    let http = ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"];
    let all = ["ALL_PROXY", "all_proxy"];
    let none = ["NO_PROXY", "no_proxy"];
    let http = http.map(|name| format!("{name}={HTTP_PROXY}"));
    let all = all.map(|name| format!("{name}={SOCKS_PROXY}"));
    let none = none.map(|name| format!("{name}="));
    http.into_iter().chain(all).chain(none).collect()
}

fn host_config(tenant: &Tenant) -> HostConfig {
    HostConfig {
        // What runs.
        init: Some(true),
        runtime: Some(tenant.runtime.clone()),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: Some(0),
        }),
        auto_remove: Some(false),
        // Standard output belongs to the protocol; nothing of it is kept.
        log_config: Some(HostConfigLogConfig {
            typ: Some("none".into()),
            config: Some(HashMap::new()),
        }),
        container_id_file: Some(String::new()),
        console_size: Some(vec![0, 0]),
        ..privileges(
            tenant,
            limits(tenant, file_system(tenant, namespaces(tenant))),
        )
    }
}

/// Who it may pretend to be: nobody; or whoever the engine lets it, where the operator wants no walls.
fn privileges(tenant: &Tenant, base: HostConfig) -> HostConfig {
    let (dropped, security) = if tenant.confined {
        let seccomp = format!("seccomp={}", seccomp::profile_json());
        (
            vec!["ALL".into()],
            vec!["no-new-privileges".into(), seccomp],
        )
    } else {
        (Vec::new(), Vec::new())
    };
    HostConfig {
        privileged: Some(false),
        cap_add: Some(Vec::new()),
        cap_drop: Some(dropped),
        group_add: Some(Vec::new()),
        security_opt: Some(security),
        devices: Some(Vec::new()),
        device_cgroup_rules: Some(Vec::new()),
        device_requests: Some(Vec::new()),
        sysctls: Some(HashMap::new()),
        oom_score_adj: Some(OOM_SCORE),
        ..base
    }
}

fn limits(tenant: &Tenant, base: HostConfig) -> HostConfig {
    let memory_bytes = engine_number(tenant.limits.memory_bytes);
    let file_bytes = engine_number(tenant.largest_file_bytes);
    HostConfig {
        memory: Some(memory_bytes),
        // Memory and swap together: equal means no swap.
        memory_swap: Some(memory_bytes),
        memory_reservation: Some(0),
        oom_kill_disable: Some(false),
        nano_cpus: Some(i64::from(tenant.limits.millicpus) * 1_000_000),
        cpu_shares: Some(0),
        cpu_period: Some(0),
        cpu_quota: Some(0),
        cpu_realtime_period: Some(0),
        cpu_realtime_runtime: Some(0),
        cpuset_cpus: Some(String::new()),
        cpuset_mems: Some(String::new()),
        cgroup_parent: Some(String::new()),
        cgroup: Some(String::new()),
        pids_limit: Some(i64::from(tenant.limits.pids)),
        ulimits: Some(vec![
            // A core file of a plugin holds its secrets.
            ulimit("core", (0, 0)),
            ulimit("fsize", (file_bytes, file_bytes)),
            ulimit("memlock", (65_536, 65_536)),
            ulimit("nofile", OPEN_FILES),
        ]),
        ..base
    }
}

fn file_system(tenant: &Tenant, base: HostConfig) -> HostConfig {
    let options = |more: String| {
        let size = tenant.limits.tmp_bytes;
        let run = if tenant.confined { "noexec" } else { "exec" };
        format!("rw,{run},nosuid,nodev,size={size},nr_inodes={TMPFS_INODES},{more}")
    };
    let (uid, gid) = tenant.user;
    let mut tmpfs = HashMap::from([("/tmp".to_owned(), options("mode=1777".into()))]);
    if tenant.home == Home::Fresh {
        let owned = options(format!("mode=0700,uid={uid},gid={gid}"));
        tmpfs.insert(HOME.to_owned(), owned);
    }
    HostConfig {
        readonly_rootfs: Some(tenant.confined),
        tmpfs: Some(tmpfs),
        shm_size: Some(SHM_BYTES),
        binds: Some(Vec::new()),
        mounts: Some(tenant.mounts.clone()),
        volumes_from: Some(Vec::new()),
        volume_driver: Some(String::new()),
        storage_opt: Some(HashMap::new()),
        masked_paths: Some(MASKED_PATHS.iter().map(|&path| path.into()).collect()),
        readonly_paths: Some(READONLY_PATHS.iter().map(|&path| path.into()).collect()),
        ..base
    }
}

/// Namespaces of its own for everything but, where it has one, its holder's network; nothing in that but loopback.
fn namespaces(tenant: &Tenant) -> HostConfig {
    HostConfig {
        network_mode: Some(tenant.network.clone()),
        port_bindings: Some(HashMap::new()),
        publish_all_ports: Some(false),
        dns: Some(Vec::new()),
        dns_options: Some(Vec::new()),
        dns_search: Some(Vec::new()),
        extra_hosts: Some(Vec::new()),
        links: Some(Vec::new()),
        ipc_mode: Some("private".into()),
        pid_mode: Some(String::new()),
        uts_mode: Some(String::new()),
        userns_mode: Some(String::new()),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        ..HostConfig::default()
    }
}

fn ulimit(name: &str, (soft, hard): (i64, i64)) -> ResourcesUlimits {
    ResourcesUlimits {
        name: Some(name.into()),
        soft: Some(soft),
        hard: Some(hard),
    }
}

/// The engine counts in signed numbers; what does not fit is more than any machine has.
fn engine_number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
