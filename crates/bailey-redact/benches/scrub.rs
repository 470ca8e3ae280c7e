//! How fast text goes through a scrubber: ordinary text, text of escapes, and text made to be slow. `cargo bench -p bailey-redact --bench scrub [WHAT]`.

use std::hint::black_box;
use std::time::Instant;

use bailey_redact::{Patterns, Scrubber};
use bailey_types::SecretName;

/// How much is scrubbed each time, in pieces as reads have them.
const TEXT_BYTES: usize = 4 << 20;
const PIECE_BYTES: usize = 64 << 10;

fn main() {
    // Cargo adds a flag of its own.
    let wanted = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with("--"));
    let hex = |seed: u64| {
        format!(
            "{:016x}{:016x}",
            seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            seed
        )
    };
    let few: Vec<String> = (1..=3).map(hex).collect();
    let many: Vec<String> = (1..=20).map(hex).collect();
    let alike: Vec<String> = (0..50)
        .map(|i| format!("sk-live-aaaaaaaaaaaaaaaa{i:02}"))
        .collect();
    let repeated = vec!["a".repeat(1000)];
    let doubled = vec![format!("{}y", "x".repeat(254))];
    let spread = format!("78{}", " ".repeat(32));
    let escaped = format!("78{}", "%2520".repeat(32));
    let signs = vec![format!("{}x", "%&".repeat(127))];
    let slashes = vec![r"\\\\\\\\\\\\\\\\\\\\x".to_owned()];
    let json =
        r#"{"level":"info","message":"fetched \"a\" in 12 ms","path":"/var/lib/x","n":[1,2,3]},"#;
    println!("{:<52} {:>8}", "", "MiB/s");
    for (what, text, secrets) in [
        ("JSON, 3 secrets", json, &few),
        ("JSON, 20 secrets", json, &many),
        ("JSON, 50 secrets that begin alike", json, &alike),
        (
            "base64, 20 secrets",
            "TWFuIGlzIGRpc3Rpbmd1aXNoZWQsIG5vdCBvbmx5",
            &many,
        ),
        ("hex, 20 secrets", "00f1e2d3c4b5a6978899aabbccddeeff", &many),
        (r"\u0041, 3 secrets", r"\u0041\u0062\u00f6\u4e2d", &few),
        (r"\u0041, 20 secrets", r"\u0041\u0062\u00f6\u4e2d", &many),
        (
            r"\\u0041 (twice escaped), 3 secrets",
            r"\\u0041\\u0062\\u00f6",
            &few,
        ),
        ("%41, 3 secrets", "%41%62%c3%b6", &few),
        ("%41, 20 secrets", "%41%62%c3%b6", &many),
        (r"\\, 3 secrets", r"\\", &few),
        (r#"\", 3 secrets"#, r#"\""#, &few),
        (r"\, 1 secret of backslashes", r"\", &slashes),
        ("%, 3 secrets", "%", &few),
        ("%2541 (twice encoded), 3 secrets", "%2541%2562%25c3", &few),
        ("&#x41; 3 secrets", "&#x41;&amp;&#98;", &few),
        (
            "HTML, 20 secrets",
            r#"<p class="a">Fish &amp; chips, &#39;hot&#39;</p> "#,
            &many,
        ),
        (
            "the beginning of 50 secrets",
            "sk-live-aaaaaaaaaaaaaaaa",
            &alike,
        ),
        (
            "a value of one letter, repeated, but for its end",
            &format!("{}b", "a".repeat(999)),
            &repeated,
        ),
        (
            r"\u0061 (the same, escaped)",
            &format!("{}b", r"\u0061".repeat(999)),
            &repeated,
        ),
        (
            "hex of the same, each byte on a line far apart",
            &spread,
            &doubled,
        ),
        (
            "hex of the same, what is between escaped",
            &escaped,
            &doubled,
        ),
        ("%&, 1 secret of nothing else", "%&", &signs),
    ] {
        if wanted
            .as_ref()
            .is_none_or(|wanted| what.contains(wanted.as_str()))
        {
            measure(what, text, secrets);
        }
    }
}

fn measure(what: &str, text: &str, secrets: &[String]) {
    let Ok(name) = "token".parse::<SecretName>() else {
        return;
    };
    let patterns = Patterns::new(secrets.iter().map(|value| (&name, value.as_str())));
    let text = text.repeat(TEXT_BYTES / text.len());
    let mut best = f64::MAX;
    for _ in 0..5 {
        let mut scrubber = Scrubber::new(patterns.clone());
        let begun = Instant::now();
        for piece in text.as_bytes().chunks(PIECE_BYTES) {
            black_box(scrubber.push(black_box(piece)));
        }
        black_box(scrubber.finish());
        best = best.min(begun.elapsed().as_secs_f64());
        if best > 1.0 {
            break;
        }
    }
    let mib = f64::from(u32::try_from(text.len() >> 10).unwrap_or(u32::MAX)) / 1024.0;
    println!("{what:<52} {:>8.1}", mib / best);
}
