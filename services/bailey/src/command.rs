//! The verbs, one module each.

mod audit;
mod config;
mod custody;
mod event;
mod init;
mod job;
mod payload;
mod pki;
mod plugin;
mod status;
mod token;
mod upstream;
mod vault;

use clap::CommandFactory as _;

use crate::cli::vault::TokenVerb;
use crate::cli::{AuditVerb, Cli, ConfigVerb, EventVerb, JobVerb, PluginVerb, UpstreamVerb, Verb};
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
        Verb::Plugin {
            verb: PluginVerb::Restart(args),
        } => plugin::restart(home, &args, out).await,
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
        Verb::Upstream {
            verb: UpstreamVerb::List,
        } => upstream::list(home, out).await,
        Verb::Upstream {
            verb: UpstreamVerb::Check(args),
        } => upstream::check(home, &args, out).await,
        Verb::Vault { verb } => Box::pin(vault::run(home, verb, out)).await,
        Verb::Token {
            verb: TokenVerb::Create(args),
        } => token::create(home, args, out).await,
        Verb::Token {
            verb: TokenVerb::List,
        } => token::list(home, out).await,
        Verb::Token {
            verb: TokenVerb::Revoke(args),
        } => token::revoke(home, &args, out).await,
        Verb::Pki { verb } => pki::run(home, &verb, out).await,
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
