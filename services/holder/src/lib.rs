#![doc = include_str!("../README.md")]

mod command;
mod egress;
mod http;
mod socks;
mod way;

use std::process::ExitCode;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::command::Command;

/// Runs the process with its command line, without the program's name.
pub fn main(arguments: impl Iterator<Item = String>) -> ExitCode {
    let command = match Command::parse(arguments) {
        Ok(command) => command,
        Err(wrong) => {
            eprintln!("holder: {wrong}");
            return ExitCode::from(78);
        }
    };
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("holder: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .context("starting the runtime")?;
    let outcome = runtime.block_on(async {
        // As PID 1 it would ignore SIGTERM otherwise.
        let mut terminate = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
        match command {
            Command::Pause => {
                terminate.recv().await;
                Ok(())
            }
            Command::Egress(options) => tokio::select! {
                outcome = egress::run(options) => outcome,
                _ = terminate.recv() => Ok(()),
            },
        }
    });
    // The thread that reads standard input may wait for ever.
    runtime.shutdown_background();
    outcome
}
