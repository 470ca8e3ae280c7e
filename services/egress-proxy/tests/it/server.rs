//! Servers on 127.0.0.1 that stand for the outside.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// A server that says everything back, and keeps it.
pub struct Echo {
    pub address: SocketAddr,
    pub heard: Arc<Mutex<Vec<u8>>>,
    _tasks: JoinSet<()>,
}

/// A certificate authority of the test's own.
pub struct Authority {
    pub issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        // OpenSSL takes a certificate for self-signed whose issuer is named as it is.
        params
            .distinguished_name
            .push(DnType::CommonName, "an authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self {
            issuer: CertifiedIssuer::self_signed(params, key).unwrap(),
        }
    }

    /// TLS for a server of `names`.
    pub fn acceptor(&self, names: &[&str]) -> TlsAcceptor {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap();
        let certificate = certificate.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder().with_no_client_auth();
        let config = config.with_single_cert(vec![certificate.der().clone()], key);
        TlsAcceptor::from(Arc::new(config.unwrap()))
    }

    /// TLS for a client that trusts it.
    pub fn connector(&self) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        let certificate: &CertificateDer<'_> = self.issuer.der();
        roots.add(certificate.clone()).unwrap();
        let config = ClientConfig::builder().with_root_certificates(roots);
        TlsConnector::from(Arc::new(config.with_no_client_auth()))
    }
}

/// A name for a TLS client.
pub fn server_name(name: &str) -> ServerName<'static> {
    ServerName::try_from(name.to_owned()).unwrap()
}

impl Echo {
    /// Over plain TCP.
    pub async fn plain() -> Self {
        Self::start(None).await
    }

    /// Over TLS.
    pub async fn tls(acceptor: TlsAcceptor) -> Self {
        Self::start(Some(acceptor)).await
    }

    async fn start(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&heard);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut clients = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (tls, kept) = (tls.clone(), Arc::clone(&kept));
                clients.spawn(async move {
                    match tls {
                        // A client that is cut off is no failure of the server.
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => echo(stream, &kept).await,
                            Err(error) => drop(error),
                        },
                        None => echo(stream, &kept).await,
                    }
                });
            }
        });
        Self {
            address,
            heard,
            _tasks: tasks,
        }
    }

    /// What it was told so far.
    pub fn heard(&self) -> Vec<u8> {
        self.heard.lock().unwrap().clone()
    }
}

/// A server that speaks first and never stops, until its client is gone.
pub struct Flood {
    pub address: SocketAddr,
    stalled: Arc<Notify>,
    _tasks: JoinSet<()>,
}

impl Flood {
    /// For one client.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stalled = Arc::new(Notify::new());
        let told = Arc::clone(&stalled);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            loop {
                match timeout(Duration::from_millis(300), stream.write(&[0; 4096])).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(_)) => return,
                    Err(_) => told.notify_one(),
                }
            }
        });
        Self {
            address,
            stalled,
            _tasks: tasks,
        }
    }

    /// Until all that is between it and its client is full.
    pub async fn stalled(&self) {
        self.stalled.notified().await;
    }
}

async fn echo(mut stream: impl AsyncRead + AsyncWrite + Unpin, heard: &Mutex<Vec<u8>>) {
    let mut piece = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut piece).await {
        heard.lock().unwrap().extend(&piece[..read]);
        if stream.write_all(&piece[..read]).await.is_err() {
            return;
        }
    }
    drop(stream.shutdown().await);
}
