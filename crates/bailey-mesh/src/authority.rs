//! Issuing certificates from the intermediate. Only the broker holds its key; tests hold their own.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bailey_trust::{SealingKey, TrustFile};
use bailey_types::{Service, Timestamp};
use rand::RngCore as _;
use rcgen::string::Ia5String;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use rustls_pki_types::pem::PemObject as _;
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::verify::Root;
use crate::{CaCertificate, Error, Identity, KeyRequest};

/// Largest certificate request that is looked at. Ours have some 250 bytes.
const MAX_REQUEST_BYTES: usize = 4096;

/// Clocks of one host agree, but X.509 counts whole seconds.
const BACKDATED: Duration = Duration::from_secs(2);

/// The intermediate CA, open. It can be replaced by another one under the same root; whoever holds the authority then issues from that.
pub struct Authority {
    signer: watch::Sender<Arc<Signer>>,
    root: Arc<Root>,
}

/// An intermediate that can take the place of the one in use.
pub struct Successor(Arc<Signer>);

impl Successor {
    /// What it says of itself.
    pub fn certificate(&self) -> CaCertificate {
        self.0.about
    }
}

/// One intermediate with its key.
pub(crate) struct Signer {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    about: CaCertificate,
}

impl Authority {
    /// How long a certificate is valid.
    pub const VALIDITY: Duration = Duration::from_hours(24);

    /// Opens the intermediate that lies in `secrets_dir`, sealed to the key of the vault.
    pub fn read(trust: &TrustFile, secrets_dir: &Path, vault: &SealingKey) -> Result<Self, Error> {
        let read = |name: &str| {
            let path = secrets_dir.join(name);
            std::fs::read(&path).map_err(|source| Error::Read { path, source })
        };
        let pem = read("intermediate.pem")?;
        let key = vault
            .open(&read("intermediate.key.age")?, 64 << 10)
            .map_err(Error::Unseal)?;
        let text = |bytes: &[u8]| {
            std::str::from_utf8(bytes)
                .map(str::to_owned)
                .map_err(|e| Error::Key(e.to_string()))
        };
        Self::open(trust, &text(&pem)?, &Zeroizing::new(text(&key)?))
    }

    /// Opens the intermediate from PEM texts.
    pub fn open(trust: &TrustFile, intermediate_pem: &str, key_pem: &str) -> Result<Self, Error> {
        let signer = Arc::new(Signer::open(intermediate_pem, key_pem)?);
        Ok(Self {
            signer: watch::Sender::new(signer),
            root: Root::from_pem(&trust.root_ca_pem)?,
        })
    }

    /// Opens another intermediate. Refused if peers would refuse what is issued from it.
    pub fn successor(
        &self,
        intermediate_pem: &str,
        key_pem: &str,
        now: Timestamp,
    ) -> Result<Successor, Error> {
        let signer = Arc::new(Signer::open(intermediate_pem, key_pem)?);
        let trial = Self {
            signer: watch::Sender::new(Arc::clone(&signer)),
            root: Arc::clone(&self.root),
        };
        trial.identity(Service::Broker, Self::VALIDITY, now)?;
        Ok(Successor(signer))
    }

    /// Issues from `successor` from now on.
    pub fn replace(&self, successor: Successor) {
        self.signer.send_replace(successor.0);
    }

    /// The intermediate in use.
    pub fn intermediate(&self) -> CaCertificate {
        self.signer.borrow().about
    }

    /// The root.
    pub fn root(&self) -> CaCertificate {
        self.root.certificate()
    }

    /// Follows the intermediate in use.
    pub(crate) fn intermediates(&self) -> watch::Receiver<Arc<Signer>> {
        self.signer.subscribe()
    }

    /// Issues a certificate for `service` over the key in `csr` (PKCS #10, DER). Answers leaf and intermediate, DER.
    ///
    /// Names, usages and extensions in the request are ignored; its signature proves that the key is the sender's.
    pub fn issue(
        &self,
        service: Service,
        csr: &[u8],
        validity: Duration,
        now: Timestamp,
    ) -> Result<Vec<Vec<u8>>, Error> {
        if csr.len() > MAX_REQUEST_BYTES {
            return Err(Error::Request(format!(
                "it has {} bytes; at most {MAX_REQUEST_BYTES} are allowed",
                csr.len()
            )));
        }
        let request =
            CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr));
        let request = request.map_err(|e| Error::Request(e.to_string()))?;
        if request.public_key.algorithm() != &rcgen::PKCS_ECDSA_P256_SHA256 {
            return Err(Error::Request("its key is not ECDSA on P-256".into()));
        }
        let signer = Arc::clone(&self.signer.borrow());
        // A certificate without a valid intermediate is none: it must say so, or it would be renewed too late.
        let not_after = now.plus(validity).min(signer.about.not_after);
        let failed = |source| Error::Issue { service, source };
        let params = leaf(service, not_after, now).map_err(failed)?;
        let certificate = params
            .signed_by(&request.public_key, &signer.issuer)
            .map_err(failed)?;
        Ok(vec![
            certificate.der().to_vec(),
            signer.certificate.to_vec(),
        ])
    }

    /// A new key pair and certificate for `service` in one step: the broker's own, and those of tests.
    pub fn identity(
        &self,
        service: Service,
        validity: Duration,
        now: Timestamp,
    ) -> Result<Identity, Error> {
        let request = KeyRequest::new()?;
        let chain = self.issue(service, request.csr(), validity, now)?;
        request.certified(chain, service, &self.root, now)
    }
}

impl Signer {
    fn open(intermediate_pem: &str, key_pem: &str) -> Result<Self, Error> {
        let bad = |reason: String| Error::CaCertificate {
            which: "the intermediate CA",
            reason,
        };
        let certificate = CertificateDer::from_pem_slice(intermediate_pem.as_bytes())
            .map_err(|e| bad(e.to_string()))?;
        let key = KeyPair::from_pem(key_pem).map_err(|e| Error::Key(e.to_string()))?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(|e| bad(e.to_string()))?;
        let about = CaCertificate::from_der(&certificate)?;
        Ok(Self {
            issuer,
            certificate,
            about,
        })
    }
}

fn leaf(
    service: Service,
    not_after: Timestamp,
    now: Timestamp,
) -> Result<CertificateParams, rcgen::Error> {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let since_epoch = |at: Timestamp| at.since(Timestamp(0));
    let mut serial = [0; 16];
    rand::rngs::OsRng.fill_bytes(&mut serial);
    let mut params = CertificateParams::default();
    params.not_before = epoch + since_epoch(now.minus(BACKDATED));
    params.not_after = epoch + since_epoch(not_after);
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = DistinguishedName::new();
    // The space keeps verifiers that look at common names from taking it for a host.
    params
        .distinguished_name
        .push(DnType::CommonName, format!("bailey {service}"));
    params.subject_alt_names = names(service)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn names(service: Service) -> Result<Vec<SanType>, rcgen::Error> {
    let mut names = vec![SanType::URI(Ia5String::try_from(service.spiffe_id())?)];
    // Browsers reach the gateway under these; nobody else is reached by name.
    if service == Service::Gateway {
        names.push(SanType::DnsName(Ia5String::try_from("localhost")?));
        names.push(SanType::IpAddress(Ipv4Addr::LOCALHOST.into()));
        names.push(SanType::IpAddress(Ipv6Addr::LOCALHOST.into()));
    }
    Ok(names)
}
