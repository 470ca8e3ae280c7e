//! Who a container is: its name, its labels, and back.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use bailey_trust::UNTRUSTED;
use bailey_types::{AttemptNumber, JobId, PluginName, Serial, StackId};

use crate::{Look, Pace, Spec};

/// Names of the labels.
pub mod label {
    /// The stack id.
    pub const STACK: &str = "bailey.stack";
    /// `cell`, `holder` or `probe`.
    pub const KIND: &str = "bailey.kind";
    /// The plugin; not on probes of walls.
    pub const PLUGIN: &str = "bailey.plugin";
    /// The job, or the id of the holder or probe; not on pooled cells.
    pub const JOB: &str = "bailey.job";
    /// The attempt; cells with a job only.
    pub const ATTEMPT: &str = "bailey.attempt";
    /// The id of a pooled cell.
    pub const POOL: &str = "bailey.pool";
    /// Full id of the holder that a cell has joined.
    pub const HOLDER: &str = "bailey.holder";
    /// The account, where it is not that of the lock: `untrusted`.
    pub const ACCOUNT: &str = "bailey.account";
    /// How long a probe looks at a plugin's state; not on other probes.
    pub const STATE: &str = "bailey.state";
    /// Serial of the lock that the container was derived from; not on probes of walls.
    pub const LOCK: &str = "bailey.lock";
}

/// What a container is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Runs one job.
    Cell,
    /// Holds a network namespace.
    Holder,
    /// Looks at its own walls, at host paths, or at a plugin's state.
    Probe,
}

impl Kind {
    /// As in labels and names.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cell => "cell",
            Self::Holder => "holder",
            Self::Probe => "probe",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// For which job a cell was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Seat {
    /// For this one.
    Job {
        /// The job.
        job: JobId,
        /// Which attempt of it.
        attempt: AttemptNumber,
    },
    /// Before there was one: for the first that comes.
    Pool {
        /// Tells pooled cells apart; made for this one.
        id: JobId,
    },
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
        /// For which job.
        seat: Seat,
        /// The lock it was derived from.
        serial: Serial,
        /// Whether it is walled as `untrusted`.
        untrusted: bool,
        /// Full id of the holder that it has joined: 64 lower-case hexadecimal digits.
        holder: Option<Box<str>>,
    },
    /// A holder.
    Holder {
        /// The plugin that its cells are of.
        plugin: PluginName,
        /// Its id.
        id: JobId,
        /// The lock it was derived from.
        serial: Serial,
    },
    /// A probe.
    Probe {
        /// Its id.
        job: JobId,
        /// At what it looks.
        target: Target,
    },
}

/// At what a probe looks, as its labels claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// At its own walls.
    Walls,
    /// At the host paths of this plugin, as they are in that lock.
    Paths(PluginName, Serial),
    /// At the state of this plugin, as it is in that lock.
    State(PluginName, Serial, Pace),
}

impl Target {
    fn plugin(&self) -> Option<&PluginName> {
        match self {
            Self::Walls => None,
            Self::Paths(plugin, _) | Self::State(plugin, ..) => Some(plugin),
        }
    }
}

impl From<&Look<'_>> for Target {
    fn from(look: &Look<'_>) -> Self {
        match look {
            Look::Walls => Self::Walls,
            Look::Paths(entry) => Self::Paths(entry.plugin.clone(), entry.serial),
            Look::State(entry, pace) => Self::State(entry.plugin.clone(), entry.serial, *pace),
        }
    }
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
                seat: seat(labels)?,
                serial: Serial(read(labels, label::LOCK)?),
                untrusted: untrusted(labels)?,
                holder: holder(labels)?,
            }),
            "holder" => Ok(Self::Holder {
                plugin: read(labels, label::PLUGIN)?,
                id: read(labels, label::JOB)?,
                serial: Serial(read(labels, label::LOCK)?),
            }),
            "probe" => Ok(Self::Probe {
                job: read(labels, label::JOB)?,
                target: target(labels)?,
            }),
            _ => Err(malformed(label::KIND, &kind)),
        }
    }

    /// What the container is for.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Cell { .. } => Kind::Cell,
            Self::Holder { .. } => Kind::Holder,
            Self::Probe { .. } => Kind::Probe,
        }
    }

    /// The plugin whose it is.
    pub fn plugin(&self) -> Option<&PluginName> {
        match self {
            Self::Cell { plugin, .. } | Self::Holder { plugin, .. } => Some(plugin),
            Self::Probe { target, .. } => target.plugin(),
        }
    }

    /// The name of the container in `stack` that this is the identity of.
    pub fn name(&self, stack: &StackId) -> String {
        let kind = self.kind();
        match self {
            Self::Cell { seat, .. } => match seat {
                Seat::Job { job, attempt } => format!("bailey-{stack}-{kind}-{job}-{attempt}"),
                Seat::Pool { id } => format!("bailey-{stack}-{kind}-pool-{id}"),
            },
            Self::Holder { id, .. } | Self::Probe { job: id, .. } => {
                format!("bailey-{stack}-{kind}-{id}")
            }
        }
    }
}

