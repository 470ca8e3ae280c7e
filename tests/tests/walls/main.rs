//! The walls: hostile plugins in real cells. Each test shows that an act is refused there, and that its control, the same act where it is
//! allowed, works: a wall that is not there cannot pass by accident. What stands for the outside world is made by the tests; no probe
//! leaves the machine.

mod captor;
mod captured;
mod cis;
mod control;
mod drift;
mod egress;
mod host;
mod kernel;
mod later;
mod lease;
mod limits;
mod outside;
mod pools;
mod quota;
mod reach;
mod speech;
mod state;

use std::process::ExitCode;

use stack_tests::suite::{self, Test};
use stack_tests::{Stack, fixture};

/// Configuration of the fixtures, appended to the starter's plugins: one plugin under many names, each with what its tests want.
const FIXTURES: &str = r"
  # No cell stands ready, so that what is there was left there.
  walls:
    run_as: default
    retry: {max_attempts: 1}
    container: {warm: 0}
  # The same files, and it is called again where that may help.
  walls_again:
    uses: walls
    retry: {max_attempts: 3, backoff_base: 1s}
    container: {warm: 0}
  # Somebody else.
  walls_sibling:
    uses: walls
    retry: {max_attempts: 1}
    container: {warm: 0}
  # Never reads its request.
  walls_deaf:
    uses: walls
    retry: {max_attempts: 1}
    timeouts: {version: 2s}
    container: {warm: 0, entrypoint: [/usr/bin/python3, -c, 'import time; time.sleep(60)']}
  # With cells that stand ready.
  walls_warm:
    uses: walls
    retry: {max_attempts: 1}
    container: {warm: 1}
  # The same, and it speaks before it is asked.
  walls_early:
    uses: walls
    retry: {max_attempts: 1}
    timeouts: {version: 2s}
    container: {warm: 1, entrypoint: [/bin/bash, -c, 'echo early; sleep 60'], image: tools}
  # With files that outlive a call.
  walls_data:
    uses: walls
    retry: {max_attempts: 1}
    container: {state: data, image: tools}
  walls_data_sibling:
    uses: walls
    retry: {max_attempts: 1}
    container: {state: data, image: tools}
  walls_home:
    uses: walls
    retry: {max_attempts: 1}
    container: {state: home, image: tools}
  # With hosts.
  walls_out:
    uses: walls
    retry: {max_attempts: 1}
    container:
      image: tools
      # With its address written down: no name leads into a network that egress-proxy itself is in, which near.test does.
      egress:
        - granted.test:80@203.0.113.9
        - granted.test:443@203.0.113.9
        - granted.test:22@203.0.113.9
        - granted.test:7070@203.0.113.9
        - granted.test:7071@203.0.113.9
        - near.test:80
        - '*.granted.example:80'
        - 203.0.113.9:80
  walls_out_sibling:
    uses: walls
    retry: {max_attempts: 1}
    container: {egress: ['hidden.test:80@203.0.113.9']}
  # With folders of the host.
  walls_operator:
    uses: walls
    run_as: operator
    retry: {max_attempts: 1}

accounts:
  operator:
    uid: $UID
    gid: $GID
    mounts: [{path: $HOST/read}, {path: $HOST/write, writable: true}]

upstreams:
  walls_model:
    url: https://model.test/v1
    secret_ref: walls_model_key
    clients: [engine]
";

/// What only one plugin may see. The fixture looks for how it begins.
pub const CANARY: &str = "walls-canary-2a61b0ce-not-to-be-seen";

/// The key of an upstream.
pub const MODEL_KEY: &str = "walls-model-77d0";

fn main() -> ExitCode {
    if let Some((service, pooled)) = captor::asked_for() {
        return captor::main(&service, &pooled);
    }
    let tests: [&[(&'static str, Test)]; 14] = [
        kernel::TESTS,
        limits::TESTS,
        reach::TESTS,
        later::TESTS,
        drift::TESTS,
        speech::TESTS,
        state::TESTS,
        quota::TESTS,
        host::TESTS,
        egress::TESTS,
        lease::TESTS,
        pools::TESTS,
        captured::TESTS,
        cis::TESTS,
    ];
    suite::run("walls", 18444, prepare, tests.concat())
}

fn prepare(stack: &Stack, _shown: &str) -> anyhow::Result<()> {
    control::prepare(stack)?;
    let (folders, uid, gid) = host::prepare()?;
    let config = FIXTURES
        .replace("$HOST", &folders.display().to_string())
        .replace("$UID", &uid.to_string())
        .replace("$GID", &gid.to_string());
    // What is configured last may end in something else than plugins.
    let config = format!("{}{config}", quota::FIXTURES);
    fixture::add(stack, &["walls", "hoarder"], &config)?;
    fixture::seal_secret(stack, "walls_canary", CANARY, "walls")?;
    for (consumer, secret, value) in [
        ("walls_shop", "walls_hmac", captor::HMAC_KEY),
        ("walls_model", "walls_model_key", MODEL_KEY),
    ] {
        stack.bailey_ok(&[
            "vault",
            "register-principal",
            consumer,
            "--kind",
            "consumer",
        ])?;
        fixture::seal_secret(stack, secret, value, consumer)?;
    }
    fixture::lock(stack)
}
