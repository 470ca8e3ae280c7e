//! Paths below an upstream's base. What servers are known to read as a step out of it, in whatever order they decode and cut, is refused.

/// Longest path with its query, bytes.
pub const LIMIT_BYTES: usize = 8 << 10;

/// Why `text` is not a path below a base, with or without a query, if it is not. Empty is the base itself.
pub fn problem(text: &str) -> Option<&'static str> {
    if text.is_empty() {
        return None;
    }
    if text.len() > LIMIT_BYTES {
        return Some("the path is longer than 8 KiB");
    }
    if !text.starts_with('/') {
        return Some("the path starts with a slash: it is added to the url of the upstream");
    }
    if text.contains('#') {
        return Some("the path has a fragment (#), which is never sent: write %23");
    }
    if text.contains('\\') {
        return Some(
            "the path has a backslash, which some servers take for a slash: write %5C in the query",
        );
    }
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    // RFC 3986, sections 3.3 and 3.4.
    let pchar = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@%/".contains(&b);
    if !path.bytes().all(pchar) || !query.bytes().all(|b| pchar(b) || b == b'?') {
        return Some(
            "the path has a character that must be written as an escape (%20 for a space)",
        );
    }
    escapes(path, true)
        .or_else(|| escapes(query, false))
        .or_else(|| segments(path))
}

/// What an escape stands for may not change where the path leads.
fn escapes(text: &str, in_path: bool) -> Option<&'static str> {
    text.split('%').skip(1).find_map(|after| {
        let digits = after.get(..2).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        let Some(byte) = digits.and_then(|d| u8::from_str_radix(d, 16).ok()) else {
            return Some("the path has a % that is not followed by two hexadecimal digits");
        };
        // A server that reads escapes twice would find another one behind %25. Some cut a segment at a semicolon after they have decoded it.
        let turns = byte.is_ascii_control() || b"./\\%;".contains(&byte);
        (in_path && turns).then_some("the path has an escape (%2e, %2f, %3b, %5c, %25 or a control character) that could lead out of the base")
    })
}

/// Characters that compatibility forms of Unicode turn into `.`, `/`, `\`, `;` or `%`.
const LOOK_ALIKES: [char; 11] = [
    '\u{2024}', '\u{2025}', '\u{2026}', '\u{fe52}', '\u{fe68}', '\u{fe6a}', '\u{ff05}', '\u{ff0e}',
    '\u{ff0f}', '\u{ff1b}', '\u{ff3c}',
];

fn segments(path: &str) -> Option<&'static str> {
    let inner = path.strip_prefix('/').unwrap_or(path);
    // Only the last one may be empty: a slash at the end.
    if inner.starts_with('/') || inner.contains("//") {
        return Some("the path has two slashes in a row");
    }
    // A lenient decoder takes longer forms of an ASCII character for it, which no UTF-8 has.
    let Ok(decoded) = String::from_utf8(decoded(inner)) else {
        return Some("the escapes of the path are not UTF-8");
    };
    if decoded.contains(LOOK_ALIKES) {
        return Some("the path has a character that some servers take for a dot or a slash");
    }
    // Some servers drop what follows a semicolon, some what surrounds a name; some take more dots for two.
    let dots = |segment: &str| {
        let bare = segment.split(';').next().unwrap_or_default().trim();
        bare == "." || bare.starts_with("..")
    };
    decoded.split('/').any(dots).then_some(
        "the path has a segment that is `.` or begins with `..`, which could lead out of the base",
    )
}

/// The bytes that well-formed escapes stand for, and the others.
fn decoded(text: &str) -> Vec<u8> {
    let mut pieces = text.split('%');
    let mut bytes = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        let (digits, rest) = piece.split_at_checked(2).unwrap_or((piece, ""));
        bytes.extend(u8::from_str_radix(digits, 16));
        bytes.extend(rest.as_bytes());
    }
    bytes
}
