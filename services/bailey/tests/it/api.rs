//! Verbs over the HTTP API, against a TLS listener that answers as the test says.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls_pki_types::PrivateKeyDer;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::{Ran, bailey, text};

/// Method and path with query, token, body.
type Asked = (String, Option<String>, String);

struct Gateway {
    dir: tempfile::TempDir,
    url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    _tasks: JoinSet<()>,
}

impl Gateway {
    async fn answering(status: u16, body: &'static str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(dir.path().join("ca.pem"), made.cert.pem()).unwrap();
        std::fs::write(dir.path().join("api.token"), "secret-token\n").unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!(
            "https://localhost:{}",
            listener.local_addr().unwrap().port()
        );
        let asked = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, acceptor, status, body, Arc::clone(&asked)));
        Self {
            dir,
            url,
            asked,
            _tasks: tasks,
        }
    }

    async fn bailey(&self, args: &[&str]) -> Ran {
        let (ca, token): (PathBuf, PathBuf) = (
            self.dir.path().join("ca.pem"),
            self.dir.path().join("api.token"),
        );
        let places = [
            "--url",
            &self.url,
            "--ca",
            text(&ca),
            "--token-file",
            text(&token),
        ];
        bailey(places.iter().chain(args)).await
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    status: u16,
    body: &'static str,
    asked: Arc<Mutex<Vec<Asked>>>,
) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        // A client that refuses the certificate ends the handshake; that is one of the tests.
        let Ok(stream) = acceptor.accept(stream).await else {
            continue;
        };
        let asked = Arc::clone(&asked);
        let answer = service_fn(move |request: Request<Incoming>| {
            let asked = Arc::clone(&asked);
            async move {
                let what = format!("{} {}", request.method(), request.uri());
                let token = request
                    .headers()
                    .get("authorization")
                    .map(|value| value.to_str().unwrap().to_owned());
                let given = request.into_body().collect().await?.to_bytes();
                asked.lock().unwrap().push((
                    what,
                    token,
                    String::from_utf8(given.to_vec()).unwrap(),
                ));
                Ok::<_, hyper::Error>(
                    Response::builder()
                        .status(status)
                        .body(Full::new(body.as_bytes()))
                        .unwrap(),
                )
            }
        });
        // How a client goes away is its own affair.
        let _ = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), answer)
            .await;
    }
}

#[tokio::test]
async fn a_payload_is_sent_as_it_was_written_and_the_result_shown() {
    let body = r#"{"job_id":"0192a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b","status":"succeeded","plugin":"echo","command":"poll","result":"hi"}"#;
    let gateway = Gateway::answering(200, body).await;
    let args = [
        "plugin",
        "run",
        "echo",
        "poll",
        "--payload",
        "{\"n\": 1.0}",
        "--wait",
        "5s",
    ];
    gateway
        .bailey(&args)
        .await
        .expect(0)
        .says("result       hi");
    let expected = (
        "POST /plugin/echo/poll?wait=5000ms",
        "Bearer secret-token",
        "{\"payload\":{\"n\": 1.0}}",
    );
    let asked = gateway.asked();
    assert_eq!(
        (
            asked[0].0.as_str(),
            asked[0].1.as_deref().unwrap(),
            asked[0].2.as_str()
        ),
        expected
    );
}

#[tokio::test]
async fn a_job_that_failed_has_exit_code_1() {
    let body = r#"{"job_id":"j","status":"failed","plugin":"echo","command":"poll","last_error":"no \u001b[31mluck"}"#;
    let gateway = Gateway::answering(200, body).await;
    let ran = gateway
        .bailey(&["plugin", "run", "echo", "poll", "--wait"])
        .await
        .expect(1)
        .says("no ");
    assert!(
        !ran.stdout.contains('\u{1b}'),
        "an escape sequence reached the terminal"
    );
}

#[tokio::test]
async fn a_wait_that_was_too_short_is_no_success() {
    let gateway = Gateway::answering(
        202,
        r#"{"job_id":"j","status":"running","timeout_exceeded":true}"#,
    )
    .await;
    gateway
        .bailey(&["plugin", "run", "echo", "poll", "--wait", "1s"])
        .await
        .expect(1)
        .says("bailey job inspect j");
    gateway
        .bailey(&["plugin", "run", "echo", "poll"])
        .await
        .expect(0);
}

