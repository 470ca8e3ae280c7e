//! The services of the stack: one name everywhere (compose service, crate, certificate, log field, uid).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What is not the name of a service.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a service of Bailey")]
pub struct BadService(String);

macro_rules! services {
    ($($(#[$meta:meta])* $variant:ident = $name:literal, $uid:literal;)*) => {
        /// A service of the stack, by its identity on the mesh.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Service {
            $($(#[$meta])* $variant,)*
        }

        impl Service {
            /// Every service, in the order of their uids.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name: compose service, crate, binary and image.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// The uid and gid its container runs as.
            pub const fn uid(self) -> u32 {
                match self {
                    $(Self::$variant => $uid,)*
                }
            }
        }
    };
}

services! {
    /// HTTP API and, later, the Control UI.
    Gateway = "gateway", 10001;
    /// Event log, router, pipelines, job queue.
    Engine = "engine", 10002;
    /// Contracts and decisions.
    Policy = "policy", 10003;
    /// Runs one job in one sealed container.
    Runner = "runner", 10004;
    /// The vault, launch tickets, certificates.
    Broker = "broker", 10005;
    /// Cron and intervals.
    Scheduler = "scheduler", 10006;
    /// The append-only log.
    Audit = "audit", 10007;
    /// Background tasks.
    Worker = "worker", 10008;
    /// The only holder of the Docker socket.
    SocketProxy = "socket-proxy", 10009;
    /// The only way out.
    EgressProxy = "egress-proxy", 10010;
}

impl Service {
    /// The identity in the service's certificate (SPIFFE-ID section 2).
    pub fn spiffe_id(self) -> String {
        format!("spiffe://bailey/{}", self.name())
    }

    /// The service that a SPIFFE id names, if it is one of ours.
    pub fn from_spiffe_id(id: &str) -> Option<Self> {
        id.strip_prefix("spiffe://bailey/")?.parse().ok()
    }
}

impl FromStr for Service {
    type Err = BadService;

    fn from_str(text: &str) -> Result<Self, BadService> {
        let found = Self::ALL
            .iter()
            .copied()
            .find(|service| service.name() == text);
        found.ok_or_else(|| BadService(text.chars().take(80).collect()))
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Service {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Service {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_services_share_a_name_or_a_uid() {
        let names: BTreeSet<_> = Service::ALL.iter().map(|s| s.name()).collect();
        let uids: BTreeSet<_> = Service::ALL.iter().map(|s| s.uid()).collect();
        assert_eq!(
            (names.len(), uids.len()),
            (Service::ALL.len(), Service::ALL.len())
        );
    }

    #[test]
    fn a_spiffe_id_of_another_trust_domain_is_nobody() {
        assert_eq!(
            Service::from_spiffe_id("spiffe://bailey/broker"),
            Some(Service::Broker)
        );
        assert_eq!(Service::from_spiffe_id("spiffe://evil/broker"), None);
        assert_eq!(Service::from_spiffe_id("spiffe://bailey/broker/x"), None);
    }
}
