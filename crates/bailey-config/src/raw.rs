//! The shapes of the YAML files. What they mean is decided by the modules that turn them into the public types.

use std::net::IpAddr;
use std::path::PathBuf;

use bailey_plugin::ContainerYaml;
use bailey_types::{
    AccountName, CommandName, EventType, PipelineName, PluginName, PrincipalName, ScheduleId,
    SecretName, StepId, UpstreamName,
};
use bailey_yaml::{At, Cpus, Entries, Object, Rate, Size, Span};
use serde::Deserialize;

use crate::pipeline::ExecutionMode;
use crate::plugin::{CatchUp, IfRunning};
use crate::service::LogLevel;
use crate::upstream::Client;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct File {
    pub(crate) include: Vec<At<String>>,
    pub(crate) service: Option<At<Service>>,
    pub(crate) accounts: Entries<AccountName, Account>,
    pub(crate) plugin_roots: Vec<At<PathBuf>>,
    pub(crate) plugins: Entries<PluginName, Option<Plugin>>,
    pub(crate) pipelines: Vec<Pipeline>,
    pub(crate) upstreams: Entries<UpstreamName, Upstream>,
    pub(crate) api: Option<At<Api>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Service {
    pub(crate) name: Option<At<String>>,
    pub(crate) log_level: Option<LogLevel>,
    pub(crate) dedupe_ttl: Option<At<Span>>,
    pub(crate) job_queue_retention: Option<At<Span>>,
    pub(crate) job_log_retention: Option<At<Span>>,
    pub(crate) max_workers: Option<At<u32>>,
    pub(crate) unconfined: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(
    clippy::struct_field_names,
    reason = "the names are the operator's keys"
)]
pub(crate) struct Api {
    pub(crate) max_body_size: Option<At<Size>>,
    pub(crate) max_concurrent_sync: Option<At<u32>>,
    pub(crate) max_sync_timeout: Option<At<Span>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Account {
    pub(crate) uid: Option<At<u32>>,
    pub(crate) gid: Option<At<u32>>,
    pub(crate) memory: Option<At<Size>>,
    pub(crate) cpus: Option<At<Cpus>>,
    pub(crate) pids: Option<At<u32>>,
    pub(crate) runtime: Option<At<String>>,
    pub(crate) home: Option<At<PathBuf>>,
    pub(crate) mounts: Vec<At<Mount>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mount {
    pub(crate) path: PathBuf,
    #[serde(default)]
    pub(crate) writable: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Plugin {
    pub(crate) enabled: Option<bool>,
    pub(crate) uses: Option<At<PluginName>>,
    pub(crate) run_as: Option<At<AccountName>>,
    pub(crate) requires_vault: bool,
    pub(crate) vault_principal: Option<PrincipalName>,
    pub(crate) config: Option<At<Object>>,
    pub(crate) retry: Retry,
    pub(crate) timeouts: Entries<CommandName, Span>,
    pub(crate) schedules: Vec<At<Schedule>>,
    pub(crate) circuit_breaker: CircuitBreaker,
    pub(crate) parallelism: Option<At<u32>>,
    pub(crate) max_outstanding_polls: Option<At<u32>>,
    pub(crate) notify_on_complete: bool,
    pub(crate) container: Option<At<ContainerYaml>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Retry {
    pub(crate) max_attempts: Option<At<u32>>,
    pub(crate) backoff_base: Option<At<Span>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CircuitBreaker {
    pub(crate) threshold: Option<At<u32>>,
    pub(crate) reset_after: Option<At<Span>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Schedule {
    pub(crate) id: Option<ScheduleId>,
    pub(crate) every: Option<At<String>>,
    pub(crate) cron: Option<At<String>>,
    pub(crate) command: Option<At<CommandName>>,
    pub(crate) payload: Option<At<Object>>,
    pub(crate) jitter: Option<At<Span>>,
    pub(crate) timezone: Option<At<String>>,
    pub(crate) catch_up: Option<At<CatchUp>>,
    pub(crate) if_running: Option<At<IfRunning>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pipeline {
    pub(crate) name: At<PipelineName>,
    pub(crate) on: EventType,
    #[serde(default)]
    pub(crate) from_plugin: Option<At<PluginName>>,
    #[serde(default)]
    pub(crate) max_depth: Option<At<u32>>,
    #[serde(default)]
    pub(crate) execution_mode: ExecutionMode,
    #[serde(default)]
    pub(crate) timeout: Option<At<Span>>,
    pub(crate) steps: At<Vec<Step>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    #[serde(default)]
    pub(crate) id: Option<At<StepId>>,
    pub(crate) uses: At<PluginName>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Upstream {
    pub(crate) url: At<String>,
    #[serde(default)]
    pub(crate) secret_ref: Option<SecretName>,
    #[serde(default)]
    pub(crate) vault_principal: Option<At<PrincipalName>>,
    #[serde(default)]
    pub(crate) header: Option<At<String>>,
    #[serde(default)]
    pub(crate) scheme: Option<At<String>>,
    #[serde(default)]
    pub(crate) headers: Entries<String, At<String>>,
    #[serde(default)]
    pub(crate) address: Option<At<IpAddr>>,
    #[serde(default)]
    pub(crate) ca: Option<At<String>>,
    #[serde(default)]
    pub(crate) clients: Option<At<Vec<At<Client>>>>,
    #[serde(default)]
    pub(crate) timeout: Option<At<Span>>,
    #[serde(default)]
    pub(crate) max_concurrent: Option<At<u32>>,
    #[serde(default)]
    pub(crate) rate: Option<At<Rate>>,
    #[serde(default)]
    pub(crate) check: Option<At<String>>,
}
