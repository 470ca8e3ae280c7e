//! `plugins:`.

mod schedule;
mod secret_ref;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bailey_plugin::Container;
use bailey_types::{AccountName, CommandName, PluginName, PrincipalName, SecretName};
use bailey_yaml::{At, Object};
use serde::Serialize;

use crate::account::{self, Account};
use crate::error::Report;
use crate::raw;
use crate::service::{DAY, count, duration, span};

pub use schedule::{CatchUp, IfRunning, Schedule, When};
pub use secret_ref::SECRET_REF;

/// `plugins.<name>:`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PluginConfig {
    /// Whether it may run at all. Listing a plugin enables it.
    pub enabled: bool,
    /// The plugin that this is an alias of.
    pub uses: Option<PluginName>,
    /// The account it runs under: the one it names, or `default`.
    pub run_as: AccountName,
    /// Whether it must not run without its principal in the vault.
    pub requires_vault: bool,
    /// Whose secrets it gets: the principal it names, or its own name.
    pub vault_principal: PrincipalName,
    /// What its requests carry as `config`.
    pub config: Object,
    /// `retry:`
    pub retry: Retry,
    /// `timeouts:`
    pub timeouts: Timeouts,
    /// `schedules:`
    pub schedules: Vec<Schedule>,
    /// `circuit_breaker:`
    pub circuit_breaker: CircuitBreaker,
    /// Most of its jobs that run at once; unset: as many as there are workers, or one if its manifest says that it is not safe.
    pub parallelism: Option<u32>,
    /// Most scheduled jobs that wait or run, for `if_running: queue`.
    pub max_outstanding_polls: u32,
    /// Whether hooks hear of its jobs.
    pub notify_on_complete: bool,
    /// `container:`; wins over the manifest.
    pub container: Container,
}

impl PluginConfig {
    /// The secrets that `config` refers to by `{secret_ref: name}`.
    pub fn secret_refs(&self) -> BTreeSet<SecretName> {
        secret_ref::names(&self.config)
    }
}

/// `retry:`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Retry {
    /// First try included.
    pub max_attempts: u32,
    /// Wait before the second try; doubled for each later one.
    #[serde(serialize_with = "duration")]
    pub backoff_base: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            max_attempts: 4,
            backoff_base: Duration::from_secs(30),
        }
    }
}

/// `circuit_breaker:`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct CircuitBreaker {
    /// Failures in a row that open it.
    pub threshold: u32,
    /// How long it stays open.
    #[serde(serialize_with = "duration")]
    pub reset_after: Duration,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self {
            threshold: 3,
            reset_after: Duration::from_mins(30),
        }
    }
}

/// How long each command may take.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Timeouts(#[serde(serialize_with = "spans")] BTreeMap<CommandName, Duration>);

impl Timeouts {
    /// The configured time, or the default for such a command (reference: ductile 1.6).
    pub fn of(&self, command: &CommandName) -> Duration {
        self.0.get(command).copied().unwrap_or_else(|| {
            Duration::from_secs(match command.as_str() {
                "handle" => 120,
                "health" => 10,
                "init" => 30,
                _ => 60,
            })
        })
    }
}

fn spans<S: serde::Serializer>(
    spans: &BTreeMap<CommandName, Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(
        spans
            .iter()
            .map(|(name, time)| (name, bailey_yaml::Span(*time).to_string())),
    )
}

/// What of the rest of the configuration a plugin refers to.
pub(crate) struct Known<'a> {
    pub(crate) accounts: &'a BTreeMap<AccountName, Account>,
    pub(crate) max_workers: u32,
    pub(crate) unconfined: bool,
}

