//! What comes back: within bounds, readable, and without the key.

use bailey_proto::egress::v1::exchange_response::Part;
use bailey_proto::egress::v1::{ExchangeResponse, Header, ResponseHead};
use bailey_redact::{Found, Scrubber};
use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, SET_COOKIE, TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderName, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tonic::Status;

use super::failure::Why;
use super::key::Released;
use super::record::Record;

/// Bytes of a body.
const BODY_LIMIT_BYTES: u64 = 64 << 20;
const BODY_LIMIT: &str = "64 MiB";
/// Headers, and the bytes that a head may have with them: what the connection reads ahead.
pub(crate) const MAX_HEADERS: usize = 64;
pub(crate) const HEAD_LIMIT_BYTES: usize = 64 << 10;
pub(crate) const HEAD_LIMIT: &str = "64 headers or 64 KiB";

/// A part of an answer, on its way to the client.
pub(crate) type Told = Result<ExchangeResponse, Status>;

/// The head as the client gets it, and what was taken out of it.
pub(crate) fn head(
    answer: &Response<Incoming>,
    key: Option<&Released>,
) -> Result<(ResponseHead, Vec<Found>), Why> {
    let status = answer.status().as_u16();
    if !(200..600).contains(&status) {
        return Err(Why::Broke(
            "it answered with a status that is none, or that nobody asked for",
        ));
    }
    let given = answer.headers();
    readable(given)?;
    if key.is_some() {
        if answer.status() == StatusCode::PARTIAL_CONTENT {
            return Err(Why::Partial);
        }
        in_ascii(given)?;
    }
    let announced = given
        .get(CONTENT_LENGTH)
        .and_then(|n| n.to_str().ok()?.parse().ok());
    if announced.is_some_and(|bytes: u64| bytes > BODY_LIMIT_BYTES) && has_body(answer) {
        return Err(TOO_LARGE);
    }
    let (mut headers, mut found) = (Vec::new(), Vec::new());
    for (name, value) in given {
        if is_of_the_connection(name, given) || [CONTENT_LENGTH, SET_COOKIE].contains(name) {
            continue;
        }
        let Some(key) = key else {
            headers.push(header(name, Bytes::copy_from_slice(value.as_bytes())));
            continue;
        };
        let (_, in_name) = key.patterns.scrub(name.as_str().as_bytes());
        let (clean, in_value) = key.patterns.scrub(value.as_bytes());
        let lowered = in_name.is_empty() && name.as_str().contains(key.lower.as_str());
        let named_by_it = !in_name.is_empty() || lowered;
        found.extend(in_name);
        found.extend(lowered.then(|| Found {
            secret: key.secret.clone(),
            count: 1,
        }));
        found.extend(in_value);
        if !named_by_it {
            headers.push(header(name, clean.into()));
        }
    }
    let head = ResponseHead {
        status: status.into(),
        headers,
        key_sent: key.is_some(),
    };
    Ok((head, found))
}

fn header(name: &HeaderName, value: Bytes) -> Header {
    Header {
        name: name.as_str().to_owned(),
        value,
    }
}

/// A body after HEAD, 204 or 304 is only announced.
fn has_body(answer: &Response<Incoming>) -> bool {
    use hyper::body::Body as _;
    !answer.body().is_end_stream()
}

/// Whether the body comes as it is. A transfer coding other than `chunked` is an encoding too (RFC 9112, section 7).
fn readable(headers: &HeaderMap) -> Result<(), Why> {
    let plain = |name: HeaderName, plain: &str| {
        let mut values = headers.get_all(name).iter();
        values.find(|value| !value.as_bytes().eq_ignore_ascii_case(plain.as_bytes()))
    };
    let other = plain(CONTENT_ENCODING, "identity").or_else(|| plain(TRANSFER_ENCODING, "chunked"));
    let Some(other) = other else {
        return Ok(());
    };
    // Named in our own words: the upstream could say anything there.
    let known = ["gzip", "br", "deflate", "zstd", "compress"];
    let named = known
        .iter()
        .find(|name| other.as_bytes() == name.as_bytes());
    Err(Why::Encoded(named.copied().unwrap_or("another one")))
}

/// Families of charsets in which the characters of a key are the bytes of ASCII, so that it is found.
const OF_ASCII: [&str; 11] = [
    "utf-8",
    "utf8",
    "us-ascii",
    "ascii",
    "iso-8859-",
    "latin1",
    "windows-125",
    "koi8-",
    "euc-",
    "gb",
    "big5",
];

/// Whether the text that comes is in a charset that can be searched, as far as the upstream says.
fn in_ascii(headers: &HeaderMap) -> Result<(), Why> {
    let types = headers.get_all(CONTENT_TYPE).iter();
    let mut parameters = types.flat_map(|value| value.as_bytes().split(|b| *b == b';'));
    let charset = |parameter: &[u8]| {
        let parameter = parameter.trim_ascii().to_ascii_lowercase();
        let name = parameter.strip_prefix(b"charset")?.trim_ascii_start();
        let bare = |b: &u8| !b" \t\"'".contains(b);
        let value = name.strip_prefix(b"=")?.iter().copied().filter(bare);
        Some(value.collect::<Vec<u8>>())
    };
    let other = |charset: Vec<u8>| {
        !OF_ASCII
            .iter()
            .any(|family| charset.starts_with(family.as_bytes()))
    };
    if parameters.any(|parameter| charset(parameter).is_some_and(other)) {
        return Err(Why::Encoded("another charset than UTF-8"));
    }
    Ok(())
}

