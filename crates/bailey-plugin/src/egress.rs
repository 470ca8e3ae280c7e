//! What an entry of `egress:` means: the CLI writes it into the lock, egress-proxy matches it, and both ask here.
//!
//! | entry | grants |
//! |---|---|
//! | `api.example.com` | that name, port 443 |
//! | `api.example.com:8443` | that name, that port |
//! | `*.example.com:443` | every name below `example.com`, at any depth; not `example.com` itself |
//! | `192.168.1.5:80`, `[fd00::5]:80` | that address |
//! | `nas.example.com:443@192.168.1.5` | that name, which is then not looked up but taken to be at that address |

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// The port of an entry that names none.
const DEFAULT_PORT: u16 = 443;
/// Longest host name (RFC 1035, section 2.3.4, in text).
const MAX_NAME: usize = 253;

/// Suffixes that the public DNS does not delegate (RFC 6761, RFC 6762, RFC 8375, ICANN's reservations): whoever lists such a name means a
/// machine of his own, and nobody outside can make it point anywhere.
const LOCAL_SUFFIXES: [&str; 10] = [
    "corp",
    "home",
    "home.arpa",
    "internal",
    "intranet",
    "lan",
    "local",
    "localdomain",
    "private",
    "test",
];

/// What is no entry of `egress:`.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{text:?} is not host, host:port, *.suffix:port, address:port or host:port@address: {reason}"
)]
pub struct BadEntry {
    text: String,
    reason: &'static str,
}

/// Somebody to speak to: a name, or an address. Names are in lower case, without a dot at the end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// A name; `*` and underscores are none.
    Name(String),
    /// An address as it is written, never one that was looked up.
    Address(IpAddr),
}

impl Host {
    /// Reads what a client asks for. Brackets around an IPv6 address are optional.
    pub fn parse(text: &str) -> Option<Self> {
        let bare = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        if let Some(bare) = bare {
            return bare
                .parse::<Ipv6Addr>()
                .ok()
                .map(|a| Self::Address(a.into()));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Some(Self::Address(address));
        }
        is_name(text).then(|| Self::Name(text.to_ascii_lowercase()))
    }

    /// Whether it is a name that only a local resolver can know: one word, or below a suffix that the public DNS does not delegate.
    pub fn is_local_name(&self) -> bool {
        match self {
            Self::Name(name) => {
                !name.contains('.') || LOCAL_SUFFIXES.iter().any(|suffix| is_below(name, suffix))
            }
            Self::Address(_) => false,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// One entry of `egress:`. Its `Display` is the one way to write it, as the lock has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    who: Who,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Who {
    Exactly { host: Host, at: Option<IpAddr> },
    Below(String),
}

/// How a granted host is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// At this address, which the operator wrote down: it may be a private one.
    At(IpAddr),
    /// The very name was listed, and only a local resolver knows it: it may be at a private address.
    LocalName,
    /// By its name; whoever owns the name could point it anywhere, so only at a public address.
    PublicName,
}

impl Entry {
    /// How this entry lets `host` at `port` be reached; `None` if it does not.
    pub fn reach(&self, host: &Host, port: u16) -> Option<Reach> {
        if self.port != port {
            return None;
        }
        match (&self.who, host) {
            (Who::Exactly { host: listed, at }, _) if listed == host => Some(match (at, host) {
                (Some(address), _) | (None, Host::Address(address)) => Reach::At(*address),
                (None, Host::Name(_)) if host.is_local_name() => Reach::LocalName,
                (None, Host::Name(_)) => Reach::PublicName,
            }),
            (Who::Below(suffix), Host::Name(name)) => {
                is_below(name, suffix).then_some(Reach::PublicName)
            }
            (Who::Exactly { .. }, _) | (Who::Below(_), Host::Address(_)) => None,
        }
    }

    /// Whether it grants more than one host.
    pub fn is_wildcard(&self) -> bool {
        matches!(self.who, Who::Below(_))
    }
}

impl FromStr for Entry {
    type Err = BadEntry;

    fn from_str(text: &str) -> Result<Self, BadEntry> {
        parse(text).map_err(|reason| BadEntry {
            text: text.chars().take(MAX_NAME).collect(),
            reason,
        })
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.who {
            Who::Below(suffix) => write!(f, "*.{suffix}:{}", self.port),
            Who::Exactly { host, at: None } => write!(f, "{host}:{}", self.port),
            Who::Exactly {
                host,
                at: Some(address),
            } => write!(f, "{host}:{}@{address}", self.port),
        }
    }
}

fn parse(text: &str) -> Result<Entry, &'static str> {
    let (place, at) = match text.split_once('@') {
        Some((place, address)) => (place, Some(plain_address(address)?)),
        None => (text, None),
    };
    let (host, port) = split_port(place)?;
    if let Some(suffix) = host.strip_prefix("*.") {
        if at.is_some() {
            return Err("many names have not one address");
        }
        // `*.com` would be nearly everything.
        let narrow = suffix.contains('.') && is_name(suffix);
        let who = Who::Below(suffix.to_ascii_lowercase());
        return if narrow {
            Ok(Entry { who, port })
        } else {
            Err("`*.` needs a suffix of two words or more")
        };
    }
    let host = Host::parse(host).ok_or("the host is neither a name nor an address")?;
    if let Host::Address(address) = host {
        not_disguised(address)?;
        if at.is_some() {
            return Err("an address has no other address");
        }
    }
    let who = Who::Exactly { host, at };
    Ok(Entry { who, port })
}

fn plain_address(text: &str) -> Result<IpAddr, &'static str> {
    let address = text
        .parse()
        .map_err(|_| "what follows `@` is not an address")?;
    not_disguised(address).map(|()| address)
}

/// `::ffff:10.0.0.1` is 10.0.0.1, and must be written so.
fn not_disguised(address: IpAddr) -> Result<(), &'static str> {
    match address {
        IpAddr::V6(six) if six.to_ipv4_mapped().is_some() => {
            Err("an IPv4 address is written as one")
        }
        IpAddr::V4(_) | IpAddr::V6(_) => Ok(()),
    }
}

fn split_port(text: &str) -> Result<(&str, u16), &'static str> {
    let (host, port) = if text.starts_with('[') {
        let (host, rest) = text.split_once(']').ok_or("`[` without `]`")?;
        let host = text.get(..=host.len()).unwrap_or_default();
        match rest.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if rest.is_empty() => (host, None),
            None => return Err("after `]` only a port can follow"),
        }
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    let Some(port) = port else {
        return Ok((host, DEFAULT_PORT));
    };
    // `u16::from_str` takes `+443` too.
    let digits = (1..=5).contains(&port.len()) && port.bytes().all(|b| b.is_ascii_digit());
    match port.parse() {
        Ok(number) if digits && number != 0 => Ok((host, number)),
        Ok(_) | Err(_) => Err("the port is not 1 to 65535"),
    }
}

fn is_below(name: &str, suffix: &str) -> bool {
    name.strip_suffix(suffix)
        .and_then(|rest| rest.strip_suffix('.'))
        .is_some_and(|rest| !rest.is_empty())
}

fn is_name(text: &str) -> bool {
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    // Resolvers take `127.1`, `2130706433` and `0x7f.1` for addresses: a last label that could be a number makes no name.
    let number = |l: &str| {
        let hex = l.strip_prefix("0x").or_else(|| l.strip_prefix("0X"));
        l.bytes().all(|b| b.is_ascii_digit())
            || hex.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    text.len() <= MAX_NAME
        && text.split('.').all(label)
        && !text.rsplit('.').next().is_some_and(number)
}

#[cfg(test)]
mod tests;
