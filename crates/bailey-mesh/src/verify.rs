//! Who a certificate stands for: a chain to the pinned root, a time that has not passed, and one SPIFFE id.

use std::sync::Arc;
use std::time::Duration;

use bailey_types::{Service, Timestamp};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, SignatureScheme,
};
use rustls_pki_types::pem::PemObject as _;
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::Error;
use crate::certificate::{self, CaCertificate, CertificateSerial, KeyId};

/// The pinned root CA.
#[derive(Debug)]
pub struct Root {
    anchor: TrustAnchor<'static>,
    certificate: CaCertificate,
    algorithms: WebPkiSupportedAlgorithms,
}

/// Whose certificate it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// From its SPIFFE id.
    pub service: Service,
    /// The number of the certificate.
    pub serial: CertificateSerial,
    /// The key of the intermediate that it was issued from, if it says so.
    pub issuer: Option<KeyId>,
    /// Since when the certificate is valid.
    pub not_before: Timestamp,
    /// When the certificate expires.
    pub not_after: Timestamp,
}

/// What a certificate is shown for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// By the one who calls.
    Client,
    /// By the one who is called.
    Server,
}

/// Why a chain that is sound is still not a peer's.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum NotAPeer {
    /// The certificate cannot be parsed.
    #[error("the certificate cannot be parsed")]
    Malformed,
    /// No SPIFFE id of ours, or more than one URI (X.509-SVID section 2 allows one).
    #[error("the certificate does not name exactly one service of this stack")]
    NoService,
    /// Another service answered.
    #[error("the certificate is {found}'s; {expected}'s was expected")]
    Another {
        /// Who was called.
        expected: Service,
        /// Who answered.
        found: Service,
    },
}

impl Root {
    /// The root from the PEM text in `trust.json`.
    pub fn from_pem(pem: &str) -> Result<Arc<Self>, Error> {
        let bad = |reason: String| Error::CaCertificate {
            which: "the root CA",
            reason,
        };
        let certificate =
            CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| bad(e.to_string()))?;
        let anchor = webpki::anchor_from_trusted_cert(&certificate)
            .map_err(|e| bad(e.to_string()))?
            .to_owned();
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        Ok(Arc::new(Self {
            anchor,
            certificate: CaCertificate::from_der(&certificate)?,
            algorithms,
        }))
    }

    /// What the root says of itself.
    pub fn certificate(&self) -> CaCertificate {
        self.certificate
    }

    /// Whose the chain is, if it leads to this root, is valid at `now`, and is meant for `role`.
    pub fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        role: Role,
    ) -> Result<Peer, rustls::Error> {
        let certificate = EndEntityCert::try_from(leaf).map_err(|e| refused(&e))?;
        let usage = match role {
            Role::Client => KeyUsage::client_auth(),
            Role::Server => KeyUsage::server_auth(),
        };
        let anchors = std::slice::from_ref(&self.anchor);
        certificate
            .verify_for_usage(
                self.algorithms.all,
                anchors,
                intermediates,
                now,
                usage,
                None,
                None,
            )
            .map_err(|e| refused(&e))?;
        peer(leaf).map_err(not_a_peer)
    }
}

/// What a leaf says of itself. Only for one that was verified.
pub(crate) fn peer(leaf: &CertificateDer<'_>) -> Result<Peer, NotAPeer> {
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|_| NotAPeer::Malformed)?;
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| NotAPeer::Malformed)?;
    let names = names.ok_or(NotAPeer::NoService)?.value;
    let mut uris = names.general_names.iter().filter_map(|name| {
        if let GeneralName::URI(uri) = name {
            Some(*uri)
        } else {
            None
        }
    });
    let service = match (uris.next(), uris.next()) {
        (Some(uri), None) => Service::from_spiffe_id(uri).ok_or(NotAPeer::NoService)?,
        (None | Some(_), _) => return Err(NotAPeer::NoService),
    };
    let serial = CertificateSerial::of(certificate.raw_serial()).ok_or(NotAPeer::Malformed)?;
    let validity = certificate.validity();
    Ok(Peer {
        service,
        serial,
        issuer: certificate::issuer(&certificate),
        not_before: certificate::at(validity.not_before.timestamp()),
        not_after: certificate::at(validity.not_after.timestamp()),
    })
}

fn refused(error: &webpki::Error) -> rustls::Error {
    let reason = if matches!(error, webpki::Error::CertExpired { .. }) {
        CertificateError::Expired
    } else if matches!(error, webpki::Error::CertNotValidYet { .. }) {
        CertificateError::NotValidYet
    } else if matches!(error, webpki::Error::UnknownIssuer) {
        CertificateError::UnknownIssuer
    } else if matches!(error, webpki::Error::InvalidSignatureForPublicKey) {
        // Another stack's CA has the same name as ours.
        CertificateError::BadSignature
    } else {
        CertificateError::Other(OtherError(Arc::new(error.clone())))
    };
    rustls::Error::InvalidCertificate(reason)
}

fn not_a_peer(error: NotAPeer) -> rustls::Error {
    rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

/// `at` as TLS verifiers want it.
pub(crate) fn unix_time(at: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(at.since(Timestamp(0)))
}

/// How long a peer's certificate is still good for at `now`.
pub(crate) fn remaining(not_after: Timestamp, now: Timestamp) -> Duration {
    not_after.since(now)
}

/// Accepts exactly one service as the server, whatever its DNS name.
#[derive(Debug)]
pub(crate) struct ServerIs {
    pub(crate) root: Arc<Root>,
    pub(crate) expected: Service,
}

impl ServerCertVerifier for ServerIs {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found = self
            .root
            .verify(end_entity, intermediates, now, Role::Server)?
            .service;
        if found != self.expected {
            return Err(not_a_peer(NotAPeer::Another {
                expected: self.expected,
                found,
            }));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.root.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.root.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.root.algorithms.supported_schemes()
    }
}

/// Accepts every service of the stack as the client; the caller table decides what it may call.
#[derive(Debug)]
pub(crate) struct ClientIsOurs {
    pub(crate) root: Arc<Root>,
}

impl ClientCertVerifier for ClientIsOurs {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.root
            .verify(end_entity, intermediates, now, Role::Client)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.root.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.root.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.root.algorithms.supported_schemes()
    }
}
