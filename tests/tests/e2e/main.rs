//! The assembled stack: brought up once as a user does it, then tried, then removed. One test at a time, in this order.

mod calls;
mod canary;
mod custody;
mod demo;
mod faults;
mod hardening;
mod memory;
mod operator;
mod pki;
mod refusals;
mod services;
mod tailnet;
mod upstreams;
mod vault;

use std::process::ExitCode;

use stack_tests::Stack;
use stack_tests::suite::{self, Test};

fn main() -> ExitCode {
    let tests: [&[(&'static str, Test)]; 14] = [
        demo::TESTS,
        calls::TESTS,
        memory::TESTS,
        hardening::TESTS,
        tailnet::TESTS,
        refusals::TESTS,
        services::TESTS,
        vault::TESTS,
        operator::TESTS,
        upstreams::TESTS,
        canary::TESTS,
        faults::TESTS,
        custody::TESTS,
        pki::TESTS,
    ];
    suite::run("e2e", 18443, prepare, tests.concat())
}

/// The fixtures' plugins stand beside the first-party ones.
fn prepare(stack: &Stack, shown: &str) -> anyhow::Result<()> {
    demo::check_shown(shown)?;
    calls::add_fixtures(stack)
}
