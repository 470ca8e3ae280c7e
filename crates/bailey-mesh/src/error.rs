//! What can go wrong with certificates.

use bailey_error::{Classify, Kind};
use bailey_types::Service;

/// Why a certificate, a key or a request for one cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `trust.json` or the intermediate does not hold a CA certificate.
    #[error("reading the certificate of {which}: {reason}")]
    CaCertificate {
        /// Which of the two.
        which: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A file of the CA cannot be read.
    #[error("reading {path}")]
    Read {
        /// The file.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The intermediate's key is sealed to another age key.
    #[error("opening the intermediate's key")]
    Unseal(#[source] bailey_trust::SealError),
    /// A key pair could not be made or read.
    #[error("the key pair cannot be used: {0}")]
    Key(String),
    /// A certificate request is not one that we answer.
    #[error("the certificate request is refused: {0}")]
    Request(String),
    /// A certificate could not be issued.
    #[error("issuing a certificate for {service}")]
    Issue {
        /// For whom.
        service: Service,
        /// What rcgen said.
        source: rcgen::Error,
    },
    /// The chain that was issued is not one that peers would accept.
    #[error("the certificate that was issued is refused: {0}")]
    Chain(String),
}

impl Classify for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Request(_) => Kind::InvalidArgument,
            Self::CaCertificate { .. }
            | Self::Read { .. }
            | Self::Unseal(_)
            | Self::Key(_)
            | Self::Issue { .. }
            | Self::Chain(_) => Kind::Internal,
        }
    }
}
