//! Operations with secrets for services that never see one: checking and making HMACs (RFC 2104, SHA-256).
//!
//! A secret is used for what it was granted for: to check what comes in it must be granted to the stack itself or to the consumer who
//! sends; to sign what goes out, to the consumer who gets it. A plugin's secret serves for neither.

use bailey_error::{Classify, Kind};
use bailey_types::{PrincipalName, SecretName};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use crate::vault::{Document, PrincipalKind, Status, Value};

/// Length of a code, bytes.
pub const CODE_BYTES: usize = 32;

/// Whose secret is to be used.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The secret.
    pub secret: SecretName,
    /// Who it must be granted to.
    pub principal: PrincipalName,
}

/// Why a secret is not used. Whoever asked is only told that there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no such secret for this")]
pub enum Denied {
    /// Nobody set it.
    NoSuchSecret,
    /// It was revoked.
    SecretRevoked,
    /// Nobody registered the principal.
    NoSuchPrincipal,
    /// The principal was revoked.
    PrincipalRevoked,
    /// It is not of a kind that this is done for.
    WrongPrincipal,
    /// The secret is not granted to it.
    NotGranted,
}

impl Denied {
    /// For the audit log.
    pub const fn token(self) -> &'static str {
        match self {
            Self::NoSuchSecret => "no_such_secret",
            Self::SecretRevoked => "secret_revoked",
            Self::NoSuchPrincipal => "no_such_principal",
            Self::PrincipalRevoked => "principal_revoked",
            Self::WrongPrincipal => "wrong_principal",
            Self::NotGranted => "not_granted",
        }
    }
}

impl Classify for Denied {
    fn kind(&self) -> Kind {
        match self {
            Self::NoSuchSecret
            | Self::SecretRevoked
            | Self::NoSuchPrincipal
            | Self::PrincipalRevoked
            | Self::WrongPrincipal
            | Self::NotGranted => Kind::NotFound,
        }
    }
}

/// Whether `code` is the message's, found out in the same time whatever it is.
pub fn verify(
    document: &Document,
    asked: &Asked,
    message: &[u8],
    code: &[u8; CODE_BYTES],
) -> Result<bool, Denied> {
    let kinds = [PrincipalKind::Gateway, PrincipalKind::Consumer];
    let hmac = keyed(granted(document, asked, &kinds)?, message);
    Ok(hmac.verify_slice(code).is_ok())
}

/// The code of a message.
pub fn sign(
    document: &Document,
    asked: &Asked,
    message: &[u8],
) -> Result<[u8; CODE_BYTES], Denied> {
    let hmac = keyed(
        granted(document, asked, &[PrincipalKind::Consumer])?,
        message,
    );
    Ok(hmac.finalize().into_bytes().into())
}

/// The value of a secret that is granted to a principal of one of `kinds`, if both may be used.
pub fn granted<'a>(
    document: &'a Document,
    Asked { secret, principal }: &Asked,
    kinds: &[PrincipalKind],
) -> Result<&'a Value, Denied> {
    let found = document.secrets.get(secret).ok_or(Denied::NoSuchSecret)?;
    let who = document.principals.get(principal);
    let who = who.ok_or(Denied::NoSuchPrincipal)?;
    if who.status == Status::Revoked {
        return Err(Denied::PrincipalRevoked);
    }
    if !kinds.contains(&who.kind) {
        return Err(Denied::WrongPrincipal);
    }
    if !found.authorized_principals.contains(principal) {
        return Err(Denied::NotGranted);
    }
    if found.status == Status::Revoked {
        return Err(Denied::SecretRevoked);
    }
    Ok(&found.value)
}

