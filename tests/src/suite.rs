//! How a suite of tests over one stack runs: brought up as a user does it, then tried, then removed. One test at a time, in their order.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};

use crate::{Stack, checkout};

/// One test of a stack.
pub type Test = fn(&Stack) -> anyhow::Result<()>;

/// Runs `tests` over the stack `name`, whose folder is `target/<name>`. `prepare` is given what `make up` showed. A stack on which a test
/// failed is left as it is, for a look.
pub fn run(
    name: &str,
    port: u16,
    prepare: fn(&Stack, &str) -> anyhow::Result<()>,
    tests: Vec<(&'static str, Test)>,
) -> ExitCode {
    let mut arguments = Arguments::from_args();
    // The tests share one stack, and some of them kill parts of it.
    arguments.test_threads = Some(1);
    if arguments.list {
        let trials = tests
            .into_iter()
            .map(|(name, _)| Trial::test(name, || Ok(())))
            .collect();
        return libtest_mimic::run(&arguments, trials).exit_code();
    }
    let home = checkout().join("target").join(name);
    let stack = Arc::new(Stack::new(&home, name, port));
    if let Err(error) = start(&stack, &home, prepare) {
        eprintln!("the stack did not come up: {error:#}");
        return ExitCode::FAILURE;
    }
    let trials = tests.into_iter().map(|(name, test)| {
        let stack = Arc::clone(&stack);
        Trial::test(name, move || {
            test(&stack).map_err(|error| format!("{error:#}").into())
        })
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    if conclusion.has_failed() {
        eprintln!("the stack is left as it is, for a look: {}", home.display());
    } else if let Err(error) = clean(&stack) {
        eprintln!("the stack was not removed: {error:#}");
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}

/// Removes the stack, and looks whether that left anything of it.
fn clean(stack: &Stack) -> anyhow::Result<()> {
    stack.make("clean")?;
    let label = format!("label=bailey.stack={}", stack.name());
    let project = format!("label=com.docker.compose.project={}", stack.project());
    let mut left = String::new();
    for filter in [&label, &project] {
        left += &stack.docker(&["ps", "--all", "--quiet", "--filter", filter])?;
        left += &stack.docker(&["volume", "ls", "--quiet", "--filter", filter])?;
        left += &stack.docker(&["network", "ls", "--quiet", "--filter", filter])?;
    }
    anyhow::ensure!(left.is_empty(), "make clean left {left}");
    Ok(())
}

/// What is left of an earlier run goes first.
fn start(
    stack: &Stack,
    home: &Path,
    prepare: fn(&Stack, &str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    if home.exists() {
        stack.make("clean")?;
    }
    std::fs::create_dir_all(home)?;
    let shown = stack.make("up")?;
    println!("{shown}");
    prepare(stack, &shown)
}
