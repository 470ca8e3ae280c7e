//! The command line.

pub(crate) mod custody;
pub(crate) mod pki;
pub(crate) mod vault;

use std::path::PathBuf;

use bailey_types::{EventType, PluginName, StackId, UpstreamName};
use bailey_yaml::Span;
use clap::{Args, Parser, Subcommand};

use crate::cli::pki::PkiVerb;
use crate::cli::vault::{TokenVerb, VaultVerb};
use crate::host_paths::Resolved;

const EXAMPLES: &str = "\
Examples:
  bailey status --wait                                  until every service is ready
  bailey plugin run greet greet --payload '{\"name\":\"you\"}' --wait 30s
  bailey event emit demo.requested --payload '{\"name\":\"you\"}'
  bailey job list --status failed
  head -c 32 /dev/urandom | base64 | bailey vault set demo_key --grant greet
  bailey config check && bailey plugin lock --all       make a change take effect

Exit codes: 0 done, 1 failed, 78 something must be corrected first; of `vault status`, 2: the vault is not open.";

/// Operates a Bailey stack.
#[derive(Debug, Parser)]
#[command(name = "bailey", version, after_help = EXAMPLES, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) places: Places,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Where things are.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Places")]
pub(crate) struct Places {
    /// Folder of the stack, with config/, secrets/ and .env
    #[arg(long, global = true, default_value = ".", value_name = "DIR")]
    pub(crate) home: PathBuf,
    /// Print what is read as JSON
    #[arg(long, global = true, help_heading = "Output")]
    pub(crate) json: bool,
    /// The API; default: https://localhost and the port of .env
    #[arg(long, global = true, hide_short_help = true)]
    pub(crate) url: Option<String>,
    /// File with the API token; default: secrets/api.token
    #[arg(long, global = true, hide_short_help = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Certificates that the API's certificate is checked against; default: config/ca.pem
    #[arg(long, global = true, hide_short_help = true, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Folder of the configuration; default: config/
    #[arg(long, global = true, hide_short_help = true, value_name = "DIR")]
    pub(crate) config_dir: Option<PathBuf>,
    /// compose.yaml of the stack; default: in --home, else that of the checkout this program was built in
    #[arg(long, global = true, hide_short_help = true, value_name = "FILE")]
    pub(crate) compose: Option<PathBuf>,
    /// Inside of the container `cli`: file with the admin token. `vault init` writes it; `-` prints it
    #[arg(
        long,
        global = true,
        hide_short_help = true,
        default_value = "/run/secrets/admin.token",
        value_name = "FILE"
    )]
    pub(crate) admin_token_file: PathBuf,
    /// Inside of the container `cli`: folder of the management sockets
    #[arg(long, global = true, hide = true, default_value = "/run/bailey/manage")]
    pub(crate) manage_dir: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make roots of trust and a starter configuration, where there are none
    Init(InitArgs),
    /// Show how the stack is
    Status(StatusArgs),
    /// List, run and lock plugins
    Plugin {
        #[command(subcommand)]
        verb: PluginVerb,
    },
    /// Look at jobs
    Job {
        #[command(subcommand)]
        verb: JobVerb,
    },
    /// Emit events
    Event {
        #[command(subcommand)]
        verb: EventVerb,
    },
    /// List and try the HTTP services that the stack itself calls
    Upstream {
        #[command(subcommand)]
        verb: UpstreamVerb,
    },
    /// Keep secrets
    Vault {
        #[command(subcommand)]
        verb: VaultVerb,
    },
    /// Make, list and revoke API tokens
    Token {
        #[command(subcommand)]
        verb: TokenVerb,
    },
    /// Look after the stack's own certificates
    Pki {
        #[command(subcommand)]
        verb: PkiVerb,
    },
    /// Check, show and lock the configuration
    Config {
        #[command(subcommand)]
        verb: ConfigVerb,
    },
    /// Verify the audit log
    Audit {
        #[command(subcommand)]
        verb: AuditVerb,
    },
    /// Print completions for a shell
    ///
    /// bash: bailey completions bash > ~/.local/share/bash-completion/completions/bailey
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Name of the stack: in every container, volume and network name
    #[arg(long, default_value = "bailey")]
    pub(crate) stack: StackId,
    /// Owner of configuration and token folder, as uid:gid (needs root)
    #[arg(long, value_parser = owner)]
    pub(crate) owner: Option<(u32, u32)>,
    /// Folder for the secrets; default: /secrets in the container, else secrets/
    #[arg(long, value_name = "DIR")]
    pub(crate) secrets_dir: Option<PathBuf>,
    /// Folder of the broker's data: where it holds a vault.age, no age key is made
    #[arg(long, value_name = "DIR")]
    pub(crate) vault_dir: Option<PathBuf>,
}

