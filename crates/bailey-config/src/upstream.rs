//! `upstreams:`: HTTP services beyond the stack that its own services call, and the keys that these calls carry.

mod authority;
pub mod header;
pub mod path;
mod url;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use bailey_plugin::egress::{Entry, Reach};
use bailey_types::{PrincipalName, SecretName, Service, UpstreamName};
use bailey_yaml::{At, Place, Rate};
use http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize, Serializer};

use crate::error::{Error, Report};
use crate::raw;
use crate::service::{count, duration, span};

pub use authority::Authorities;
pub use url::Url;

/// Most upstreams of a configuration.
pub const MAX_UPSTREAMS: usize = 64;
/// Most exchanges with one upstream at once.
pub const MAX_CONCURRENT: u32 = 64;
/// Longest exchange.
pub const MAX_TIMEOUT: Duration = Duration::from_mins(10);

/// Exchanges of one client that may begin, unless `rate` says otherwise, and the most that it may say.
const DEFAULT_RATE: Rate = Rate::per_minute(60);
const MAX_RATE: u32 = 10_000;

/// Most headers that a configuration sets for one upstream.
const MAX_HEADERS: usize = 16;
/// What stands before a key, at most.
const MAX_SCHEME: usize = 32;

/// `upstreams.<name>:`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Upstream {
    /// Base of everything that is sent.
    pub url: Url,
    /// What each request carries to be let in; unset: nothing.
    pub key: Option<Key>,
    /// Sent with each request. Never secrets, and never what the transport or the key has.
    #[serde(serialize_with = "headers")]
    pub headers: BTreeMap<Box<str>, HeaderValue>,
    /// The address that is connected to, in place of that of the name.
    pub address: Option<IpAddr>,
    /// How the host is reached: the same rules as for a plugin's `egress`.
    #[serde(skip)]
    pub reach: Reach,
    /// Who vouches for its certificate; unset: the roots of the web.
    pub ca: Option<Authorities>,
    /// Who may call it. Never empty.
    pub clients: BTreeSet<Client>,
    /// How long a whole exchange may take.
    #[serde(serialize_with = "duration")]
    pub timeout: Duration,
    /// Exchanges at once.
    pub max_concurrent: u32,
    /// How many exchanges each client may begin: so many at once, and each comes back with time.
    pub rate: Rate,
    /// Path below the base, with its query, that a check asks for; empty: the base itself.
    pub check: String,
}

/// The key of an upstream: where the vault has it, and how a request carries it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Key {
    /// The secret.
    pub secret: SecretName,
    /// A principal of kind `consumer`, to which the secret must be granted.
    pub principal: PrincipalName,
    /// The header that carries it.
    #[serde(serialize_with = "header_name")]
    pub header: HeaderName,
    /// What stands before it in the header, joined by a space.
    pub scheme: Option<String>,
}

/// A service of the stack that calls upstreams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Client {
    /// The engine.
    Engine,
    /// The worker.
    Worker,
}

impl Client {
    /// Every client.
    pub const ALL: [Self; 2] = [Self::Engine, Self::Worker];

    /// The service.
    pub const fn service(self) -> Service {
        match self {
            Self::Engine => Service::Engine,
            Self::Worker => Service::Worker,
        }
    }
}

impl Upstream {
    /// Whether `service` may call it.
    pub fn serves(&self, service: Service) -> bool {
        self.clients
            .iter()
            .any(|client| client.service() == service)
    }
}

/// Reports what no single upstream shows.
pub(crate) fn check_count(places: &[(&str, Place)], errors: &mut Vec<Error>) {
    if let Some((file, place)) = places.get(MAX_UPSTREAMS) {
        let mut report = Report { file, errors };
        report.push(
            *place,
            format!(
                "there are more than {MAX_UPSTREAMS} upstreams; remove those that nobody calls"
            ),
        );
    }
}

pub(crate) fn upstream(
    name: &At<UpstreamName>,
    raw: raw::Upstream,
    report: &mut Report<'_>,
) -> Option<Upstream> {
    let key = key(name, &raw, report);
    let headers = fixed_headers(raw.headers, key.as_ref(), report);
    let ca = raw.ca.and_then(|ca| {
        let read = Authorities::parse(&ca.value);
        read.map_err(|wrong| report.push(ca.place, wrong)).ok()
    });
    let clients = clients(raw.clients, report);
    let timeout = span(
        raw.timeout,
        Duration::from_mins(2),
        Duration::from_secs(1)..=MAX_TIMEOUT,
        "timeout",
        report,
    );
    let max_concurrent = count(
        raw.max_concurrent,
        8,
        1..=MAX_CONCURRENT,
        "max_concurrent",
        report,
    );
    let rate = raw.rate.map_or(DEFAULT_RATE, |given| {
        let count = given.value.count().get();
        if count > MAX_RATE {
            let wrong = format!(
                "rate is {}; it must be 1 to {MAX_RATE} in its time",
                given.value
            );
            report.push(given.place, wrong);
        }
        given.value
    });
    let check = raw.check.map_or_else(String::new, |check| {
        if let Some(wrong) = path::problem(&check.value) {
            report.push(check.place, format!("check: {wrong}"));
        }
        check.value
    });
    let place = raw.url.place;
    let url: Url = match raw.url.value.parse() {
        Ok(url) => url,
        Err(wrong) => {
            report.push(place, format!("url: {wrong}"));
            return None;
        }
    };
    if !url.tls() && key.is_some() {
        report.push(
            place,
            "a key goes over TLS only: write https://, or leave secret_ref out",
        );
    }
    if !url.tls() && ca.is_some() {
        report.push(
            place,
            "ca has no effect on http://: write https://, or leave it out",
        );
    }
    let reach = reach(&url, raw.address.as_ref(), place, report)?;
    Some(Upstream {
        url,
        key,
        headers,
        address: raw.address.map(|address| address.value),
        reach,
        ca,
        clients,
        timeout,
        max_concurrent,
        rate,
        check,
    })
}