#[tokio::test]
async fn the_stacks_reason_is_shown() {
    let gateway = Gateway::answering(
        403,
        r#"{"title":"Forbidden","detail":"the token may not do this"}"#,
    )
    .await;
    gateway
        .bailey(&["job", "list"])
        .await
        .expect(1)
        .complains("(403): the token may not do this");
}

#[tokio::test]
async fn a_stack_that_is_not_ready_is_shown_and_has_exit_code_1() {
    let body = r#"{"status":"degraded","troubles":["no runner is connected"],"warning_count":1,"warnings":["CREDENTIALED: ops"],"services":[{"service":"engine","state":"ready","rss_bytes":5242880}]}"#;
    let gateway = Gateway::answering(503, body).await;
    gateway
        .bailey(&["status"])
        .await
        .expect(1)
        .says("engine   ready  5.0 MiB")
        .says("! no runner is connected")
        .says("! CREDENTIALED: ops");
    // Whoever has a token is told names too.
    assert_eq!(gateway.asked()[0].1.as_deref(), Some("Bearer secret-token"));
    gateway
        .bailey(&["status", "--wait", "300ms", "--json"])
        .await
        .expect(1)
        .says("\"troubles\"");
    assert!(gateway.asked().len() > 2, "it did not ask again");
}

#[tokio::test]
async fn without_a_token_warnings_are_counted_and_plugins_have_their_rating() {
    let gateway = Gateway::answering(200, r#"{"status":"ok","warning_count":2}"#).await;
    gateway
        .bailey(&["status"])
        .await
        .expect(0)
        .says("! 2 warnings about the configuration");
    let body = r#"{"plugins":[{"name":"a","version":"1","description":"","commands":[],"rating":{"score":7,"reasons":[]}},
        {"name":"b","version":"1","description":"","commands":[]}]}"#;
    let gateway = Gateway::answering(200, body).await;
    gateway
        .bailey(&["plugin", "list"])
        .await
        .expect(0)
        .says("a       1        7/8");
}

#[tokio::test]
async fn an_event_says_which_jobs_it_started() {
    let gateway = Gateway::answering(202, r#"{"event_id":"e1","job_ids":["j1","j2"]}"#).await;
    gateway
        .bailey(&["event", "emit", "demo.requested"])
        .await
        .expect(0)
        .says("event e1\njob   j1\njob   j2");
    assert_eq!(
        gateway.asked()[0].2,
        r#"{"type":"demo.requested","payload":{}}"#
    );
    gateway
        .bailey(&["event", "emit", "demo.requested", "--payload", "[]"])
        .await
        .expect(78)
        .complains("not a JSON object");
}

#[tokio::test]
async fn a_certificate_of_another_ca_is_refused_before_the_token_is_sent() {
    let gateway = Gateway::answering(200, "{}").await;
    let other = Gateway::answering(200, "{}").await;
    std::fs::copy(
        other.dir.path().join("ca.pem"),
        gateway.dir.path().join("ca.pem"),
    )
    .unwrap();
    gateway
        .bailey(&["job", "list"])
        .await
        .expect(1)
        .complains("certificate");
    assert_eq!(gateway.asked(), []);
}

#[tokio::test]
async fn what_is_missing_or_in_the_clear_is_the_operators_to_correct() {
    let gateway = Gateway::answering(200, "{}").await;
    std::fs::remove_file(gateway.dir.path().join("api.token")).unwrap();
    gateway
        .bailey(&["job", "list"])
        .await
        .expect(78)
        .complains("make up");
    bailey(["--url", "http://localhost:1", "status"])
        .await
        .expect(78)
        .complains("https://");
}

#[tokio::test]
async fn what_is_no_jobs_id_is_told_how_to_find_one() {
    let gateway = Gateway::answering(200, "{}").await;
    let refused = gateway.bailey(&["job", "inspect", "xyz"]).await;
    let refused = refused.expect(78);
    refused.complains("`bailey job list` shows them");
    assert_eq!(gateway.asked(), []);
}

#[tokio::test]
async fn nobody_at_home_is_said_plainly() {
    let gateway = Gateway::answering(200, "{}").await;
    let closed = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let ca = gateway.dir.path().join("ca.pem");
    let url = format!("https://localhost:{closed}");
    bailey(["--url", &url, "--ca", text(&ca), "status"])
        .await
        .expect(1)
        .complains("is the stack up?");
}

#[tokio::test]
async fn whoever_takes_no_connection_is_not_said_to_hang() {
    let gateway = Gateway::answering(200, "{}").await;
    let ca = gateway.dir.path().join("ca.pem");
    let listening = |backlog| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        socket.listen(backlog).unwrap()
    };
    let status = async |port: u16| {
        let url = format!("https://127.0.0.1:{port}");
        let status = ["--url", &url, "--ca", text(&ca), "status"];
        bailey(status).await.expect(1)
    };
    // Given a host that drops packets, as Linux does for a listener whose backlog is full,
    let full = listening(0);
    let full = (full.local_addr().unwrap(), full);
    let mut waiting = Vec::new();
    while let Ok(connected) =
        tokio::time::timeout(Duration::from_millis(500), TcpStream::connect(full.0)).await
    {
        waiting.push(connected.unwrap());
    }
    // and one that takes connections and answers nothing, when both are asked, then each is told for what it is.
    let silent = listening(8);
    let silent = (silent.local_addr().unwrap(), silent);
    let (dropped, hangs) = tokio::join!(status(full.0.port()), status(silent.0.port()));
    dropped.complains("is the stack up?");
    hangs.complains("the gateway hangs");
}

