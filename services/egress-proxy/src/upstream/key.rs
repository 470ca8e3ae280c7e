//! The key of one exchange: released by the broker, sent once, and looked for in what comes back.

use bailey_config::upstream::Key;
use bailey_mesh::MeshChannel;
use bailey_proto::broker::v1::upstream_key_service_client::UpstreamKeyServiceClient;
use bailey_proto::broker::v1::{ReleaseKeyRequest, ReleaseKeyResponse};
use bailey_redact::{MIN_SECRET_BYTES, Patterns};
use bailey_types::{SecretName, Serial, Service, UpstreamName};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use tonic::{Code, Status};
use zeroize::Zeroizing;

use super::failure::Why;

/// Longest key: what servers take as a header.
const LIMIT_BYTES: usize = 8 << 10;

/// Where keys come from.
#[derive(Clone)]
pub(crate) struct Keys(UpstreamKeyServiceClient<MeshChannel>);

/// A key for one exchange.
pub(crate) struct Released {
    /// What the header carries. Marked sensitive: it is never shown, and no table of a connection keeps it.
    pub(crate) value: HeaderValue,
    /// Its name.
    pub(crate) secret: SecretName,
    /// What to look for in the answer.
    pub(crate) patterns: Patterns,
    /// The key as header names would have it: they come in lower case.
    pub(crate) lower: Zeroizing<String>,
}

impl Keys {
    pub(crate) fn new(broker: MeshChannel) -> Self {
        Self(UpstreamKeyServiceClient::new(broker))
    }

    /// Asks the broker, each time: a revocation counts at once. `serial` is that of the lock which says where the key is to go.
    pub(crate) async fn release(
        &self,
        upstream: &UpstreamName,
        key: &Key,
        client: Service,
        serial: Serial,
    ) -> Result<Released, Why> {
        let request = ReleaseKeyRequest {
            upstream: upstream.to_string(),
            client: client.name().to_owned(),
            lock_serial: serial.0,
        };
        let answer = self.0.clone().release_key(request).await;
        let answer = answer.map_err(|status| refused(&status, key))?.into_inner();
        if answer.secret != key.secret.as_str() {
            return Err(Why::LocksDiffer);
        }
        Released::new(key, &answer)
    }
}

fn refused(status: &Status, key: &Key) -> Why {
    let said = status.message().to_owned();
    if status.code() == Code::FailedPrecondition {
        let secret = key.secret.to_string();
        return Why::KeyRefused { secret, said };
    }
    if status.code() == Code::NotFound {
        // Of one lock both know the same upstreams.
        return Why::LocksDiffer;
    }
    Why::Broker(said)
}

impl Released {
    fn new(key: &Key, answer: &ReleaseKeyResponse) -> Result<Self, Why> {
        let unusable = |reason| Why::KeyUnusable {
            secret: key.secret.to_string(),
            reason,
        };
        // A secret from a file ends in a line break.
        let bare = std::str::from_utf8(&answer.value).map(str::trim);
        let bare = bare.map_err(|_| unusable("it is not text"))?;
        if !bare.bytes().all(|b| (0x20..0x7f).contains(&b)) {
            return Err(unusable(
                "a header has printable ASCII only, and no line breaks",
            ));
        }
        if bare.len() < MIN_SECRET_BYTES {
            return Err(unusable(
                "it is shorter than 6 characters, too short to be found in an answer",
            ));
        }
        if bare.len() > LIMIT_BYTES {
            return Err(unusable("it is longer than 8 KiB"));
        }
        let text = Zeroizing::new(match &key.scheme {
            Some(scheme) => format!("{scheme} {bare}"),
            None => bare.to_owned(),
        });
        let value = HeaderValue::from_str(&text);
        let mut value = value.map_err(|_| unusable("it cannot stand in a header"))?;
        value.set_sensitive(true);
        Ok(Self {
            value,
            secret: key.secret.clone(),
            patterns: patterns(key, bare),
            lower: Zeroizing::new(bare.to_ascii_lowercase()),
        })
    }
}

/// What to look for: the key, and with `Basic` the name and password that it stands for, which servers show in plain text.
fn patterns(key: &Key, bare: &str) -> Patterns {
    let basic = key.scheme.as_deref().map(str::to_ascii_lowercase);
    let plain = basic
        .filter(|scheme| scheme == "basic")
        .and_then(|_| STANDARD.decode(bare).ok())
        .and_then(|bytes| String::from_utf8(bytes).ok());
    let plain = Zeroizing::new(plain.unwrap_or_default());
    let password = plain.split_once(':').map_or("", |(_, password)| password);
    Patterns::new([bare, &plain, password].map(|value| (&key.secret, value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn released(value: &str, scheme: Option<&str>) -> Result<Released, Why> {
        let key = Key {
            secret: "openai-key".parse().unwrap(),
            principal: "openai".parse().unwrap(),
            header: http::header::AUTHORIZATION,
            scheme: scheme.map(str::to_owned),
        };
        let answer = ReleaseKeyResponse {
            secret: "openai-key".to_owned(),
            value: value.to_owned().into(),
        };
        Released::new(&key, &answer)
    }

    #[test]
    fn what_stands_before_the_key_is_the_scheme() {
        let sent = |scheme| released("sk-12345\n", scheme).unwrap_or_else(|e| panic!("{e}"));
        let value = sent(Some("Bearer")).value;
        assert_eq!(value.as_bytes(), b"Bearer sk-12345");
        assert_eq!(format!("{value:?}"), "Sensitive");
        assert_eq!(sent(None).value.as_bytes(), b"sk-12345");
        let (clean, found) = sent(None).patterns.scrub(b"x sk-12345 y");
        assert_eq!(
            (clean.as_slice(), found.len()),
            (&b"x [secret:openai-key] y"[..], 1)
        );
    }

    #[test]
    fn what_a_basic_key_stands_for_is_looked_for_too() {
        let value = STANDARD.encode("operator:pass-word-17");
        let basic = released(&value, Some("Basic")).unwrap_or_else(|e| panic!("{e}"));
        let said = format!("{value} or operator:pass-word-17 or pass-word-17");
        let (clean, _) = basic.patterns.scrub(said.as_bytes());
        let clean = String::from_utf8(clean).unwrap();
        assert_eq!(clean.matches("[secret:openai-key]").count(), 3, "{clean}");
        assert!(!clean.contains("pass-word"), "{clean}");
        // Another scheme's key is a text like any other.
        let bearer = released(&value, Some("Bearer")).unwrap_or_else(|e| panic!("{e}"));
        assert!(bearer.patterns.scrub(b"pass-word-17").1.is_empty());
    }

    #[test]
    fn what_cannot_be_sent_or_found_again_is_refused_and_not_shown() {
        let long = "x".repeat(LIMIT_BYTES + 1);
        for value in [
            "tiny5",
            "",
            " \n",
            "line\nbreak",
            "tab\tinside",
            "über-key",
            long.as_str(),
        ] {
            let Err(why) = released(value, None) else {
                panic!("{value:?} is sent");
            };
            assert!(matches!(why, Why::KeyUnusable { .. }), "{why}");
            assert!(
                value.trim().is_empty() || !why.to_string().contains(value.trim()),
                "{why}"
            );
        }
        assert!(released("sixsix", None).is_ok());
        assert!(released(long.strip_suffix('x').unwrap(), None).is_ok());
    }
}