#[expect(
    clippy::expect_used,
    reason = "a key of any length is a key, RFC 2104 section 2"
)]
fn keyed(value: &Value, message: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(value.expose().as_bytes())
        .expect("a key of any length")
        .chain_update(message)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bailey_types::{Blake3, Timestamp};
    use zeroize::Zeroizing;

    use super::*;
    use crate::vault::{Nonce, SetSecret};

    /// `key` is granted to the plugin `greet`, the consumer `shop` and `core`; `other` to nobody.
    fn document() -> Document {
        let nonce = Nonce::generate();
        let mut document = Document::genesis("test".parse().unwrap(), Blake3([0; 32]), nonce);
        for (name, kind) in [
            ("greet", PrincipalKind::Plugin),
            ("shop", PrincipalKind::Consumer),
            ("bank", PrincipalKind::Consumer),
        ] {
            document.register(name.parse().unwrap(), kind).unwrap();
        }
        for (name, grants) in [("key", &["greet", "shop", "core"][..]), ("other", &[])] {
            let grants: BTreeSet<PrincipalName> =
                grants.iter().map(|name| name.parse().unwrap()).collect();
            let asked = SetSecret {
                name: name.parse().unwrap(),
                // RFC 4231, test case 2.
                value: Some(Value::from(Zeroizing::new("Jefe".to_owned()))),
                grants: Some(grants),
                pattern: None,
                recipe: None,
                description: String::new(),
            };
            document.set_secret(asked, Timestamp(1)).unwrap();
        }
        document
    }

    fn asked(secret: &str, principal: &str) -> Asked {
        Asked {
            secret: secret.parse().unwrap(),
            principal: principal.parse().unwrap(),
        }
    }

    const MESSAGE: &[u8] = b"what do ya want for nothing?";
    const CODE: [u8; CODE_BYTES] = [
        0x5b, 0xdc, 0xc1, 0x46, 0xbf, 0x60, 0x75, 0x4e, 0x6a, 0x04, 0x24, 0x26, 0x08, 0x95, 0x75,
        0xc7, 0x5a, 0x00, 0x3f, 0x08, 0x9d, 0x27, 0x39, 0x83, 0x9d, 0xec, 0x58, 0xb9, 0x64, 0xec,
        0x38, 0x43,
    ];

    #[test]
    fn a_consumers_secret_signs_and_a_gateways_or_consumers_verifies() {
        let document = document();
        assert_eq!(sign(&document, &asked("key", "shop"), MESSAGE), Ok(CODE));
        for principal in ["shop", "core"] {
            let asked = asked("key", principal);
            assert_eq!(verify(&document, &asked, MESSAGE, &CODE), Ok(true));
            assert_eq!(verify(&document, &asked, b"another", &CODE), Ok(false));
            let mut other = CODE;
            other[31] ^= 1;
            assert_eq!(verify(&document, &asked, MESSAGE, &other), Ok(false));
        }
    }

    #[test]
    fn nothing_is_done_with_a_secret_for_whom_it_was_not_granted() {
        let mut document = document();
        let of = |document: &Document, secret: &str, principal: &str| {
            let asked = asked(secret, principal);
            let verified = verify(document, &asked, MESSAGE, &CODE).unwrap_err();
            (verified, sign(document, &asked, MESSAGE).unwrap_err())
        };
        let both = |denied| (denied, denied);
        assert_eq!(of(&document, "none", "shop"), both(Denied::NoSuchSecret));
        assert_eq!(
            of(&document, "key", "nobody"),
            both(Denied::NoSuchPrincipal)
        );
        assert_eq!(of(&document, "key", "bank"), both(Denied::NotGranted));
        assert_eq!(of(&document, "other", "shop"), both(Denied::NotGranted));
        // A plugin's grant is for its own cell, and what the stack verifies with it does not sign with.
        assert_eq!(of(&document, "key", "greet"), both(Denied::WrongPrincipal));
        let core = asked("key", "core");
        assert_eq!(sign(&document, &core, MESSAGE), Err(Denied::WrongPrincipal));

        let key = "key".parse().unwrap();
        document.revoke(&key, Timestamp(2)).unwrap();
        assert_eq!(of(&document, "key", "shop"), both(Denied::SecretRevoked));
        document.revoke_principal(&"shop".parse().unwrap()).unwrap();
        assert_eq!(of(&document, "key", "shop"), both(Denied::PrincipalRevoked));
    }
}
