//! The create body. Every field that the engine would otherwise decide is set, to nothing where nothing is wanted.

use std::collections::HashMap;

use bollard_stubs::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig,
    ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};

use crate::{HOME, PROBE_MEMORY_BYTES, PROBE_PIDS, PROBE_UID, Spec, identity, seccomp};

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

/// What the kinds differ in.
struct Tenant {
    image: String,
    entrypoint: Vec<String>,
    hostname: &'static str,
    uid: u32,
    memory_bytes: u64,
    millicpus: u32,
    pids: u32,
    tmp_bytes: u64,
    /// Whether it is fed over an attached stream.
    attached: bool,
}

impl Tenant {
    fn of(spec: &Spec<'_>) -> Self {
        match spec {
            Spec::Cell(cell) => {
                let (proposed, limits) = (&cell.locked.proposed, &cell.locked.proposed.limits);
                Self {
                    image: proposed.image.to_string(),
                    entrypoint: proposed.entrypoint.clone(),
                    hostname: "cell",
                    uid: cell.locked.uid,
                    memory_bytes: limits.memory_bytes,
                    millicpus: limits.millicpus,
                    pids: limits.pids,
                    tmp_bytes: limits.tmp_bytes,
                    attached: true,
                }
            }
            Spec::Probe(probe) => Self {
                image: probe.image.to_string(),
                entrypoint: vec!["/socket-proxy".into(), "probe".into()],
                hostname: "probe",
                uid: PROBE_UID,
                memory_bytes: PROBE_MEMORY_BYTES,
                millicpus: 500,
                pids: PROBE_PIDS,
                tmp_bytes: 1 << 20,
                attached: false,
            },
        }
    }
}

/// The body of `POST /containers/create` for `spec`: the same for the same spec, always.
pub fn create_body(spec: &Spec<'_>) -> ContainerCreateBody {
    let tenant = Tenant::of(spec);
    ContainerCreateBody {
        hostname: Some(tenant.hostname.into()),
        domainname: Some(String::new()),
        user: Some(format!("{0}:{0}", tenant.uid)),
        attach_stdin: Some(tenant.attached),
        attach_stdout: Some(tenant.attached),
        attach_stderr: Some(tenant.attached),
        exposed_ports: Some(Vec::new()),
        tty: Some(false),
        open_stdin: Some(tenant.attached),
        // Without it the plugin never sees the end of its request.
        stdin_once: Some(tenant.attached),
        env: Some(environment()),
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
        working_dir: Some(HOME.into()),
        // `NetworkMode` says it all; `true` here would also keep a cell from joining a held namespace.
        network_disabled: Some(false),
        on_build: Some(Vec::new()),
        labels: Some(identity::labels(spec)),
        stop_signal: Some("SIGTERM".into()),
        stop_timeout: Some(STOP_SECONDS),
        shell: Some(Vec::new()),
        host_config: Some(host_config(&tenant)),
        // None of the engine's networks.
        networking_config: None,
        image: Some(tenant.image),
        entrypoint: Some(tenant.entrypoint),
    }
}

fn environment() -> Vec<String> {
    [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        format!("HOME={HOME}"),
        "LANG=C.UTF-8".to_owned(),
        "TMPDIR=/tmp".to_owned(),
        format!("XDG_CACHE_HOME={HOME}/.cache"),
        format!("XDG_CONFIG_HOME={HOME}/.config"),
        format!("XDG_DATA_HOME={HOME}/.local/share"),
        format!("XDG_STATE_HOME={HOME}/.local/state"),
        "XDG_RUNTIME_DIR=/tmp".to_owned(),
        // The engine's init passes signals to the whole group, so that a shell's children end too.
        "TINI_KILL_PROCESS_GROUP=1".to_owned(),
    ]
    .into()
}

fn host_config(tenant: &Tenant) -> HostConfig {
    HostConfig {
        // What runs.
        init: Some(true),
        runtime: Some("runc".into()),
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
        ..privileges(limits(tenant, file_system(tenant, namespaces())))
    }
}

/// Who it may pretend to be: nobody.
fn privileges(base: HostConfig) -> HostConfig {
    HostConfig {
        privileged: Some(false),
        cap_add: Some(Vec::new()),
        cap_drop: Some(vec!["ALL".into()]),
        group_add: Some(Vec::new()),
        security_opt: Some(vec![
            "no-new-privileges".into(),
            format!("seccomp={}", seccomp::profile_json()),
        ]),
        devices: Some(Vec::new()),
        device_cgroup_rules: Some(Vec::new()),
        device_requests: Some(Vec::new()),
        sysctls: Some(HashMap::new()),
        oom_score_adj: Some(OOM_SCORE),
        ..base
    }
}

fn limits(tenant: &Tenant, base: HostConfig) -> HostConfig {
    let memory_bytes = engine_number(tenant.memory_bytes);
    HostConfig {
        memory: Some(memory_bytes),
        // Memory and swap together: equal means no swap.
        memory_swap: Some(memory_bytes),
        memory_reservation: Some(0),
        oom_kill_disable: Some(false),
        nano_cpus: Some(i64::from(tenant.millicpus) * 1_000_000),
        cpu_shares: Some(0),
        cpu_period: Some(0),
        cpu_quota: Some(0),
        cpu_realtime_period: Some(0),
        cpu_realtime_runtime: Some(0),
        cpuset_cpus: Some(String::new()),
        cpuset_mems: Some(String::new()),
        cgroup_parent: Some(String::new()),
        cgroup: Some(String::new()),
        pids_limit: Some(i64::from(tenant.pids)),
        ulimits: Some(vec![
            // A core file of a plugin holds its secrets.
            ulimit("core", (0, 0)),
            ulimit(
                "fsize",
                (
                    engine_number(tenant.tmp_bytes),
                    engine_number(tenant.tmp_bytes),
                ),
            ),
            ulimit("memlock", (65_536, 65_536)),
            ulimit("nofile", OPEN_FILES),
        ]),
        ..base
    }
}

fn file_system(tenant: &Tenant, base: HostConfig) -> HostConfig {
    let options = |more: String| {
        let size = tenant.tmp_bytes;
        format!("rw,noexec,nosuid,nodev,size={size},nr_inodes={TMPFS_INODES},{more}")
    };
    let owned = options(format!("mode=0700,uid={0},gid={0}", tenant.uid));
    HostConfig {
        readonly_rootfs: Some(true),
        tmpfs: Some(HashMap::from([
            ("/tmp".to_owned(), options("mode=1777".into())),
            (HOME.to_owned(), owned),
        ])),
        shm_size: Some(SHM_BYTES),
        binds: Some(Vec::new()),
        mounts: Some(Vec::new()),
        volumes_from: Some(Vec::new()),
        volume_driver: Some(String::new()),
        storage_opt: Some(HashMap::new()),
        masked_paths: Some(MASKED_PATHS.iter().map(|&path| path.into()).collect()),
        readonly_paths: Some(READONLY_PATHS.iter().map(|&path| path.into()).collect()),
        ..base
    }
}

/// Namespaces of its own for everything, and nothing in the network one but loopback.
fn namespaces() -> HostConfig {
    HostConfig {
        network_mode: Some("none".into()),
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
