//! What a certificate says of itself, as far as we look at it.

use std::fmt;

use bailey_types::{Sha256, Timestamp};
use rustls::pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::Error;

/// Twenty bytes that name something in a certificate, in hexadecimal.
macro_rules! twenty_bytes {
    ($(#[$meta:meta])* $type:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $type([u8; 20]);

        impl $type {
            /// From a number as DER has it: without leading zeros, except one before a high bit.
            pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
                let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
                let significant = bytes.get(start..)?;
                let mut padded = [0; 20];
                let place = padded.len().checked_sub(significant.len())?;
                padded.get_mut(place..)?.copy_from_slice(significant);
                Some(Self(padded))
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let skipped = self.0.iter().take_while(|byte| **byte == 0).count();
                self.0.iter().skip(skipped).try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($type), "({})"), self)
            }
        }
    };
}

twenty_bytes!(
    /// The serial number of a certificate; RFC 5280 section 4.1.2.2 allows twenty bytes.
    CertificateSerial
);
twenty_bytes!(
    /// The name of a CA's key: in the CA's own certificate, and in each that was signed with it.
    KeyId
);

/// A CA certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaCertificate {
    /// Its number.
    pub serial: CertificateSerial,
    /// Its key.
    pub key: KeyId,
    /// Hash of its DER: what an operator compares.
    pub sha256: Sha256,
    /// Since when it is valid.
    pub not_before: Timestamp,
    /// When it ends.
    pub not_after: Timestamp,
}

impl CaCertificate {
    /// Reads what a CA certificate says; verifies nothing.
    pub fn from_pem(pem: &str) -> Result<Self, Error> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| bad(&e))?;
        Self::from_der(&der)
    }

    pub(crate) fn from_der(der: &CertificateDer<'_>) -> Result<Self, Error> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|e| bad(&e))?;
        let serial =
            CertificateSerial::of(certificate.raw_serial()).ok_or_else(|| bad(&"its serial"))?;
        let key = certificate.extensions().iter().find_map(|extension| {
            if let ParsedExtension::SubjectKeyIdentifier(key) = extension.parsed_extension() {
                KeyId::of(key.0)
            } else {
                None
            }
        });
        let validity = certificate.validity();
        Ok(Self {
            serial,
            key: key.ok_or_else(|| bad(&"it does not name its key"))?,
            sha256: Sha256::of(der),
            not_before: at(validity.not_before.timestamp()),
            not_after: at(validity.not_after.timestamp()),
        })
    }
}

/// The key that `certificate` was signed with, as it says.
pub(crate) fn issuer(certificate: &X509Certificate<'_>) -> Option<KeyId> {
    certificate.extensions().iter().find_map(|extension| {
        if let ParsedExtension::AuthorityKeyIdentifier(key) = extension.parsed_extension() {
            key.key_identifier.as_ref().and_then(|key| KeyId::of(key.0))
        } else {
            None
        }
    })
}

/// X.509 counts seconds.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp(seconds.saturating_mul(1000))
}

fn bad(reason: &impl ToString) -> Error {
    Error::CaCertificate {
        which: "a CA",
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_same_however_they_are_padded() {
        let padded = CertificateSerial::of(&[0, 0x8a, 1]).unwrap();
        assert_eq!(padded, CertificateSerial::of(&[0x8a, 1]).unwrap());
        assert_eq!(padded.to_string(), "8a01");
        assert!(CertificateSerial::of(&[7; 20]).is_some());
        assert!(CertificateSerial::of(&[7; 21]).is_none());
    }
}
