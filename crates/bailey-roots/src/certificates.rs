//! The two certificate authorities: a root that sleeps, and an intermediate that the broker issues from.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use bailey_types::{StackId, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType, GeneralSubtree,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints,
};
use zeroize::Zeroizing;

use crate::Error;

const DAY: Duration = Duration::from_hours(24);
const ROOT_VALIDITY: Duration = DAY.saturating_mul(365 * 20);

/// How long an intermediate is valid.
pub const INTERMEDIATE_VALIDITY: Duration = DAY.saturating_mul(365 * 10);

/// As PEM texts.
pub(crate) struct Authority {
    pub(crate) root: String,
    pub(crate) root_key: Zeroizing<String>,
    pub(crate) intermediate: Intermediate,
}

/// An intermediate CA, as PEM texts.
pub struct Intermediate {
    /// Its certificate.
    pub certificate: String,
    /// Its private key.
    pub key: Zeroizing<String>,
}

/// Makes an intermediate of `stack` under the root with this certificate and key (PEM).
pub fn intermediate(
    stack: &StackId,
    root: &str,
    root_key: &str,
    validity: Duration,
    now: Timestamp,
) -> Result<Intermediate, Error> {
    let root_key = KeyPair::from_pem(root_key).map_err(Error::Certificate)?;
    let issuer = Issuer::from_ca_cert_pem(root, root_key).map_err(Error::Certificate)?;
    signed(stack, &issuer, validity, now)
}

pub(crate) fn make(stack: &StackId, now: Timestamp) -> Result<Authority, Error> {
    let root_key = KeyPair::generate().map_err(Error::Certificate)?;
    let root = params(&format!("Bailey root of {stack}"), 1, now, ROOT_VALIDITY);
    let root_certificate = root.self_signed(&root_key).map_err(Error::Certificate)?;
    let root_key_pem = Zeroizing::new(root_key.serialize_pem());
    let issuer = Issuer::new(root, root_key);
    Ok(Authority {
        root: root_certificate.pem(),
        root_key: root_key_pem,
        intermediate: signed(stack, &issuer, INTERMEDIATE_VALIDITY, now)?,
    })
}

fn signed(
    stack: &StackId,
    root: &Issuer<'_, KeyPair>,
    validity: Duration,
    now: Timestamp,
) -> Result<Intermediate, Error> {
    let key = KeyPair::generate().map_err(Error::Certificate)?;
    let certificate = params(&format!("Bailey intermediate of {stack}"), 0, now, validity);
    let certificate = certificate
        .signed_by(&key, root)
        .map_err(Error::Certificate)?;
    Ok(Intermediate {
        certificate: certificate.pem(),
        key: Zeroizing::new(key.serialize_pem()),
    })
}

fn params(name: &str, path_length: u8, now: Timestamp, validity: Duration) -> CertificateParams {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let since_epoch = |at: Timestamp| at.since(Timestamp(0));
    let mut params = CertificateParams::default();
    // The clock of a machine that was just installed may still be set back a little.
    params.not_before = epoch + since_epoch(now.minus(Duration::from_hours(1)));
    params.not_after = epoch + since_epoch(now.plus(validity));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params.name_constraints = Some(loopback_only());
    params
}

/// The operator's browser is told to trust this CA (RFC 5280 section 4.2.1.10): let it vouch for no site but this machine's own.
fn loopback_only() -> NameConstraints {
    let address = |subnet| GeneralSubtree::IpAddress(subnet);
    NameConstraints {
        permitted_subtrees: vec![
            GeneralSubtree::DnsName("localhost".into()),
            address(CidrSubnet::from_v4_prefix(Ipv4Addr::LOCALHOST.octets(), 32)),
            address(CidrSubnet::from_v6_prefix(
                Ipv6Addr::LOCALHOST.octets(),
                128,
            )),
        ],
        excluded_subtrees: Vec::new(),
    }
}