#[tokio::test]
async fn a_service_is_listed_with_how_it_is_and_restarted() {
    let body = r#"{"plugins":[{"name":"watcher","version":"1","description":"","commands":[],
        "service":{"state":"running","job_id":"j1","running_since":"2026-01-01T00:00:00Z","restarts":2,"detail":""}}]}"#;
    let gateway = Gateway::answering(200, body).await;
    gateway
        .bailey(&["plugin", "list"])
        .await
        .expect(0)
        .says("service watcher: running since 2026-01-01T00:00:00Z, restarted 2 times");
    let gateway = Gateway::answering(202, r#"{"job_id":"j1"}"#).await;
    gateway
        .bailey(&["plugin", "restart", "watcher"])
        .await
        .expect(0)
        .says("bailey job inspect j1");
    assert_eq!(gateway.asked()[0].0, "POST /service/watcher/restart");
    let refusal = r#"{"detail":"watcher is quarantined"}"#;
    let gateway = Gateway::answering(409, refusal).await;
    gateway
        .bailey(&["plugin", "restart", "watcher"])
        .await
        .expect(1)
        .complains("watcher is quarantined");
    let health = r#"{"status":"ok","plugin_services":3,"plugin_services_running":2}"#;
    let gateway = Gateway::answering(200, health).await;
    let status = gateway.bailey(&["status"]).await.expect(0);
    status.says("2 of 3 services of plugins run");
}

#[tokio::test]
async fn an_upstream_is_checked_and_its_status_is_the_exit_code() {
    let body = r#"{"upstream":"model","status":200,"duration_ms":214,"key_sent":true,"secret":"model-key","received_bytes":5}"#;
    let gateway = Gateway::answering(200, body).await;
    gateway
        .bailey(&["upstream", "check", "model"])
        .await
        .expect(0)
        .says("model answers: HTTP 200 after 214 ms, with the key model-key");
    assert_eq!(gateway.asked()[0].0, "POST /upstream/model/check");
    gateway
        .bailey(&["upstream", "check", "model", "--json"])
        .await
        .expect(0)
        .says("\"status\": 200");
    let body = r#"{"upstream":"model","duration_ms":3,"key_sent":false,"received_bytes":0,"failure":"the name has no address"}"#;
    let gateway = Gateway::answering(200, body).await;
    gateway
        .bailey(&["upstream", "check", "model"])
        .await
        .expect(1)
        .says("model does not answer: the name has no address");
}

#[tokio::test]
async fn upstreams_are_listed_with_the_names_of_their_keys() {
    let body = r#"{"upstreams":[{"name":"model","url":"https://api.example.com/v1","secret":"model-key","own_ca":false,"clients":["engine","worker"],"timeout_ms":120000,"max_concurrent":8}]}"#;
    let gateway = Gateway::answering(200, body).await;
    gateway
        .bailey(&["upstream", "list"])
        .await
        .expect(0)
        .says("model     https://api.example.com/v1  model-key  engine worker");
    assert_eq!(gateway.asked()[0].0, "GET /upstreams");
    let gateway = Gateway::answering(200, r#"{"upstreams":[]}"#).await;
    gateway
        .bailey(&["upstream", "list"])
        .await
        .expect(0)
        .says("No upstream is locked");
}
