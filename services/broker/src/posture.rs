//! What the stack does for whom (reference: ductile 7.4): nobody works with a hub that nobody may ask for anything.

use std::fmt;

use crate::vault::State as Vault;

/// What the stack does for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Posture {
    /// There is an API token: the gateway serves, and decisions are made.
    Gateway,
    /// There is none, or no vault at all. Only the management sockets are of use.
    ManagementOnly,
    /// The vault cannot be opened, so it is not known.
    Sealed,
}

impl Posture {
    /// What follows from the vault.
    pub fn of(vault: &Vault) -> Self {
        match vault {
            Vault::Open(document) if !document.tokens.is_empty() => Self::Gateway,
            Vault::Open(_) | Vault::NoVault => Self::ManagementOnly,
            Vault::Sealed(_) => Self::Sealed,
        }
    }

    /// Why no job is decided about now; `None` where jobs are.
    pub const fn holds(self) -> Option<&'static str> {
        match self {
            Self::Gateway => None,
            Self::ManagementOnly => {
                Some("management-only: there is no API token; make one with `bailey token create`")
            }
            Self::Sealed => Some("the vault is sealed; `bailey vault status` says why"),
        }
    }
}

impl fmt::Display for Posture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gateway => "gateway",
            Self::ManagementOnly => "management-only",
            Self::Sealed => "sealed",
        })
    }
}
