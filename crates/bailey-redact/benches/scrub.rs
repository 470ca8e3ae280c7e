//! How fast text goes through a scrubber: ordinary text, text of escapes, and text made to be slow. `cargo bench -p bailey-redact --bench scrub [WHAT]`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bailey_redact::{Patterns, Scrubber};
use bailey_types::SecretName;

/// How much is scrubbed each time, in pieces as reads have them.
const TEXT_BYTES: usize = 128 << 10;
const PIECE_BYTES: usize = 64 << 10;

/// How long each is tried.
const RUN: Duration = Duration::from_millis(200);

/// What it is, the text, which is repeated, and the secrets.
type Row = (&'static str, String, Vec<String>);

fn main() {
    // Cargo adds a flag of its own.
    let wanted = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with("--"));
    println!("{:<52} {:>8}", "", "MiB/s");
    for (what, text, secrets) in [ordinary(), escaped(), repeated()].concat() {
        if wanted
            .as_ref()
            .is_none_or(|wanted| what.contains(wanted.as_str()))
        {
            measure(what, &text, &secrets);
        }
    }
}

fn row(what: &'static str, text: &str, secrets: &[String]) -> Row {
    (what, text.to_owned(), secrets.to_vec())
}

/// Secrets without pattern.
fn random(count: u64) -> Vec<String> {
    let hex = |seed: u64| {
        let mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        format!("{mixed:016x}{seed:016x}")
    };
    (1..=count).map(hex).collect()
}

/// Secrets of which only the end differs.
fn alike() -> Vec<String> {
    let secret = |i| format!("sk-live-aaaaaaaaaaaaaaaa{i:02}");
    (0..50).map(secret).collect()
}

fn ordinary() -> Vec<Row> {
    let json =
        r#"{"level":"info","message":"fetched \"a\" in 12 ms","path":"/var/lib/x","n":[1,2,3]},"#;
    let base64 = "TWFuIGlzIGRpc3Rpbmd1aXNoZWQsIG5vdCBvbmx5";
    let hex = "00f1e2d3c4b5a6978899aabbccddeeff";
    let html = r#"<p class="a">Fish &amp; chips, &#39;hot&#39;</p> "#;
    let (few, many) = (random(3), random(20));
    vec![
        row("JSON, 3 secrets", json, &few),
        row("JSON, 20 secrets", json, &many),
        row("JSON, 50 secrets that begin alike", json, &alike()),
        row("base64, 20 secrets", base64, &many),
        row("hex, 20 secrets", hex, &many),
        row("HTML, 20 secrets", html, &many),
    ]
}

/// Nearly every byte belongs to an escape.
fn escaped() -> Vec<Row> {
    let (few, many) = (random(3), random(20));
    let slashes = [format!("{}x", r"\".repeat(20))];
    vec![
        row(r"\u0041, 3 secrets", r"\u0041\u0062\u00f6\u4e2d", &few),
        row(r"\u0041, 20 secrets", r"\u0041\u0062\u00f6\u4e2d", &many),
        row(r"\\u0041, 3 secrets", r"\\u0041\\u0062\\u00f6", &few),
        row("%41, 3 secrets", "%41%62%c3%b6", &few),
        row("%41, 20 secrets", "%41%62%c3%b6", &many),
        row("%2541, 3 secrets", "%2541%2562%25c3", &few),
        row("&#x41; 3 secrets", "&#x41;&amp;&#98;", &few),
        row(r"\\, 3 secrets", r"\\", &few),
        row(r#"\", 3 secrets"#, r#"\""#, &few),
        row("%, 3 secrets", "%", &few),
        row(r"\, a value of backslashes", r"\", &slashes),
        // What takes a closer look.
        row("%2, 3 secrets", "%2", &few),
        row(r"\%, 3 secrets", r"\%", &few),
        row(r"\u0025, 3 secrets", r"\u0025", &few),
        row(r"\\u0026#37; 3 secrets", r"\\u0026#37;", &few),
    ]
}

/// The beginning of a value that repeats itself begins everywhere.
fn repeated() -> Vec<Row> {
    let nearly = [format!("{}b", "a".repeat(255))];
    let doubled = [format!("{}y", "x".repeat(254))];
    let signs = [format!("{}x", "%&".repeat(127))];
    let mixed = [format!("{}x", r"a\%&".repeat(60))];
    let end = |i| format!("{}b{i:02}", "a".repeat(250));
    let fifty: Vec<String> = (0..50).map(end).collect();
    let whole = format!("{}b", "a".repeat(999));
    let far = |space: &str| format!("78{}", space.repeat(32));
    let prefix = "sk-live-aaaaaaaaaaaaaaaa";
    vec![
        row("the beginning of 50 secrets", prefix, &alike()),
        row("1000 a, in 999 and a b", &whole, &["a".repeat(1000)]),
        row("255 a and a b, in a", "a", &nearly),
        row(r"255 a and a b, in \u0061", r"\u0061", &nearly),
        row("255 a and a b, in %2561", "%2561", &nearly),
        row("255 a and a b, in hex", "61", &nearly),
        row("255 a and a b, in base64", "YWFh", &nearly),
        row("hex, 32 spaces between the bytes", &far(" "), &doubled),
        row("hex, 32 %2520 between the bytes", &far("%2520"), &doubled),
        row("%&, a value of nothing else", "%&", &signs),
        row(r"a\%&, a value of nothing else", r"a\%&", &mixed),
        row("50 values of 250 a and an end, in a", "a", &fifty),
    ]
}

fn measure(what: &str, text: &str, secrets: &[String]) {
    let Ok(name) = "token".parse::<SecretName>() else {
        return;
    };
    let patterns = Patterns::new(secrets.iter().map(|value| (&name, value.as_str())));
    let text = text.repeat(TEXT_BYTES / text.len());
    let (mut best, all) = (f64::MAX, Instant::now());
    while all.elapsed() < RUN {
        let mut scrubber = Scrubber::new(patterns.clone());
        let begun = Instant::now();
        for piece in text.as_bytes().chunks(PIECE_BYTES) {
            black_box(scrubber.push(black_box(piece)));
        }
        black_box(scrubber.finish());
        best = best.min(begun.elapsed().as_secs_f64());
    }
    let mib = f64::from(u32::try_from(text.len() >> 10).unwrap_or(u32::MAX)) / 1024.0;
    println!("{what:<52} {:>8.3}", mib / best);
}
