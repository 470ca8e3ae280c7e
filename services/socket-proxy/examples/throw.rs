//! For a fuzzer that runs a program: throws what comes on standard input at a proxy, and fails if anything of it reaches the engine. Where nothing
//! comes, it throws what is valid.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

#[path = "../tests/it/stand/locked.rs"]
mod locked;
#[path = "../tests/it/mutations/world.rs"]
mod world;

use std::io::Read as _;

fn main() {
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes).unwrap();
    let image = format!("sha256:{}", "4".repeat(64));
    let world = world::World::new(locked::locked(image.parse().unwrap()));
    let given = [bytes.clone()];
    let thrown = if bytes.is_empty() {
        world.valid()
    } else {
        &given[..]
    };
    for bytes in thrown {
        let answer = world.throw(bytes);
        println!("{}", String::from_utf8_lossy(&answer));
    }
    eprintln!(
        "{} requests of its own may reach the engine",
        world.allowed()
    );
}
