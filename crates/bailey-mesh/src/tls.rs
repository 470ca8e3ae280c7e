//! TLS configurations: 1.3 only, h2 only, nothing resumed.

use std::sync::Arc;

use bailey_types::Service;
use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};

use crate::Identity;
use crate::verify::{ClientIsOurs, Root, ServerIs};

const H2: &[u8] = b"h2";

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// For a call to `peer` as `identity`.
pub(crate) fn client(identity: &Identity, peer: Service) -> Result<ClientConfig, rustls::Error> {
    let verifier = ServerIs {
        root: Arc::clone(&identity.root),
        expected: peer,
    };
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier) as Arc<dyn ServerCertVerifier>)
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(
            &identity.certified,
        ))));
    Ok(without_resumption(config))
}

/// For the one call that is made without a certificate: enrolment at the broker.
pub(crate) fn stranger(root: &Arc<Root>) -> Result<ClientConfig, rustls::Error> {
    let verifier = ServerIs {
        root: Arc::clone(root),
        expected: Service::Broker,
    };
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    Ok(without_resumption(config))
}

fn without_resumption(mut config: ClientConfig) -> ClientConfig {
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![H2.to_vec()];
    config
}

/// For serving peers: every client shows a certificate of the stack.
pub(crate) fn server(
    resolver: Arc<dyn ResolvesServerCert>,
    root: &Arc<Root>,
) -> Result<ServerConfig, rustls::Error> {
    let verifier = Arc::new(ClientIsOurs {
        root: Arc::clone(root),
    }) as Arc<dyn ClientCertVerifier>;
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(resolver);
    Ok(without_tickets(config))
}

/// For serving those who have no certificate yet.
pub(crate) fn server_for_strangers(
    resolver: Arc<dyn ResolvesServerCert>,
) -> Result<ServerConfig, rustls::Error> {
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    Ok(without_tickets(config))
}

/// A resumed session is not verified again: it would bring back the identity of an expired certificate.
fn without_tickets(mut config: ServerConfig) -> ServerConfig {
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.alpn_protocols = vec![H2.to_vec()];
    config
}
