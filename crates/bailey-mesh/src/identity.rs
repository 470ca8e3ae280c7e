//! A service's key pair and certificate. The key never leaves memory.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bailey_types::{Service, Timestamp};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::Error;
use crate::verify::{Peer, Role, Root, unix_time};

/// A key pair whose certificate is still to come.
pub struct KeyRequest {
    key: KeyPair,
    csr: Vec<u8>,
}

impl KeyRequest {
    /// Makes a key pair (ECDSA on P-256) and the request for its certificate.
    pub fn new() -> Result<Self, Error> {
        let key = KeyPair::generate().map_err(|e| Error::Key(e.to_string()))?;
        // The names in it are ignored by the broker: the caller's proof says who asks.
        let csr = CertificateParams::default()
            .serialize_request(&key)
            .map_err(|e| Error::Key(e.to_string()))?;
        Ok(Self {
            key,
            csr: csr.der().to_vec(),
        })
    }

    /// The request (PKCS #10, DER).
    pub fn csr(&self) -> &[u8] {
        &self.csr
    }

    /// The identity, once `chain` (leaf first, DER) was issued. Refuses a chain that peers would refuse, or that is somebody else's.
    pub fn certified(
        self,
        chain: Vec<Vec<u8>>,
        service: Service,
        root: &Arc<Root>,
        now: Timestamp,
    ) -> Result<Identity, Error> {
        let refused = |reason: String| Error::Chain(reason);
        let chain: Vec<CertificateDer<'static>> =
            chain.into_iter().map(CertificateDer::from).collect();
        let (leaf, intermediates) = chain
            .split_first()
            .ok_or_else(|| refused("the chain is empty".into()))?;
        let verify = |role| {
            let verified = root.verify(leaf, intermediates, unix_time(now), role);
            verified.map_err(|e| refused(e.to_string()))
        };
        verify(Role::Client)?;
        let peer = verify(Role::Server)?;
        if peer.service != service {
            return Err(refused(format!("it is for {}", peer.service)));
        }
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let key = rustls::crypto::ring::sign::any_supported_type(&key)
            .map_err(|e| Error::Key(e.to_string()))?;
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(|e| refused(e.to_string()))?;
        Ok(Identity {
            peer,
            root: Arc::clone(root),
            certified: Arc::new(certified),
        })
    }
}

/// A certificate with its key: who we are on the mesh.
#[derive(Clone)]
pub struct Identity {
    pub(crate) peer: Peer,
    pub(crate) root: Arc<Root>,
    pub(crate) certified: Arc<CertifiedKey>,
}

impl Identity {
    /// When it expires.
    pub fn not_after(&self) -> Timestamp {
        self.peer.not_after
    }

    /// What peers see of it.
    pub fn peer(&self) -> Peer {
        self.peer
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Peer {
            service, not_after, ..
        } = self.peer;
        write!(f, "Identity({service} until {not_after})")
    }
}

/// The identity of the moment. TLS servers look here at each handshake, so that a renewal needs no new listener.
pub(crate) struct Current(ArcSwap<Identity>);

impl Current {
    pub(crate) fn new(identity: Identity) -> Self {
        Self(ArcSwap::from_pointee(identity))
    }

    pub(crate) fn get(&self) -> Arc<Identity> {
        self.0.load_full()
    }

    pub(crate) fn replace(&self, identity: Identity) {
        self.0.store(Arc::new(identity));
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.get().certified))
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Current({:?})", self.get())
    }
}