fn owner(text: &str) -> Result<(u32, u32), String> {
    let ids = text
        .split_once(':')
        .and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)));
    ids.ok_or_else(|| "write it like 1000:1000".to_owned())
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Wait until every service is ready
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "60s")]
    pub(crate) wait: Option<Span>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PluginVerb {
    /// List the plugins of the lock, with their rating and commands
    List,
    /// Show what is locked of a plugin, and how it is rated and why
    Show(ShowArgs),
    /// Call a command of a plugin
    #[command(
        after_help = "Examples:\n  bailey plugin run echo poll --payload '{\"a\": 1}' --wait 30s\n  echo '{}' | bailey plugin run echo poll --payload -"
    )]
    Run(RunArgs),
    /// Seal plugins and sign what they are: preview first, then the same with the code that was shown
    #[command(
        after_help = "Examples:\n  bailey plugin lock --all            preview; prints a code\n  bailey plugin lock --all K7MQ2XWA   commit exactly what was previewed\n  bailey plugin lock greet            one plugin; the rest and the configuration stay as they are locked\n  bailey plugin lock --all --yes      both in one go, for scripts\n  bailey plugin lock notes --reset-state notes    and leave behind what it kept"
    )]
    Lock(LockArgs),
    /// Let cells of a quarantined plugin be kept ready again, after what made them end is mended
    Clear(ShowArgs),
    /// Start a plugin that runs as a service again, e.g. after a secret of it was changed
    Restart(ShowArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The plugin
    pub(crate) plugin: PluginName,
    /// One of its commands
    pub(crate) command: bailey_types::CommandName,
    /// The payload: a JSON object, or `-` for standard input
    #[arg(long, default_value = "{}")]
    pub(crate) payload: String,
    /// Wait for the result, at most this long
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "30s")]
    pub(crate) wait: Option<Span>,
    /// Calls with the same key are one job
    #[arg(long, value_name = "KEY")]
    pub(crate) dedupe_key: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct LockArgs {
    /// The plugin; with --all: the code of the preview
    #[arg(value_name = "PLUGIN|CODE", required_unless_present = "all")]
    pub(crate) first: Option<String>,
    /// The code of the preview
    #[arg(value_name = "CODE", conflicts_with = "all")]
    pub(crate) second: Option<String>,
    /// Every enabled plugin, and the configuration
    #[arg(long)]
    pub(crate) all: bool,
    /// Leave behind what this plugin kept so far, and start with nothing; may be given several times
    #[arg(long, value_name = "PLUGIN")]
    pub(crate) reset_state: Vec<PluginName>,
    /// Preview and commit in one go
    #[arg(long)]
    pub(crate) yes: bool,
    /// What host paths are, as the host's `bailey` tells the one in the container
    #[arg(long, hide = true, value_name = "JSON")]
    pub(crate) host_paths: Option<Resolved>,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The plugin
    pub(crate) plugin: PluginName,
}

#[derive(Debug, Subcommand)]
pub(crate) enum JobVerb {
    /// List jobs, newest first
    List(JobListArgs),
    /// Show one job and those that came of it
    Inspect(JobArgs),
    /// Show what one job logged
    Logs(JobArgs),
}

