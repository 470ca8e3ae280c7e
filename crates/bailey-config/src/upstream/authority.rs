//! `ca:`: who vouches for an upstream's certificate, in place of the roots of the web.

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::{Serialize, Serializer};
use webpki::anchor_from_trusted_cert;

/// Most certificates of one `ca`.
const MAX_CERTIFICATES: usize = 16;

/// Certificates of authorities. Never empty; each can be trusted as a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorities(Vec<CertificateDer<'static>>);

impl Authorities {
    /// Reads PEM.
    pub(crate) fn parse(pem: &str) -> Result<Self, String> {
        if pem.contains("PRIVATE KEY") {
            return Err(
                "ca holds a private key, which nobody here needs: leave only the certificates"
                    .to_owned(),
            );
        }
        let certificates = CertificateDer::pem_slice_iter(pem.as_bytes());
        let certificates = certificates.collect::<Result<Vec<_>, _>>();
        let certificates = certificates.map_err(|e| format!("ca is not PEM: {e}"))?;
        if certificates.is_empty() {
            return Err("ca holds no certificate: write PEM, with -----BEGIN CERTIFICATE-----, after `ca: |`".to_owned());
        }
        if certificates.len() > MAX_CERTIFICATES {
            return Err(format!(
                "ca holds more than {MAX_CERTIFICATES} certificates"
            ));
        }
        for (nth, certificate) in certificates.iter().enumerate() {
            anchor_from_trusted_cert(certificate)
                .map_err(|e| format!("ca: certificate {} cannot be a root: {e}", nth + 1))?;
        }
        Ok(Self(certificates))
    }

    /// The certificates, DER.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.0
    }
}

impl Serialize for Authorities {
    /// How many; whoever wants to read them has the file.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let many = self.0.len();
        serializer.collect_str(&format_args!(
            "{many} certificate{}",
            if many == 1 { "" } else { "s" }
        ))
    }
}