impl From<&Spec<'_>> for Identity {
    fn from(spec: &Spec<'_>) -> Self {
        match spec {
            Spec::Cell(cell) => Self::Cell {
                plugin: cell.plugin.clone(),
                seat: cell.seat,
                serial: cell.serial,
                untrusted: cell.untrusted,
                holder: cell.holder.map(Into::into),
            },
            Spec::Holder(holder) => Self::Holder {
                plugin: holder.plugin.clone(),
                id: holder.id,
                serial: holder.serial,
            },
            Spec::Probe(probe) => Self::Probe {
                job: probe.job,
                target: Target::from(&probe.look),
            },
        }
    }
}

fn target(labels: &HashMap<String, String>) -> Result<Target, BadLabels> {
    let entry = || {
        let serial = Serial(read(labels, label::LOCK)?);
        Ok((read(labels, label::PLUGIN)?, serial))
    };
    if let Some(pace) = labels.get(label::STATE) {
        let (plugin, serial) = entry()?;
        let pace = pace.parse().map_err(|()| malformed(label::STATE, pace))?;
        return Ok(Target::State(plugin, serial, pace));
    }
    if labels.contains_key(label::PLUGIN) {
        return entry().map(|(plugin, serial)| Target::Paths(plugin, serial));
    }
    Ok(Target::Walls)
}

fn seat(labels: &HashMap<String, String>) -> Result<Seat, BadLabels> {
    let Some(pool) = labels.get(label::POOL) else {
        return Ok(Seat::Job {
            job: read(labels, label::JOB)?,
            attempt: AttemptNumber(read(labels, label::ATTEMPT)?),
        });
    };
    // Either, never both.
    if let Some(job) = labels.get(label::JOB) {
        return Err(malformed(label::JOB, job));
    }
    let id = pool.parse().map_err(|_| malformed(label::POOL, pool))?;
    Ok(Seat::Pool { id })
}

fn untrusted(labels: &HashMap<String, String>) -> Result<bool, BadLabels> {
    match labels.get(label::ACCOUNT) {
        None => Ok(false),
        Some(account) if account == UNTRUSTED => Ok(true),
        Some(other) => Err(malformed(label::ACCOUNT, other)),
    }
}

fn holder(labels: &HashMap<String, String>) -> Result<Option<Box<str>>, BadLabels> {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    match labels.get(label::HOLDER) {
        None => Ok(None),
        Some(id) if id.len() == 64 && id.bytes().all(hex) => Ok(Some(id.as_str().into())),
        Some(other) => Err(malformed(label::HOLDER, other)),
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

/// The container's name: telling for people, unique per attempt; never accepted in place of an id.
pub fn name(spec: &Spec<'_>) -> String {
    let stack = match spec {
        Spec::Cell(cell) => cell.stack,
        Spec::Holder(holder) => holder.stack,
        Spec::Probe(probe) => probe.stack,
    };
    Identity::from(spec).name(stack)
}

/// The container's labels, all of them.
pub fn labels(spec: &Spec<'_>) -> HashMap<String, String> {
    let mut pairs = match spec {
        Spec::Cell(cell) => vec![
            (label::STACK, cell.stack.to_string()),
            (label::PLUGIN, cell.plugin.to_string()),
            (label::LOCK, cell.serial.to_string()),
        ],
        Spec::Holder(holder) => vec![
            (label::STACK, holder.stack.to_string()),
            (label::PLUGIN, holder.plugin.to_string()),
            (label::LOCK, holder.serial.to_string()),
        ],
        Spec::Probe(probe) => vec![(label::STACK, probe.stack.to_string())],
    };
    let identity = Identity::from(spec);
    pairs.push((label::KIND, identity.kind().to_string()));
    match identity {
        Identity::Cell {
            seat,
            untrusted,
            holder,
            ..
        } => {
            match seat {
                Seat::Job { job, attempt } => {
                    pairs.push((label::JOB, job.to_string()));
                    pairs.push((label::ATTEMPT, attempt.to_string()));
                }
                Seat::Pool { id } => pairs.push((label::POOL, id.to_string())),
            }
            pairs.extend(untrusted.then(|| (label::ACCOUNT, UNTRUSTED.to_owned())));
            pairs.extend(holder.map(|id| (label::HOLDER, id.into())));
        }
        Identity::Holder { id, .. } => pairs.push((label::JOB, id.to_string())),
        Identity::Probe { job, target } => {
            pairs.push((label::JOB, job.to_string()));
            if let Target::Paths(plugin, serial) | Target::State(plugin, serial, _) = &target {
                pairs.push((label::PLUGIN, plugin.to_string()));
                pairs.push((label::LOCK, serial.to_string()));
            }
            if let Target::State(.., pace) = target {
                pairs.push((label::STATE, pace.as_str().to_owned()));
            }
        }
    }
    pairs
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}
