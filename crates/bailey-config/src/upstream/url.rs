//! `url:`: where an upstream is.

use std::fmt;
use std::str::FromStr;

use bailey_plugin::egress::Host;
use serde::{Serialize, Serializer};

use super::path;

/// Longest, bytes.
const MAX_URL: usize = 1024;

/// The base of an upstream. `Display` is the one way to write it: no default port, no slash at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    tls: bool,
    host: Host,
    port: u16,
    path: String,
}

impl Url {
    /// Whether it is `https`.
    pub const fn tls(&self) -> bool {
        self.tls
    }

    /// Who is spoken to.
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// At which port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// What all paths begin with: empty, or with a slash at its start and none at its end.
    pub fn base_path(&self) -> &str {
        &self.path
    }

    /// Host, and port where it is not the scheme's own: the header `host` (RFC 9110, section 7.2).
    pub fn authority(&self) -> String {
        if self.port == default_port(self.tls) {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// What is asked for in a request for `below`, which [`path::problem`] has found nothing wrong with.
    pub fn target(&self, below: &str) -> String {
        match (self.path.as_str(), below) {
            ("", "") => "/".to_owned(),
            (base, below) => format!("{base}{below}"),
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

impl Serialize for Url {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for Url {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        if text.len() > MAX_URL {
            return Err("it is longer than 1 KiB");
        }
        let (tls, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err("it must begin with https:// (or http://, without a key)"),
        };
        if rest.contains('?') || rest.contains('#') {
            return Err("a base has no query and no fragment: callers add the query");
        }
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        if authority.contains('@') {
            return Err("it names a user: what lets you in belongs into the vault, say secret_ref");
        }
        let (host, port) = port(authority, tls)?;
        let host = Host::parse(host).ok_or("its host is neither a name nor an address")?;
        let path = path.strip_suffix('/').unwrap_or(path);
        if path.ends_with('/') {
            return Err("it ends in two slashes, which would stand in every path below it");
        }
        if let Some(wrong) = path::problem(path) {
            return Err(wrong);
        }
        Ok(Self {
            tls,
            host,
            port,
            path: path.to_owned(),
        })
    }
}

const fn default_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

fn port(authority: &str, tls: bool) -> Result<(&str, u16), &'static str> {
    if authority.starts_with('[') && !authority.contains(']') {
        return Err("its host is neither a name nor an address");
    }
    let after_host = authority.rfind(']').map_or(0, |at| at + 1);
    let Some(colon) = authority.get(after_host..).and_then(|rest| rest.find(':')) else {
        return Ok((authority, default_port(tls)));
    };
    let (host, port) = authority.split_at(after_host + colon);
    let port = port.strip_prefix(':').unwrap_or(port);
    // `u16::from_str` takes `+443` too.
    let digits = (1..=5).contains(&port.len()) && port.bytes().all(|b| b.is_ascii_digit());
    match port.parse() {
        Ok(number) if digits && number != 0 => Ok((host, number)),
        Ok(_) | Err(_) => Err("its port is not 1 to 65535"),
    }
}
