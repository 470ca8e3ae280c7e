#![doc = include_str!("../README.md")]

mod context;
mod flags;
mod health;
mod log;
mod modes;

use std::future::Future;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use bailey_error::Chain;
use bailey_trust::TrustFile;
use bailey_types::Service;

pub use context::{Context, Presence, Process, Readiness, Stopped};
pub use flags::{NoArgs, Settings};
pub use modes::{check_config_dir, check_config_files, check_secret_files};

use crate::context::Signals;
use crate::flags::{Cli, Verb};

/// Something that the operator must correct in a file or a flag. Anywhere among the causes of `run`'s error, it makes the exit code 78.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Misconfigured(pub String);

/// Runs a service until it is told to stop.
pub fn main<F, Fut>(service: Service, run: F) -> ExitCode
where
    F: FnOnce(Context) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    main_with::<NoArgs, _, _>(service, |ctx, _| run(ctx))
}

/// Runs a service that has flags of its own.
pub fn main_with<A, F, Fut>(service: Service, run: F) -> ExitCode
where
    A: clap::Args,
    F: FnOnce(Context, A) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    launch::<A, _>(service.name(), |cli| {
        let settings = cli.flags.settings();
        let trust = check_files(&settings)?;
        current_thread()?.block_on(async {
            let signals = Signals::new()?;
            let ctx = Context::new(service, settings, trust, Process::new());
            ctx.process.serve_health(ctx.settings.health_listen).await?;
            tracing::info!(service.version = Context::VERSION, "starting {service}");
            // The future of `run` holds the whole service.
            let process = ctx.process.clone();
            process.run(signals, Box::pin(run(ctx, cli.extra))).await
        })
    })
}

/// Runs a process that has no identity: no trust file, no secrets, no place on the mesh.
pub fn main_bare<A, F, Fut>(name: &'static str, run: F) -> ExitCode
where
    A: clap::Args,
    F: FnOnce(Process, A) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    launch::<A, _>(name, |cli| {
        current_thread()?.block_on(async {
            let signals = Signals::new()?;
            let process = Process::new();
            process.serve_health(cli.flags.health_listen).await?;
            process
                .clone()
                .run(signals, Box::pin(run(process, cli.extra)))
                .await
        })
    })
}

fn launch<A, F>(name: &'static str, serve: F) -> ExitCode
where
    A: clap::Args,
    F: FnOnce(Cli<A>) -> anyhow::Result<()>,
{
    let cli = match Cli::<A>::read(name) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    if cli.verb == Verb::Healthcheck {
        return health::check(cli.flags.health_listen);
    }
    let outcome = log::init(name, &cli.flags.log).and_then(|()| {
        install_tls_provider();
        serve(cli)
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(name, &error),
    }
}

/// Makes ring the process's TLS provider. Doing it again changes nothing.
pub fn install_tls_provider() {
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        tracing::debug!("a TLS provider is installed already");
    }
}

fn failed(name: &str, error: &anyhow::Error) -> ExitCode {
    tracing::error!(error = %Chain(error.as_ref()), "{name} ends: {}", Chain(error.as_ref()));
    let misconfigured = error
        .chain()
        .any(<dyn std::error::Error>::is::<Misconfigured>);
    if misconfigured {
        ExitCode::from(78)
    } else {
        ExitCode::FAILURE
    }
}

fn check_files(settings: &Settings) -> anyhow::Result<TrustFile> {
    check_config_dir(&settings.config_dir)?;
    check_config_files(&settings.config_dir)?;
    check_secret_files(&settings.secrets_dir)?;
    let trust = TrustFile::read(&settings.config_dir.join("trust.json"));
    Ok(trust.map_err(|e| Misconfigured(Chain(&e).to_string()))?)
}

/// One thread for what waits, in each service: nearly all of it waits for neighbours, and a second one would be woken for each answer that the first
/// could have taken. What hangs or works for long belongs on a thread of its own: `SQLite`, audit's log, large results and cells. Gateway and engine
/// parse what a caller sends (at most 10 MiB) and build the request of it here: a pass over the largest takes up to a quarter of a
/// second, in which nobody else is served.
fn current_thread() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the runtime")
}

impl Context {
    /// The version of the stack that this binary belongs to.
    pub const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn new(service: Service, settings: Settings, trust: TrustFile, process: Process) -> Self {
        Self {
            service,
            settings: Arc::new(settings),
            trust: Arc::new(trust),
            clock: bailey_types::Clock::system(),
            shutdown: process.shutdown.clone(),
            process,
        }
    }

    /// A context for a test: no signals, no health port, no checks of files.
    pub fn for_test(service: Service, settings: Settings, trust: TrustFile) -> Self {
        install_tls_provider();
        Self::new(service, settings, trust, Process::new())
    }
}
