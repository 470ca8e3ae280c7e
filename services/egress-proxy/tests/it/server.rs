//! Servers on 127.0.0.1 that stand for the outside.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bailey_trust::EgressLimits;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::world::World;

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

/// A connection, with or without TLS.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Has every connection served with `serve`, over TLS where `tls` is given, for as long as the tasks live.
pub async fn listen<F>(
    tls: Option<TlsAcceptor>,
    serve: impl Fn(Box<dyn Stream>) -> F + Clone + Send + 'static,
) -> (SocketAddr, JoinSet<()>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut clients = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (tls, serve) = (tls.clone(), serve.clone());
            clients.spawn(async move {
                let Some(tls) = tls else {
                    return serve(Box::new(stream)).await;
                };
                match tls.accept(stream).await {
                    Ok(stream) => serve(Box::new(stream)).await,
                    // A client that does not trust it, or is cut off, is no failure of the server.
                    Err(error) => drop(error),
                }
            });
        }
    });
    (address, tasks)
}

/// A service under a lock with these bounds, which lets the plugin reach `egress`, and a server that stands at port 8080 of `api.example.com`.
pub async fn with_an_echo(egress: &[&str], limits: EgressLimits) -> (World, Echo) {
    let world = World::with_limits(egress, limits).await;
    let echo = Echo::plain().await;
    world.beyond.serve("api.example.com", 8080, echo.address);
    (world, echo)
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
        let heard = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&heard);
        let (address, tasks) = listen(tls, move |stream| {
            let kept = Arc::clone(&kept);
            async move { echo(stream, &kept).await }
        })
        .await;
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
