//! What a launch ticket costs in arithmetic: the parts that broker and socket-proxy do for each call, and beside them an age file for each. `cargo bench -p bailey-trust`.
//!
//! Not here, because no processor does it: two hops on the mesh, and the audit log's append before a secret leaves.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bailey_trust::{SealingKey, SealingSession, SessionReader, SigningKey, Ticket, sign, verify};
use bailey_types::{DecisionId, Sha256, TicketId, Timestamp};

fn main() {
    let key = SigningKey::generate();
    let sealing = SealingKey::generate();
    let recipient = sealing.recipient();
    let session = SealingSession::new(recipient.clone());
    let reader = SessionReader::new(sealing.clone());
    let Some((ticket, signed)) = ticket().and_then(|it| Some((it.clone(), sign(&it, &key).ok()?)))
    else {
        eprintln!("a ticket cannot be signed");
        return;
    };
    let public = key.verifying_key();
    println!("{:<44} {:>10} {:>10}", "", "p50 us", "p99 us");
    measure("sign a ticket (Ed25519)", || sign(&ticket, &key).is_ok());
    measure("verify a statement (Ed25519)", || {
        verify::<Ticket>(&signed, &public).is_ok()
    });
    for (size, shown) in [(1 << 10, "1 KiB"), (64 << 10, "64 KiB"), (1 << 20, "1 MiB")] {
        let plain = vec![b'x'; size];
        let (Ok(sealed), Ok(in_session)) = (recipient.seal(&plain), session.seal(&plain)) else {
            eprintln!("{shown} cannot be sealed");
            return;
        };
        measure(&format!("hash {shown} (SHA-256)"), || {
            black_box(Sha256::of(&plain)).0.len() == 32
        });
        measure(&format!("seal {shown} in a session"), || {
            session.seal(&plain).is_ok()
        });
        measure(&format!("open {shown} in a session"), || {
            reader.open(&in_session, size).is_ok()
        });
        measure(&format!("seal {shown} to socket-proxy (age)"), || {
            recipient.seal(&plain).is_ok()
        });
        measure(&format!("open {shown} in socket-proxy (age)"), || {
            sealing.open(&sealed, size).is_ok()
        });
    }
}

fn ticket() -> Option<Ticket> {
    Some(Ticket {
        id: TicketId::new(),
        decision: DecisionId::new(),
        final_sha256: Sha256([7; 32]),
        plugin: "greet".parse().ok()?,
        image: format!("sha256:{}", "a".repeat(64)).parse().ok()?,
        container_kind: "cell".to_owned(),
        issued_at: Timestamp(1),
        expires_at: Timestamp(2),
    })
}

fn measure(what: &str, mut work: impl FnMut() -> bool) {
    let mut took: Vec<Duration> = (0..600)
        .map(|_| {
            let began = Instant::now();
            black_box(work());
            began.elapsed()
        })
        .skip(100)
        .collect();
    took.sort_unstable();
    let at = |share: usize| {
        took.get(took.len() * share / 100)
            .copied()
            .unwrap_or_default()
    };
    let us = |took: Duration| took.as_secs_f64() * 1e6;
    println!("{what:<44} {:>10.1} {:>10.1}", us(at(50)), us(at(99)));
}
