//! Whatever is written to the proxy's socket, not one byte of it reaches the engine.

pub mod world;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use self::world::World;
use crate::stand::locked;

/// A change of a request, as text.
#[derive(Clone, Debug)]
enum Change {
    Target(usize),
    Header(usize),
    Line(usize),
    /// What of the body's JSON, at which of its places.
    Body(usize, usize),
    /// What is put in front of, or after, all of it.
    Around(usize),
    /// Blanks that mean nothing, so that the request is done, but not in its own words.
    Blanks(usize),
    Bytes {
        at: usize,
        out: usize,
        into: Vec<u8>,
    },
    Cut(usize),
}

fn change() -> impl Strategy<Value = Change> {
    let any_place = 0..100_000_usize;
    prop_oneof![
        3 => (0..TARGETS.len()).prop_map(Change::Target),
        3 => (0..HEADERS.len()).prop_map(Change::Header),
        1 => (0..LINES.len()).prop_map(Change::Line),
        6 => (0..BODY_CHANGES, any_place.clone()).prop_map(|(what, at)| Change::Body(what, at)),
        1 => (0..AROUND.len()).prop_map(Change::Around),
        3 => (any_place.clone(), 0..3_usize, prop::collection::vec(any::<u8>(), 0..4))
            .prop_map(|(at, out, into)| Change::Bytes { at, out, into }),
        2 => any_place.clone().prop_map(Change::Blanks),
        1 => any_place.prop_map(Change::Cut),
    ]
}

/// What a path becomes.
const TARGETS: [fn(&str) -> String; 19] = [
    |t| t.replace("=1", "=true"),
    |t| format!("/v1.41{t}"),
    |t| format!("/v1.24{t}"),
    |t| format!("/{t}"),
    |t| format!("/.{t}"),
    |t| format!("/containers/..{t}"),
    |t| t.replacen('/', "//", 2),
    |t| t.replacen("containers", "%63ontainers", 1),
    |t| t.replacen('/', "/%2e%2e/", 1),
    |t| t.replacen("/containers", "/containers/%2e", 1),
    |t| format!("http://docker{t}"),
    |t| format!("//docker{t}"),
    |t| format!("{t}#x"),
    |t| format!("{t}&x=1"),
    |t| format!("{t}?x=1"),
    |t| t.to_uppercase(),
    |t| t.replace('/', "\\"),
    |t| t.replacen("create", "create/../json", 1),
    |t| t.replace("force=1", "force=1&force=0"),
];

/// Headers that parsers make different things of.
const HEADERS: [&str; 15] = [
    "User-Agent: Docker-Client/99 (linux)",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: xchunked",
    "transfer-encoding : chunked",
    "Content-Length: 0",
    "Content-Length: 5",
    "Content-Length: +7",
    "Content-Length: 0\r\nTransfer-Encoding: chunked",
    "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
    "Upgrade: websocket",
    "Expect: 100-continue",
    "X-Forwarded-For: 127.0.0.1\r\n folded",
    "X-Registry-Auth: e30=",
    "Connection: close, Content-Length",
];

/// What the end of the request line becomes.
const LINES: [&str; 6] = [
    " HTTP/1.0",
    " HTTP/0.9",
    " HTTP/2.0",
    " HTTP/1.1 HTTP/1.1",
    "  HTTP/1.1",
    "\tHTTP/1.1",
];

/// What stands before or behind the request.
const AROUND: [(&str, &str); 6] = [
    ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ""),
    ("\r\n\r\n", ""),
    ("", "GET /info HTTP/1.1\r\nHost: docker\r\n\r\n"),
    ("", "{\"HostConfig\":{\"Privileged\":true}}"),
    (
        "0\r\n\r\n",
        "POST /containers/create?name=x HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\n\r\n{}",
    ),
    ("GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n", ""),
];

const BODY_CHANGES: usize = 10;

