//! What this process still remembers of a value.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use bailey_types::Timestamp;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::tests::{Fixture, principal, set};
use super::*;
use crate::vault::Value;

/// A value that is in this process's memory only where it is used: kept, it is under a mask.
struct Canary(Vec<u8>);

const MASK: u8 = 0xa5;

impl Canary {
    fn new() -> Self {
        let digits = b"0123456789abcdef";
        let random = || digits[usize::from(rand::random::<u8>() & 15)] ^ MASK;
        Self((0..48).map(|_| random()).collect())
    }

    fn value(&self) -> Value {
        let bytes = self.0.iter().map(|byte| byte ^ MASK).collect();
        Value::from(zeroize::Zeroizing::new(String::from_utf8(bytes).unwrap()))
    }

    /// The same as the document has it.
    fn encoded(&self) -> Self {
        let plain: Vec<u8> = self.0.iter().map(|byte| byte ^ MASK).collect();
        let encoded = STANDARD.encode(plain);
        Self(encoded.bytes().map(|byte| byte ^ MASK).collect())
    }

    /// How often it stands in this process's memory.
    fn remembered(&self) -> usize {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let memory = File::open("/proc/self/mem").unwrap();
        let writable = maps.lines().filter(|line| line.contains(" rw"));
        let mut found = 0;
        for line in writable {
            let (from, rest) = line.split_once('-').unwrap();
            let (to, _) = rest.split_once(' ').unwrap();
            let address = |text: &str| u64::from_str_radix(text, 16).unwrap();
            let (from, to) = (address(from), address(to));
            let mut page = vec![0; usize::try_from(to - from).unwrap()];
            // A mapping may be gone by now, as other tests' threads end.
            if memory.read_exact_at(&mut page, from).is_err() {
                continue;
            }
            // What is looked for never stands in memory for it: each byte is compared under the mask.
            for byte in &mut page {
                *byte ^= MASK;
            }
            found += page
                .windows(self.0.len())
                .filter(|it| *it == self.0)
                .count();
        }
        // The list itself, and its copies under the mask, were read too; they are not the value.
        found
    }
}

#[test]
fn a_value_that_was_kept_written_read_back_and_revoked_is_nowhere_in_memory() {
    let fixture = Fixture::new();
    let vault = fixture.filled();
    let canary = Canary::new();
    let keep = |document: &mut Document| {
        let mut asked = set("canary", None, &[]);
        asked.value = Some(canary.value());
        document.set_secret(asked, Timestamp(2))
    };
    vault.change(keep).unwrap();
    drop(vault);
    let vault = fixture.open();
    // While it is in the vault it is found, so that not finding it means something.
    assert!(canary.remembered() > 0);
    let name = "canary".parse().unwrap();
    vault
        .change(|document| document.revoke(&name, Timestamp(3)))
        .unwrap();
    assert_eq!(canary.remembered(), 0, "as it is");
    assert_eq!(canary.encoded().remembered(), 0, "in base64");
    drop(vault);
    assert!(
        fixture
            .open()
            .document()
            .unwrap()
            .principals
            .contains_key(&principal("greet"))
    );
}
