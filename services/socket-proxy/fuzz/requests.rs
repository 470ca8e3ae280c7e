//! Requests that libFuzzer makes of the proxy's own: none of them may reach the engine in any other words than the proxy's.

#![no_main]

#[path = "../tests/it/stand/locked.rs"]
mod locked;
#[path = "../tests/it/mutations/world.rs"]
mod world;

use std::sync::LazyLock;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

static WORLD: LazyLock<world::World> = LazyLock::new(|| {
    let image = format!("sha256:{}", "4".repeat(64));
    world::World::new(locked::locked(image.parse().unwrap()))
});

/// A request that is answered as it is, changed; or none, to begin from nothing.
#[derive(Arbitrary, Debug)]
struct Thrown {
    begun_with: u8,
    changes: Vec<Change>,
}

#[derive(Arbitrary, Debug)]
struct Change {
    at: u16,
    out: u8,
    into: Vec<u8>,
}

impl Thrown {
    fn bytes(&self) -> Vec<u8> {
        let valid = WORLD.valid();
        let begun = valid.get(usize::from(self.begun_with) % (valid.len() + 1));
        let mut bytes = begun.cloned().unwrap_or_default();
        for change in &self.changes {
            let from = usize::from(change.at).min(bytes.len());
            let to = (from + usize::from(change.out)).min(bytes.len());
            bytes.splice(from..to, change.into.iter().copied());
        }
        bytes
    }
}

fuzz_target!(|thrown: Thrown| {
    WORLD.throw(&thrown.bytes());
});