/// One change of a create body; what comes of it is never the body that was derived.
fn changed_body(body: &str, what: usize, at: usize) -> String {
    let keys: Vec<(usize, usize)> = keys(body);
    let (from, to) = keys[at % keys.len()];
    let key = &body[from..to];
    let before = |text: &str| format!("{}{text}{}", &body[..from - 1], &body[from - 1..]);
    let renamed = |name: &str| format!("{}{name}{}", &body[..from], &body[to..]);
    match what {
        // A member twice, the second in another case, a stranger.
        0 => before(&format!("\"{key}\":null,")),
        1 => before(&format!("\"{}\":true,", key.to_lowercase() + "X")),
        2 => before("\"Privileged\\u0000\":true,"),
        3 => renamed(&swapped(key)),
        // U+212A and U+017F fold to k and s.
        4 => renamed(&format!(
            "{}\u{17f}",
            key.replace(['k', 'K'], "\u{212a}").replace('s', "\u{17f}")
        )),
        5 => with_value(body, to, "1e400"),
        6 => with_value(body, to, "123456789012345678901234567890"),
        7 => with_value(
            body,
            to,
            &format!("{}null{}", "[".repeat(80), "]".repeat(80)),
        ),
        8 => format!("{body}{{\"HostConfig\":{{\"Privileged\":true}}}}"),
        _ => with_value(body, to, "{\"Privileged\":true,\"Binds\":[\"/:/host\"]}"),
    }
}

fn swapped(key: &str) -> String {
    let swap = |c: char| {
        if c.is_ascii_lowercase() {
            c.to_ascii_uppercase()
        } else {
            c.to_ascii_lowercase()
        }
    };
    key.chars().map(swap).collect()
}

