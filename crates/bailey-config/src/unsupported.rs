//! Keys that Ductile has and Bailey does not: whoever brings a configuration along learns at once what becomes of each.

use bailey_yaml::UnknownKey;

/// Where a key stands, by a key that only that mapping knows; the key; what to say.
const KEYS: &[(&str, &str, &str)] = &[
    ("plugin_roots", "webhooks", "not supported yet: webhooks"),
    (
        "plugin_roots",
        "routes",
        "not supported yet: raw routes; write a pipeline",
    ),
    (
        "plugin_roots",
        "instances",
        "not supported yet: relays between instances",
    ),
    (
        "plugin_roots",
        "remote_ingress",
        "not supported yet: relays between instances",
    ),
    (
        "plugin_roots",
        "environment_vars",
        "not supported: environment files; values stand here, secrets in the vault",
    ),
    (
        "plugin_roots",
        "state",
        "not supported: state.path; each service keeps its state in its own volume",
    ),
    (
        "plugin_roots",
        "database",
        "not supported: database.path; each service keeps its state in its own volume",
    ),
    (
        "plugin_roots",
        "secrets",
        "not supported: secrets; the vault and its key are the broker's alone",
    ),
    (
        "plugin_roots",
        "tcc_paths",
        "not supported: tcc_paths; they belong to macOS",
    ),
    (
        "log_level",
        "tick_interval",
        "not supported: tick_interval; the scheduler has no tick, schedules start when they are due",
    ),
    (
        "log_level",
        "log_format",
        "not supported: log_format; logs are JSON",
    ),
    (
        "log_level",
        "job_transitions_retention",
        "not supported yet: job_transitions_retention; job_log_retention covers transitions",
    ),
    (
        "log_level",
        "job_attempts_retention",
        "not supported yet: job_attempts_retention; job_log_retention covers attempts",
    ),
    (
        "log_level",
        "breaker_transitions_retention",
        "not supported yet: breaker_transitions_retention",
    ),
    ("log_level", "hook_max_depth", "not supported yet: hooks"),
    (
        "log_level",
        "plugin_env_passthrough",
        "not supported: plugin_env_passthrough; a cell gets no environment of the host",
    ),
    (
        "log_level",
        "allow_symlinks",
        "not supported: allow_symlinks; a sealed plugin has no links",
    ),
    (
        "log_level",
        "admission",
        "not supported: admission; every one of its gates is always closed here",
    ),
    (
        "log_level",
        "strict_mode",
        "not supported: strict_mode; it is always on here",
    ),
    (
        "max_body_size",
        "enabled",
        "not supported: api.enabled; the API is always there, behind the ingress",
    ),
    (
        "max_body_size",
        "listen",
        "not supported: api.listen; the gateway's ports are those of compose",
    ),
    (
        "max_body_size",
        "management_socket",
        "not supported: api.management_socket; the CLI has sockets of its own",
    ),
    (
        "max_body_size",
        "auth",
        "not supported: api.auth; make tokens with `bailey token create`",
    ),
    (
        "max_body_size",
        "allowed_origins",
        "not supported yet: allowed_origins",
    ),
    (
        "gid",
        "state_dir",
        "not supported: state_dir; a plugin that keeps files says `container: {state: data}`",
    ),
    (
        "run_as",
        "schedule",
        "not supported: schedule; write `schedules:` with a list",
    ),
    ("if_running", "at", "not supported yet: at"),
    ("if_running", "after", "not supported yet: after"),
    (
        "if_running",
        "only_between",
        "not supported yet: only_between",
    ),
    ("if_running", "not_on", "not supported yet: not_on"),
    (
        "if_running",
        "preferred_window",
        "not supported: preferred_window; nothing ever enforced it",
    ),
    ("from_plugin", "on-hook", "not supported yet: on-hook"),
    ("from_plugin", "if", "not supported yet: if"),
    ("id", "call", "not supported yet: call"),
    ("id", "relay", "not supported yet: relay"),
    ("id", "steps", "not supported yet: steps inside of steps"),
    ("id", "split", "not supported yet: split"),
    ("id", "if", "not supported yet: if"),
    ("id", "with", "not supported yet: with"),
    ("id", "baggage", "not supported yet: baggage"),
    (
        "egress",
        "mounts",
        "not supported: mounts of a plugin; host paths belong to an account that has uid and gid",
    ),
    (
        "egress",
        "run_as",
        "not supported: run_as in a container block; it stands beside it, in the configuration only",
    ),
];

/// What to say of a key that Bailey does not have, if Ductile has it in that place.
pub(crate) fn advice(unknown: &UnknownKey) -> Option<&'static str> {
    let stands_in = |mark: &str| unknown.known.contains(&mark);
    KEYS.iter()
        .find(|(mark, key, _)| *key == unknown.key && stands_in(mark))
        .map(|(_, _, advice)| *advice)
}
