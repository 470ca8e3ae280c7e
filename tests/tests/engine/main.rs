//! What only an engine can show whose settings change and which is restarted: its other runtimes, and what becomes of the stack meanwhile.
//! Everything else on that engine is restarted too, so these tests run only where `BAILEY_TEST_ENGINE=yes` says that they may, as CI does.

mod away;
mod restart;
mod runtime;
mod settings;

use std::process::ExitCode;

use stack_tests::{Stack, fixture, suite};

/// Configuration of the fixtures, appended to the starter's plugins.
const FIXTURES: &str = r"
  walls:
    retry: {max_attempts: 1}
    container: {warm: 0}
  walls_warm:
    uses: walls
    retry: {max_attempts: 1}
    container: {warm: 1}
  # A call that is cut off is made again.
  walls_again:
    uses: walls
    retry: {max_attempts: 5, backoff_base: 1s}
    container: {warm: 0}
";

fn main() -> ExitCode {
    if std::env::var_os("BAILEY_TEST_ENGINE").is_none_or(|value| value != "yes") {
        println!(
            "The tests that restart the Docker Engine are left out: with BAILEY_TEST_ENGINE=yes and as root they run."
        );
        return ExitCode::SUCCESS;
    }
    let tests = [runtime::TESTS, restart::TESTS];
    suite::run("engine", 18_446, prepare, tests.concat())
}

fn prepare(stack: &Stack, _shown: &str) -> anyhow::Result<()> {
    fixture::add(stack, &["walls"], FIXTURES)?;
    fixture::lock(stack)
}