/// Where the names of members are, without their quotes.
fn keys(body: &str) -> Vec<(usize, usize)> {
    let bytes = body.as_bytes();
    let (mut found, mut start, mut at) = (Vec::new(), None, 0);
    while at < bytes.len() {
        match (bytes[at], start) {
            (b'\\', Some(_)) => at += 1,
            (b'"', None) => start = Some(at + 1),
            (b'"', Some(from)) => {
                if bytes.get(at + 1) == Some(&b':') {
                    found.push((from, at));
                }
                start = None;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// Puts a value in front of the member's own, which becomes a member named "was".
fn with_value(body: &str, key_end: usize, value: &str) -> String {
    let (before, after) = body.split_at(key_end + 2);
    format!("{before}{value},\"was\":{after}")
}

/// Applies a change; the length that is announced stays that of the body.
fn apply(request: &[u8], change: &Change) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(request) else {
        return request.to_vec();
    };
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
    let (line, headers) = head.split_once("\r\n").unwrap_or((head, ""));
    let mut words = line.splitn(3, ' ');
    let (method, target) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    match change {
        Change::Target(which) => {
            let target = TARGETS[*which](target);
            format!("{method} {target} HTTP/1.1\r\n{headers}\r\n\r\n{body}").into_bytes()
        }
        Change::Header(which) => {
            format!("{line}\r\n{}\r\n{headers}\r\n\r\n{body}", HEADERS[*which]).into_bytes()
        }
        Change::Line(which) => format!(
            "{method} {target}{}\r\n{headers}\r\n\r\n{body}",
            LINES[*which]
        )
        .into_bytes(),
        Change::Body(what, at) => {
            if keys(body).is_empty() {
                return request.to_vec();
            }
            with_body(line, headers, body, &changed_body(body, *what, *at))
        }
        Change::Blanks(at) => match keys(body).as_slice() {
            [] => request.to_vec(),
            keys => {
                let (_, end) = keys[at % keys.len()];
                let changed = format!("{}\" :\n  {}", &body[..end], &body[end + 2..]);
                with_body(line, headers, body, &changed)
            }
        },
        Change::Around(which) => {
            let (before, after) = AROUND[*which];
            [before.as_bytes(), request, after.as_bytes()].concat()
        }
        Change::Bytes { at, out, into } => {
            let at = at % (request.len() + 1);
            let end = (at + out).min(request.len());
            [&request[..at], into, &request[end..]].concat()
        }
        Change::Cut(at) => request[..at % (request.len() + 1)].to_vec(),
    }
}

fn with_body(line: &str, headers: &str, body: &str, changed: &str) -> Vec<u8> {
    let length = format!("Content-Length: {}", body.len());
    let headers = headers.replace(&length, &format!("Content-Length: {}", changed.len()));
    format!("{line}\r\n{headers}\r\n\r\n{changed}").into_bytes()
}

fn world() -> World {
    let image = format!("sha256:{}", "4".repeat(64));
    World::new(locked(image.parse().unwrap()))
}

#[test]
fn not_one_byte_of_a_mutated_request_reaches_the_engine() {
    let world = world();
    // Every valid request did reach it, in the proxy's own words: otherwise nothing is shown here.
    assert!(world.allowed() > world.valid().len(), "{}", world.allowed());
    let requests = world.valid().len();
    // Several, one after the other on one connection, each with some changes.
    let request = (0..requests, prop::collection::vec(change(), 0..3));
    let requests = prop::collection::vec(request, 1..4);
    let config = Config {
        cases: 500,
        failure_persistence: None,
        ..Config::default()
    };
    TestRunner::new(config)
        .run(&requests, |requests| {
            // The cell is there, whatever an earlier case removed.
            world.throw(&world.valid()[0]);
            let bytes: Vec<Vec<u8>> = requests
                .iter()
                .map(|(which, changes)| {
                    let valid = world.valid()[*which].clone();
                    changes
                        .iter()
                        .fold(valid, |bytes, change| apply(&bytes, change))
                })
                .collect();
            world.throw(&bytes.concat());
            Ok(())
        })
        .unwrap();
    world.check();
}

#[test]
fn every_change_of_a_create_body_is_refused() {
    let world = world();
    // What means the same is done, and still only in the proxy's words.
    let blank = apply(&world.valid()[0], &Change::Blanks(5));
    assert!(status(&world.throw(&blank)).starts_with("201"));
    for kind in 0..3 {
        let valid = world.valid()[kind].clone();
        assert!(status(&world.throw(&valid)).starts_with("201"));
        let text = std::str::from_utf8(&valid).unwrap();
        let members = keys(text.split_once("\r\n\r\n").unwrap().1).len();
        for what in 0..BODY_CHANGES {
            for at in 0..members {
                let changed = apply(&valid, &Change::Body(what, at));
                let answer = world.throw(&changed);
                let text = String::from_utf8_lossy(&changed).into_owned();
                assert!(status(&answer).starts_with("403"), "{what} {at}: {text}");
            }
        }
    }
}

#[test]
fn random_bytes_reach_nobody() {
    let world = world();
    let config = Config {
        cases: 300,
        failure_persistence: None,
        ..Config::default()
    };
    TestRunner::new(config)
        .run(&prop::collection::vec(any::<u8>(), 0..600), |bytes| {
            world.throw(&bytes);
            Ok(())
        })
        .unwrap();
    world.check();
}

fn status(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    let status = text.strip_prefix("HTTP/1.1 ").unwrap_or_default();
    status.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn changes_change_what_they_should() {
    let body = r#"{"A":{"B":"x\":y"},"C":[]}"#;
    let names: Vec<&str> = keys(body).iter().map(|(a, b)| &body[*a..*b]).collect();
    assert_eq!(names, ["A", "B", "C"]);
    let twice: Value = serde_json::from_str(&changed_body(body, 9, 1)).unwrap();
    let (inner, was) = (
        json!({ "Privileged": true, "Binds": ["/:/host"] }),
        json!("x\":y"),
    );
    assert_eq!(twice["A"], json!({ "B": inner, "was": was }));
}
