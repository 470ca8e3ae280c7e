//! The `container:` block, in a manifest and in the operator's configuration.

use serde::{Deserialize, Serialize};

use bailey_yaml::{Cpus, Size};

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
    /// Hosts it asks for, as `host:port`.
    pub egress: Vec<String>,
    /// Most cells that are kept started and unused.
    #[serde(default)]
    pub warm: Option<u32>,
    /// Whether it keeps files between calls.
    #[serde(default)]
    pub state: Option<StateKind>,
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
    egress: Vec<String>,
    warm: Option<u32>,
    state: Option<StateKind>,
}

const MIB: u64 = 1 << 20;

impl ContainerYaml {
    /// The block, checked; or everything that is wrong with it.
    pub fn check(self) -> Result<Container, Vec<String>> {
        let mut problems = Vec::new();
        let mut within = |what: &str, holds: bool, rule: &str| {
            if !holds {
                problems.push(format!("{what} must be {rule}"));
            }
        };
        within(
            "memory",
            self.memory
                .is_none_or(|m| (8 * MIB..=1 << 40).contains(&m.0)),
            "8MiB to 1TiB",
        );
        within(
            "cpus",
            self.cpus.is_none_or(|c| (10..=256_000).contains(&c.0)),
            "0.01 to 256",
        );
        within(
            "pids",
            self.pids.is_none_or(|p| (4..=32_768).contains(&p)),
            "4 to 32768",
        );
        within(
            "tmp",
            self.tmp.is_none_or(|t| (4096..=1 << 40).contains(&t.0)),
            "4KiB to 1TiB",
        );
        within("warm", self.warm.is_none_or(|w| w <= 64), "0 to 64");
        within(
            "image",
            self.image.as_deref().is_none_or(is_image),
            "an image name without spaces",
        );
        within(
            "entrypoint",
            self.entrypoint.as_deref().is_none_or(is_entrypoint),
            "a program and its arguments",
        );
        within("egress", self.egress.len() <= 64, "at most 64 hosts");
        let mut egress = Vec::new();
        for host in &self.egress {
            match host_and_port(host) {
                Some(host) => egress.push(host),
                None => problems.push(format!("egress: {host:?} is not a host name or host:port")),
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
            egress,
            warm: self.warm,
            state: self.state,
        })
    }
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

/// `host` or `host:port` as `host:port`, in lower case; 443 where none is given.
fn host_and_port(text: &str) -> Option<String> {
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, port.parse::<u16>().ok().filter(|port| *port != 0)?),
        None => (text, 443),
    };
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    let valid = host.len() <= 253 && host.split('.').all(label);
    valid.then(|| format!("{}:{port}", host.to_ascii_lowercase()))
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
            "{memory: 128MiB, cpus: 0.5, pids: 64, tmp: 1MB, egress: [Example.com, 'nas.lan:8443']}",
        );
        let expected = Container {
            memory_bytes: Some(128 << 20),
            millicpus: Some(500),
            pids: Some(64),
            tmp_bytes: Some(1_000_000),
            egress: vec!["example.com:443".into(), "nas.lan:8443".into()],
            ..Container::default()
        };
        assert_eq!(block, Ok(expected));
    }

    #[test]
    fn everything_wrong_is_said_at_once() {
        let problems =
            check("{memory: 1, pids: 1, egress: ['https://x', '*.y', 'z:0'], entrypoint: []}")
                .unwrap_err();
        assert_eq!(problems.len(), 6, "{problems:?}");
    }
}
