//! Who a container is: its name, its labels, and back.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use bailey_types::{AttemptNumber, JobId, PluginName, Serial, StackId};

use crate::Spec;

/// Names of the labels.
pub mod label {
    /// The stack id.
    pub const STACK: &str = "bailey.stack";
    /// `cell` or `probe`.
    pub const KIND: &str = "bailey.kind";
    /// The plugin; cells only.
    pub const PLUGIN: &str = "bailey.plugin";
    /// The job, or the id of the probe.
    pub const JOB: &str = "bailey.job";
    /// The attempt; cells only.
    pub const ATTEMPT: &str = "bailey.attempt";
    /// Serial of the lock that the container was derived from; cells only.
    pub const LOCK: &str = "bailey.lock";
}

/// What a container is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Runs one job.
    Cell,
    /// Looks at its own walls.
    Probe,
}

impl Kind {
    /// As in labels and names.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cell => "cell",
            Self::Probe => "probe",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why labels do not say who a container is.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadLabels {
    /// A label is needed and absent.
    #[error("the label {0} is missing")]
    Missing(&'static str),
    /// A label's value is not of its kind.
    #[error("the label {label} is malformed: {value:?}")]
    Malformed {
        /// The label.
        label: &'static str,
        /// What it holds, cut to 80 characters.
        value: String,
    },
}

/// What the labels of a container claim. Whoever reads them derives the rest from its own lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// A cell.
    Cell {
        /// The plugin.
        plugin: PluginName,
        /// The job.
        job: JobId,
        /// The attempt.
        attempt: AttemptNumber,
        /// The lock it was derived from.
        serial: Serial,
    },
    /// A probe.
    Probe {
        /// Its id.
        job: JobId,
    },
}

impl Identity {
    /// Reads the labels of a container of `stack`.
    pub fn from_labels(
        stack: &StackId,
        labels: &HashMap<String, String>,
    ) -> Result<Self, BadLabels> {
        let of: String = read(labels, label::STACK)?;
        if of != stack.as_str() {
            return Err(malformed(label::STACK, &of));
        }
        let kind: String = read(labels, label::KIND)?;
        match kind.as_str() {
            "cell" => Ok(Self::Cell {
                plugin: read(labels, label::PLUGIN)?,
                job: read(labels, label::JOB)?,
                attempt: AttemptNumber(read(labels, label::ATTEMPT)?),
                serial: Serial(read(labels, label::LOCK)?),
            }),
            "probe" => Ok(Self::Probe {
                job: read(labels, label::JOB)?,
            }),
            _ => Err(malformed(label::KIND, &kind)),
        }
    }

    /// What the container is for.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Cell { .. } => Kind::Cell,
            Self::Probe { .. } => Kind::Probe,
        }
    }
}

fn malformed(label: &'static str, value: &str) -> BadLabels {
    BadLabels::Malformed {
        label,
        value: value.chars().take(80).collect(),
    }
}

fn read<T: FromStr>(labels: &HashMap<String, String>, label: &'static str) -> Result<T, BadLabels> {
    let value = labels.get(label).ok_or(BadLabels::Missing(label))?;
    value.parse().map_err(|_| malformed(label, value))
}

/// How the names of all containers of `stack` that are for `kind` begin.
pub fn name_prefix(stack: &StackId, kind: Kind) -> String {
    format!("bailey-{stack}-{kind}-")
}

/// The container's name: telling for people, unique per attempt; never accepted in place of an id.
pub fn name(spec: &Spec<'_>) -> String {
    match spec {
        Spec::Cell(cell) => {
            let prefix = name_prefix(cell.stack, Kind::Cell);
            format!("{prefix}{}-{}", cell.job, cell.attempt)
        }
        Spec::Probe(probe) => format!("{}{}", name_prefix(probe.stack, Kind::Probe), probe.job),
    }
}

/// The container's labels, all of them.
pub fn labels(spec: &Spec<'_>) -> HashMap<String, String> {
    let pairs = match spec {
        Spec::Cell(cell) => vec![
            (label::STACK, cell.stack.to_string()),
            (label::KIND, Kind::Cell.to_string()),
            (label::PLUGIN, cell.plugin.to_string()),
            (label::JOB, cell.job.to_string()),
            (label::ATTEMPT, cell.attempt.to_string()),
            (label::LOCK, cell.serial.to_string()),
        ],
        Spec::Probe(probe) => vec![
            (label::STACK, probe.stack.to_string()),
            (label::KIND, Kind::Probe.to_string()),
            (label::JOB, probe.job.to_string()),
        ],
    };
    pairs
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}
