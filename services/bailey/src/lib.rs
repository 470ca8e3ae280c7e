#![doc = include_str!("../README.md")]

mod api;
mod cli;
mod command;
mod forward;
mod home;
mod host_paths;
mod lock;
mod manage;
mod output;
mod rated;
mod readable;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Cli, Verb};
use crate::home::Home;
use crate::output::{Done, Out};

/// Something that the operator must correct; makes the exit code 78.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Misconfigured(String);

/// Runs one command line.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(e) => {
            // A closed pipe is no reason to complain.
            let _ = e.print();
            return if e.use_stderr() {
                ExitCode::from(78)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let mut out = Out::default();
    let result = run(cli, args, &mut out);
    if let Err(e) = out.finish() {
        eprintln!("bailey: writing the output: {e}");
        return ExitCode::FAILURE;
    }
    match result {
        Ok(Done::Well) => ExitCode::SUCCESS,
        Ok(Done::Badly) => ExitCode::FAILURE,
        Ok(Done::Closed) => ExitCode::from(2),
        Ok(Done::Misconfigured) => ExitCode::from(78),
        Err(e) => {
            eprintln!("bailey: {e:#}");
            ExitCode::from(if is_misconfigured(&e) { 78 } else { 1 })
        }
    }
}

fn is_misconfigured(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<Misconfigured>()
            || cause.is::<bailey_config::Errors>()
            || cause.is::<bailey_trust::TrustFileError>()
    })
}

fn run(cli: Cli, args: Vec<OsString>, out: &mut Out) -> anyhow::Result<Done> {
    let home = Home::new(cli.places);
    if !home.is_inside() && cli.verb.needs_sockets() {
        let mut args = args;
        args.extend(host_paths::arguments(&home, &cli.verb)?);
        let done = forward::to_container(&home, &cli.verb, args)?;
        if let Some(file) = cli.verb.host_file().filter(|_| done == Done::Well) {
            let path = file.display().to_string();
            let sentence = format!("wrote {path}, readable by its owner only");
            out.told(&home, &serde_json::json!({ "file": path }), sentence)?;
        }
        return Ok(done);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(Box::pin(command::run(&home, cli.verb, out)))
}

impl Verb {
    /// Whether it says by an exit code of its own that the vault is not open.
    fn is_vault_status(&self) -> bool {
        use crate::cli::vault::VaultVerb;
        matches!(
            self,
            Self::Vault {
                verb: VaultVerb::Status
            }
        )
    }

    /// Whether it can only be done inside of the one-shot container.
    fn needs_sockets(&self) -> bool {
        use crate::cli::vault::VaultVerb;
        use crate::cli::{AuditVerb, ConfigVerb, PluginVerb};
        match self {
            Self::Vault {
                verb: VaultVerb::Custody(verb),
            } => !verb.is_offline(),
            Self::Vault {
                verb: VaultVerb::Audit(args),
            } => args.dir.is_none(),
            // An import reads its file on the host, and then goes there by itself.
            Self::Vault { verb } => !matches!(verb, VaultVerb::Import(_)),
            Self::Token { .. } | Self::Pki { .. } => true,
            Self::Plugin { verb } => matches!(verb, PluginVerb::Lock(_) | PluginVerb::Show(_)),
            Self::Config { verb } => matches!(verb, ConfigVerb::Lock(_)),
            // Without a copy of the log, the log is where only that container sees it.
            Self::Audit {
                verb: AuditVerb::Verify(args),
            } => args.dir.is_none(),
            Self::Init(_)
            | Self::Status(_)
            | Self::Job { .. }
            | Self::Event { .. }
            | Self::Upstream { .. }
            | Self::Completions { .. } => false,
        }
    }

    /// The one-shot container that it is done in.
    fn container(&self) -> &'static str {
        use crate::cli::pki::PkiVerb;
        match self {
            // It changes secrets, and gives each to its one reader.
            Self::Pki {
                verb: PkiVerb::NewRoot(_),
            } => "init",
            Self::Init(_)
            | Self::Status(_)
            | Self::Plugin { .. }
            | Self::Job { .. }
            | Self::Event { .. }
            | Self::Upstream { .. }
            | Self::Vault { .. }
            | Self::Token { .. }
            | Self::Pki { .. }
            | Self::Config { .. }
            | Self::Audit { .. }
            | Self::Completions { .. } => "cli",
        }
    }

    /// The file on the host that the container's output belongs into.
    fn host_file(&self) -> Option<&std::path::Path> {
        use crate::cli::custody::CustodyVerb;
        use crate::cli::vault::{TokenVerb, VaultVerb};
        match self {
            Self::Vault {
                verb: VaultVerb::Custody(CustodyVerb::Export(args)),
            } => args.out.as_deref(),
            Self::Token {
                verb: TokenVerb::Create(args),
            } => args.out.as_deref().filter(|out| out.as_os_str() != "-"),
            Self::Init(_)
            | Self::Status(_)
            | Self::Plugin { .. }
            | Self::Job { .. }
            | Self::Event { .. }
            | Self::Upstream { .. }
            | Self::Vault { .. }
            | Self::Token { .. }
            | Self::Pki { .. }
            | Self::Config { .. }
            | Self::Audit { .. }
            | Self::Completions { .. } => None,
        }
    }
}