/// Headers that end with the connection (RFC 9110, section 7.6.1).
fn is_of_the_connection(name: &HeaderName, headers: &HeaderMap) -> bool {
    let named = || {
        let values = headers.get_all(CONNECTION).iter();
        let words = values.flat_map(|value| value.as_bytes().split(|b| *b == b','));
        let mut words = words.map(<[u8]>::trim_ascii);
        words.any(|word| word.eq_ignore_ascii_case(name.as_str().as_bytes()))
    };
    bailey_config::upstream::header::is_of_the_transport(name) || named()
}

/// Bytes of a body that are searched before others have their turn, and those that are gathered for one message.
const SLICE_BYTES: usize = 4 << 10;
const GATHERED_BYTES: usize = 16 << 10;

/// Hands `body` on until it ends, without the key.
pub(crate) async fn pass(
    mut body: Incoming,
    key: Option<Released>,
    record: &mut Record,
    client: &mpsc::Sender<Told>,
) -> Result<(), Why> {
    let patterns = key.map(|key| key.patterns).unwrap_or_default();
    let mut scrubber = Scrubber::new(patterns);
    let mut telling = Telling {
        client,
        gathered: Vec::new(),
        told_bytes: 0,
    };
    let passed = search(&mut body, &mut scrubber, record, &mut telling).await;
    // Also what came before a failure.
    let told = telling.tell().await;
    passed.and(told)
}

async fn search(
    body: &mut Incoming,
    scrubber: &mut Scrubber,
    record: &mut Record,
    telling: &mut Telling<'_>,
) -> Result<(), Why> {
    loop {
        let frame = tokio::select! {
            biased;
            frame = body.frame() => frame,
            // Nothing more is there for now, so what is there does not wait.
            () = std::future::ready(()), if !telling.gathered.is_empty() => {
                telling.tell().await?;
                continue;
            }
        };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| broke(&error))?;
        // Trailers are the connection's.
        let Ok(data) = frame.into_data() else {
            continue;
        };
        record.received_bytes = record.received_bytes.saturating_add(data.len() as u64);
        if record.received_bytes > BODY_LIMIT_BYTES {
            return Err(TOO_LARGE);
        }
        for slice in data.chunks(SLICE_BYTES) {
            let clean = scrubber.push(slice);
            record.in_body(&scrubber.news());
            telling.add(&clean).await?;
            // The slowest text that there is takes the search tens of milliseconds a slice.
            tokio::task::yield_now().await;
        }
    }
    let rest = scrubber.finish();
    record.in_body(&scrubber.news());
    telling.add(&rest).await
}

const TOO_LARGE: Why = Why::TooLarge {
    part: "answer",
    most: BODY_LIMIT,
};

/// What goes to the client.
struct Telling<'a> {
    client: &'a mpsc::Sender<Told>,
    gathered: Vec<u8>,
    told_bytes: u64,
}

impl Telling<'_> {
    /// What stands for a short key is longer than it: the bound is on both sides of the search.
    async fn add(&mut self, bytes: &[u8]) -> Result<(), Why> {
        self.told_bytes = self.told_bytes.saturating_add(bytes.len() as u64);
        if self.told_bytes > BODY_LIMIT_BYTES {
            return Err(TOO_LARGE);
        }
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= GATHERED_BYTES {
            self.tell().await?;
        }
        Ok(())
    }

    async fn tell(&mut self) -> Result<(), Why> {
        let mut bytes = Bytes::from(std::mem::take(&mut self.gathered));
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(GATHERED_BYTES));
            let part = ExchangeResponse {
                part: Some(Part::Body(piece)),
            };
            let told = self.client.send(Ok(part)).await;
            told.map_err(|_| Why::ClientGone)?;
        }
        Ok(())
    }
}

/// What a connection's failure means.
pub(crate) fn broke(error: &hyper::Error) -> Why {
    if error.is_parse_too_large() {
        return Why::TooLarge {
            part: "head",
            most: HEAD_LIMIT,
        };
    }
    if error.is_parse() {
        return Why::Broke("what it answered is not HTTP/1.1");
    }
    Why::Broke("it broke off in the middle of the exchange")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(given: &[(&'static str, &'static str)]) -> HeaderMap {
        let header = |(name, value): &(&'static str, &'static str)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        };
        given.iter().map(header).collect()
    }

    #[test]
    fn only_what_is_not_encoded_is_readable() {
        for plain in [
            &[][..],
            &[("content-encoding", "identity")],
            &[("transfer-encoding", "Chunked")],
        ] {
            assert!(readable(&headers(plain)).is_ok(), "{plain:?}");
        }
        for (encoded, said) in [
            (&[("content-encoding", "gzip")][..], "gzip"),
            (
                &[("content-encoding", "identity"), ("content-encoding", "br")],
                "br",
            ),
            (&[("content-encoding", "identity, gzip")], "another one"),
            (&[("content-encoding", "sk-12345")], "another one"),
            (&[("transfer-encoding", "gzip, chunked")], "another one"),
            (&[("transfer-encoding", "gzip")], "gzip"),
        ] {
            let why = readable(&headers(encoded)).unwrap_err();
            assert!(
                matches!(why, Why::Encoded(name) if name == said),
                "{encoded:?}: {why}"
            );
        }
    }

    #[test]
    fn what_belongs_to_the_connection_stays_there() {
        let given = headers(&[("connection", "close, X-Hop"), ("connection", "x-more")]);
        let of = |name| is_of_the_connection(&HeaderName::from_static(name), &given);
        for name in [
            "connection",
            "x-hop",
            "x-more",
            "transfer-encoding",
            "trailer",
            "proxy-authenticate",
        ] {
            assert!(of(name), "{name}");
        }
        assert!(!of("content-type") && !of("location"));
    }
}