/// What an entry of a plugin's `egress` would grant.
fn reach(
    url: &Url,
    address: Option<&At<IpAddr>>,
    place: Place,
    report: &mut Report<'_>,
) -> Option<Reach> {
    let (host, port) = (url.host(), url.port());
    let entry = match address {
        Some(address) => format!("{host}:{port}@{}", address.value),
        None => format!("{host}:{port}"),
    };
    match entry.parse::<Entry>() {
        Ok(entry) => entry.reach(host, port),
        Err(wrong) => {
            let (place, what) = address.map_or((place, "url"), |a| (a.place, "address"));
            report.push(place, format!("{what}: {wrong}"));
            None
        }
    }
}

fn key(name: &At<UpstreamName>, raw: &raw::Upstream, report: &mut Report<'_>) -> Option<Key> {
    let Some(secret) = &raw.secret_ref else {
        let idle = [
            (
                "vault_principal",
                raw.vault_principal.as_ref().map(|at| at.place),
            ),
            ("header", raw.header.as_ref().map(|at| at.place)),
            ("scheme", raw.scheme.as_ref().map(|at| at.place)),
        ];
        for (what, place) in idle {
            if let Some(place) = place {
                report.push(
                    place,
                    format!(
                        "{what} has no effect without secret_ref, the secret that holds the key"
                    ),
                );
            }
        }
        return None;
    };
    let header = match &raw.header {
        Some(given) => match header::for_key(&given.value) {
            Ok(header) => header,
            Err(wrong) => {
                report.push(given.place, format!("header: {wrong}"));
                return None;
            }
        },
        None => http::header::AUTHORIZATION,
    };
    let principal = match &raw.vault_principal {
        Some(given) => given.value.clone(),
        None => match name.value.as_str().parse() {
            Ok(principal) => principal,
            Err(e) => {
                report.push(name.place, format!("{e}; say which with vault_principal"));
                return None;
            }
        },
    };
    Some(Key {
        secret: secret.clone(),
        principal,
        scheme: scheme(raw.scheme.as_ref(), &header, report),
        header,
    })
}

fn scheme(
    given: Option<&At<String>>,
    header: &HeaderName,
    report: &mut Report<'_>,
) -> Option<String> {
    let Some(given) = given else {
        return (*header == http::header::AUTHORIZATION).then(|| "Bearer".to_owned());
    };
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    if given.value.len() > MAX_SCHEME || !given.value.bytes().all(word) {
        report.push(
            given.place,
            "scheme is one word of letters, digits and '-', like Bearer; \"\" for none",
        );
    }
    (!given.value.is_empty()).then(|| given.value.clone())
}

fn fixed_headers(
    raw: bailey_yaml::Entries<String, At<String>>,
    key: Option<&Key>,
    report: &mut Report<'_>,
) -> BTreeMap<Box<str>, HeaderValue> {
    let mut headers = BTreeMap::new();
    for (nth, (name, value)) in raw.0.into_iter().enumerate() {
        if nth == MAX_HEADERS {
            report.push(name.place, format!("headers are at most {MAX_HEADERS}"));
        }
        let fixed = header::fixed(&name.value, &value.value);
        let (header, fixed) = match fixed {
            Ok(fixed) => fixed,
            Err(wrong) => {
                report.push(name.place, format!("headers: {wrong}"));
                continue;
            }
        };
        if key.is_some_and(|key| header::is_alike(key.header.as_str(), header.as_str())) {
            report.push(
                name.place,
                format!("headers: {header} carries the key, which is the vault's"),
            );
        }
        if headers.insert(header.as_str().into(), fixed).is_some() {
            report.push(name.place, format!("headers: {header} is there twice"));
        }
    }
    headers
}

fn clients(raw: Option<At<Vec<At<Client>>>>, report: &mut Report<'_>) -> BTreeSet<Client> {
    let Some(raw) = raw else {
        return Client::ALL.into();
    };
    if raw.value.is_empty() {
        report.push(
            raw.place,
            "clients is empty, so nobody could call it: name engine, worker or both",
        );
    }
    let mut clients = BTreeSet::new();
    for client in raw.value {
        if !clients.insert(client.value) {
            report.push(client.place, "clients: this one is there twice");
        }
    }
    clients
}

fn headers<S: Serializer>(
    headers: &BTreeMap<Box<str>, HeaderValue>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let texts = headers.iter().map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes());
        (name, value)
    });
    serializer.collect_map(texts)
}

fn header_name<S: Serializer>(name: &HeaderName, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(name.as_str())
}

#[cfg(test)]
mod tests;
