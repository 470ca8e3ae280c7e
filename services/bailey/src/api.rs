//! The gateway's HTTP API.

mod connection;

use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::Misconfigured;
use crate::home::Home;

pub(crate) use connection::Unreachable;

/// How long an answer may take that does not wait for a job.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// Somebody listens, and does not answer.
#[derive(Debug, thiserror::Error)]
#[error(
    "no answer from {server} within {seconds} s: the gateway hangs, or is overloaded (docker compose ps)"
)]
pub(crate) struct Silent {
    server: String,
    seconds: u64,
}

/// A client with its token.
pub(crate) struct Api {
    server: connection::Server,
    token: Option<Zeroizing<String>>,
}

/// An answer, whatever its status.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

/// The members of `application/problem+json` that people want to read.
#[derive(Deserialize)]
struct Problem {
    detail: Option<String>,
    title: Option<String>,
}

impl Api {
    /// For what anybody may ask.
    pub(crate) fn open(home: &Home) -> anyhow::Result<Self> {
        Ok(Self {
            server: connection::Server::new(&home.url(), &home.ca_file())?,
            token: None,
        })
    }

    /// With the operator's token.
    pub(crate) fn with_token(home: &Home) -> anyhow::Result<Self> {
        let path = home.token_file();
        let token = std::fs::read_to_string(&path).map_err(|e| {
            Misconfigured(format!("reading the API token {}: {e}; `make up` makes it, or say where it is with --home or --token-file", path.display()))
        })?;
        let token = Zeroizing::new(Zeroizing::new(token).trim().to_owned());
        Ok(Self {
            token: Some(token),
            ..Self::open(home)?
        })
    }

    /// GET, and the answer as JSON.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.call(Method::GET, path, None, ANSWER_TIME)
            .await?
            .success()?
            .json()
    }

    /// POST, and the answer if it says that all is well.
    pub(crate) async fn post(
        &self,
        path: &str,
        body: Vec<u8>,
        wait: Duration,
    ) -> anyhow::Result<Answer> {
        self.call(
            Method::POST,
            path,
            Some(body),
            ANSWER_TIME.saturating_add(wait),
        )
        .await?
        .success()
    }

    /// DELETE, if it says that all is well.
    pub(crate) async fn delete(&self, path: &str) -> anyhow::Result<()> {
        self.call(Method::DELETE, path, None, ANSWER_TIME)
            .await?
            .success()
            .map(drop)
    }

    /// One request; any status is an answer.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        limit: Duration,
    ) -> anyhow::Result<Answer> {
        let token = self.token.as_ref().map(|token| token.as_str());
        let asked = self.server.ask(method, path, token, body);
        let answer = tokio::time::timeout(limit, asked).await;
        answer.map_err(|_| Silent {
            server: self.server.to_string(),
            seconds: limit.as_secs(),
        })?
    }
}

impl Answer {
    /// This answer, or the problem that it states.
    pub(crate) fn success(self) -> anyhow::Result<Self> {
        if self.status.is_success() {
            return Ok(self);
        }
        let problem: Option<Problem> = serde_json::from_slice(&self.body).ok();
        let said = problem.and_then(|problem| problem.detail.or(problem.title));
        let said = crate::output::plain(&said.unwrap_or_else(|| "without a reason".to_owned()));
        bail!("the stack refuses ({}): {said}", self.status.as_u16())
    }

    /// The body as JSON.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        serde_json::from_slice(&self.body)
            .context("the answer is not what this version of bailey understands")
    }
}
