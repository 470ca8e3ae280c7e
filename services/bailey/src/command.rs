//! The verbs, one module each.

mod audit;
mod config;
mod event;
mod init;
mod job;
mod payload;
mod plugin;
mod status;
mod token;
mod vault;

use clap::CommandFactory as _;

use crate::cli::{
    AuditVerb, Cli, ConfigVerb, EventVerb, JobVerb, PluginVerb, TokenVerb, VaultVerb, Verb,
};
use crate::home::Home;
use crate::lock;
use crate::output::{Done, Out};

pub(crate) async fn run(home: &Home, verb: Verb, out: &mut Out) -> anyhow::Result<Done> {
    match verb {
        Verb::Init(args) => init::run(home, &args, out),
        Verb::Status(args) => status::run(home, &args, out).await,
        Verb::Plugin {
            verb: PluginVerb::List,
        } => plugin::list(home, out).await,
        Verb::Plugin {
            verb: PluginVerb::Show(args),
        } => plugin::show(home, &args, out).await,
        Verb::Plugin {
            verb: PluginVerb::Run(args),
        } => plugin::run(home, &args, out).await,
        Verb::Plugin {
            verb: PluginVerb::Lock(args),
        } => Box::pin(lock::plugins(home, args, out)).await,
        Verb::Plugin {
            verb: PluginVerb::Clear(args),
        } => plugin::clear(home, &args, out).await,
        Verb::Job {
            verb: JobVerb::List(args),
        } => job::list(home, &args, out).await,
        Verb::Job {
            verb: JobVerb::Inspect(args),
        } => job::inspect(home, args.id, out).await,
        Verb::Job {
            verb: JobVerb::Logs(args),
        } => job::logs(home, args.id, out).await,
        Verb::Event {
            verb: EventVerb::Emit(args),
        } => event::emit(home, &args, out).await,
        Verb::Vault {
            verb: VaultVerb::Init,
        } => vault::init(home, out).await,
        Verb::Vault {
            verb: VaultVerb::Set(args),
        } => vault::set(home, args, out).await,
        Verb::Vault {
            verb: VaultVerb::List,
        } => vault::list(home, out).await,
        Verb::Vault {
            verb: VaultVerb::Status,
        } => vault::status(home, out).await,
        Verb::Token {
            verb: TokenVerb::Create(args),
        } => token::create(home, args, out).await,
        Verb::Config {
            verb: ConfigVerb::Check,
        } => config::check(home, out),
        Verb::Config {
            verb: ConfigVerb::Show,
        } => config::show(home, out),
        Verb::Config {
            verb: ConfigVerb::Lock(args),
        } => Box::pin(lock::config(home, args, out)).await,
        Verb::Audit {
            verb: AuditVerb::Verify(args),
        } => audit::verify(home, &args, out),
        Verb::Completions { shell } => Ok(completions(shell, out)),
    }
}

fn completions(shell: clap_complete::Shell, out: &mut Out) -> Done {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "bailey", &mut script);
    out.line(String::from_utf8_lossy(&script).trim_end());
    Done::Well
}
