//! The `container:` block, in a manifest and in the operator's configuration.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use bailey_yaml::{Cpus, Size, Span};

use crate::egress::Entry;

/// Whether and where a plugin keeps files between calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateKind {
    /// Nothing outlives a call.
    #[default]
    None,
    /// A volume at `/state`.
    Data,
    /// A volume that is also HOME and the working directory.
    Home,
}

/// What a plugin's cells are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunMode {
    /// Each serves one call.
    #[default]
    Call,
    /// One runs its command `serve` for as long as it is locked; the others serve a call each.
    Service,
}

/// `container:`; what is unset is decided by configuration, account or default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Container {
    /// Base image for a directory plugin: `none`, `python`, `tools`, or a reference.
    pub image: Option<String>,
    /// Overrides the entrypoint.
    pub entrypoint: Option<Vec<String>>,
    /// Bytes.
    pub memory_bytes: Option<u64>,
    /// Thousandths of a core.
    pub millicpus: Option<u32>,
    /// Processes and threads.
    pub pids: Option<u32>,
    /// Bytes.
    pub tmp_bytes: Option<u64>,
    /// Where it may connect to, as `host:port` or `*.suffix:port`. Given but empty: nowhere, whatever the manifest asks for.
    #[serde(default)]
    pub egress: Option<Vec<String>>,
    /// Bounds of what one call sends and receives.
    #[serde(default)]
    pub egress_limits: EgressBounds,
    /// OCI runtime of its cells. In a manifest it is a wish that the operator grants by naming the same.
    #[serde(default)]
    pub runtime: Option<String>,
    /// Most cells that are kept started and unused.
    #[serde(default)]
    pub warm: Option<u32>,
    /// Whether it keeps files between calls.
    #[serde(default)]
    pub state: Option<StateKind>,
    /// Bounds of what it keeps. In a manifest, more than the default is a wish that the operator grants by naming a bound.
    #[serde(default)]
    pub state_limit: StateBounds,
    /// Whether one of its cells lasts.
    #[serde(default)]
    pub mode: Option<RunMode>,
    /// How long the cell that lasts may be silent, seconds.
    #[serde(default)]
    pub heartbeat_seconds: Option<u32>,
}

/// `state_limit:`; what is unset has its default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StateBounds {
    /// Bytes on the disk, all files together.
    pub total_bytes: Option<u64>,
    /// Files, folders and links.
    pub files: Option<u32>,
}

/// `egress_limits:`; what is unset has its default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EgressBounds {
    /// Connections at once.
    pub connections: Option<u32>,
    /// Bytes in both directions, of the whole call.
    pub total_bytes: Option<u64>,
    /// Longest life of one connection, seconds.
    pub connection_seconds: Option<u32>,
}