pub(crate) fn plugin(
    name: &At<PluginName>,
    raw: raw::Plugin,
    known: &Known<'_>,
    report: &mut Report<'_>,
) -> Option<PluginConfig> {
    let run_as = run_as(name, raw.run_as, known, report)?;
    let vault_principal = match raw
        .vault_principal
        .map_or_else(|| name.value.as_str().parse(), Ok)
    {
        Ok(principal) => principal,
        Err(e) => {
            report.push(name.place, e.to_string());
            return None;
        }
    };
    let minute = Duration::from_millis(1)..=7 * DAY;
    let retry = Retry {
        max_attempts: count(
            raw.retry.max_attempts,
            Retry::default().max_attempts,
            1..=100,
            "max_attempts",
            report,
        ),
        backoff_base: span(
            raw.retry.backoff_base,
            Retry::default().backoff_base,
            minute.clone(),
            "backoff_base",
            report,
        ),
    };
    let breaker = CircuitBreaker::default();
    let circuit_breaker = CircuitBreaker {
        threshold: count(
            raw.circuit_breaker.threshold,
            breaker.threshold,
            1..=1000,
            "threshold",
            report,
        ),
        reset_after: span(
            raw.circuit_breaker.reset_after,
            breaker.reset_after,
            minute,
            "reset_after",
            report,
        ),
    };
    let parallelism = raw
        .parallelism
        .map(|given| count(Some(given), 1, 1..=known.max_workers, "parallelism", report));
    Some(PluginConfig {
        enabled: raw.enabled.unwrap_or(true),
        uses: raw.uses.map(|uses| uses.value),
        run_as,
        requires_vault: raw.requires_vault,
        vault_principal,
        config: config(raw.config, report),
        retry,
        timeouts: timeouts(raw.timeouts, report),
        schedules: schedule::schedules(raw.schedules, report),
        circuit_breaker,
        parallelism,
        max_outstanding_polls: count(
            raw.max_outstanding_polls,
            1,
            1..=1000,
            "max_outstanding_polls",
            report,
        ),
        notify_on_complete: raw.notify_on_complete,
        container: container(raw.container, report),
    })
}

fn run_as(
    name: &At<PluginName>,
    given: Option<At<AccountName>>,
    known: &Known<'_>,
    report: &mut Report<'_>,
) -> Option<AccountName> {
    // Where nothing is confined, there is nothing that `default` would have to say.
    let needless = given.is_none() && known.unconfined;
    let (place, account) = match given {
        Some(given) => (given.place, given.value),
        None => (name.place, account::DEFAULT.parse().ok()?),
    };
    let plugin = &name.value;
    if account.as_str() == account::UNTRUSTED {
        report.push(
            place,
            format!("plugin {plugin} runs as the account untrusted, which is for plugins whose folder has changed since they were locked"),
        );
    } else if !known.accounts.contains_key(&account) && !needless {
        report.push(
            place,
            format!("plugin {plugin} runs as the account {account}, which is not under accounts"),
        );
    }
    Some(account)
}

fn timeouts(
    raw: bailey_yaml::Entries<CommandName, bailey_yaml::Span>,
    report: &mut Report<'_>,
) -> Timeouts {
    let mut times = BTreeMap::new();
    for (command, time) in raw.0 {
        if !(Duration::from_millis(1)..=DAY).contains(&time.0) {
            report.push(
                command.place,
                format!(
                    "the timeout of {} is {time}; it must be 1ms to 24h",
                    command.value
                ),
            );
        }
        times.insert(command.value, time.0);
    }
    Timeouts(times)
}

fn container(raw: Option<At<bailey_plugin::ContainerYaml>>, report: &mut Report<'_>) -> Container {
    let Some(raw) = raw else {
        return Container::default();
    };
    raw.value.check().unwrap_or_else(|problems| {
        for problem in problems {
            report.push(raw.place, format!("container: {problem}"));
        }
        Container::default()
    })
}

fn config(raw: Option<At<Object>>, report: &mut Report<'_>) -> Object {
    let Some(raw) = raw else { return Object::new() };
    let problems = match bailey_yaml::object_problem(&raw.value) {
        Some(problem) => vec![problem],
        None => secret_ref::problems(&raw.value),
    };
    for problem in problems {
        report.push(raw.place, format!("config: {problem}"));
    }
    raw.value
}

fn object(raw: Option<At<Object>>, what: &str, report: &mut Report<'_>) -> Object {
    let Some(raw) = raw else { return Object::new() };
    if let Some(problem) = bailey_yaml::object_problem(&raw.value) {
        report.push(raw.place, format!("{what}: {problem}"));
    }
    raw.value
}
