//! The assembled stack: brought up once as a user does it, then tried, then removed. One test at a time, in this order.

mod calls;
mod demo;
mod faults;
mod hardening;
mod refusals;
mod tailnet;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};
use stack_tests::{Stack, checkout};

type Test = fn(&Stack) -> anyhow::Result<()>;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // The tests share one stack, and some of them kill parts of it.
    arguments.test_threads = Some(1);
    let tests: Vec<(&str, Test)> = [
        demo::TESTS,
        calls::TESTS,
        hardening::TESTS,
        tailnet::TESTS,
        refusals::TESTS,
        faults::TESTS,
    ]
    .concat();
    if arguments.list {
        let trials = tests
            .into_iter()
            .map(|(name, _)| Trial::test(name, || Ok(())))
            .collect();
        return libtest_mimic::run(&arguments, trials).exit_code();
    }
    let home = checkout().join("target/e2e");
    let stack = Arc::new(Stack::new(&home, "e2e", 18443));
    if let Err(error) = start(&stack, &home) {
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
    } else if let Err(error) = stack.make("clean") {
        eprintln!("the stack was not removed: {error:#}");
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}

/// What is left of an earlier run goes first; then the stack is made with the fixtures' plugins beside the first-party ones.
fn start(stack: &Stack, home: &Path) -> anyhow::Result<()> {
    if home.exists() {
        stack.make("clean")?;
    }
    std::fs::create_dir_all(home)?;
    let shown = stack.make("up")?;
    println!("{shown}");
    demo::check_shown(&shown)?;
    calls::add_fixtures(stack)
}