/// The block as people write it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ContainerYaml {
    image: Option<String>,
    entrypoint: Option<Vec<String>>,
    memory: Option<Size>,
    cpus: Option<Cpus>,
    pids: Option<u32>,
    tmp: Option<Size>,
    egress: Option<Vec<String>>,
    egress_limits: EgressLimitsYaml,
    runtime: Option<String>,
    warm: Option<u32>,
    state: Option<StateKind>,
    state_limit: StateLimitYaml,
    mode: Option<RunMode>,
    heartbeat: Option<Span>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct StateLimitYaml {
    bytes: Option<Size>,
    files: Option<u32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct EgressLimitsYaml {
    connections: Option<u32>,
    bytes: Option<Size>,
    time: Option<Span>,
}

const MIB: u64 = 1 << 20;

impl ContainerYaml {
    /// The block, checked; or everything that is wrong with it.
    pub fn check(self) -> Result<Container, Vec<String>> {
        let mut problems = self.out_of_bounds();
        problems.extend(self.egress_limits.out_of_bounds());
        problems.extend(self.state_limit.out_of_bounds());
        let mut egress = Vec::new();
        for host in self.egress.iter().flatten() {
            match host.parse::<Entry>() {
                Ok(entry) => egress.push(entry.to_string()),
                Err(bad) => problems.push(format!("egress: {bad}")),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Container {
            image: self.image,
            entrypoint: self.entrypoint,
            memory_bytes: self.memory.map(|size| size.0),
            millicpus: self.cpus.map(|cpus| cpus.0),
            pids: self.pids,
            tmp_bytes: self.tmp.map(|size| size.0),
            egress: self.egress.is_some().then_some(egress),
            egress_limits: self.egress_limits.bounds(),
            runtime: self.runtime,
            warm: self.warm,
            state: self.state,
            state_limit: self.state_limit.bounds(),
            mode: self.mode,
            heartbeat_seconds: self.heartbeat.and_then(seconds),
        })
    }

    fn out_of_bounds(&self) -> Vec<String> {
        let size = |size: Option<Size>, least: u64| {
            size.is_none_or(|size| (least..=1 << 40).contains(&size.0))
        };
        let rules = [
            ("memory", size(self.memory, 8 * MIB), "8MiB to 1TiB"),
            (
                "cpus",
                self.cpus.is_none_or(|c| (10..=256_000).contains(&c.0)),
                "0.01 to 256",
            ),
            (
                "pids",
                self.pids.is_none_or(|p| (4..=32_768).contains(&p)),
                "4 to 32768",
            ),
            ("tmp", size(self.tmp, 4096), "4KiB to 1TiB"),
            ("warm", self.warm.is_none_or(|w| w <= 64), "0 to 64"),
            (
                "image",
                self.image.as_deref().is_none_or(is_image),
                "an image name without spaces",
            ),
            (
                "entrypoint",
                self.entrypoint.as_deref().is_none_or(is_entrypoint),
                "a program and its arguments",
            ),
            (
                "runtime",
                self.runtime.as_deref().is_none_or(is_runtime),
                "1 to 64 letters, digits, '.', '_', '-'",
            ),
            (
                "egress",
                self.egress.as_ref().is_none_or(|hosts| hosts.len() <= 64),
                "at most 64 hosts",
            ),
            (
                "heartbeat",
                self.heartbeat.is_none_or(|time| whole_seconds(time, 5)),
                "whole seconds, 5s to 24h",
            ),
        ];
        broken(&rules)
    }
}

impl StateLimitYaml {
    fn out_of_bounds(self) -> Vec<String> {
        let bytes = |bytes: Size| (64 << 10..=1 << 40).contains(&bytes.0);
        let rules = [
            (
                "state_limit.bytes",
                self.bytes.is_none_or(bytes),
                "64KiB to 1TiB",
            ),
            (
                "state_limit.files",
                // Whoever counts them remembers those with several names, and has little memory.
                self.files.is_none_or(|f| (16..=1_000_000).contains(&f)),
                "16 to 1000000",
            ),
        ];
        broken(&rules)
    }

    fn bounds(self) -> StateBounds {
        StateBounds {
            total_bytes: self.bytes.map(|bytes| bytes.0),
            files: self.files,
        }
    }
}

impl EgressLimitsYaml {
    fn out_of_bounds(&self) -> Vec<String> {
        let rules = [
            (
                "egress_limits.connections",
                self.connections.is_none_or(|c| (1..=1024).contains(&c)),
                "1 to 1024",
            ),
            (
                "egress_limits.bytes",
                self.bytes.is_none_or(|b| (1024..=1 << 40).contains(&b.0)),
                "1KiB to 1TiB",
            ),
            (
                "egress_limits.time",
                self.time.is_none_or(|time| whole_seconds(time, 1)),
                "whole seconds, 1s to 24h",
            ),
        ];
        broken(&rules)
    }

    fn bounds(&self) -> EgressBounds {
        EgressBounds {
            connections: self.connections,
            total_bytes: self.bytes.map(|bytes| bytes.0),
            connection_seconds: self.time.and_then(seconds),
        }
    }
}

fn whole_seconds(time: Span, least: u64) -> bool {
    let day = Duration::from_secs(least)..=Duration::from_hours(24);
    day.contains(&time.0) && time.0.subsec_nanos() == 0
}

fn seconds(time: Span) -> Option<u32> {
    u32::try_from(time.0.as_secs()).ok()
}

fn broken(rules: &[(&str, bool, &str)]) -> Vec<String> {
    let broken = rules.iter().filter(|(_, holds, _)| !holds);
    broken
        .map(|(what, _, rule)| format!("{what} must be {rule}"))
        .collect()
}

/// Whether this can be the name of an OCI runtime.
pub fn is_runtime(name: &str) -> bool {
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=64).contains(&name.len())
        && name.bytes().all(known)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
}

fn is_image(image: &str) -> bool {
    !image.is_empty() && image.len() <= 255 && image.bytes().all(|b| b.is_ascii_graphic())
}

fn is_entrypoint(words: &[String]) -> bool {
    let text = |word: &String| word.len() <= 4096 && !word.contains('\0');
    words.len() <= 64
        && words.iter().all(text)
        && words.first().is_some_and(|program| !program.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(yaml: &str) -> Result<Container, Vec<String>> {
        bailey_yaml::parse::<ContainerYaml>(yaml).unwrap().check()
    }

    #[test]
    fn quantities_become_numbers() {
        let block = check(
            "{memory: 128MiB, cpus: 0.5, pids: 64, tmp: 1MB, egress: [Example.com, 'nas.lan:8443', '*.Example.org:22'], egress_limits: {connections: 4, bytes: 10MiB, time: 1m}, runtime: runsc, mode: service, heartbeat: 1m}",
        );
        let expected = Container {
            memory_bytes: Some(128 << 20),
            millicpus: Some(500),
            pids: Some(64),
            tmp_bytes: Some(1_000_000),
            egress: Some(vec![
                "example.com:443".into(),
                "nas.lan:8443".into(),
                "*.example.org:22".into(),
            ]),
            egress_limits: EgressBounds {
                connections: Some(4),
                total_bytes: Some(10 << 20),
                connection_seconds: Some(60),
            },
            runtime: Some("runsc".into()),
            mode: Some(RunMode::Service),
            heartbeat_seconds: Some(60),
            ..Container::default()
        };
        assert_eq!(block, Ok(expected));
    }

    #[test]
    fn everything_wrong_is_said_at_once() {
        let problems = check(
            "{memory: 1, pids: 1, egress: ['https://x.y', '*y.z', 'z.y:0'], entrypoint: [], runtime: '../x', egress_limits: {connections: 0, bytes: 1, time: 500ms}, heartbeat: 4s}",
        )
        .unwrap_err();
        assert_eq!(problems.len(), 11, "{problems:?}");
    }

    #[test]
    fn a_state_has_bounds_within_bounds() {
        let block = check("{state: data, state_limit: {bytes: 20GiB, files: 500}}").unwrap();
        let bounds = StateBounds {
            total_bytes: Some(20 << 30),
            files: Some(500),
        };
        assert_eq!(block.state_limit, bounds);
        assert_eq!(check("{}").unwrap().state_limit, StateBounds::default());
        let problems = check("{state_limit: {bytes: 1, files: 1}}").unwrap_err();
        let expected = [
            "state_limit.bytes must be 64KiB to 1TiB",
            "state_limit.files must be 16 to 1000000",
        ];
        assert_eq!(problems, expected);
    }

    #[test]
    fn egress_is_what_its_own_module_says() {
        let one = |host: &str| check(&format!("{{egress: ['{host}']}}"));
        for good in [
            "*.a.example",
            "*.a.example:22",
            "a.example",
            "192.0.2.7:8080",
            "nas",
            "a.example:443@192.0.2.7",
        ] {
            assert!(one(good).is_ok(), "{good}");
        }
        for bad in [
            "*",
            "*.com",
            "a.*.example",
            "*a.example",
            "*.*.example",
            "a..example",
            ".example",
            "*.",
            "",
        ] {
            assert!(one(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_mode_is_one_of_two() {
        assert_eq!(check("{mode: call}").unwrap().mode, Some(RunMode::Call));
        assert_eq!(check("{}").unwrap().mode, None);
        assert!(bailey_yaml::parse::<ContainerYaml>("{mode: daemon}").is_err());
        let heartbeat = |text: &str| check(&format!("{{heartbeat: {text}}}"));
        assert_eq!(heartbeat("5s").unwrap().heartbeat_seconds, Some(5));
        assert_eq!(heartbeat("24h").unwrap().heartbeat_seconds, Some(86_400));
        for bad in ["4s", "5500ms", "25h"] {
            assert!(heartbeat(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn no_host_at_all_is_something_else_than_not_said() {
        assert_eq!(check("{egress: []}").unwrap().egress, Some(Vec::new()));
        assert_eq!(check("{}").unwrap().egress, None);
    }
}