#[derive(Debug, Args)]
pub(crate) struct JobListArgs {
    /// Only of this plugin
    #[arg(long)]
    pub(crate) plugin: Option<PluginName>,
    /// Only of this command
    #[arg(long)]
    pub(crate) command: Option<bailey_types::CommandName>,
    /// Only with this status: queued, running, succeeded, failed, timed_out, dead, skipped, cancelled
    #[arg(long)]
    pub(crate) status: Option<String>,
    /// At most this many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub(crate) limit: u32,
}

#[derive(Debug, Args)]
pub(crate) struct JobArgs {
    /// The job
    #[arg(value_name = "JOB", value_parser = job_id)]
    pub(crate) id: bailey_types::JobId,
}

fn job_id(text: &str) -> Result<bailey_types::JobId, &'static str> {
    let help = "that is no job's id, which looks like 0198c0de-1f2a-7b3c-8d4e-5f6071829304; `bailey job list` shows them";
    text.parse().map_err(|_| help)
}

#[derive(Debug, Subcommand)]
pub(crate) enum EventVerb {
    /// Put an event into the log; it starts the pipelines that wait for it
    Emit(EmitArgs),
}

#[derive(Debug, Args)]
pub(crate) struct EmitArgs {
    /// Its type, e.g. demo.requested
    #[arg(value_name = "TYPE")]
    pub(crate) event_type: EventType,
    /// The payload: a JSON object, or `-` for standard input
    #[arg(long, default_value = "{}")]
    pub(crate) payload: String,
    /// Events with the same key are one event
    #[arg(long, value_name = "KEY")]
    pub(crate) dedupe_key: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum UpstreamVerb {
    /// List the upstreams of the lock, with the names of their keys
    List,
    /// Have an upstream asked as the stack asks it, with its key, and show its status
    #[command(after_help = "Exit code: 0 if it answered with a status below 400, else 1.")]
    Check(UpstreamArgs),
}

#[derive(Debug, Args)]
pub(crate) struct UpstreamArgs {
    /// The upstream
    pub(crate) name: UpstreamName,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigVerb {
    /// Say everything that is wrong with the configuration
    Check,
    /// Show the configuration in force once locked, defaults included
    Show,
    /// Lock the configuration; the plugins stay as they were sealed
    Lock(ConfigLockArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ConfigLockArgs {
    /// The code of the preview
    pub(crate) code: Option<String>,
    /// Preview and commit in one go
    #[arg(long)]
    pub(crate) yes: bool,
    /// What host paths are, as the host's `bailey` tells the one in the container
    #[arg(long, hide = true, value_name = "JSON")]
    pub(crate) host_paths: Option<Resolved>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditVerb {
    /// Recompute the whole log and check every signature, from its files and the public keys alone
    Verify(VerifyArgs),
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// A copy of the log; default: the stack's own
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// The public keys; default: config/trust.json
    #[arg(long, value_name = "FILE")]
    pub(crate) trust: Option<PathBuf>,
    /// How old the co-signatures of policy and broker may be
    #[arg(long, value_name = "TIME", default_value = "24h")]
    pub(crate) max_age: Span,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_every_argument_explained() {
        Cli::command().debug_assert();
        let mut commands = vec![Cli::command()];
        while let Some(command) = commands.pop() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command
                .get_arguments()
                .filter(|argument| !argument.is_hide_set())
            {
                assert!(
                    argument.get_help().is_some(),
                    "{} {}",
                    command.get_name(),
                    argument.get_id()
                );
            }
            commands.extend(command.get_subcommands().cloned());
        }
    }

    #[test]
    fn wait_has_a_default_and_takes_a_time_either_way() {
        let wait = |args: &[&str]| {
            let Verb::Status(status) = Cli::try_parse_from(args).unwrap().verb else {
                panic!("{args:?} is not status");
            };
            status.wait.map(|span| span.0.as_secs())
        };
        assert_eq!(wait(&["bailey", "status"]), None);
        assert_eq!(wait(&["bailey", "status", "--wait"]), Some(60));
        assert_eq!(wait(&["bailey", "status", "--wait=90s"]), Some(90));
        assert_eq!(wait(&["bailey", "status", "--wait", "5s"]), Some(5));
    }
}
