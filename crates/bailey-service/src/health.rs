//! The health port: plain HTTP on loopback inside the container, and the verb that asks it.

use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::{Presence, Process, Readiness};

/// Longest that the one who asks waits.
const LIMIT: Duration = Duration::from_secs(3);

/// Longest that one question may keep the port from the next.
const TURN: Duration = Duration::from_secs(1);

impl Process {
    /// Answers `GET /healthz` at `address` until the process ends; says where.
    pub async fn serve_health(&self, address: SocketAddr) -> anyhow::Result<SocketAddr> {
        let binding = || format!("binding the health port {address}");
        let listener = TcpListener::bind(address).await.with_context(binding)?;
        let bound = listener.local_addr().with_context(binding)?;
        let (presence, shutdown) = (self.presence(), self.shutdown.clone());
        self.spawn("health", async move {
            tokio::select! {
                ended = accept(listener, presence) => ended,
                () = shutdown.cancelled() => Ok(()),
            }
        });
        Ok(bound)
    }
}

/// One connection at a time is enough for the one who asks.
async fn accept(listener: TcpListener, presence: watch::Receiver<Presence>) -> anyhow::Result<()> {
    loop {
        let (stream, _) = listener
            .accept()
            .await
            .context("accepting on the health port")?;
        let answer = service_fn(|request| {
            let answer = answer(&request, &presence.borrow());
            std::future::ready(Ok::<_, Infallible>(answer))
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(TURN)
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), answer);
        match tokio::time::timeout(TURN, connection).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a health check broke off"),
            Err(_) => tracing::debug!("a health check took too long"),
        }
    }
}

fn answer(request: &Request<Incoming>, presence: &Presence) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    if request.uri().path() != "/healthz" {
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    }
    if request.method() != Method::GET {
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        return response;
    }
    // Liveness only: a degraded service is not helped by a restart.
    if presence.readiness == Readiness::Stopping {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    let body = serde_json::json!({"status": presence.readiness.name(), "detail": presence.detail});
    *response.body_mut() = Full::from(format!("{body}\n"));
    response.headers_mut().insert(
        "content-type",
        http::HeaderValue::from_static("application/json"),
    );
    response
}

/// The verb `healthcheck`. No runtime: the engine runs it every half minute in every container.
pub(crate) fn check(address: SocketAddr) -> ExitCode {
    match ask(address) {
        Ok(answer) if answer.starts_with("HTTP/1.1 200 ") => ExitCode::SUCCESS,
        Ok(answer) => complain(answer.lines().next().unwrap_or("an empty answer")),
        Err(error) => complain(&error.to_string()),
    }
}

fn complain(what: &str) -> ExitCode {
    // The engine keeps this line for `docker inspect`; if it cannot take it, the exit code still tells.
    let _written = writeln!(std::io::stderr(), "unhealthy: {what}");
    ExitCode::FAILURE
}

fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(4096).read_to_string(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn asked(address: SocketAddr) -> String {
        tokio::task::spawn_blocking(move || ask(address))
            .await
            .unwrap()
            .unwrap()
    }

    #[tokio::test]
    async fn the_health_port_tells_readiness_and_why() {
        let process = Process::new();
        let address = process
            .serve_health(([127, 0, 0, 1], 0).into())
            .await
            .unwrap();

        let starting = asked(address).await;
        assert!(
            starting.starts_with("HTTP/1.1 200 ") && starting.contains("\"starting\""),
            "{starting}"
        );
        process.degraded("docker: away");
        let degraded = asked(address).await;
        assert!(
            degraded.starts_with("HTTP/1.1 200 ") && degraded.contains("docker: away"),
            "{degraded}"
        );
    }

    #[tokio::test]
    async fn a_silent_caller_does_not_keep_the_next_one_out() {
        let process = Process::new();
        let address = process
            .serve_health(([127, 0, 0, 1], 0).into())
            .await
            .unwrap();
        let silent = TcpStream::connect(address).unwrap();
        let next = tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(address)?;
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).map(|_| answer)
        });
        assert!(next.await.unwrap().unwrap().starts_with("HTTP/1.1 200 "));
        drop(silent);
    }

    #[tokio::test]
    async fn nobody_answering_is_unhealthy() {
        let free = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        assert!(ask(free).is_err());
    }
}
